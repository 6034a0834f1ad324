//! The peak memory of a process, compared with the estimate of a dry run.

use std::path::Path;

use serde_json::Value;

use crate::{folder, folder_with_actor, oneactor};

/// The allowed ratio of measured to estimated memory, at least and at most.
const LEAST: f64 = 0.85;
const MOST: f64 = 1.0;

/// Runs a line as a dry run, then without, and compares the estimate with the peak.
fn is_foreseen(folder: &Path, line: &str) {
    let told = oneactor(folder, &format!("{line} --dry-run --format json")).exits_with(0);
    let mut objects = told.stdout.lines().map(|line| {
        let object: Value = serde_json::from_str(line).expect("JSON");
        object
    });
    let outlook = objects.find(|object| object["kind"] == "outlook");
    let foreseen = outlook.expect("there is work")["memory_bytes"].as_f64();
    let foreseen = foreseen.expect("a number") / 1e6;

    let run = oneactor(folder, &format!("{line} --verbose")).exits_with(0);
    let peak = run.stderr.lines().find_map(|line| {
        let (_, peak) = line.split_once("peak of the process's memory so far: ")?;
        peak.strip_suffix(" MB")?.parse::<f64>().ok()
    });
    let needed = peak.unwrap_or_else(|| panic!("no peak of some megabytes in {}", run.stderr));
    let part = needed / foreseen;
    assert!(
        (LEAST..=MOST).contains(&part),
        "{line}: {needed} MB of {foreseen} MB, {part:.3}"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn base_images_need_the_memory_that_a_dry_run_estimates() {
    let folder = folder("memory-base");
    let base = "generate-base --model toy -p 'a robot' --subject robot --num-images 4 --steps 1 --device cpu";
    for flags in [
        "-W 64 -H 64",
        "-W 256 -H 256",
        "-W 256 -H 256 --batch-size 4",
        "-W 256 -H 256 --vae-tiling --vae-tile-size 64",
        "-W 64 -H 64 --dtype fp16",
        "-W 64 -H 64 --cpu-offload",
    ] {
        is_foreseen(&folder, &format!("{base} {flags} --overwrite -o set"));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn tuning_needs_the_memory_that_a_dry_run_estimates() {
    let folder = folder("memory-tune");
    let base = "generate-base --model toy -p 'a robot' --subject robot --num-images 5 --steps 1";
    oneactor(&folder, &format!("{base} -W 128 -H 128 -o set")).exits_with(0);
    for flags in ["--micro-batch 1", ""] {
        let line = "tune set --target 0 --max-steps 2 --overwrite --device cpu";
        is_foreseen(&folder, &format!("{line} {flags}"));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn pictures_need_the_memory_that_a_dry_run_estimates() {
    let folder = folder_with_actor("memory-sample");
    let cat = "generate-base --model toy -p 'a cat' --subject cat --num-images 3 --steps 1";
    oneactor(&folder, &format!("{cat} -o cat")).exits_with(0);
    oneactor(&folder, "tune cat --target 0 --max-steps 1").exits_with(0);
    let how =
        "-W 128 -H 128 --steps 2 --guided-steps 1-2 --num-images 4 --overwrite -o out --device cpu";
    for scene in [
        "robot -p 'a robot in the snow' --eta-2 0",
        "robot -p 'a robot in the snow' --eta-2 1 --batch-size 4",
        "robot cat -p 'a robot and a cat in the snow'",
        "robot cat -p 'a robot and a cat in the snow' --batch-size 4",
    ] {
        is_foreseen(&folder, &format!("sample {scene} {how}"));
    }
}

//! Flags for less memory, and number formats: what each flag changes, and what it must not change.

use std::fs;
use std::path::Path;

use oneactor::io::tensors::TensorFile;
use tch::Tensor;

use crate::{BASE, folder, folder_with_actor, json, names, oneactor, pixels, text};

fn latents(base: &Path) -> Tensor {
    let tensors = TensorFile::read(&base.join("base.safetensors")).expect("it is readable");
    tensors.tensors["latents"].shallow_clone()
}

/// Mean difference of two pictures, in levels of 255.
fn distance(a: &Path, b: &Path) -> f64 {
    let (a, b) = (pixels(a), pixels(b));
    assert_eq!(a.len(), b.len());
    let gap = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b));
    a.iter().zip(&b).map(gap).sum::<f64>() / a.len() as f64
}

#[test]
fn tiles_change_pixels_a_little_leave_the_latents_and_are_recorded() {
    let folder = folder("tiles");
    oneactor(&folder, &format!("{BASE} -o whole")).exits_with(0);
    let run = oneactor(
        &folder,
        &format!("{BASE} -o tiles --vae-tiling --vae-tile-size 32"),
    );
    run.exits_with(0);
    let [whole, tiles] = ["whole", "tiles"].map(|name| folder.join(name));
    assert_eq!(latents(&whole), latents(&tiles));
    let gap = distance(&whole.join("base/00.png"), &tiles.join("base/00.png"));
    assert!(gap > 0.0 && gap < 20.0, "{gap} levels");
    let parameters = &json(&tiles.join("base.json"))["parameters"];
    assert_eq!(parameters["vae_tiling"], true);
    assert_eq!(parameters["vae_tile_size"], 32);
    // Redrawn from its own record, the picture has the same tiles.
    oneactor(&folder, "sample --from tiles/base/00.png -o again").exits_with(0);
    let again = folder.join("again").join("0000-0.png");
    assert_eq!(pixels(&again), pixels(&tiles.join("base/00.png")));
    // The target is encoded in tiles too, and an ablation uses the same tiles.
    oneactor(
        &folder,
        "tune tiles --target 0 --max-steps 1 --vae-tiling --vae-tile-size 32",
    )
    .exits_with(0);
    assert_eq!(
        json(&tiles.join("tune.json"))["parameters"]["vae_tile_size"],
        32
    );
}

#[test]
fn a_tile_as_large_as_the_picture_is_reported_as_useless() {
    let folder = folder("one-tile");
    oneactor(&folder, &format!("{BASE} -o whole")).exits_with(0);
    oneactor(&folder, &format!("{BASE} -o tiles --vae-tiling"))
        .exits_with(0)
        .says("--vae-tiling saves no memory here, because a picture of 64 x 64 fits into one tile of 64 x 64");
    let [whole, tiles] = ["whole", "tiles"].map(|name| folder.join(name));
    assert_eq!(
        pixels(&whole.join("base/00.png")),
        pixels(&tiles.join("base/00.png"))
    );
    assert!(json(&tiles.join("base.json"))["parameters"]["vae_tiling"].is_null());
}

#[test]
fn offloading_changes_no_picture_and_no_actor() {
    let folder = folder_with_actor("offload");
    let line =
        "sample robot -p '[b], at the beach' -p 'a robot' --steps 4 --guided-steps 1-3 --compare";
    oneactor(&folder, &format!("{line} -o plain")).exits_with(0);
    oneactor(&folder, &format!("{line} -o saved --cpu-offload")).exits_with(0);
    for name in ["0000-0.png", "0001-1.png", "plain/0000-0.png"] {
        let [plain, saved] = ["plain", "saved"].map(|out| folder.join(out).join(name));
        assert_eq!(
            fs::read(plain).expect("drawn"),
            fs::read(saved).expect("drawn"),
            "{name}"
        );
    }
    let before = fs::read(folder.join("robot/actor.safetensors")).expect("tuned");
    oneactor(
        &folder,
        "tune robot --target 1 --max-steps 3 --overwrite --cpu-offload",
    )
    .exits_with(0);
    assert_eq!(
        before,
        fs::read(folder.join("robot/actor.safetensors")).expect("tuned")
    );
}

#[test]
fn both_names_of_the_batch_size_of_tuning_give_the_same_actor() {
    let folder = folder_with_actor("micro-batch");
    let losses = |line: &str| {
        oneactor(
            &folder,
            &format!("tune robot --target 1 --max-steps 3 --overwrite {line}"),
        )
        .exits_with(0);
        let log = text(&folder.join("robot/tune.jsonl"));
        let row = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
        log.lines()
            .map(|line| row(line)["loss"].clone())
            .collect::<Vec<_>>()
    };
    let one = losses("--micro-batch 1");
    assert_eq!(one, losses("--batch-size 1"));
    for (a, b) in one.iter().zip(losses("")) {
        let (a, b) = (a.as_f64().expect("a loss"), b.as_f64().expect("a loss"));
        assert!(
            (a - b).abs() < 1e-5 * b,
            "{a} one row at a time, {b} all rows at once"
        );
    }
    for key in ["micro_batch", "batch_size"] {
        let batch = format!(r#"{{"jobs": [{{"dir": "robot", "{key}": 0}}]}}"#);
        fs::write(folder.join("batch.json"), batch).expect("the folder is writable");
        let flag = key.replace('_', "-");
        oneactor(&folder, "tune --config batch.json --overwrite")
            .exits_with(2)
            .says(&format!(
                "--{flag}: found 0, expected a whole number from 1"
            ));
    }
    oneactor(&folder, "tune robot --micro-batch 1 --batch-size 2")
        .exits_with(2)
        .says("found --micro-batch 1 and --batch-size 2, expected only one of them");
}

#[test]
fn half_precision_draws_tunes_and_samples_on_a_cpu() {
    let folder = folder("half");
    oneactor(&folder, &format!("{BASE} -o fp32")).exits_with(0);
    for (dtype, levels) in [("fp16", 2.0), ("bf16", 10.0)] {
        oneactor(&folder, &format!("{BASE} -o {dtype} --dtype {dtype}")).exits_with(0);
        let gap = distance(
            &folder.join("fp32/base/00.png"),
            &folder.join(dtype).join("base/00.png"),
        );
        assert!(gap > 0.0 && gap < levels, "{dtype}: {gap} levels from f32");
        oneactor(
            &folder,
            &format!("tune {dtype} --target 1 --max-steps 3 --dtype {dtype}"),
        )
        .exits_with(0);
        let log = text(&folder.join(dtype).join("tune.jsonl"));
        assert_eq!(log.lines().count(), 3, "{log}");
        // An actor fits its model in any precision.
        for draws in [dtype, "fp32"] {
            let line = format!("sample {dtype} -p '[b] at the beach' --steps 4 --guided-steps 1-3");
            oneactor(
                &folder,
                &format!("{line} --dtype {draws} -o {dtype}-{draws}"),
            )
            .exits_with(0);
        }
        let [half, single] =
            [dtype, "fp32"].map(|draws| folder.join(format!("{dtype}-{draws}/0000-0.png")));
        let gap = distance(&half, &single);
        assert!(
            gap < levels,
            "{dtype}: {gap} levels from f32 with the same actor"
        );
    }
}

#[test]
fn what_the_device_cannot_do_is_refused() {
    let folder = folder("kernels");
    let cases = [
        (
            "--tf32",
            "--tf32: the networks run on the CPU, which has no TF32, expected a GPU",
        ),
        (
            "--attention cudnn",
            "--attention: found cudnn, expected auto, flash or math on a CPU",
        ),
        ("--attention fast", "invalid value 'fast'"),
        (
            "--vae-tile-size 32",
            "--vae-tile-size has no effect without --vae-tiling",
        ),
        (
            "--vae-tiling --vae-tile-size 40",
            "--vae-tile-size: found 40, expected a multiple of 16",
        ),
        (
            "--vae-tiling --vae-tile-size 8",
            "--vae-tile-size: found 8, expected a whole number from 32 to 8192",
        ),
    ];
    for (flags, message) in cases {
        oneactor(&folder, &format!("{BASE} -o robot --device cpu {flags}"))
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    assert!(names(&folder).is_empty());
}

#[test]
fn attention_math_draws_the_same_picture_up_to_rounding() {
    let folder = folder("math");
    oneactor(&folder, &format!("{BASE} -o auto")).exits_with(0);
    let run = oneactor(&folder, &format!("{BASE} -o math --attention math"));
    if cfg!(not(feature = "shim")) {
        run.exits_with(2)
            .says("--attention: this build lacks the C++ part that it needs");
        return;
    }
    run.exits_with(0);
    let [auto, math] = ["auto", "math"].map(|name| latents(&folder.join(name)));
    let gap = (&auto - &math).abs().max().double_value(&[]);
    assert!(gap > 0.0, "--attention math did not change the kernel");
    assert!(gap < 1e-3, "{gap}");
}

#[test]
fn doctor_lists_the_kernels() {
    let run = oneactor(&folder("doctor"), "doctor").exits_with(0);
    if cfg!(not(feature = "shim")) {
        assert!(
            run.stdout
                .contains("no: --tf32 and --attention are refused")
        );
        return;
    }
    let blocks = if tch::Cuda::is_available() {
        "gpu memory in growing blocks  yes"
    } else {
        "gpu memory in growing blocks  no gpu"
    };
    for line in [
        "shim                          yes",
        "tf32 on a gpu                 in convolutions",
        "attention kernels             flash, efficient, cudnn, math",
        blocks,
    ] {
        assert!(run.stdout.contains(line), "{line}: {}", run.stdout);
    }
}

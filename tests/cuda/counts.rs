//! Launches and waits of one step: a command is run with two numbers of steps, and the difference
//! belongs to the steps between.

use std::collections::BTreeMap;

use crate::common::toy_files::disguised;
use crate::gpu::{Gpu, Report};

/// What one step costs.
struct Step {
    launches: f64,
    waits: BTreeMap<String, f64>,
}

/// The cost of a step of a command, which has `{steps}` where the number of steps belongs.
fn step(gpu: &Gpu, line: &str) -> Step {
    const FEW: i64 = 3;
    const MANY: i64 = 7;
    let [few, many]: [Report; 2] = [FEW, MANY].map(|steps| {
        gpu.counted(&format!(
            "{} --overwrite",
            line.replace("{steps}", &steps.to_string())
        ))
    });
    let per_step = |few: i64, many: i64| (many - few) as f64 / (MANY - FEW) as f64;
    let waits = many.waits.iter().map(|(reason, &count)| {
        let before = few.waits.get(reason).copied().unwrap_or_default();
        (reason.clone(), per_step(before, count))
    });
    Step {
        launches: per_step(few.totals["launches"], many.totals["launches"]),
        waits: waits.filter(|(_, count)| *count != 0.0).collect(),
    }
}

#[test]
fn a_denoising_step_of_one_actor_waits_for_nothing() {
    let Some(gpu) = Gpu::with_actor("counts") else {
        return;
    };
    disguised(&gpu.folder, "cat", &[("base_word", "cat")]);
    let plain = "sample --no-actor --model toy -p 'a robot' --steps {steps} -o plain";
    let one = "sample robot -p 'a robot' --steps {steps} -o one";
    for line in [plain, one] {
        let step = step(&gpu, line);
        println!("{line}: {} launches, waits {:?}", step.launches, step.waits);
        assert!(step.waits.is_empty(), "{line}: {:?}", step.waits);
    }
    let two = "sample robot cat -p 'a robot and a cat' --steps {steps} -o two";
    let tune = "tune robot --target 1 --max-steps {steps}";
    for line in [two, tune] {
        let step = step(&gpu, line);
        println!("{line}: {} launches, waits {:?}", step.launches, step.waits);
    }
}

#[test]
fn a_run_that_only_accounts_counts_what_a_computed_run_counts() {
    let Some(gpu) = Gpu::with_actor("accounting") else {
        return;
    };
    let accounting = gpu.with("FAKECUDA_ACCOUNT_ONLY", 1);
    for line in [
        "generate-base --model toy -p 'a robot' --subject robot --num-images 2 --steps 2 --overwrite -o new",
        "sample robot -p 'a robot' --steps 2 --overwrite -o out",
        "tune robot --target 1 --max-steps 2 --overwrite",
    ] {
        let [computed, accounted] = [&gpu, &accounting].map(|gpu| gpu.counted(line));
        // Without values all tokens are alike, and the program sends and keeps equal tokens once.
        let count = |report: &Report| report.totals["launches"] as f64;
        same(line, count(&accounted), count(&computed));
        same(line, accounted.peak() as f64, computed.peak() as f64);
    }
}

/// The counts differ by less than five percent.
#[track_caller]
fn same(line: &str, found: f64, expected: f64) {
    assert!(
        (found / expected - 1.0).abs() < 0.05,
        "{line}: {found}, expected {expected}"
    );
}

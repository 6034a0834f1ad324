//! Launches and waits of one step: a command is run with two numbers of steps, and the difference
//! belongs to the steps between.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::common::toy_files::disguised;
use crate::common::toy_on;
use crate::gpu::{Gpu, Report};
use crate::simulator::simulated_test;

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
fn a_denoising_step_waits_for_nothing_and_masks_cost_few_launches() {
    let Some(gpu) = Gpu::with_actor("counts") else {
        return;
    };
    disguised(&gpu.folder, "cat", &[("base_word", "cat")]);
    let [_, one, two] = [
        "sample --no-actor --model toy -p 'a robot' --steps {steps} -o plain",
        "sample robot -p 'a robot' --steps {steps} -o one",
        "sample robot cat -p 'a robot and a cat' --steps {steps} -o two",
    ]
    .map(|line| {
        let step = step(&gpu, &format!("{line} --dtype fp16"));
        println!("{line}: {} launches, waits {:?}", step.launches, step.waits);
        assert!(step.waits.is_empty(), "{line}: {:?}", step.waits);
        step.launches
    });
    // Attention to the words in each layer, Otsu's thresholds, and the masks at each size.
    assert!(two <= 1.15 * one, "{two} launches, {one} without masks");
}

/// Launches of a forward and a backward pass of the U-Net alone.
fn launches_of_a_differentiated_pass() -> Option<f64> {
    const PASSES: &str = "ONEACTOR_PASSES";
    let passes = |number: &str| {
        let test = "counts::a_tuning_step_waits_once_and_launches_little_more_than_the_unet";
        simulated_test(test, &[(PASSES, number)], || {
            let number = std::env::var(PASSES).expect("it is set");
            let backbone = toy_on(Device::Cuda(0), Kind::Half);
            let (height, width) = (128, 128);
            let prompt = backbone.encode_prompt("a robot", height, width);
            let prompt = prompt.expect("it is short");
            let latents = backbone.initial_latents(0, height, width);
            let timesteps = Tensor::from_slice(&[500i64]).to_device(backbone.device());
            for _ in 0..number.parse().expect("a number") {
                let leaf = prompt.prompt_embeds.detach().copy().set_requires_grad(true);
                let conditioning = prompt.with_prompt_embeds(leaf);
                let noise_pred = backbone.predict(&latents, &timesteps, &conditioning);
                noise_pred.square().mean(Kind::Float).backward();
            }
        })
    };
    let few = passes("2")?.totals["launches"];
    let many = passes("6")?.totals["launches"];
    Some((many - few) as f64 / 4.0)
}

#[test]
fn a_tuning_step_waits_once_and_launches_little_more_than_the_unet() {
    let Some(of_unet) = launches_of_a_differentiated_pass() else {
        return;
    };
    let gpu = Gpu::with_actor("counts-tune").expect("it can be simulated");
    let step = step(
        &gpu,
        "tune robot --target 1 --max-steps {steps} --dtype fp16",
    );
    println!(
        "{} launches, {of_unet} of the U-Net, waits {:?}",
        step.launches, step.waits
    );
    // The errors and whether the gradient is finite come to the host together.
    assert_eq!(step.waits.values().sum::<f64>(), 1.0, "{:?}", step.waits);
    // The projector in both directions, the losses, and AdamW.
    assert!(
        step.launches <= 1.25 * of_unet,
        "{} of {of_unet}",
        step.launches
    );
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

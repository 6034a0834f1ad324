//! `evaluate` with every encoder: scores are those of the CPU.

use serde_json::Value;

use crate::common::fixture;
use crate::comparison::{F32, same_values};
use crate::gpu::Gpu;

/// The flag that names a tiny random network of the fixtures.
fn network(flag: &str, name: &str) -> String {
    format!("--{flag} {}", fixture(name).display())
}

/// Runs `evaluate` on both devices and compares the tables.
#[track_caller]
fn measures_the_same(gpu: &Gpu, line: &str) {
    let line = format!("evaluate {line} --format json");
    let rows = |text: &str| -> Value {
        let row = |line: &str| serde_json::from_str::<Value>(line).expect("a row is JSON");
        text.lines().map(row).collect()
    };
    let (found, expected) = (gpu.on_gpu(&line).stdout, gpu.on_cpu(&line).stdout);
    same_values(&rows(&found), &rows(&expected), F32);
}

#[test]
fn every_encoder_gives_the_scores_of_the_cpu() {
    let Some(gpu) = Gpu::with_actor("measures") else {
        return;
    };
    let toy = "robot/base/00.png robot/base/02.png --target robot/base/01.png";
    measures_the_same(
        &gpu,
        &format!("{toy} --model toy --metrics clip_i,clip_t,clip_score"),
    );
    for clip in ["clip", "clip_gelu"] {
        let clip = network("clip-model", &format!("evaluate/{clip}"));
        measures_the_same(&gpu, &format!("{toy} --metrics clip_i,clip_t {clip}"));
    }
    let dino = network("dino-model", "evaluate/dino");
    measures_the_same(&gpu, &format!("{toy} --metrics dino {dino}"));
    for dinov2 in ["dinov2", "dinov2_wide"] {
        let dinov2 = network("dinov2-model", &format!("evaluate/{dinov2}"));
        measures_the_same(&gpu, &format!("{toy} --metrics dinov2 {dinov2}"));
    }
    let lpips = network("lpips-model", "evaluate/lpips");
    let dreamsim = network("dreamsim-model", "evaluate/dreamsim");
    measures_the_same(
        &gpu,
        &format!("{toy} --metrics lpips,dreamsim {lpips} {dreamsim}"),
    );
}

#[test]
fn foregrounds_that_segment_anything_finds_are_those_of_the_cpu() {
    let Some(gpu) = Gpu::with_actor("sam") else {
        return;
    };
    let toy =
        "robot/base/00.png --target robot/base/01.png --model toy --metrics clip_i --masks sam";
    for sam in ["padded", "fitting"] {
        let sam = network("sam-model", &format!("sam/{sam}"));
        measures_the_same(&gpu, &format!("{toy} {sam}"));
    }
}

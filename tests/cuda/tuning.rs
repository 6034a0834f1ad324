//! Tuning: losses and actors, continuing, the baselines, and the experiments that tune or draw many
//! variants.

use serde_json::Value;

use crate::common::program::{copy, json, text};
use crate::comparison::{F32, TUNED, same_pictures, same_tensors, same_values};
use crate::gpu::Gpu;

/// The losses of a log. Seconds differ from run to run, and where a tuning stops it measures itself
/// once more.
fn log(gpu: &Gpu, path: &str) -> Value {
    let rows = text(&gpu.path(path));
    let row = |line: &str| {
        let mut row: Value = serde_json::from_str(line).expect("a row is JSON");
        let fields = row.as_object_mut().expect("an object");
        fields.retain(|key, _| key == "step" || key.starts_with("loss"));
        row
    };
    rows.lines().map(row).collect()
}

/// A second folder of base images.
fn twin(gpu: &Gpu) {
    copy(&gpu.path("robot"), &gpu.path("twin"));
}

#[test]
fn losses_and_actor_are_those_of_the_cpu() {
    let Some(gpu) = Gpu::with_actor("tune") else {
        return;
    };
    twin(&gpu);
    for more in ["", "--micro-batch 1", "--cpu-offload", "--crop 20,10,24,20"] {
        let line = format!("--target 1 --max-steps 4 --overwrite {more}");
        gpu.on_cpu(&format!("tune robot {line}"));
        gpu.on_gpu(&format!("tune twin {line} --dtype fp32"));
        same_values(
            &log(&gpu, "twin/tune.jsonl"),
            &log(&gpu, "robot/tune.jsonl"),
            F32,
        );
        let actor = |folder: &str| gpu.path(folder).join("actor.safetensors");
        same_tensors(&actor("twin"), &actor("robot"), TUNED);
    }
}

#[test]
fn half_precision_tunes_without_a_scaled_loss_that_overflows() {
    let Some(gpu) = Gpu::with_actor("tune-half") else {
        return;
    };
    gpu.on_cpu("tune robot --target 1 --max-steps 4 --overwrite");
    let losses = |rows: &Value| -> Vec<f64> {
        let rows = rows.as_array().expect("rows");
        rows.iter()
            .map(|row| row["loss"].as_f64().expect("finite"))
            .collect()
    };
    let expected = losses(&log(&gpu, "robot/tune.jsonl"));
    for (dtype, bar) in [("fp16", 0.02), ("bf16", 0.1)] {
        gpu.on_gpu(&format!(
            "tune robot --target 1 --max-steps 4 --overwrite --dtype {dtype}"
        ));
        let found = losses(&log(&gpu, "robot/tune.jsonl"));
        for (found, expected) in found.iter().zip(&expected) {
            let gap = (found - expected).abs() / expected;
            assert!(gap < bar, "{dtype}: {found}, expected {expected}");
        }
    }
}

#[test]
fn a_continued_tuning_is_bit_equal_to_one_without_a_stop() {
    let Some(gpu) = Gpu::with_actor("continued") else {
        return;
    };
    twin(&gpu);
    for (method, name) in [
        ("oneactor", "tune"),
        ("textual-inversion", "textual-inversion"),
        ("dreambooth-lora", "dreambooth-lora"),
    ] {
        let line = format!("--method {method} --target 0 --seed 7");
        gpu.on_gpu(&format!("tune robot {line} --max-steps 6 --overwrite"));
        gpu.on_gpu(&format!("tune twin {line} --max-steps 2 --overwrite"));
        gpu.on_gpu(&format!("tune twin {line} --max-steps 6"))
            .says("continuing after step 2");
        let [whole, continued] =
            ["robot", "twin"].map(|folder| log(&gpu, &format!("{folder}/{name}.jsonl")));
        assert_eq!(continued, whole, "{method}");
        let file = if name == "tune" { "actor" } else { name };
        let file = |folder: &str| gpu.path(folder).join(format!("{file}.safetensors"));
        same_tensors(&file("twin"), &file("robot"), 0.0);
    }
}

#[test]
fn baselines_tune_and_draw_as_on_the_cpu() {
    let Some(gpu) = Gpu::with_actor("baselines") else {
        return;
    };
    twin(&gpu);
    for method in ["textual-inversion", "dreambooth-lora"] {
        let line = format!("--method {method} --target 1 --max-steps 3");
        gpu.on_cpu(&format!("tune robot {line}"));
        gpu.on_gpu(&format!("tune twin {line} --dtype fp32"));
        let rows = |folder: &str| log(&gpu, &format!("{folder}/{method}.jsonl"));
        same_values(&rows("twin"), &rows("robot"), F32);
    }
    for method in [
        "textual-inversion",
        "dreambooth-lora",
        "ip-adapter",
        "consistory",
    ] {
        let line = format!("sample robot --method {method} -p 'a robot in the snow' --steps 3");
        gpu.draws_the_same(method, &line);
    }
}

#[test]
fn experiments_and_stories_draw_as_on_the_cpu() {
    let Some(gpu) = Gpu::with_actor("experiments") else {
        return;
    };
    let sweep = "sweep robot -p 'a [b]' --semantic-scale 0,0.8 --eta-2 0,1 --steps 2";
    gpu.draws_the_same("sweep", sweep);
    twin(&gpu);
    gpu.on_cpu("ablate robot -p 'a robot' --steps 2");
    gpu.on_gpu("ablate twin -p 'a robot' --steps 2 --dtype fp32");
    same_pictures(&gpu.path("twin/ablation"), &gpu.path("robot/ablation"));

    let story = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/story-toy.json");
    std::fs::copy(story, gpu.path("toy.json")).expect("the folder is writable");
    gpu.draws_the_same(
        "book",
        "story toy.json --num-images 2 --steps 1 --max-steps 1",
    );
    let steps =
        |book: &str| json(&gpu.path(book).join("characters/cat/tune.json"))["result"].clone();
    same_values(&steps("gpu-book"), &steps("cpu-book"), F32);
}

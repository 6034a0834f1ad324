//! Pictures: base images, one actor and several, and every option that changes how they are drawn.

use oneactor::io::tensors::TensorFile;

use crate::common::difference;
use crate::common::toy_files::{disguised, lora, write_controlnet, write_picture};
use crate::comparison::{F32, same_pictures, same_tensors};
use crate::gpu::Gpu;

const BASE: &str =
    "generate-base --model toy -p 'a robot' --subject robot --num-images 3 --steps 4";
const SAMPLE: &str = "sample robot -p '[b] at the beach' --steps 4 --guided-steps 1-3";

#[test]
fn base_images_are_those_of_the_cpu_in_every_precision() {
    let Some(gpu) = Gpu::new("base") else { return };
    gpu.draws_the_same("base", BASE);
    let base = |place: &str| gpu.path(place).join("base.safetensors");
    same_tensors(&base("gpu-base"), &base("cpu-base"), F32);

    // Bits of the mantissa: 10 in fp16 and 7 in bf16. Measured: 4.9e-3 and 4.1e-2.
    for (dtype, bar) in [("fp16", 0.02), ("bf16", 0.1)] {
        gpu.on_gpu(&format!("{BASE} -o {dtype} --dtype {dtype}"));
        let [found, expected] = [dtype, "cpu-base"].map(|place| {
            let file = TensorFile::read(&base(place)).expect("it is readable");
            file.tensors["latents"].shallow_clone()
        });
        let difference = difference(&found, &expected);
        assert!(
            difference.l2 > 0.0 && difference.l2 < bar,
            "{dtype}: {}",
            difference.text
        );
    }
    // fp16 is the default of a GPU.
    gpu.on_gpu(&format!("{BASE} -o auto"));
    same_tensors(&base("auto"), &base("fp16"), 0.0);
}

#[test]
fn an_actor_draws_what_it_draws_on_the_cpu() {
    let Some(gpu) = Gpu::with_actor("actor") else {
        return;
    };
    for (name, more) in [
        ("plain", "--compare"),
        ("eta-0", "--eta-2 0"),
        ("eta-1", "--eta-2 1"),
        ("batch", "--num-images 3 --batch-size 2"),
        ("weights", "--prompt-weights -p 'a (shiny:1.3) [b]'"),
        ("long", "--long-prompts"),
        ("masks", "--subject-masks on --save-masks"),
        ("preview", "--preview-every 2"),
        ("interval", "--guidance-interval 1-3"),
        ("reuse", "--feature-reuse 2"),
    ] {
        gpu.draws_the_same(name, &format!("{SAMPLE} {more}"));
    }
}

#[test]
fn two_actors_with_masks_draw_what_they_draw_on_the_cpu() {
    let Some(gpu) = Gpu::with_actor("two-actors") else {
        return;
    };
    disguised(&gpu.folder, "cat", &[("base_word", "cat")]);
    let line = "sample robot cat -p 'a robot and a cat' -p 'a robot' --steps 4";
    for (name, more) in [
        ("masks", "--save-masks"),
        ("eta-0", "--eta-2 0"),
        ("eta-1", "--eta-2 1"),
        ("batch", "--batch-size 2 --num-images 2"),
        ("off", "--subject-masks off"),
    ] {
        gpu.draws_the_same(name, &format!("{line} {more}"));
    }
}

#[test]
fn every_sampler_of_the_toy_gives_the_pictures_of_the_cpu() {
    let Some(gpu) = Gpu::with_actor("samplers") else {
        return;
    };
    for sampler in ["ddim", "euler", "dpmpp_2m"] {
        gpu.draws_the_same(sampler, &format!("{SAMPLE} --scheduler {sampler}"));
    }
}

#[test]
fn flags_for_less_memory_change_no_picture() {
    let Some(gpu) = Gpu::with_actor("less-memory") else {
        return;
    };
    let tiles = "--vae-tiling --vae-tile-size 32";
    gpu.draws_the_same("tiles", &format!("{SAMPLE} {tiles}"));
    gpu.on_gpu(&format!("{SAMPLE} -o whole --dtype fp32"));
    gpu.on_gpu(&format!("{SAMPLE} -o offload --dtype fp32 --cpu-offload"));
    same_pictures(&gpu.path("offload"), &gpu.path("whole"));
    let peak = |more: &str| {
        gpu.counted(&format!("{SAMPLE} {more} --overwrite -o peak"))
            .peak()
    };
    let (whole, offload) = (peak(""), peak("--cpu-offload"));
    assert!(
        offload < whole,
        "{offload} bytes with --cpu-offload, {whole} without"
    );
    let large = "-W 256 -H 256";
    let (whole, tiles) = (peak(large), peak(&format!("{large} {tiles}")));
    assert!(
        tiles < whole,
        "{tiles} bytes with --vae-tiling, {whole} without"
    );
}

#[test]
fn a_lora_and_a_controlnet_steer_as_on_the_cpu() {
    let Some(gpu) = Gpu::with_actor("steered") else {
        return;
    };
    lora(&gpu.path("style.safetensors"), 0.5);
    gpu.draws_the_same("lora", &format!("{SAMPLE} --lora style.safetensors:0.5"));
    write_controlnet(&gpu.folder, "net", 0.05);
    write_picture(&gpu.path("box.png"), 64, 64, 8);
    let steered = format!("{SAMPLE} --controlnet net --control-image box.png");
    gpu.draws_the_same("control", &steered);
    gpu.draws_the_same(
        "canny",
        &format!("{steered} --control-preprocess canny --guess-mode"),
    );
    gpu.draws_the_same(
        "offload",
        &format!("{steered} --lora style.safetensors:0.5 --cpu-offload"),
    );
}

#[test]
fn each_kernel_of_attention_draws_the_same_picture() {
    let Some(gpu) = Gpu::with_actor("kernels") else {
        return;
    };
    gpu.on_gpu(&format!("{SAMPLE} -o auto"));
    for kernel in ["flash", "efficient", "cudnn", "math"] {
        gpu.on_gpu(&format!("{SAMPLE} -o {kernel} --attention {kernel}"));
        same_pictures_in_half(&gpu, kernel, "auto");
    }
    // A GPU of capability 9.0 prefers cuDNN's kernel.
    gpu.with("FAKECUDA_SM", 90)
        .on_gpu(&format!("{SAMPLE} -o newer"));
    same_pictures_in_half(&gpu, "newer", "auto");
}

/// Pictures of fp16 may differ by a few levels.
#[track_caller]
fn same_pictures_in_half(gpu: &Gpu, found: &str, expected: &str) {
    let picture = |place: &str| crate::common::program::pixels(&gpu.path(place).join("0000-0.png"));
    let (found, expected) = (picture(found), picture(expected));
    let gaps = found
        .iter()
        .zip(&expected)
        .map(|(a, b)| f64::from(a.abs_diff(*b)));
    let mean = gaps.sum::<f64>() / expected.len() as f64;
    assert!(mean < 1.0, "{mean} levels on average");
}

#[test]
fn a_kernel_that_cannot_compute_the_job_is_refused_before_the_model_is_loaded() {
    let Some(gpu) = Gpu::with_actor("refused-kernels") else {
        return;
    };
    disguised(&gpu.folder, "cat", &[("base_word", "cat")]);
    let two = "sample robot cat -p 'a robot and a cat' --steps 2";
    for (line, more, message) in [
        (
            SAMPLE,
            "--attention flash --dtype fp32",
            "does not support fp32 on this GPU",
        ),
        (
            SAMPLE,
            "--attention cudnn --dtype fp32",
            "does not support fp32 on this GPU",
        ),
        (two, "--attention flash", "does not support masks"),
        (
            "tune robot --overwrite",
            "--attention flash --dtype fp32",
            "does not support fp32",
        ),
    ] {
        let out = if line.starts_with("sample") {
            "-o x"
        } else {
            ""
        };
        let run = gpu
            .run(&format!("{line} {more} {out} --device cuda"))
            .exits_with(2)
            .says(message)
            .says("expected auto or efficient or")
            .writes_nothing();
        assert!(!run.stderr.contains("loading"), "{}", run.stderr);
    }
}

//! Whole guided runs of 30 steps, compared with diffusers' `StableDiffusionXLPipeline` and
//! `StableDiffusionPipeline` with the same CPU seed: prompt embeddings, first noise, final latents,
//! h of the last step, and the picture.

use crate::bars::LATENTS;
use crate::common::{Expected, Report, SHAPES, backbone, changed, json};
use oneactor::backbone::Backbone;
use oneactor::backbone::denoise::denoise;
use oneactor::backbone::guidance::PlainGuidance;
use oneactor::schedulers::{SchedulerKind, new_scheduler};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

/// Bar for prompt embeddings, which come from the text encoders alone: their bar is 1e-5.
const EMBEDS: f64 = 1e-5;
/// Pixels may differ by one level if 255 x lies near a half: with latents that differ by 1e-6,
/// fewer than one pixel in a thousand does.
const ROUNDED_OTHERWISE: f64 = 1e-3;

#[derive(Deserialize)]
struct Run {
    prompt: String,
    negative_prompt: Option<String>,
    height: i64,
    width: i64,
    seed: i64,
    guidance_scale: f64,
    steps: usize,
    scheduler: Option<SchedulerKind>,
}

fn draw(backbone: &Backbone, i: usize, run: &Run, expected: &Expected, report: &mut Report) {
    let get = |name: &str| expected.get(&format!("{i}.{name}"));
    let (height, width) = (run.height, run.width);
    let prompt = backbone
        .encode_prompt(&run.prompt, height, width)
        .expect("a short prompt");
    let negative = backbone
        .encode_negative(run.negative_prompt.as_deref(), height, width)
        .expect("a short prompt");
    // Only SDXL's runs have pooled embeddings.
    let is_told = expected.has(&format!("{i}.pooled_prompt_embeds"));
    report.check(prompt.added.is_some() == is_told, || {
        format!("{i}: pooled embedding and sizes")
    });
    report.close(
        &format!("{i} prompt_embeds"),
        &prompt.prompt_embeds,
        &get("prompt_embeds"),
        EMBEDS,
    );
    if let Some(added) = &prompt.added {
        report.close(
            &format!("{i} pooled"),
            &added.text_embeds,
            &get("pooled_prompt_embeds"),
            EMBEDS,
        );
    }
    if run.guidance_scale > 1.0 {
        let embeds = get("negative_prompt_embeds");
        report.close(
            &format!("{i} negative_prompt_embeds"),
            &negative.prompt_embeds,
            &embeds,
            EMBEDS,
        );
        if let Some(added) = &negative.added {
            report.close(
                &format!("{i} negative pooled"),
                &added.text_embeds,
                &get("negative_pooled_prompt_embeds"),
                EMBEDS,
            );
        }
    }

    let initial = backbone.initial_latents(run.seed, height, width);
    report.check(initial == get("initial"), || {
        format!("{i}: the first noise is not diffusers' own")
    });
    let kind = run
        .scheduler
        .unwrap_or_else(|| backbone.scheduler_file.own_kind().expect("a known class"));
    let mut scheduler = new_scheduler(kind, &backbone.scheduler_file, run.steps).expect("30 steps");
    let guidance = PlainGuidance::new(&negative, &prompt, run.guidance_scale);
    let drawn = denoise(
        backbone,
        scheduler.as_mut(),
        &initial,
        &guidance,
        None,
        &mut |_| Ok(()),
    )
    .expect("finite latents");
    report.close(
        &format!("{i} latents"),
        &drawn.latents,
        &get("latents"),
        LATENTS,
    );
    report.close(
        &format!("{i} encoder_features"),
        &drawn.encoder_features,
        &get("encoder_features"),
        LATENTS,
    );

    let image = backbone.decode(&drawn.latents).expect("a finite picture");
    let pixels = (image.get(0).permute([1, 2, 0]) * 255.0)
        .round()
        .to_kind(Kind::Int); // [H, W, 3]
    picture_is_equal(
        &format!("{i} picture"),
        &pixels,
        &get("image").to_kind(Kind::Int),
        report,
    );
}

/// Equal up to rounding.
fn picture_is_equal(name: &str, found: &Tensor, expected: &Tensor, report: &mut Report) {
    report.check(found.size() == expected.size(), || {
        format!("{name}: found {:?}", found.size())
    });
    let gap = (found - expected).abs();
    let largest = gap.max().int64_value(&[]);
    let share = gap
        .ne(0)
        .to_kind(Kind::Double)
        .mean(Kind::Double)
        .double_value(&[]);
    println!(
        "parity {name}: {:.3} % of the values differ, by {largest} at most",
        100.0 * share
    );
    report.check(largest <= 1 && share <= ROUNDED_OTHERWISE, || {
        format!("{name}: {share} differ, by {largest}")
    });
}

#[test]
fn guided_runs_end_in_the_latents_and_the_picture_of_diffusers() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let runs: Vec<Run> = json(&format!("{shape}/expected/pipeline.json"));
        let expected = Expected::read(&format!("{shape}/expected/pipeline.safetensors"));
        let mut report = Report::new(&format!("pipeline of {shape}"));
        for (i, run) in runs.iter().enumerate() {
            draw(&backbone, i, run, &expected, &mut report);
        }
        report.finish();
    }
}

/// The fields are those of `VAE_STATISTICS` in `expected_pipeline.py`. The test also encodes a
/// picture, whose latents must be those that were decoded.
#[test]
fn a_vae_whose_latents_have_mean_and_deviation_gives_the_picture_of_diffusers() {
    let fields = serde_json::json!({
        "latents_mean": [-1.6, 1.1, 0.4, -0.8], "latents_std": [8.4, 5.9, 5.4, 3.0],
    });
    let backbone = changed("narrow", "vae-statistics", "vae/config.json", &fields);
    let expected = Expected::read("narrow/expected/pipeline.safetensors");
    let image = backbone.decode(&expected.get("0.latents"));
    let pixels = (image.expect("a finite picture").get(0).permute([1, 2, 0]) * 255.0)
        .round()
        .to_kind(Kind::Int); // [H, W, 3]
    let mut report = Report::new("a VAE with statistics of its latents");
    let wanted = expected.get("vae_statistics.image").to_kind(Kind::Int);
    picture_is_equal("picture", &pixels, &wanted, &mut report);
    let plain = expected.get("0.image").to_kind(Kind::Int);
    report.check(plain != wanted, || "the fields change nothing".to_owned());

    let picture = Tensor::rand([1, 3, 64, 64], (Kind::Float, Device::Cpu));
    let own = crate::common::backbone("narrow").encode(&picture);
    let found = backbone.encode(&picture);
    let per_channel = |values: &[f32]| Tensor::from_slice(values).view([1, 4, 1, 1]);
    let (mean, std) = (
        per_channel(&[-1.6, 1.1, 0.4, -0.8]),
        per_channel(&[8.4, 5.9, 5.4, 3.0]),
    );
    // (z - mean) scaling_factor / std, as diffusers' StableDiffusionXLImg2ImgPipeline encodes.
    let scale: serde_json::Value = json("narrow/vae/config.json");
    let scale = scale["scaling_factor"].as_f64().expect("it has one");
    let wanted = (own / scale - mean) * scale / std;
    report.close("encoded", &found, &wanted, EMBEDS);
    report.finish();
}

/// The classes that `model_index.json` and the component's own file name.
#[derive(Deserialize)]
struct Classes {
    own: String,
    drawn_with: String,
}

#[test]
fn the_class_in_the_index_has_priority_over_that_of_the_file() {
    let classes: Classes = json("narrow/expected/index.json");
    let fields = serde_json::json!({"scheduler": ["diffusers", "DDIMScheduler"]});
    let backbone = changed("narrow", "index-scheduler", "model_index.json", &fields);
    let kind = backbone.scheduler_file.own_kind().expect("a known class");
    assert_eq!(kind.class().name, classes.drawn_with);
    assert_ne!(classes.own, classes.drawn_with);
}

#[test]
fn a_batch_equals_its_images_drawn_alone() {
    let backbone = backbone("narrow");
    let runs: Vec<Run> = json("narrow/expected/pipeline.json");
    let expected = Expected::read("narrow/expected/pipeline.safetensors");
    let run = &runs[0];
    let prompt = backbone
        .encode_prompt(&run.prompt, run.height, run.width)
        .expect("a short prompt");
    let negative = backbone
        .encode_negative(None, run.height, run.width)
        .expect("a short prompt");
    let guidance = PlainGuidance::new(&negative, &prompt, run.guidance_scale);
    let noise = |seed| backbone.initial_latents(seed, run.height, run.width);
    let initial = Tensor::cat(
        &[noise(run.seed + 1), noise(run.seed), noise(run.seed + 2)],
        0,
    );
    let kind = backbone.scheduler_file.own_kind().expect("a known class");
    let mut scheduler = new_scheduler(kind, &backbone.scheduler_file, run.steps).expect("30 steps");
    let drawn = denoise(
        &backbone,
        scheduler.as_mut(),
        &initial,
        &guidance,
        None,
        &mut |_| Ok(()),
    )
    .expect("finite latents");
    let mut report = Report::new("second of a batch of three");
    report.close(
        "latents",
        &drawn.latents.narrow(0, 1, 1),
        &expected.get("0.latents"),
        LATENTS,
    );
    report.close(
        "features",
        &drawn.encoder_features.narrow(0, 1, 1),
        &expected.get("0.encoder_features"),
        LATENTS,
    );
    report.finish();
}

#[test]
fn first_noise_of_every_size_equals_that_of_torch_for_one_picture() {
    let expected = Expected::read("noise.safetensors").below("");
    assert_eq!(expected.len(), 35);
    for (name, wanted) in expected {
        let (seed, _) = name.split_once('.').expect("a seed and a size");
        let seed: i64 = seed.parse().expect("a number");
        let found = oneactor::libtorch::noise(seed, &wanted.size());
        assert!(found == wanted, "{name}");
        let in_use = i64::from(oneactor::libtorch::seed_in_use(seed));
        assert!(
            oneactor::libtorch::noise(in_use, &wanted.size()) == wanted,
            "{name}"
        );
    }
}

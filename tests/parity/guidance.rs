//! Eq. (19), compared with Python written from the paper around diffusers' U-Net: with given
//! offsets, with the offsets of two subjects that were tuned together, and with long and weighted
//! prompts together with masks (`scripts/parity/expected_method.py`, `expected_combined.py`).

use crate::bars::LATENTS;
use crate::common::{Expected, Report, SHAPES, backbone, json, latents};
use oneactor::backbone::Backbone;
use oneactor::backbone::prompt_pair::PromptPair;
use oneactor::method::base_word::BaseWordPrompt;
use oneactor::method::guidance::{ClusterGuidance, GuidanceSettings, Offsets};
use oneactor::tokenizer::prompt_tokens::PromptOptions;
use serde::Deserialize;
use tch::Tensor;

#[derive(Deserialize)]
struct Eq19 {
    prompt: String,
    bases: Vec<String>,
    height: i64,
    width: i64,
    seed: i64,
    guided_steps: (usize, usize),
    eta_1: f64,
    eta_2: f64,
    semantic_scale: f64,
    guidance_scale: f64,
    scale_average: bool,
}

/// Final latents of one run of Eq. (19).
fn sample(backbone: &Backbone, run: &Eq19, offsets: &Offsets) -> Tensor {
    let settings = GuidanceSettings {
        semantic_scale: run.semantic_scale,
        average_scale: if run.scale_average {
            run.semantic_scale
        } else {
            1.0
        },
        eta_1: run.eta_1,
        eta_2: run.eta_2,
        guided_steps: run.guided_steps,
        guidance_scale: run.guidance_scale,
    };
    let size = [run.height, run.width];
    let prompt = BaseWordPrompt::with_words(backbone, &run.prompt, &run.bases, size)
        .expect("the words are there");
    let negative = backbone
        .encode_negative(None, run.height, run.width)
        .expect("no prompt");
    let guidance =
        ClusterGuidance::new(&negative, &prompt, offsets, &settings).expect("offsets fit");
    latents(backbone, &guidance, 30, (run.seed, size))
}

#[test]
fn cluster_guidance_is_equation_19() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let given = Expected::read(&format!("{shape}/expected/offsets.safetensors"));
        let offsets = offsets(&given, "");
        let expected = Expected::read(&format!("{shape}/expected/eq19.safetensors"));
        let mut report = Report::new(&format!("Eq. (19) on {shape}"));
        for (i, run) in json::<Vec<Eq19>>(&format!("{shape}/expected/eq19.json"))
            .iter()
            .enumerate()
        {
            report.close(
                &format!("run {i}"),
                &sample(&backbone, run, &offsets),
                &expected.get(&i.to_string()),
                LATENTS,
            );
        }
        report.finish();
    }
}

/// The offsets whose names begin with `prefix`.
fn offsets(given: &Expected, prefix: &str) -> Offsets {
    Offsets {
        target_offset: given.get(&format!("{prefix}target_offset")),
        average_offset: given.get(&format!("{prefix}average_offset")),
    }
}

#[test]
fn one_or_both_of_two_subjects_tuned_together_are_drawn_by_equation_19() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let tuned = Expected::read(&format!("{shape}/expected/joint.safetensors"));
        let expected = Expected::read(&format!("{shape}/expected/joint_eq19.safetensors"));
        let runs: Vec<Eq19> = json(&format!("{shape}/expected/joint_eq19.json"));
        let offsets = [offsets(&tuned, ""), offsets(&expected, "1.")];
        let mut report = Report::new(&format!("Eq. (19) with joint offsets on {shape}"));
        for (i, (run, offsets)) in runs.iter().zip(&offsets).enumerate() {
            let found = sample(&backbone, run, offsets);
            let name = i.to_string();
            report.close(&format!("run {i}"), &found, &expected.get(&name), LATENTS);
        }
        report.finish();
    }
}

/// Two subjects, each inside its mask, in a prompt of several chunks with weights.
#[derive(Deserialize)]
struct Combined {
    prompt: String,
    negative_prompt: Option<String>,
    bases: [String; 2],
    long_prompts: bool,
    prompt_weights: bool,
    height: i64,
    width: i64,
    seed: i64,
    steps: usize,
    guided_steps: (usize, usize),
    eta_1: f64,
    eta_2: f64,
    semantic_scale: f64,
    guidance_scale: f64,
}

/// Final latents and last masks.
fn draw(backbone: &Backbone, run: &Combined, offsets: &Offsets) -> (Tensor, Tensor) {
    let settings = GuidanceSettings {
        semantic_scale: run.semantic_scale,
        average_scale: 1.0,
        eta_1: run.eta_1,
        eta_2: run.eta_2,
        guided_steps: run.guided_steps,
        guidance_scale: run.guidance_scale,
    };
    let options = PromptOptions {
        long_prompts: run.long_prompts,
        prompt_weights: run.prompt_weights,
    };
    let bases = run.bases.each_ref().map(String::as_str);
    let negative = run.negative_prompt.as_deref();
    let pair = PromptPair::new(&backbone.tokenizers, &run.prompt, negative, options, &bases)
        .expect("Python reads this prompt");
    let size = [run.height, run.width];
    let prompt = BaseWordPrompt::from_tokens(backbone, &pair.prompt, &bases, size)
        .expect("the words are there");
    let negative = pair.encode_negative(backbone, run.height, run.width);
    let guidance =
        ClusterGuidance::with_regions(&negative, (&prompt, &[true; 2]), offsets, &settings)
            .expect("offsets fit");
    let latents = latents(backbone, &guidance, run.steps, (run.seed, size));
    (latents, guidance.masks().expect("there were guided steps"))
}

#[test]
fn offsets_and_masks_follow_their_words_through_long_weighted_prompts() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let expected = Expected::read(&format!("{shape}/expected/combined.safetensors"));
        let runs: Vec<Combined> = json(&format!("{shape}/expected/combined.json"));
        let mut report = Report::new(&format!("masks in long weighted prompts on {shape}"));
        for (i, run) in runs.iter().enumerate() {
            let given = |which: &str, g: usize| expected.get(&format!("{i}.{which}.{g}"));
            let offsets = Offsets::cat(&[0, 1].map(|g| Offsets {
                target_offset: given("target", g),
                average_offset: given("average", g),
            }));
            let (latents, masks) = draw(&backbone, run, &offsets);
            report.check(masks == expected.get(&format!("{i}.masks")), || {
                format!("run {i}: the last masks differ")
            });
            let wanted = expected.get(&format!("{i}.latents"));
            report.close(&format!("run {i}"), &latents, &wanted, LATENTS);
        }
        report.finish();
    }
}

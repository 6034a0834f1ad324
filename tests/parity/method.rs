//! Tuning, compared with Python written from the paper around diffusers' U-Net: the gradient of the
//! denoising loss, the tuner with one subject and with two, and the offsets of the actors
//! (`scripts/parity/expected_method.py`).

use std::collections::BTreeMap;

use crate::common::{Expected, Report, SHAPES, backbone, backbone_as, difference, json};
use oneactor::backbone::Backbone;
use oneactor::method::actor::Actor;
use oneactor::method::base_set::{BaseFacts, BaseSet};
use oneactor::method::base_word::BaseWordPrompt;
use oneactor::method::diffusion_rows::{DiffusionRows, loss_scale};
use oneactor::method::learner::{Course, Learner};
use oneactor::method::loss::{
    LossWeights, auxiliary_loss, average_loss, row_errors, target_loss, total_loss,
};
use oneactor::method::projector::{Head, Projector, ProjectorConfig};
use oneactor::method::templates;
use oneactor::method::tune::{TuneOptions, Tuner, TuningRows};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

/// Bar for one pass through projector, U-Net and losses, forward and back: the bar of the networks.
/// The five BatchNorms subtract means of nearly equal size on the way back, and the error still
/// stays within 3e-6.
const PASS: f64 = crate::bars::NETWORK;
/// Bar for the movement of each parameter in five steps, as the norm over its values. AdamW moves
/// every value by about the learning rate, whatever the size of its gradient, so single values
/// whose gradient is rounding noise may move either way. Leaving out the weight decay changes the
/// movement of the BatchNorm scales by 1e-2.
const MOVEMENT: f64 = 1e-3;

#[derive(Deserialize)]
struct Tuning {
    feature_shape: [i64; 3],
    num_tokens: i64,
    widths: [i64; 5],
    strides: [i64; 5],
    steps: usize,
    num_base_images: i64,
    num_auxiliary: usize,
    target: usize,
    lambda_1: f64,
    lambda_2: f64,
    learning_rate: f64,
    weight_decay: f64,
    templates: Vec<String>,
    bases: Vec<String>,
    prompt: String,
    size: i64,
}

#[test]
fn gradient_of_the_loss_with_respect_to_the_base_word() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let spec: Tuning = json(&format!("{shape}/expected/tuner.json"));
        let expected = Expected::read(&format!("{shape}/expected/gradient.safetensors"));
        let get = |name: &str| expected.get(name);
        let template = templates_prompt(shape);
        let prompt =
            BaseWordPrompt::new(&backbone, &template, &spec.bases[0], spec.size, spec.size)
                .expect("the word is there");
        let offset = get("offset").set_requires_grad(true);
        let (z_0, eps, timesteps) = (get("z0"), get("eps"), get("timesteps"));
        let z_t = backbone.noise_schedule.add_noise(&z_0, &eps, &timesteps);
        let target = backbone.noise_schedule.target(&z_0, &eps, &timesteps);
        let conditioning = prompt
            .conditioning
            .repeat(3)
            .with_prompt_embeds(prompt.shifted(&offset));
        let noise_pred = backbone.predict(&z_t, &timesteps, &conditioning);
        let loss = row_errors(&noise_pred, &target).mean(Kind::Float);
        loss.backward();

        let mut report = Report::new(&format!("gradient on {shape}"));
        report.close(
            "base_embedding",
            &prompt.base_embedding(),
            &get("base_embedding"),
            PASS,
        );
        report.close("z_t", &z_t, &get("z_t"), PASS);
        report.close("target", &target, &get("target"), PASS);
        report.close("noise_pred", &noise_pred, &get("noise_pred"), PASS);
        report.close("loss", &loss, &get("loss"), PASS);
        report.close("gradient", &offset.grad(), &get("gradient"), PASS);
        report.finish();
    }
}

/// Gradient of the loss with respect to the offset, with the loss scaled, compared with the
/// gradient of PyTorch in f32: the norm of the difference over the norm.
fn gradient_error(shape: &str, kind: Kind, scale: f64) -> f64 {
    let backbone = backbone_as(shape, kind);
    let spec: Tuning = json(&format!("{shape}/expected/tuner.json"));
    let expected = Expected::read(&format!("{shape}/expected/gradient.safetensors"));
    let get = |name: &str| expected.get(name);
    let template = templates_prompt(shape);
    let prompt = BaseWordPrompt::new(&backbone, &template, &spec.bases[0], spec.size, spec.size)
        .expect("the word is there");
    let offset = get("offset").set_requires_grad(true);
    let conditioning = prompt
        .conditioning
        .repeat(3)
        .with_prompt_embeds(prompt.shifted(&offset));
    let noise_pred = backbone.predict(&get("z_t"), &get("timesteps"), &conditioning);
    let loss = row_errors(&noise_pred, &get("target")).mean(Kind::Float);
    (loss * scale).backward();
    difference(&(offset.grad() / scale), &get("gradient")).l2
}

#[test]
fn gradient_in_half_precision_is_within_one_percent_of_f32() {
    for shape in SHAPES {
        let scaled = gradient_error(shape, Kind::Half, loss_scale(Kind::Half));
        let plain = gradient_error(shape, Kind::Half, 1.0);
        let bf16 = gradient_error(shape, Kind::BFloat16, loss_scale(Kind::BFloat16));
        println!(
            "parity gradient on {shape}: fp16 {:.3} % with the loss scaled, {:.3} % without, bf16 {:.2} %",
            100.0 * scaled,
            100.0 * plain,
            100.0 * bf16
        );
        assert!(scaled < 0.01, "{shape}: fp16 is {scaled:.1e} off");
        // bf16 has three bits less than fp16: it is supported, but not the default.
        assert!(bf16 < 0.1, "{shape}: bf16 is {bf16:.1e} off");
    }
}

/// The prompt of the gradient's check, the same as in `scripts/parity/checkpoints.py`.
fn templates_prompt(shape: &str) -> String {
    match shape {
        "narrow" => "a photo of a hobbit",
        "words" => "a drawing of a pencil box",
        "convproj" => "a robot",
        "sd15" => "a photo of a hobbit",
        "sd21" => "a drawing of a wizard",
        _ => unreachable!("{shape} has no prompt here"),
    }
    .to_string()
}

/// A tuner with the projector and base set of the fixture.
fn tuner<'a>(
    backbone: &'a Backbone,
    spec: &Tuning,
    expected: &Expected,
    micro_batch: usize,
) -> Tuner<'a> {
    let n = spec.num_base_images;
    let z0 = expected.get("step.0.z0");
    let base = BaseSet {
        facts: BaseFacts {
            prompt: spec.prompt.clone(),
            base_words: spec.bases.clone(),
            width: spec.size,
            height: spec.size,
            model: backbone.facts.clone(),
        },
        latents: z0.narrow(0, 0, 1).repeat([n, 1, 1, 1]),
        encoder_features: expected.get("encoder_features"),
        seeds: (0..n).collect(),
    };
    let options = TuneOptions {
        target: spec.target,
        crop: None,
        kind: templates::SubjectKind::Character,
        head: Head::AdaIn,
        num_auxiliary: spec.num_auxiliary,
        loss_weights: LossWeights {
            lambda_1: spec.lambda_1,
            lambda_2: spec.lambda_2,
        },
        course: Course {
            max_steps: spec.steps,
            learning_rate: spec.learning_rate,
            weight_decay: spec.weight_decay,
            seed: 0,
            micro_batch,
        },
    };
    let mut tuner = Tuner::new(backbone, &base, options).expect("the options fit");
    let config = tuner.projector_mut().config.clone();
    assert_eq!(
        (config.feature_shape, config.num_tokens),
        (spec.feature_shape, spec.num_tokens)
    );
    assert_eq!(
        (config.widths(), config.strides()),
        (spec.widths, spec.strides),
        "projector's rule: mend tuner_spec"
    );
    *tuner.projector_mut() =
        Projector::from_parameters(config, &expected.below("initial."), Device::Cpu)
            .expect("same names");
    tuner
}

fn batch(expected: &Expected, k: usize) -> TuningRows {
    let get = |name: &str| expected.get(&format!("step.{k}.{name}"));
    let auxiliary = get("auxiliary");
    TuningRows {
        template: get("template").int64_value(&[]) as usize,
        auxiliary: (0..auxiliary.numel() as i64)
            .map(|i| auxiliary.int64_value(&[i]))
            .collect(),
        rows: DiffusionRows {
            z_0: get("z0"),
            eps: get("eps"),
            timesteps: get("timesteps"),
        },
    }
}

/// The gradient of the first step. The optimiser clears it, so it is computed from the first moment
/// in the tuner's checkpoint, `m = (1 - β1) g`.
fn first_gradients(tuner: &Tuner, name: &str) -> BTreeMap<String, Tensor> {
    let path = std::env::temp_dir().join(format!(
        "oneactor-parity-{}-{name}.safetensors",
        std::process::id()
    ));
    std::fs::write(&path, tuner.checkpoint().expect("a checkpoint"))
        .expect("a place for temporary files");
    let tensors = Tensor::read_safetensors(&path).expect("a whole file");
    std::fs::remove_file(&path).expect("written above");
    tensors
        .iter()
        .filter_map(|(key, m)| Some((key.strip_prefix("adamw.m.")?.to_string(), m / 0.1)))
        .collect()
}

#[test]
fn five_steps_of_the_tuner_are_those_of_pytorch() {
    // Without sd15: there a value comes within 2e-6 of ReLU's kink on the second step. Changing the
    // first parameters by 3e-7 moves PyTorch's own result by 1e-2, ten times the bar.
    compare_steps(
        "tuner",
        &[("narrow", 5), ("words", 5), ("convproj", 2), ("sd21", 3)],
    );
}

#[test]
fn five_steps_with_two_subjects_and_one_projector_are_those_of_pytorch() {
    compare_steps(
        "joint",
        &[
            ("narrow", 2),
            ("words", 5),
            ("convproj", 5),
            ("sd15", 3),
            ("sd21", 5),
        ],
    );
}

/// Losses of five steps, the first gradient and the movement of the parameters, on these
/// checkpoints and with so many rows at a time.
fn compare_steps(fixture: &str, shapes: &[(&str, usize)]) {
    for &(shape, micro_batch) in shapes {
        let backbone = backbone(shape);
        let spec: Tuning = json(&format!("{shape}/expected/{fixture}.json"));
        assert_eq!(
            spec.templates,
            templates::SubjectKind::Character.prompts(&spec.bases),
            "the fixtures are old: run scripts/test.sh"
        );
        let expected = Expected::read(&format!("{shape}/expected/{fixture}.safetensors"));
        let mut tuner = tuner(&backbone, &spec, &expected, micro_batch);
        let mut report = Report::new(&format!(
            "{fixture} on {shape}, {micro_batch} rows at a time"
        ));
        let mut gradients = Report::new(&format!(
            "first gradient of the projector, {fixture} on {shape}"
        ));
        let weights = LossWeights {
            lambda_1: spec.lambda_1,
            lambda_2: spec.lambda_2,
        };
        for k in 0..spec.steps {
            let errors = tuner.learn(&batch(&expected, k)).expect("finite losses");
            let losses = [
                ("row_errors", errors.shallow_clone()),
                ("loss_target", target_loss(&errors)),
                ("loss_auxiliary", auxiliary_loss(&errors)),
                ("loss_average", average_loss(&errors)),
                ("loss", total_loss(&errors, weights)),
            ];
            for (name, loss) in losses {
                report.close(
                    &format!("step {k}: {name}"),
                    &loss,
                    &expected.get(&format!("step.{k}.{name}")),
                    PASS,
                );
            }
            if k == 0 {
                let known = expected.below("gradient.").len();
                let found = first_gradients(&tuner, &format!("{fixture}-{shape}"));
                gradients.check(found.len() == known, || {
                    format!("{} gradients, expected {known}", found.len())
                });
                for (name, gradient) in found {
                    gradients.close(
                        &name,
                        &gradient,
                        &expected.get(&format!("gradient.{name}")),
                        PASS,
                    );
                }
            }
        }
        report.finish();
        gradients.finish();

        let mut report = Report::new(&format!("projector after five steps, {fixture} on {shape}"));
        for (name, value) in tuner.projector_mut().parameters() {
            let [from, to] =
                ["initial", "final"].map(|when| expected.get(&format!("{when}.{name}")));
            report.close_in_norm(name, &(value - &from), &(to - from), MOVEMENT);
        }
        report.finish();
    }
}

/// The actor that the fixture's tuning ends with, and the prompt of its check.
fn actor(backbone: &Backbone, spec: &Tuning, expected: &Expected) -> (Actor, BaseWordPrompt) {
    let size = [spec.size; 2];
    let prompt = BaseWordPrompt::with_words(backbone, &spec.prompt, &spec.bases, size)
        .expect("the words are there");
    let config = ProjectorConfig {
        feature_shape: spec.feature_shape,
        num_tokens: spec.num_tokens,
        token_width: prompt.base_embedding().size()[1],
        head: Head::AdaIn,
    };
    let facts = BaseFacts {
        prompt: spec.prompt.clone(),
        base_words: spec.bases.clone(),
        width: spec.size,
        height: spec.size,
        model: backbone.facts.clone(),
    };
    let actor = Actor {
        facts,
        kind: templates::SubjectKind::Character,
        target: spec.target,
        target_image: None,
        base_crc32: None,
        projector: Projector::from_parameters(config, &expected.below("final."), Device::Cpu)
            .expect("same names"),
        encoder_features: expected.get("encoder_features"),
        tokens_of_words: prompt.tokens_of_words(),
    };
    (actor, prompt)
}

#[test]
fn an_actor_gives_the_offsets_of_equations_16_and_17() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        for fixture in ["tuner", "joint"] {
            let spec: Tuning = json(&format!("{shape}/expected/{fixture}.json"));
            let expected = Expected::read(&format!("{shape}/expected/{fixture}.safetensors"));
            let (actor, prompt) = actor(&backbone, &spec, &expected);
            let mut report = Report::new(&format!("offsets of an actor, {fixture} on {shape}"));
            compare_offsets(&actor, &prompt, &expected, "", &mut report);
            if fixture == "joint" {
                // A prompt that names only the second word.
                let runs: Vec<Named> = json(&format!("{shape}/expected/joint_eq19.json"));
                let Named { prompt, bases } = &runs[1];
                let prompt = BaseWordPrompt::with_words(&backbone, prompt, bases, [spec.size; 2])
                    .expect("the word is there");
                let expected = Expected::read(&format!("{shape}/expected/joint_eq19.safetensors"));
                compare_offsets(&actor, &prompt, &expected, "1.", &mut report);
            }
            report.finish();
        }
    }
}

#[derive(Deserialize)]
struct Named {
    prompt: String,
    bases: Vec<String>,
}

fn compare_offsets(
    actor: &Actor,
    prompt: &BaseWordPrompt,
    expected: &Expected,
    prefix: &str,
    report: &mut Report,
) {
    let offsets = actor.offsets(prompt).expect("the same words");
    for (name, found) in [
        ("target_offset", &offsets.target_offset),
        ("average_offset", &offsets.average_offset),
    ] {
        let name = format!("{prefix}{name}");
        report.close(&name, found, &expected.get(&name), PASS);
    }
}

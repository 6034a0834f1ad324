//! What must hold of the method, whatever the weights are; on the embedded toy model.

use oneactor::io::model_files::{ModelFiles, ModelOptions};
use oneactor::oneactor::base_word::BaseWordPrompt;
use oneactor::oneactor::guidance::{ClusterGuidance, GuidanceSettings, Offsets};
use oneactor::oneactor::interpolation::interpolated;
use oneactor::schedulers::{SchedulerKind, new_scheduler};
use oneactor::sdxl::denoise::{Guidance, PlainGuidance, denoise};
use oneactor::sdxl::{Backbone, LoadOptions};
use tch::{Device, Kind, Tensor};

const PROMPT: &str = "a photo of a cat, at the beach";

fn toy() -> Backbone {
    tch::set_num_threads(1);
    let files = ModelFiles::locate(&ModelOptions {
        model: "toy".into(),
        ..ModelOptions::default()
    })
    .expect("the toy is in the binary");
    let options = LoadOptions {
        device: Device::Cpu,
        kind: Kind::Float,
        vae: None,
    };
    Backbone::load(&files, &options, &mut |_| ()).expect("the toy is whole")
}

fn prompt(backbone: &Backbone) -> BaseWordPrompt {
    BaseWordPrompt::new(backbone, PROMPT, "cat", 64, 64).expect("the prompt holds the word")
}

fn offsets(prompt: &BaseWordPrompt, scale: f64) -> Offsets {
    tch::manual_seed(1);
    let draw = || Tensor::randn(prompt.base_embedding().size(), (Kind::Float, Device::Cpu)) * scale;
    Offsets {
        target_offset: draw(),
        average_offset: draw(),
    }
}

/// Final latents of four steps from seed 3.
fn latents(backbone: &Backbone, guidance: &dyn Guidance) -> Tensor {
    let mut scheduler =
        new_scheduler(SchedulerKind::Euler, &backbone.scheduler_config, 4).expect("four steps");
    let start = backbone.initial_latents(3, 64, 64);
    denoise(backbone, scheduler.as_mut(), &start, guidance, &mut |_| {
        Ok(())
    })
    .expect("finite latents")
    .latents
}

fn cluster(backbone: &Backbone, scale: f64, settings: &GuidanceSettings) -> ClusterGuidance {
    let prompt = prompt(backbone);
    let negative = backbone
        .encode_negative(None, 64, 64)
        .expect("the toy encodes");
    ClusterGuidance::new(&negative, &prompt, &offsets(&prompt, scale), settings)
        .expect("the offsets fit")
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn a_zero_offset_without_exclusion_is_plain_guidance() {
    let backbone = toy();
    let settings = GuidanceSettings {
        eta_1: 7.5,
        eta_2: 0.0,
        guided_steps: (1, 2),
        ..GuidanceSettings::default()
    };
    let guided = latents(&backbone, &cluster(&backbone, 0.0, &settings));
    let negative = backbone
        .encode_negative(None, 64, 64)
        .expect("the toy encodes");
    let plain = latents(
        &backbone,
        &PlainGuidance::new(&negative, &prompt(&backbone).conditioning, 7.5),
    );
    assert_eq!(largest_difference(&guided, &plain), 0.0);
}

#[test]
fn a_zero_semantic_scale_leaves_the_target_offset_out() {
    let backbone = toy();
    let settings = GuidanceSettings {
        semantic_scale: 0.0,
        eta_2: 0.0,
        guided_steps: (1, 4),
        ..GuidanceSettings::default()
    };
    let with_offset = latents(&backbone, &cluster(&backbone, 3.0, &settings));
    let without = latents(&backbone, &cluster(&backbone, 0.0, &settings));
    assert_eq!(largest_difference(&with_offset, &without), 0.0);
}

#[test]
fn exclusion_costs_a_row_on_guided_steps_only() {
    let backbone = toy();
    let rows = |eta_2: f64| {
        let settings = GuidanceSettings {
            eta_2,
            guided_steps: (2, 3),
            ..GuidanceSettings::default()
        };
        let guidance = cluster(&backbone, 1.0, &settings);
        [1, 2, 3, 4].map(|step| guidance.conditioning(step).prompt_embeds.size()[0])
    };
    assert_eq!(rows(1.0), [2, 3, 3, 2]);
    assert_eq!(rows(0.0), [2, 2, 2, 2]);
}

#[test]
fn offset_and_exclusion_change_the_picture() {
    let backbone = toy();
    let at = |scale: f64, eta_2: f64| {
        let settings = GuidanceSettings {
            eta_2,
            guided_steps: (1, 4),
            ..GuidanceSettings::default()
        };
        latents(&backbone, &cluster(&backbone, scale, &settings))
    };
    assert!(largest_difference(&at(1.0, 1.0), &at(1.0, 0.0)) > 1e-2);
    assert!(largest_difference(&at(1.0, 1.0), &at(0.0, 1.0)) > 1e-2);
}

#[test]
fn an_offset_moves_every_occurrence_of_the_word_and_nothing_else() {
    let backbone = toy();
    let prompt = BaseWordPrompt::new(&backbone, "Wow!! a cat, a CAT", "cat", 64, 64)
        .expect("the prompt holds the word");
    let c = &prompt.conditioning.prompt_embeds;
    let offset = Tensor::ones(prompt.base_embedding().size(), (Kind::Float, Device::Cpu));
    let moved = prompt.shifted(&offset.unsqueeze(0)) - c;
    let total = moved.sum(Kind::Float).double_value(&[]);
    assert!((total - 2.0 * c.size()[2] as f64).abs() < 1e-2, "{total}");
}

#[test]
fn semantic_interpolation_ends_at_the_empty_prompt_and_at_the_prompt_to_the_bit() {
    let backbone = toy();
    let encode = |text: &str| {
        backbone
            .encode_prompt(text, 64, 64)
            .expect("the toy encodes")
    };
    let (empty, prompt) = (encode(""), encode(PROMPT));
    for (g, end) in [(0.0, &empty), (1.0, &prompt)] {
        let found = interpolated(&empty, &prompt, g);
        assert_eq!(found.prompt_embeds, end.prompt_embeds, "g {g}");
        assert_eq!(
            found.pooled_prompt_embeds, end.pooled_prompt_embeds,
            "g {g}"
        );
        assert_eq!(found.time_ids, end.time_ids, "g {g}");
    }
    let half = interpolated(&empty, &prompt, 0.5).prompt_embeds;
    let mean = (&empty.prompt_embeds + &prompt.prompt_embeds) / 2.0;
    assert!(largest_difference(&half, &mean) < 1e-6);
}

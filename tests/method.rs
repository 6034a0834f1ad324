//! Properties of the method that must hold for any weights; on the embedded toy model.

mod common;

use std::cell::RefCell;

use common::toy;
use oneactor::backbone::attention_guide::{AttentionGuide, StepPass};
use oneactor::backbone::denoise::denoise;
use oneactor::backbone::guidance::{Guidance, PlainGuidance};
use oneactor::backbone::{Backbone, Conditioning};
use oneactor::libtorch::seeded;
use oneactor::method::actor::Actor;
use oneactor::method::base_set::BaseFacts;
use oneactor::method::base_word::BaseWordPrompt;
use oneactor::method::guidance::{ClusterGuidance, GuidanceSettings, Offsets};
use oneactor::method::interpolation::interpolated;
use oneactor::method::learner::snapshot;
use oneactor::method::projector::{Head, Projector, ProjectorConfig};
use oneactor::method::templates;
use oneactor::models::unet::attention_probe::AttentionMaps;
use oneactor::models::unet::cross_attention::AttentionRequest;
use oneactor::schedulers::{SchedulerKind, new_scheduler};
use tch::{Device, Kind, Tensor};

const PROMPT: &str = "a photo of a cat, at the beach";

fn prompt(backbone: &Backbone) -> BaseWordPrompt {
    BaseWordPrompt::new(backbone, PROMPT, "cat", 64, 64).expect("the prompt holds the word")
}

fn offsets(prompt: &BaseWordPrompt, scale: f64) -> Offsets {
    let _drawing = seeded(1);
    let draw = || Tensor::randn(prompt.base_embedding().size(), (Kind::Float, Device::Cpu)) * scale;
    Offsets {
        target_offset: draw(),
        average_offset: draw(),
    }
}

/// Final latents of four steps from seed 3.
fn latents(backbone: &Backbone, guidance: &dyn Guidance) -> Tensor {
    let mut scheduler =
        new_scheduler(SchedulerKind::Euler, &backbone.scheduler_file, 4).expect("four steps");
    let start = backbone.initial_latents(3, 64, 64);
    denoise(
        backbone,
        scheduler.as_mut(),
        &start,
        guidance,
        None,
        &mut |_| Ok(()),
    )
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
fn a_zero_offset_without_exclusion_equals_plain_guidance() {
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
fn exclusion_costs_one_row_on_guided_steps_only() {
    let backbone = toy();
    let rows = |eta_2: f64| {
        let settings = GuidanceSettings {
            eta_2,
            guided_steps: (2, 3),
            ..GuidanceSettings::default()
        };
        let guidance = cluster(&backbone, 1.0, &settings);
        [1, 2, 3, 4].map(|step| guidance.conditioning(step).rows())
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

const PAIR: &str = "a photo of a cat and a frog";

/// Guidance of two subjects, each confined to its mask.
fn pair(backbone: &Backbone, scale: f64, settings: &GuidanceSettings) -> ClusterGuidance {
    let words = ["cat", "frog"];
    let prompt = BaseWordPrompt::with_words(backbone, PAIR, &words, [64, 64])
        .expect("the prompt holds the words");
    let negative = backbone
        .encode_negative(None, 64, 64)
        .expect("the toy encodes");
    ClusterGuidance::with_regions(
        &negative,
        (&prompt, &[true, true]),
        &offsets(&prompt, scale),
        settings,
    )
    .expect("the offsets fit")
}

/// With masked tokens, every layer sums over the tokens in another order; over four steps this
/// makes a difference of 8e-6.
const OTHER_ORDER: f64 = 1e-4;

#[test]
fn zero_offsets_of_several_subjects_are_plain_guidance() {
    let backbone = toy();
    let settings = GuidanceSettings {
        eta_1: 7.5,
        eta_2: 0.0,
        guided_steps: (2, 3),
        ..GuidanceSettings::default()
    };
    let guided = latents(&backbone, &pair(&backbone, 0.0, &settings));
    let encode = |negative: bool| {
        if negative {
            backbone.encode_negative(None, 64, 64)
        } else {
            backbone.encode_prompt(PAIR, 64, 64)
        }
    };
    let [negative, prompt] = [true, false].map(|n| encode(n).expect("the toy encodes"));
    let plain = latents(&backbone, &PlainGuidance::new(&negative, &prompt, 7.5));
    let difference = largest_difference(&guided, &plain);
    assert!(difference < OTHER_ORDER, "{difference}");
    let moved = latents(&backbone, &pair(&backbone, 1.0, &settings));
    assert!(largest_difference(&moved, &plain) > 1e-2);
}

/// Records what the guidance's attention guide requests in every pass.
struct Observed<'a> {
    guidance: &'a ClusterGuidance,
    requests: RefCell<Vec<Requested>>,
}

#[derive(Debug, PartialEq)]
struct Requested {
    records_maps: bool,
    is_masked: bool,
    /// Whether there were masks at the start of the pass.
    has_masks: bool,
}

struct ObservedGuide<'a> {
    guide: Box<dyn AttentionGuide + 'a>,
    of: &'a Observed<'a>,
}

impl Guidance for Observed<'_> {
    fn conditioning(&self, step: usize) -> &Conditioning {
        self.guidance.conditioning(step)
    }

    fn conditional_row(&self, step: usize) -> usize {
        self.guidance.conditional_row(step)
    }

    fn combine(&self, step: usize, rows: &[Tensor]) -> Tensor {
        self.guidance.combine(step, rows)
    }

    fn attention(&self) -> Option<Box<dyn AttentionGuide + '_>> {
        let guide = self.guidance.attention()?;
        Some(Box::new(ObservedGuide { guide, of: self }))
    }
}

impl AttentionGuide for ObservedGuide<'_> {
    fn request(&mut self, pass: &StepPass) -> AttentionRequest {
        let request = self.guide.request(pass);
        self.of.requests.borrow_mut().push(Requested {
            records_maps: request.probe.is_some(),
            is_masked: request.mask.is_some(),
            has_masks: self.of.guidance.masks().is_some(),
        });
        request
    }

    fn observe(&mut self, step: usize, maps: &[AttentionMaps], latent_size: [i64; 2]) {
        self.guide.observe(step, maps, latent_size);
    }
}

#[test]
fn attention_is_recorded_only_before_guided_steps_and_only_for_several_subjects() {
    let backbone = toy();
    let settings = GuidanceSettings {
        guided_steps: (2, 3),
        ..GuidanceSettings::default()
    };
    let several = pair(&backbone, 1.0, &settings);
    let observed = Observed {
        guidance: &several,
        requests: RefCell::default(),
    };
    let _ = latents(&backbone, &observed);
    let requested = |[records_maps, is_masked, has_masks]: [bool; 3]| Requested {
        records_maps,
        is_masked,
        has_masks,
    };
    let expected = [
        // Step 1 is not guided: no pass for masks comes before it.
        [true, false, false],
        [true, true, true],
        [false, true, true],
        [false, false, true],
    ];
    assert_eq!(observed.requests.into_inner(), expected.map(requested));
    let rows = [1, 2, 3, 4].map(|step| several.conditioning(step).rows());
    assert_eq!(rows, [2, 3, 3, 2], "as many rows as for one subject");
    assert!(cluster(&backbone, 1.0, &settings).attention().is_none());
}

#[test]
fn every_image_of_a_batch_has_masks_of_its_own() {
    let backbone = toy();
    let settings = GuidanceSettings {
        guided_steps: (1, 3),
        ..GuidanceSettings::default()
    };
    let guidance = pair(&backbone, 1.0, &settings);
    let run = |seeds: &[i64]| {
        let start: Vec<Tensor> = seeds
            .iter()
            .map(|&seed| backbone.initial_latents(seed, 64, 64))
            .collect();
        let mut scheduler =
            new_scheduler(SchedulerKind::Euler, &backbone.scheduler_file, 4).expect("four steps");
        let start = Tensor::cat(&start, 0);
        denoise(
            &backbone,
            scheduler.as_mut(),
            &start,
            &guidance,
            None,
            &mut |_| Ok(()),
        )
        .expect("finite latents");
        guidance.masks().expect("there were guided steps")
    };
    let alone = [8, 12].map(|seed| run(&[seed]));
    let together = run(&[8, 12]);
    assert_eq!(together.size(), [2, 2, 16, 16]);
    // A batch may change the last bits, and so move positions across the threshold. The masks of
    // these two pictures differ in 7 % of the positions.
    let share = |a: &Tensor, b: &Tensor| a.ne_tensor(b).to_kind(Kind::Float).mean(Kind::Float);
    let moved = share(&together, &Tensor::cat(&alone, 0)).double_value(&[]);
    assert!(moved <= 0.01, "{moved} of the positions differ");
    let apart = share(&alone[0], &alone[1]).double_value(&[]);
    assert!(apart > 0.03, "only {apart} of the positions differ");
}

#[test]
fn an_actor_of_several_words_gives_offsets_to_the_words_in_the_prompt() {
    let backbone = toy();
    let both = BaseWordPrompt::with_words(&backbone, "a cat, a frog", &["cat", "frog"], [64, 64])
        .expect("the prompt holds the words");
    let width = both.base_embedding().size()[1];
    for head in [Head::AdaIn, Head::LayerNorm] {
        let config = ProjectorConfig {
            feature_shape: [6, 4, 4],
            num_tokens: 2,
            token_width: width,
            head,
        };
        let mut parameters = snapshot(Projector::new(config.clone(), 1, Device::Cpu).parameters());
        let _drawing = seeded(4);
        for value in parameters.values_mut() {
            *value += value.randn_like() * 0.1;
        }
        let actor = Actor {
            facts: BaseFacts {
                prompt: PAIR.into(),
                base_words: vec!["cat".into(), "frog".into()],
                width: 64,
                height: 64,
                model: backbone.facts.clone(),
            },
            kind: templates::SubjectKind::Character,
            target: 0,
            target_image: None,
            base_crc32: None,
            projector: Projector::from_parameters(config, &parameters, Device::Cpu)
                .expect("the same names"),
            encoder_features: Tensor::randn([3, 6, 4, 4], (Kind::Float, Device::Cpu)),
            tokens_of_words: vec![1, 1],
        };
        let of = |words: &[&str]| {
            let prompt = BaseWordPrompt::with_words(&backbone, "a cat, a frog", words, [64, 64]);
            let offsets = actor.offsets(&prompt.expect("the prompt holds the words"));
            offsets.expect("the words are the actor's").target_offset
        };
        let all = of(&["cat", "frog"]);
        assert_eq!(all.size(), [2, width]);
        assert!(largest_difference(&all.get(0), &all.get(1)) > 1e-3);
        assert_eq!(of(&["frog"]), all.narrow(0, 1, 1), "{head:?}");
        assert_eq!(of(&["frog", "cat"]), all.flip([0]), "{head:?}");
        // An actor ignores the words of other actors in the prompt.
        assert_eq!(of(&["a", "cat"]), all.narrow(0, 0, 1), "{head:?}");
    }
}

#[test]
fn each_of_several_offsets_moves_its_own_word() {
    let backbone = toy();
    let of = |words: &[&str]| {
        BaseWordPrompt::with_words(&backbone, "a cat, a frog, a cat", words, [64, 64])
            .expect("the prompt holds the words")
    };
    let (both, cat, frog) = (of(&["frog", "cat"]), of(&["cat"]), of(&["frog"]));
    let c_b = Tensor::cat(&[frog.base_embedding(), cat.base_embedding()], 0);
    assert_eq!(both.base_embedding(), c_b);
    let offset = Tensor::randn(c_b.size(), (Kind::Float, Device::Cpu))
        .unsqueeze(0)
        .set_requires_grad(true);
    let c = &both.conditioning.prompt_embeds;
    let moved = both.shifted(&offset);
    let one_by_one =
        frog.shifted(&offset.narrow(1, 0, 1)) + cat.shifted(&offset.narrow(1, 1, 1)) - c;
    // Adding c and subtracting it again rounds.
    assert!(largest_difference(&moved, &one_by_one) < 1e-5);
    moved.sum(Kind::Float).backward();
    let times = Tensor::from_slice(&[1f32, 2.0]).view([1, 2, 1]);
    assert_eq!(
        largest_difference(&offset.grad(), &times.expand_as(&offset)),
        0.0
    );
}

#[test]
fn semantic_interpolation_at_0_and_1_equals_the_empty_prompt_and_the_prompt() {
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
        let [found, end] = [&found, end].map(|c| c.added.as_ref().expect("the toy is SDXL"));
        assert_eq!(found.text_embeds, end.text_embeds, "g {g}");
        assert_eq!(found.time_ids, end.time_ids, "g {g}");
    }
    let half = interpolated(&empty, &prompt, 0.5).prompt_embeds;
    let mean = (&empty.prompt_embeds + &prompt.prompt_embeds) / 2.0;
    assert!(largest_difference(&half, &mean) < 1e-6);
}

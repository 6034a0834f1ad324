//! ConsiStory's shared self-attention, compared with an attention processor in Python written from
//! the paper's formulas (`scripts/parity/expected_consistory.py`), and properties that must hold.

use crate::common::{Expected, Report, SHAPES, backbone, json};
use oneactor::backbone::denoise::denoise;
use oneactor::backbone::unet_pass::UnetPass;
use oneactor::backbone::{Backbone, Conditioning};
use oneactor::baselines::consistory::{Anchors, SharedGuidance};
use oneactor::method::base_word::BaseWordPrompt;
use oneactor::models::unet::cross_attention::AttentionRequest;
use oneactor::models::unet::shared_attention::{AttentionSharing, Queries, SharedPositions};
use oneactor::models::unet::unet_2d_condition::AddedConditions;
use oneactor::schedulers::new_scheduler;
use serde::Deserialize;
use tch::{Kind, Tensor};

/// Bar of the networks for one pass: sharing makes sums longer, but not less exact.
const PASS: f64 = crate::bars::NETWORK;
/// Bar for final latents: as for plain guided runs, see bars.rs. Maps differ by rounding, and a
/// position near the threshold may fall on the other side; this happens nowhere in these runs.
const LATENTS: f64 = crate::bars::LATENTS;

/// The pass of the fixtures: two rows of three images.
struct Pass {
    backbone: Backbone,
    expected: Expected,
    conditioning: Conditioning,
}

impl Pass {
    fn of(shape: &str) -> Pass {
        let expected = Expected::read(&format!("{shape}/expected/consistory_pass.safetensors"));
        let get = |name: &str| expected.get(name);
        let conditioning = Conditioning {
            image: None,
            prompt_embeds: get("encoder_hidden_states"),
            added: expected.has("text_embeds").then(|| AddedConditions {
                text_embeds: get("text_embeds"),
                time_ids: get("time_ids"),
            }),
        };
        Pass {
            backbone: backbone(shape),
            conditioning,
            expected,
        }
    }

    /// The prediction, and the queries that a vanilla pass has stored.
    fn predict(&self, sharing: Option<AttentionSharing>) -> (Tensor, Queries) {
        let get = |name: &str| self.expected.get(name);
        predict(
            &self.backbone,
            (&get("sample"), &get("timesteps")),
            &self.conditioning,
            sharing,
        )
    }

    fn shared(&self, vanilla: Option<(Queries, f64)>) -> AttentionSharing {
        let get = |name: &str| self.expected.get(name);
        AttentionSharing::Shared {
            positions: SharedPositions::new(&get("subjects"), &get("kept"), 2),
            vanilla,
        }
    }
}

fn predict(
    backbone: &Backbone,
    (sample, timesteps): (&Tensor, &Tensor),
    conditioning: &Conditioning,
    sharing: Option<AttentionSharing>,
) -> (Tensor, Queries) {
    let pass = UnetPass::new(sample, timesteps, conditioning);
    let request = AttentionRequest {
        sharing,
        ..AttentionRequest::default()
    };
    let (noise_pred, attention) = tch::no_grad(|| backbone.predict_attending(pass, request));
    (noise_pred, attention.queries)
}

#[test]
fn a_pass_shares_keys_and_blends_queries_as_the_formulas_say() {
    for shape in SHAPES {
        let pass = Pass::of(shape);
        let mut report = Report::new(&format!("shared self-attention on {shape}"));
        let (vanilla, kept) = pass.predict(Some(AttentionSharing::vanilla()));
        let (shared, _) = pass.predict(Some(pass.shared(None)));
        let (blended, _) = pass.predict(Some(pass.shared(Some((kept, 0.85)))));
        for (name, found) in [
            ("vanilla", vanilla),
            ("shared", shared),
            ("blended", blended),
        ] {
            report.close(name, &found, &pass.expected.get(name), PASS);
        }
        report.finish();
    }
}

#[test]
fn without_anything_to_share_a_pass_equals_the_plain_one() {
    for shape in SHAPES {
        let pass = Pass::of(shape);
        let mut report = Report::new(&format!("nothing shared on {shape}"));
        let (plain, _) = pass.predict(None);
        let (vanilla, kept) = pass.predict(Some(AttentionSharing::vanilla()));
        report.check(vanilla == plain, || "a vanilla pass differs".to_owned());

        // With masks of zeros, an image sees only its own keys, and its queries are blended with
        // themselves.
        let (subjects, kept_positions) = (pass.expected.get("subjects"), pass.expected.get("kept"));
        for (name, subjects, positions) in [
            (
                "no subject",
                subjects.zeros_like(),
                kept_positions.ones_like(),
            ),
            (
                "all dropped",
                subjects.ones_like(),
                kept_positions.zeros_like(),
            ),
        ] {
            let none = AttentionSharing::Shared {
                positions: SharedPositions::new(&subjects, &positions, 2),
                vanilla: None,
            };
            let (found, _) = pass.predict(Some(none));
            report.close(name, &found, &plain, PASS);
        }
        let blended = AttentionSharing::Shared {
            positions: SharedPositions::new(&subjects.zeros_like(), &kept_positions, 2),
            vanilla: Some((kept, 0.9)),
        };
        let (found, _) = pass.predict(Some(blended));
        report.close("blended with the same", &found, &plain, PASS);

        // With the fixture's masks the pass must differ; otherwise this test would check nothing.
        let (shared, _) = pass.predict(Some(pass.shared(None)));
        let gap = crate::common::difference(&shared, &plain).l2;
        report.check(gap > 1e-3, || format!("sharing changes {gap} only"));
        report.finish();
    }
}

#[derive(Deserialize)]
struct Run {
    prompt: String,
    anchor_prompt: String,
    word: String,
    seeds: Vec<i64>,
    anchor_seeds: Vec<i64>,
    height: i64,
    width: i64,
    steps: usize,
    guidance_scale: f64,
}

fn noise(backbone: &Backbone, run: &Run, seeds: &[i64]) -> Tensor {
    let noise = |&seed: &i64| backbone.initial_latents(seed, run.height, run.width);
    Tensor::cat(&seeds.iter().map(noise).collect::<Vec<_>>(), 0)
}

fn guidance(backbone: &Backbone, run: &Run) -> SharedGuidance {
    let size = [run.height, run.width];
    let prompt = backbone
        .encode_prompt(&run.prompt, run.height, run.width)
        .expect("a short prompt");
    let negative = backbone
        .encode_negative(None, run.height, run.width)
        .expect("no prompt");
    let anchors = Anchors {
        latents: noise(backbone, run, &run.anchor_seeds),
        prompt: BaseWordPrompt::with_words(backbone, &run.anchor_prompt, &[&run.word], size)
            .expect("the word is there"),
    };
    SharedGuidance::new(&negative, &prompt, anchors, run.guidance_scale)
}

/// Final latents of pictures that are drawn together.
fn latents(backbone: &Backbone, run: &Run, guidance: &SharedGuidance, seeds: &[i64]) -> Tensor {
    let kind = backbone.scheduler_file.own_kind().expect("a known class");
    let mut scheduler = new_scheduler(kind, &backbone.scheduler_file, run.steps).expect("steps");
    let initial = noise(backbone, run, seeds);
    let denoised = denoise(
        backbone,
        scheduler.as_mut(),
        &initial,
        guidance,
        None,
        &mut |_| Ok(()),
    );
    denoised.expect("finite latents").latents
}

#[test]
fn pictures_depend_on_two_anchors_and_on_nothing_else_in_their_batch() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let expected = Expected::read(&format!("{shape}/expected/consistory.safetensors"));
        let runs = json::<Vec<Run>>(&format!("{shape}/expected/consistory.json"));
        let mut report = Report::new(&format!("pictures beside anchors on {shape}"));
        for (i, run) in runs.iter().enumerate() {
            let guidance = guidance(&backbone, run);
            let wanted = expected.get(&format!("{i}.latents"));
            let together = latents(&backbone, run, &guidance, &run.seeds);
            report.close(&format!("run {i}"), &together, &wanted, LATENTS);
            // One picture alone, with what the guidance stored in the run before.
            let last = run.seeds.len() - 1;
            let alone = latents(&backbone, run, &guidance, &run.seeds[last..]);
            let wanted = wanted.narrow(0, last as i64, 1);
            report.close(&format!("run {i} alone"), &alone, &wanted, LATENTS);
        }
        report.finish();
    }
}

#[test]
fn a_picture_that_is_the_only_anchor_depends_only_on_itself() {
    let mut pass = Pass::of("narrow");
    let one = |name: &str| pass.expected.get(name).narrow(0, 0, 1);
    let added = pass.conditioning.added.as_ref().expect("SDXL's kind");
    pass.conditioning = Conditioning {
        image: None,
        prompt_embeds: pass.conditioning.prompt_embeds.narrow(0, 0, 1),
        added: Some(added.map(|t| t.narrow(0, 0, 1))),
    };
    let predict = |sharing| {
        let (sample, timesteps) = (one("sample"), one("timesteps"));
        predict(
            &pass.backbone,
            (&sample, &timesteps),
            &pass.conditioning,
            sharing,
        )
        .0
    };
    let subject = Tensor::ones([1, 9, 13], (Kind::Float, tch::Device::Cpu));
    let positions = SharedPositions::new(&subject, &subject.zeros_like().unsqueeze(0), 1);
    let mut report = Report::new("a picture alone");
    let plain = predict(None);
    let found = predict(Some(AttentionSharing::Shared {
        positions,
        vanilla: None,
    }));
    report.close("noise_pred", &found, &plain, PASS);
    report.finish();
}

//! The approximations, compared with Python written around diffusers' U-Net
//! (`scripts/parity/expected_shortcuts.py`).

use crate::bars::LATENTS;
use crate::common::{Expected, Report, SHAPES, backbone, json, latents};
use oneactor::backbone::guidance::{Guidance, PlainGuidance};
use oneactor::backbone::shortcuts::{Shortcuts, ShortenedGuidance};
use oneactor::method::base_word::BaseWordPrompt;
use oneactor::method::guidance::{ClusterGuidance, GuidanceSettings, Offsets};
use serde::Deserialize;

const STEPS: usize = 12;

#[derive(Deserialize)]
struct Run {
    prompt: String,
    base: String,
    height: i64,
    width: i64,
    seed: i64,
    guidance_scale: f64,
    eta_1: f64,
    eta_2: f64,
    semantic_scale: f64,
    guided_steps: Option<(usize, usize)>,
    guidance_interval: Option<(usize, usize)>,
    feature_reuse: usize,
}

#[test]
fn runs_with_approximations_equal_those_of_python() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let runs: Vec<Run> = json(&format!("{shape}/expected/shortcuts.json"));
        assert_eq!(runs.len(), 6, "{shape}: as the script writes");
        let expected = Expected::read(&format!("{shape}/expected/shortcuts.safetensors"));
        let offsets = Offsets {
            target_offset: expected.get("target_offset"),
            average_offset: expected.get("average_offset"),
        };
        let mut report = Report::new(&format!("shortcuts on {shape}"));
        for (i, run) in runs.iter().enumerate() {
            let negative = backbone
                .encode_negative(None, run.height, run.width)
                .expect("no prompt");
            let prompt =
                BaseWordPrompt::new(&backbone, &run.prompt, &run.base, run.height, run.width)
                    .expect("the word is there");
            let guidance: Box<dyn Guidance> = match run.guided_steps {
                None => {
                    let plain = &prompt.conditioning;
                    Box::new(PlainGuidance::new(&negative, plain, run.guidance_scale))
                }
                Some(guided_steps) => {
                    let settings = GuidanceSettings {
                        eta_1: run.eta_1,
                        eta_2: run.eta_2,
                        semantic_scale: run.semantic_scale,
                        guidance_scale: run.guidance_scale,
                        guided_steps,
                        ..GuidanceSettings::default()
                    };
                    let cluster = ClusterGuidance::new(&negative, &prompt, &offsets, &settings);
                    Box::new(cluster.expect("offsets of the prompt's shape"))
                }
            };
            let shortcuts = Shortcuts {
                guidance_interval: run.guidance_interval,
                feature_reuse: run.feature_reuse,
            };
            let guidance = ShortenedGuidance::new(guidance.as_ref(), shortcuts, STEPS);
            let size = [run.height, run.width];
            let latents = latents(&backbone, &guidance, STEPS, (run.seed, size));
            report.close(
                &format!("run {i}"),
                &latents,
                &expected.get(&i.to_string()),
                LATENTS,
            );
        }
        report.finish();
    }
}

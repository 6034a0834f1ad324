//! A photo as the target, and semantic interpolation, compared with Python written around
//! diffusers' pipeline (`scripts/parity/expected_experiments.py`).

use crate::bars::{LATENTS, NETWORK};
use crate::common::{Expected, Report, SHAPES, backbone, json, latents};
use oneactor::backbone::guidance::PlainGuidance;
use oneactor::method::base_set::{BaseFacts, BaseSet};
use oneactor::method::interpolation::interpolated;
use oneactor::method::target::with_photo;
use oneactor::schedulers::new_scheduler;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

#[derive(Deserialize)]
struct Experiments {
    photo: PhotoRun,
    interpolations: Vec<Run>,
}

#[derive(Deserialize)]
struct PhotoRun {
    prompt: String,
    height: i64,
    width: i64,
    seed: i64,
    steps: usize,
    timestep: i64,
}

#[derive(Deserialize)]
struct Run {
    prompt: String,
    height: i64,
    width: i64,
    seed: i64,
    guidance_scale: f64,
    steps: usize,
    semantic_interpolation: f64,
}

#[test]
fn latents_and_features_of_a_photo_are_those_of_diffusers() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let Experiments { photo, .. } = json(&format!("{shape}/expected/experiments.json"));
        let expected = Expected::read(&format!("{shape}/expected/experiments.safetensors"));
        let kind = backbone.scheduler_file.own_kind().expect("a known class");
        let scheduler = new_scheduler(kind, &backbone.scheduler_file, photo.steps)
            .expect("a number of steps that all have");
        let last = scheduler
            .timesteps()
            .last()
            .expect("there are steps")
            .round();
        assert_eq!(last as i64, photo.timestep, "{shape}");

        let h = expected.get("photo.encoder_features");
        let latents = expected.get("photo.latents");
        let zeros = |like: &Tensor| Tensor::zeros(like.size(), (Kind::Float, Device::Cpu));
        let base = BaseSet {
            facts: BaseFacts {
                prompt: photo.prompt,
                base_words: vec!["unused".into()],
                width: photo.width,
                height: photo.height,
                model: backbone.facts.clone(),
            },
            latents: zeros(&latents),
            encoder_features: zeros(&h),
            seeds: vec![4],
        };
        let image = expected.get("photo.image");
        let joined = with_photo(&backbone, &base, &image, photo.timestep, photo.seed)
            .expect("finite values");
        assert_eq!(joined.seeds, [4, -1]);
        let mut report = Report::new(&format!("photo on {shape}"));
        report.close(
            "latents",
            &joined.latents.narrow(0, 1, 1),
            &latents,
            NETWORK,
        );
        report.close("h", &joined.encoder_features.narrow(0, 1, 1), &h, NETWORK);
        report.check(
            joined.latents.get(0).abs().max().double_value(&[]) == 0.0,
            || "the base image's latents have changed".into(),
        );
        report.finish();
    }
}

#[test]
fn semantic_interpolation_is_that_of_python() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let Experiments { interpolations, .. } =
            json(&format!("{shape}/expected/experiments.json"));
        let expected = Expected::read(&format!("{shape}/expected/experiments.safetensors"));
        let mut report = Report::new(&format!("semantic interpolation on {shape}"));
        for (i, run) in interpolations.iter().enumerate() {
            let encode = |text: &str| {
                backbone
                    .encode_prompt(text, run.height, run.width)
                    .expect("the tokenizer works")
            };
            let prompt = interpolated(
                &encode(""),
                &encode(&run.prompt),
                run.semantic_interpolation,
            );
            let negative = backbone
                .encode_negative(None, run.height, run.width)
                .expect("no prompt");
            let guidance = PlainGuidance::new(&negative, &prompt, run.guidance_scale);
            let size = [run.height, run.width];
            let latents = latents(&backbone, &guidance, run.steps, (run.seed, size));
            report.close(
                &format!("run {i}"),
                &latents,
                &expected.get(&format!("{i}.latents")),
                LATENTS,
            );
        }
        report.finish();
    }
}

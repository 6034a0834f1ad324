//! Model folders from other programs, compared with diffusers and transformers on the same folders:
//! saved by transformers 5 after textual inversion, with whole weights beside shards, with settings
//! of processors; see `scripts/parity/expected_folders.py`.

use crate::bars::NETWORK;
use crate::common::{Expected, Report, backbone, fixture, json, latents};
use oneactor::backbone::guidance::PlainGuidance;
use oneactor::io::model_files::{ModelFiles, ModelOptions};
use oneactor::measures::encoder::{ClipEncoder, ImageEncoder};
use oneactor::models::vision::clip_image_encoder::ClipImageEncoder;
use oneactor::models::vision::encoder_folder::EncoderFolder;
use oneactor::models::vision::sam::processor::SamProcessor;
use oneactor::pictures::photo::{Transparency, read_picture};
use serde::Deserialize;
use tch::{Device, Kind};

/// Bar of latents after six steps: the bar of one network.
const LATENTS: f64 = 1e-5;

#[derive(Deserialize)]
struct Run {
    prompt: String,
    negative_prompt: String,
    height: i64,
    width: i64,
    seed: i64,
    guidance_scale: f64,
    steps: usize,
}

/// Draws with the model in a folder, and compares with the picture of diffusers.
fn draw(name: &str) {
    let run: Run = json(&format!("folders/{name}/run.json"));
    let expected = Expected::read(&format!("folders/{name}/expected.safetensors"));
    let mut report = Report::new(name);
    let backbone = backbone(&format!("folders/{name}"));
    let encode = |prompt: &str| backbone.encode_prompt(prompt, run.height, run.width);
    let prompt = encode(&run.prompt).expect("a short prompt");
    let negative = encode(&run.negative_prompt).expect("a short prompt");
    for (kind, found) in [
        ("prompt_embeds", &prompt),
        ("negative_prompt_embeds", &negative),
    ] {
        report.close(kind, &found.prompt_embeds, &expected.get(kind), NETWORK);
        let pooled = kind.replace("prompt", "pooled_prompt");
        let found = found.added.as_ref().expect("it is an SDXL");
        report.close(&pooled, &found.text_embeds, &expected.get(&pooled), NETWORK);
    }
    let guidance = PlainGuidance::new(&negative, &prompt, run.guidance_scale);
    let size = [run.height, run.width];
    let drawn = latents(&backbone, &guidance, run.steps, (run.seed, size));
    report.close("latents", &drawn, &expected.get("latents"), LATENTS);
    let picture = backbone.decode(&drawn).expect("a finite picture");
    report.close("picture", &picture, &expected.get("picture"), LATENTS);
    report.finish();
}

#[test]
fn a_pipeline_saved_after_textual_inversion_draws_the_learnt_word() {
    draw("learnt");
}

#[test]
fn beside_shards_the_same_weights_are_used_as_by_the_reference() {
    draw("both");
}

fn files(name: &str) -> ModelFiles {
    let folder = fixture(&format!("folders/{name}"));
    ModelFiles::locate(&ModelOptions {
        model: folder
            .to_str()
            .expect("fixtures have plain names")
            .to_owned(),
        ..ModelOptions::default()
    })
    .expect("a whole folder")
}

#[test]
fn a_clip_saved_by_transformers_5_measures_with_its_own_settings_and_learnt_word() {
    let files = files("clip");
    let clip = ClipEncoder::load(&files, Device::Cpu).expect("transformers loads it");
    assert_eq!(files.take_notes(), [""; 0]);
    let expected = Expected::read("folders/clip/expected.safetensors");
    let picture = fixture("evaluate/pictures/0.png");
    let picture = read_picture(&picture, Transparency::Dropped)
        .expect("a picture")
        .picture;
    let mut report = Report::new("clip");
    let found = clip.processor().pixel_values(&picture);
    report.close("pixel_values", &found, &expected.get("pixel_values"), 1e-6);
    let embeds = expected.get("image_embeds");
    let found = clip.image_embeds(std::slice::from_ref(&picture));
    report.close("image_embeds", &found, &embeds, NETWORK);
    let folder = EncoderFolder {
        files: &files,
        path: "",
    };
    let prompting = ClipImageEncoder::load(&folder, (Device::Cpu, Kind::Float));
    let found = prompting.expect("its vision half").image_embeds(&picture);
    report.close("image_embeds for an IP-Adapter", &found, &embeds, NETWORK);
    let texts: Vec<String> = json("folders/clip/texts.json");
    let embeds = expected.get("text_embeds");
    for (i, text) in (0..).zip(&texts) {
        let (found, _) = clip.text_embeds(text).expect("a short text");
        report.close(text, &found, &embeds.narrow(0, i, 1), NETWORK);
    }
    report.finish();
}

#[test]
fn a_sam_saved_by_transformers_5_sees_pictures_with_its_own_settings() {
    let files = files("sam");
    let folder = EncoderFolder {
        files: &files,
        path: "",
    };
    let processor = folder.required_processor(SamProcessor::read);
    let picture = fixture("evaluate/pictures/0.png");
    let picture = read_picture(&picture, Transparency::Dropped)
        .expect("a picture")
        .picture;
    let (found, _) = processor
        .expect("it is one of a SAM")
        .pixel_values(&picture);
    let expected = Expected::read("folders/sam/expected.safetensors").get("pixel_values");
    let mut report = Report::new("sam");
    report.close("pixel_values", &found, &expected, 1e-6);
    report.finish();
}

//! IP-Adapter (arXiv 2308.06721), compared with diffusers' loader and pipelines: image embeddings,
//! tokens, the U-Net with another picture in every row, and whole guided runs
//! (`scripts/parity/expected_ip_adapter.py`).

use std::rc::Rc;

use crate::bars::{LATENTS, NETWORK};
use crate::common::{Expected, Report, SHAPES, backbone, fixture, json};
use image::RgbImage;
use oneactor::backbone::controlnet::{Control, ControlNet, ControlSettings};
use oneactor::backbone::denoise::denoise;
use oneactor::backbone::guidance::PlainGuidance;
use oneactor::backbone::step_rows::StepRows;
use oneactor::backbone::unet_pass::UnetPass;
use oneactor::backbone::{Backbone, Conditioning};
use oneactor::baselines::ip_adapter::{ImageSource, IpAdapter};
use oneactor::io::ip_adapter::{IpAdapterFiles, SDXL, STABLE_DIFFUSION};
use oneactor::io::model_files::{ModelFiles, ModelOptions};
use oneactor::models::unet::unet_2d_condition::AddedConditions;
use oneactor::models::vision::clip_image_encoder::ClipImageEncoder;
use oneactor::models::vision::encoder_folder::EncoderFolder;
use oneactor::pictures::photo::{Transparency, read_picture};
use oneactor::schedulers::new_scheduler;
use serde::Deserialize;
use tch::{Device, Kind, Tensor, no_grad};

/// λ in the fixture's call of the U-Net.
const UNET_SCALE: f64 = 0.7;
const STEPS: usize = 30;

#[derive(Deserialize)]
struct Run {
    prompt: String,
    negative_prompt: Option<String>,
    height: i64,
    width: i64,
    seed: i64,
    guidance_scale: f64,
    scale: f64,
    picture: usize,
}

fn find(name: &str) -> anyhow::Result<ModelFiles> {
    ModelFiles::locate(&ModelOptions {
        model: name.to_owned(),
        ..ModelOptions::default()
    })
}

/// The adapter of a checkpoint, in a folder with the layout of the authors' repository.
fn files(shape: &str) -> IpAdapterFiles {
    let folder = fixture(&format!("{shape}/ip_adapter"));
    let layout = if shape.starts_with("sd") {
        STABLE_DIFFUSION
    } else {
        SDXL
    };
    let name = folder.to_str().expect("fixtures have plain names");
    IpAdapterFiles::locate(Some(name), None, (shape, layout), &find).expect("both are there")
}

fn picture(shape: &str, number: usize) -> RgbImage {
    let path = fixture(&format!("{shape}/ip_adapter/pictures/{number}.png"));
    let read = read_picture(&path, Transparency::Dropped);
    read.expect("fixtures are whole").picture
}

fn adapter(shape: &str, backbone: &Backbone, number: usize, scale: f64) -> IpAdapter {
    let source = ImageSource {
        files: &files(shape),
        picture: &picture(shape, number),
        scale,
    };
    IpAdapter::load(&source, backbone).expect("it was made for this model")
}

/// Rows of the fixture's call, starting at `first`.
fn rows(expected: &Expected, first: i64, count: i64) -> Conditioning {
    let get = |name: &str| expected.get(name).narrow(0, first, count);
    Conditioning {
        prompt_embeds: get("encoder_hidden_states"),
        added: expected.has("text_embeds").then(|| AddedConditions {
            text_embeds: get("text_embeds"),
            time_ids: get("time_ids"),
        }),
        image: None,
    }
}

fn tokens(conditioning: &Conditioning) -> &Tensor {
    let image = conditioning.image.as_ref();
    &image.expect("it was given a picture").tokens
}

#[test]
fn pictures_become_the_embeddings_and_tokens_of_diffusers() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let expected = Expected::read(&format!("{shape}/expected/ip_adapter.safetensors"));
        let mut report = Report::new(&format!("image prompts of {shape}"));
        let files = files(shape);
        let (encoder, path) = files.encoder();
        let folder = EncoderFolder {
            files: encoder,
            path,
        };
        let encoder = ClipImageEncoder::load(&folder, (Device::Cpu, Kind::Float))
            .expect("fixtures are whole");
        for number in [0, 1] {
            let name = format!("image_embeds.{number}");
            let found = encoder.image_embeds(&picture(shape, number));
            report.close(&name, &found, &expected.get(&name), NETWORK);
            let adapter = adapter(shape, &backbone, number, 1.0);
            let row = rows(&expected, 0, 1);
            for (name, found) in [
                (format!("tokens.{number}"), adapter.with_picture(&row)),
                ("tokens.none".to_owned(), adapter.without_picture(&row)),
            ] {
                report.close(&name, tokens(&found), &expected.get(&name), NETWORK);
            }
        }
        report.finish();
    }
}

#[test]
fn the_unet_reads_another_picture_in_every_row_as_in_diffusers() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let expected = Expected::read(&format!("{shape}/expected/ip_adapter.safetensors"));
        let adapters = [0, 1].map(|number| adapter(shape, &backbone, number, UNET_SCALE));
        let conditioning = Conditioning::cat(&[
            &adapters[0].without_picture(&rows(&expected, 0, 1)),
            &adapters[0].with_picture(&rows(&expected, 1, 1)),
            &adapters[1].with_picture(&rows(&expected, 2, 1)),
        ]);
        let mut report = Report::new(&format!("U-Net of {shape} with image prompts"));
        let (sample, timesteps) = (expected.get("sample"), expected.get("timesteps"));
        let mut check = |what: &str, pass: UnetPass| {
            let (h, noise_pred) = no_grad(|| {
                let encoded = backbone.unet_encode(&pass);
                let h = encoded.h.copy();
                (h, backbone.unet_decode(encoded, &pass, false).0)
            });
            report.close(&format!("{what} h"), &h, &expected.get("h"), NETWORK);
            let name = format!("{what} noise_pred");
            report.close(&name, &noise_pred, &expected.get("noise_pred"), NETWORK);
        };
        check(
            "one pass",
            UnetPass::new(&sample, &timesteps, &conditioning),
        );
        // Twice with the keys and values that layers keep for the next pass. Unlike the rows of a
        // picture, the rows of this call have different latents.
        let rows = StepRows::new(&conditioning, 1, &Rc::default());
        let mut pass = rows.pass(&sample, &timesteps);
        pass.text.shared_rows = None;
        check("first pass of several", pass);
        check("second pass of several", pass);
        report.finish();
    }
}

/// A ControlNet draws beside the U-Net; it does not read the image prompt.
fn control(shape: &str, backbone: &Backbone, picture: &Tensor) -> Control {
    let net = find(
        fixture(&format!("{shape}/controlnet"))
            .to_str()
            .expect("plain"),
    )
    .expect("whole");
    let net = ControlNet::load(&net, backbone).expect("it was made for this model");
    let mut control = Control::new(ControlSettings {
        guess_mode: false,
        start: 0.0,
        end: 1.0,
    });
    let levels = picture.permute([2, 0, 1]).unsqueeze(0).to_kind(Kind::Float) / 255.0;
    control.add(Rc::new(net), &levels, 1.0);
    control
}

#[test]
fn guided_runs_with_a_picture_end_in_the_latents_of_diffusers() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let runs: Vec<Run> = json(&format!("{shape}/expected/ip_adapter.json"));
        let expected = Expected::read(&format!("{shape}/expected/ip_adapter.safetensors"));
        let mut report = Report::new(&format!("runs of {shape} with an image prompt"));
        for (i, run) in runs.iter().enumerate() {
            let (height, width) = (run.height, run.width);
            let adapter = adapter(shape, &backbone, run.picture, run.scale);
            let prompt = backbone.encode_prompt(&run.prompt, height, width);
            let negative = backbone.encode_negative(run.negative_prompt.as_deref(), height, width);
            let guidance = PlainGuidance::new(
                &adapter.without_picture(&negative.expect("a short prompt")),
                &adapter.with_picture(&prompt.expect("a short prompt")),
                run.guidance_scale,
            );
            let seen = format!("{i}.control");
            let control = expected
                .has(&seen)
                .then(|| control(shape, &backbone, &expected.get(&seen)));
            let kind = backbone.scheduler_file.own_kind().expect("a known class");
            let mut scheduler =
                new_scheduler(kind, &backbone.scheduler_file, STEPS).expect("30 steps");
            let drawn = denoise(
                &backbone,
                scheduler.as_mut(),
                &backbone.initial_latents(run.seed, height, width),
                &guidance,
                control.as_ref(),
                &mut |_| Ok(()),
            )
            .expect("finite latents");
            let name = format!("{i}.latents");
            report.close(&name, &drawn.latents, &expected.get(&name), LATENTS);
        }
        report.finish();
    }
}

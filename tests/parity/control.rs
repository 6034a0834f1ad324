//! ControlNets, compared with Python diffusers: the networks alone, the U-Net with their residuals,
//! whole guided runs, and Eq. (19) with a ControlNet (`scripts/parity/expected_control.py`).

use std::rc::Rc;

use crate::bars::{LATENTS, NETWORK};
use crate::common::{Expected, Report, SHAPES, backbone, config_file, fixture, json};
use image::RgbImage;
use oneactor::backbone::Backbone;
use oneactor::backbone::controlnet::{Control, ControlNet, ControlSettings};
use oneactor::backbone::denoise::denoise;
use oneactor::backbone::guidance::{Guidance, PlainGuidance};
use oneactor::io::blob::Blob;
use oneactor::io::model_files::{ModelFiles, ModelOptions};
use oneactor::io::weights::Weights;
use oneactor::method::base_word::BaseWordPrompt;
use oneactor::method::guidance::{ClusterGuidance, GuidanceSettings, Offsets};
use oneactor::models::unet::controlnet::{ControlNetConfig, ControlNetModel, Residuals};
use oneactor::models::unet::unet_2d_condition::{
    AddedConditions, UNet2DConditionConfig, UNet2DConditionModel,
};
use oneactor::pictures::resize::resize;
use oneactor::schedulers::new_scheduler;
use serde::Deserialize;
use tch::{Device, Kind, Tensor, no_grad};

fn controlnet(folder: &str) -> ControlNetModel {
    let config = ControlNetConfig::read(&config_file(&format!("{folder}/config.json")))
        .expect("diffusers wrote it");
    let file = format!("{folder}/diffusion_pytorch_model.safetensors");
    let weights = Weights::open(&[Blob::File(fixture(&file))], Device::Cpu, Kind::Float)
        .expect("fixtures are whole");
    let model = ControlNetModel::new(&weights.root(), &config).expect("diffusers wrote it");
    weights
        .finish()
        .expect("names and shapes are those of diffusers");
    model
}

/// The pooled embedding of the text and the sizes, if the fixture has them.
fn added(expected: &Expected) -> Option<AddedConditions> {
    expected.has("text_embeds").then(|| AddedConditions {
        text_embeds: expected.get("text_embeds"),
        time_ids: expected.get("time_ids"),
    })
}

/// One pass over the inputs of a fixture.
fn residuals(net: &ControlNetModel, expected: &Expected) -> Residuals {
    let get = |name: &str| expected.get(name);
    no_grad(|| {
        net.forward(
            &get("sample"),
            &get("timesteps"),
            &get("encoder_hidden_states"),
            added(expected).as_ref(),
            &net.embed(&get("image")),
        )
    })
}

#[test]
fn a_controlnet_gives_the_residuals_of_diffusers() {
    let of_shape = |shape| ["controlnet", "controlnet_small"].map(|name| (shape, name));
    for (shape, name) in SHAPES.into_iter().flat_map(of_shape) {
        let expected = Expected::read(&format!("{shape}/expected/{name}.safetensors"));
        let folder = format!("{shape}/{name}");
        let found = residuals(&controlnet(&folder), &expected);
        let mut report = Report::new(&folder);
        for (mode, scale, guess) in [
            ("plain", 1.0, false),
            ("scaled", 0.35, false),
            ("guess", 0.7, true),
        ] {
            let known = expected.below(&format!("{mode}."));
            let scaled = found.scaled(scale, guess);
            report.check(known.len() == scaled.skips.len() + 1, || {
                "number of residuals".into()
            });
            for (i, skip) in scaled.skips.iter().enumerate() {
                let name = format!("{mode}.{i}");
                report.close(&name, skip, &expected.get(&name), NETWORK);
            }
            let name = format!("{mode}.middle");
            report.close(&name, &scaled.middle, &expected.get(&name), NETWORK);
        }
        report.finish();
    }
}

#[test]
fn the_unet_with_residuals_predicts_as_in_diffusers_and_h_stays_the_same() {
    for shape in SHAPES {
        let config =
            UNet2DConditionConfig::read(&config_file(&format!("{shape}/unet/config.json")))
                .expect("known config");
        let file = format!("{shape}/unet/diffusion_pytorch_model.safetensors");
        let weights = Weights::open(&[Blob::File(fixture(&file))], Device::Cpu, Kind::Float)
            .expect("fixtures are whole");
        let unet = UNet2DConditionModel::new(&weights.root(), &config).expect("a known config");
        for name in ["controlnet", "controlnet_small"] {
            let given = Expected::read(&format!("{shape}/expected/{name}.safetensors"));
            let expected = Expected::read(&format!("{shape}/expected/{name}_unet.safetensors"));
            let text = given.get("encoder_hidden_states");
            let (sample, timesteps) = (given.get("sample"), given.get("timesteps"));
            let pass = |parts: &[Residuals]| {
                no_grad(|| {
                    let mut encoded =
                        unet.encode(&sample, &timesteps, &text, added(&given).as_ref());
                    parts.iter().for_each(|part| encoded.add(part));
                    (encoded.h.copy(), unet.decode(encoded, &text))
                })
            };
            let whole = residuals(&controlnet(&format!("{shape}/{name}")), &given);
            let (h, noise_pred) = pass(&[whole.scaled(1.0, false)]);
            let mut report = Report::new(&format!("U-Net of {shape} under {name}"));
            report.close("h", &h, &expected.get("h"), NETWORK);
            report.close(
                "noise_pred",
                &noise_pred,
                &expected.get("noise_pred"),
                NETWORK,
            );
            // The residuals of two ControlNets at scales 0.25 and 0.75 add up to those of one.
            let (_, shared) = pass(&[whole.scaled(0.25, false), whole.scaled(0.75, false)]);
            report.close("two parts", &shared, &expected.get("noise_pred"), NETWORK);
            report.finish();
        }
    }
}

#[derive(Deserialize)]
struct Net {
    controlnet: String,
    scale: f64,
    /// Height, width and seed of the picture.
    picture: [u32; 3],
}

#[derive(Deserialize)]
struct Run {
    prompt: String,
    negative_prompt: Option<String>,
    height: i64,
    width: i64,
    seed: i64,
    guidance_scale: f64,
    guess_mode: bool,
    start: f64,
    end: f64,
    nets: Vec<Net>,
}

/// A picture `[H, W, 3]` of a fixture at the size of the run, `[1, 3, H', W']` in [0, 1].
fn prepared(picture: &Tensor, height: i64, width: i64) -> Tensor {
    let picture = resize(&rgb(picture), width as u32, height as u32);
    Tensor::from_slice(picture.as_raw())
        .view([1, height, width, 3])
        .permute([0, 3, 1, 2])
        .to_kind(Kind::Float)
        / 255.0
}

fn load(shape: &str, name: &str, backbone: &Backbone) -> Rc<ControlNet> {
    let folder = fixture(&format!("{shape}/{name}"));
    let files = ModelFiles::locate(&ModelOptions {
        model: folder.to_str().expect("fixtures have plain names").into(),
        ..ModelOptions::default()
    });
    let net = ControlNet::load(&files.expect("it has a config.json"), backbone);
    Rc::new(net.expect("diffusers wrote it"))
}

/// Final latents of 30 steps.
fn latents(
    backbone: &Backbone,
    guidance: &dyn Guidance,
    control: &Control,
    initial: &Tensor,
) -> Tensor {
    let kind = backbone.scheduler_file.own_kind().expect("a known class");
    let mut scheduler = new_scheduler(kind, &backbone.scheduler_file, 30).expect("30 steps");
    let drawn = denoise(
        backbone,
        scheduler.as_mut(),
        initial,
        guidance,
        Some(control),
        &mut |_| Ok(()),
    );
    drawn.expect("finite latents").latents
}

fn control_of(shape: &str, run: &Run, backbone: &Backbone) -> Control {
    let pictures = Expected::read(&format!("{shape}/expected/control_pictures.safetensors"));
    let mut control = Control::new(ControlSettings {
        guess_mode: run.guess_mode,
        start: run.start,
        end: run.end,
    });
    for net in &run.nets {
        let [h, w, seed] = net.picture;
        let picture = pictures.get(&format!("{h}x{w}.{seed}"));
        let picture = prepared(&picture, run.height, run.width);
        control.add(load(shape, &net.controlnet, backbone), &picture, net.scale);
    }
    control
}

fn guidance_of(run: &Run, backbone: &Backbone) -> PlainGuidance {
    let prompt = backbone.encode_prompt(&run.prompt, run.height, run.width);
    let negative = run.negative_prompt.as_deref();
    let negative = backbone.encode_negative(negative, run.height, run.width);
    PlainGuidance::new(
        &negative.expect("a short prompt"),
        &prompt.expect("a short prompt"),
        run.guidance_scale,
    )
}

#[test]
fn guided_runs_with_controlnets_end_in_the_latents_of_diffusers() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let runs: Vec<Run> = json(&format!("{shape}/expected/control.json"));
        let has_all = ["narrow", "sd15"].contains(&shape);
        assert_eq!(runs.len(), if has_all { 8 } else { 2 }, "{shape}");
        let expected = Expected::read(&format!("{shape}/expected/control.safetensors"));
        let mut report = Report::new(&format!("pipeline with ControlNets of {shape}"));
        for (i, run) in runs.iter().enumerate() {
            let control = control_of(shape, run, &backbone);
            let initial = backbone.initial_latents(run.seed, run.height, run.width);
            let found = latents(&backbone, &guidance_of(run, &backbone), &control, &initial);
            let name = i.to_string();
            report.close(&format!("run {i}"), &found, &expected.get(&name), LATENTS);
        }
        report.finish();
    }
}

#[test]
fn a_batch_under_control_equals_its_images_drawn_alone() {
    let backbone = backbone("narrow");
    let runs: Vec<Run> = json("narrow/expected/control.json");
    let expected = Expected::read("narrow/expected/control.safetensors");
    for (i, run) in runs.iter().enumerate().take(2) {
        let noise = |seed| backbone.initial_latents(seed, run.height, run.width);
        let initial = Tensor::cat(&[noise(run.seed + 1), noise(run.seed)], 0);
        let control = control_of("narrow", run, &backbone);
        let found = latents(&backbone, &guidance_of(run, &backbone), &control, &initial);
        let mut report = Report::new("second of a batch of two under control");
        let second = found.narrow(0, 1, 1);
        report.close("latents", &second, &expected.get(&i.to_string()), LATENTS);
        report.finish();
    }
}

#[derive(Deserialize)]
struct Eq19 {
    prompt: String,
    base: String,
    height: i64,
    width: i64,
    seed: i64,
    guided_steps: (usize, usize),
    eta_1: f64,
    eta_2: f64,
    semantic_scale: f64,
    guidance_scale: f64,
    scale: f64,
    guess_mode: bool,
}

#[test]
fn cluster_guidance_under_control_is_equation_19_with_residuals_for_each_row() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let given = Expected::read(&format!("{shape}/expected/offsets.safetensors"));
        let offsets = Offsets {
            target_offset: given.get("target_offset"),
            average_offset: given.get("average_offset"),
        };
        let pictures = Expected::read(&format!("{shape}/expected/control_pictures.safetensors"));
        let expected = Expected::read(&format!("{shape}/expected/control_eq19.safetensors"));
        let mut report = Report::new(&format!("Eq. (19) with a ControlNet on {shape}"));
        let runs: Vec<Eq19> = json(&format!("{shape}/expected/control_eq19.json"));
        for (i, run) in runs.iter().enumerate() {
            let settings = GuidanceSettings {
                semantic_scale: run.semantic_scale,
                average_scale: 1.0,
                eta_1: run.eta_1,
                eta_2: run.eta_2,
                guided_steps: run.guided_steps,
                guidance_scale: run.guidance_scale,
            };
            let (height, width) = (run.height, run.width);
            let prompt = BaseWordPrompt::new(&backbone, &run.prompt, &run.base, height, width)
                .expect("the word is there");
            let negative = backbone.encode_negative(None, height, width);
            let negative = negative.expect("no prompt");
            let guidance =
                ClusterGuidance::new(&negative, &prompt, &offsets, &settings).expect("offsets fit");
            let mut control = Control::new(ControlSettings {
                guess_mode: run.guess_mode,
                start: 0.0,
                end: 1.0,
            });
            let picture = prepared(&pictures.get("eq19"), height, width);
            control.add(load(shape, "controlnet", &backbone), &picture, run.scale);
            let initial = backbone.initial_latents(run.seed, height, width);
            let found = latents(&backbone, &guidance, &control, &initial);
            let name = i.to_string();
            report.close(&format!("run {i}"), &found, &expected.get(&name), LATENTS);
        }
        report.finish();
    }
}

/// A picture `[H, W, 3]` uint8 of a fixture.
fn rgb(tensor: &Tensor) -> RgbImage {
    let (height, width, _) = tensor.size3().expect("pictures have three axes");
    let levels = Vec::<u8>::try_from(tensor.flatten(0, -1)).expect("levels are bytes");
    RgbImage::from_raw(width as u32, height as u32, levels).expect("as many levels as pixels")
}

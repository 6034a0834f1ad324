//! Segment Anything, compared with transformers' `SamModel` and `SamImageProcessor`; its automatic
//! prompt, compared with the same in numpy. On tiny random checkpoints; see
//! `scripts/parity/expected_sam.py`.

use crate::common::{Expected, Report, fixture};
use image::RgbImage;
use oneactor::io::model_files::{ModelFiles, ModelOptions};
use oneactor::io::weights::Weights;
use oneactor::measures::foreground::ForegroundFinder;
use oneactor::models::vision::sam::processor::SamProcessor;
use oneactor::models::vision::sam::{SamConfig, SamModel, SamPrompts};
use oneactor::pictures::photo::{Transparency, read_picture};
use tch::{Device, Kind, Tensor};

/// Bar for f32 in networks of a few layers: transformers' own f32 and f64 differ by at most 2e-6.
const BAR: f64 = 1e-4;

/// A pixel whose value is within rounding of 0 may fall on either side.
const OTHER_PIXELS: f64 = 1e-4;

const CHECKPOINTS: [&str; 2] = ["padded", "fitting"];
const PICTURES: usize = 6;

fn files(name: &str) -> ModelFiles {
    let folder = fixture(&format!("sam/{name}"));
    ModelFiles::locate(&ModelOptions {
        model: folder
            .to_str()
            .expect("fixtures have plain names")
            .to_owned(),
        ..ModelOptions::default()
    })
    .expect("a whole folder")
}

fn sam(name: &str) -> SamModel {
    let files = files(name);
    let blobs = files.weights("").expect("there are weights");
    let weights = Weights::open(&blobs, Device::Cpu, Kind::Float).expect("they are whole");
    for name in SamModel::UNUSED {
        weights.allow_unused(name);
    }
    let config = files.config("config.json").expect("it is JSON");
    let config = SamConfig::read(&config).expect("it is one of a SAM");
    let network = SamModel::new(&weights.root(), &config).expect("transformers loads it");
    weights.finish().expect("all tensors fit");
    network
}

fn processor(name: &str) -> SamProcessor {
    let file = files(name).config("preprocessor_config.json");
    SamProcessor::read(&file.expect("it is there")).expect("transformers reads it")
}

fn expected(name: &str) -> Expected {
    Expected::read(&format!("sam/{name}/expected.safetensors"))
}

fn pictures() -> Vec<RgbImage> {
    let path = |i| fixture(&format!("sam/pictures/{i}.png"));
    (0..PICTURES)
        .map(|i| read_picture(&path(i), Transparency::Dropped).expect("a picture"))
        .map(|given| given.picture)
        .collect()
}

/// The share of pixels in which two masks differ.
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let differs = found
        .to_kind(Kind::Bool)
        .ne_tensor(&expected.to_kind(Kind::Bool));
    differs
        .to_kind(Kind::Double)
        .mean(Kind::Double)
        .double_value(&[])
}

#[test]
fn pictures_are_prepared_to_the_same_levels() {
    for name in CHECKPOINTS {
        let (processor, expected) = (processor(name), expected(name));
        let mut report = Report::new(&format!("pixel values of SAM {name}"));
        // One level is 1 / 255 over the deviation, whose smallest value is 0.224.
        let level = 1.0 / 255.0 / 0.224;
        for (i, picture) in pictures().iter().enumerate() {
            let (found, place) = processor.pixel_values(picture);
            assert_eq!(place.original, picture.dimensions());
            report.prepared(i, level, &found, |key| expected.get(&format!("{i}.{key}")));
        }
        report.finish();
    }
}

#[test]
fn embeddings_and_masks_are_those_of_transformers() {
    for name in CHECKPOINTS {
        let (network, processor, expected) = (sam(name), processor(name), expected(name));
        let mut report = Report::new(&format!("SAM {name}"));
        let mut most: f64 = 0.0;
        for (i, picture) in pictures().iter().enumerate() {
            let (pixel_values, place) = processor.pixel_values(picture);
            let embeddings = network.image_embeddings(&pixel_values);
            let key = format!("{i}.image_embeddings");
            report.close(&key, &embeddings, &expected.get(&key), BAR);
            for asked in ["points", "boxes"] {
                let boxes = format!("{asked}.boxes");
                let prompts = SamPrompts {
                    points: expected.get(&format!("{asked}.points")),
                    labels: expected.get(&format!("{asked}.labels")),
                    boxes: expected.has(&boxes).then(|| expected.get(&boxes)),
                };
                let masks = network.masks(&embeddings, &prompts);
                for (key, found) in [
                    ("low_res_masks", &masks.low_res_masks),
                    ("iou", &masks.iou_predictions),
                ] {
                    let key = format!("{i}.{asked}.{key}");
                    report.close(&key, found, &expected.get(&key), BAR);
                }
                let finished = processor
                    .at_picture_size(&masks.low_res_masks, place)
                    .gt(0.0);
                let wanted = expected.get(&format!("{i}.{asked}.masks"));
                let share = difference(&finished, &wanted);
                most = most.max(share);
                report.check(share <= OTHER_PIXELS, || {
                    format!("{asked} of picture {i}: {share:.1e} of all pixels differ")
                });
            }
        }
        println!("masks of SAM {name}: at most {most:.1e} of all pixels differ");
        report.finish();
    }
}

#[test]
fn the_automatic_prompt_chooses_the_mask_that_numpy_chooses() {
    let mut chosen = 0;
    for name in CHECKPOINTS {
        let finder = ForegroundFinder::load(&files(name), Device::Cpu).expect("it is a SAM");
        let expected = expected(name);
        let mut report = Report::new(&format!("foregrounds by SAM {name}"));
        for (i, picture) in pictures().iter().enumerate() {
            let found = finder.find(picture);
            let key = format!("{i}.foreground.mask");
            report.check(found.is_ok() == expected.has(&key), || {
                format!("picture {i}: {:?}", found.as_ref().map(|_| "a mask"))
            });
            let Ok(found) = found else { continue };
            chosen += 1;
            let iou = expected
                .get(&format!("{i}.foreground.iou"))
                .double_value(&[]);
            report.check((found.predicted_iou - iou).abs() < BAR, || {
                format!(
                    "picture {i}: predicted IoU {}, expected {iou}",
                    found.predicted_iou
                )
            });
            let mask = Tensor::from_slice(found.mask.as_raw());
            let share = difference(&mask, &expected.get(&key).view([-1]));
            report.check(share <= OTHER_PIXELS, || {
                format!("picture {i}: {share:.1e} of all pixels differ")
            });
        }
        report.finish();
    }
    assert!(
        chosen >= 8,
        "only {chosen} pictures have a mask: nothing is compared"
    );
}

#[test]
fn a_checkpoint_of_another_network_or_shape_is_refused_with_what_was_found() {
    let error = |result: anyhow::Result<ForegroundFinder>| match result {
        Ok(_) => panic!("it is no SAM"),
        Err(error) => format!("{error:#}"),
    };
    let clip = fixture("evaluate/clip");
    let clip = ModelFiles::locate(&ModelOptions {
        model: clip.to_str().expect("fixtures have plain names").to_owned(),
        ..ModelOptions::default()
    });
    let as_sam = error(ForegroundFinder::load(
        &clip.expect("a whole folder"),
        Device::Cpu,
    ));
    assert!(
        as_sam.contains("config.json: model_type: found \"clip\", expected sam"),
        "{as_sam}"
    );

    let config = |part: &str, key: &str, value: serde_json::Value| {
        let mut config = files("padded").config("config.json").expect("JSON");
        let mut changed = config.get(part).expect("it is there").clone();
        changed[key] = value;
        config.set(part, changed);
        let weights = files("padded").weights("").expect("there are weights");
        let weights = Weights::open(&weights, Device::Cpu, Kind::Float).expect("they are whole");
        let result =
            SamConfig::read(&config).and_then(|config| SamModel::new(&weights.root(), &config));
        result.map(drop).expect_err(key).to_string()
    };
    for (part, key, value, message) in [
        (
            "vision_config",
            "use_rel_pos",
            false.into(),
            "use_rel_pos: found false, expected true",
        ),
        (
            "vision_config",
            "output_channels",
            48.into(),
            "output_channels of the vision encoder: found 48, expected 32",
        ),
        (
            "vision_config",
            "window_size",
            0.into(),
            "window_size: found 0, expected 1 to 128",
        ),
        (
            "prompt_encoder_config",
            "image_size",
            64.into(),
            "image_size of the prompt encoder: found 64, expected 128",
        ),
        (
            "mask_decoder_config",
            "hidden_act",
            "gelu".into(),
            "hidden_act: found \"gelu\"",
        ),
        (
            "mask_decoder_config",
            "num_attention_heads",
            3.into(),
            "found 16, expected a multiple of 3",
        ),
        (
            "mask_decoder_config",
            "attention_downsample_rate",
            0.into(),
            "attention_downsample_rate: found 0",
        ),
    ] {
        let error = config(part, key, value);
        assert!(error.contains(message), "{error}");
    }
}

//! The encoders and measures of `evaluate`, compared with transformers and with formulas in numpy
//! on tiny random checkpoints and the toy's CLIP, and with the packages lpips and dreamsim; see
//! `scripts/parity/expected_evaluate.py` and `expected_distances.py`.

use crate::common::{Expected, Report, fixture, json};
use image::{DynamicImage, GrayImage, RgbImage, imageops};
use oneactor::io::model_files::{ModelFiles, ModelOptions, TOY};
use oneactor::measures::Measure;
use oneactor::measures::encoder::{ClipEncoder, ImageEncoder, LpipsEncoder, VitEncoder};
use oneactor::measures::region::Region;
use oneactor::measures::similarity::{clip_score, cosine, of_cosine, unit};
use oneactor::models::vision::vit::VitKind;
use oneactor::pictures::photo::{Transparency, read_picture};
use oneactor::pictures::resize::{Filter, resize_by};
use tch::{Device, Tensor};

/// Bar for f32 in networks of a few layers: transformers' own f32 and f64 differ by at most 1e-6.
const BAR: f64 = 1e-4;

/// `toy` is the model inside the program.
const CLIPS: [&str; 3] = ["clip", "clip_gelu", "toy"];
const VITS: [&str; 3] = ["dino", "dinov2", "dinov2_wide"];
const PICTURES: usize = 6;

fn files(name: &str) -> ModelFiles {
    let folder = fixture(&format!("evaluate/{name}"));
    let folder = folder.to_str().expect("fixtures have plain names");
    ModelFiles::locate(&ModelOptions {
        model: if name == TOY { TOY } else { folder }.to_owned(),
        ..ModelOptions::default()
    })
    .expect("a whole folder")
}

fn clip(name: &str) -> ClipEncoder {
    ClipEncoder::load(&files(name), Device::Cpu).expect("transformers loads this checkpoint")
}

fn encoder(name: &str) -> Box<dyn ImageEncoder> {
    if CLIPS.contains(&name) {
        Box::new(clip(name))
    } else {
        let kind = if name == "dino" {
            VitKind::Vit
        } else {
            VitKind::Dinov2
        };
        let loaded = VitEncoder::load(&files(name), kind, Device::Cpu);
        Box::new(loaded.expect("transformers loads this checkpoint"))
    }
}

fn pictures() -> Vec<RgbImage> {
    let read = |i| {
        read_picture(
            &fixture(&format!("evaluate/pictures/{i}.png")),
            Transparency::Dropped,
        )
    };
    (0..PICTURES)
        .map(|i| read(i).expect("a picture").picture)
        .collect()
}

fn masks() -> Vec<GrayImage> {
    let read = |i| {
        read_picture(
            &fixture(&format!("evaluate/pictures/{i}-mask.png")),
            Transparency::Dropped,
        )
    };
    let mask = |i| DynamicImage::ImageRgb8(read(i).expect("a mask").picture).into_luma8();
    (0..PICTURES).map(mask).collect()
}

/// Cosines of all pairs, by the function that the program calls.
fn cosines(a: &Tensor, b: &Tensor) -> Tensor {
    let (a, b) = (
        unit(a, "a").expect("directions"),
        unit(b, "b").expect("directions"),
    );
    let rows: Vec<Tensor> = (0..a.size()[0])
        .map(|i| {
            let row: Vec<f64> = (0..b.size()[0])
                .map(|j| cosine(&a.get(i), &b.get(j)))
                .collect();
            Tensor::from_slice(&row)
        })
        .collect();
    Tensor::stack(&rows, 0)
}

#[test]
fn pictures_are_prepared_to_the_same_levels() {
    for name in CLIPS.iter().chain(&VITS) {
        let encoder = encoder(name);
        let expected = Expected::read(&format!("evaluate/{name}/expected.safetensors"));
        let mut report = Report::new(&format!("pixel values of {name}"));
        // One level is 1 / 255 over the deviation, whose smallest value in these files is 0.225.
        let level = 1.0 / 255.0 / 0.225;
        for (i, picture) in pictures().iter().enumerate() {
            let found = encoder.processor().pixel_values(picture).squeeze_dim(0);
            report.prepared(i, level, &found, |key| expected.get(&format!("{key}.{i}")));
        }
        report.finish();
    }
}

#[test]
fn embeddings_and_cosines_of_pictures_are_those_of_transformers() {
    for name in CLIPS.iter().chain(&VITS) {
        let encoder = encoder(name);
        let expected = Expected::read(&format!("evaluate/{name}/expected.safetensors"));
        let mut report = Report::new(&format!("image embeddings of {name}"));
        let embeds = encoder.image_embeds(&pictures());
        report.close("image_embeds", &embeds, &expected.get("image_embeds"), BAR);
        report.close(
            "cosines",
            &cosines(&embeds, &embeds),
            &expected.get("cosines"),
            BAR,
        );
        for (region, key) in [
            (Region::Foreground, "foreground.cosines"),
            (Region::Background, "background.cosines"),
        ] {
            let fill = encoder.processor().mean_colour();
            let parts: Vec<RgbImage> = pictures()
                .iter()
                .zip(masks())
                .map(|(picture, mask)| region.of(picture, Some(&mask), fill))
                .collect();
            let embeds = encoder.image_embeds(&parts);
            report.close(key, &cosines(&embeds, &embeds), &expected.get(key), BAR);
        }
        report.finish();
    }
}

#[test]
fn texts_and_their_scores_are_those_of_transformers() {
    let texts: Vec<String> = json("evaluate/texts.json");
    for name in CLIPS {
        let clip = clip(name);
        let expected = Expected::read(&format!("evaluate/{name}/expected.safetensors"));
        let mut report = Report::new(&format!("text embeddings of {name}"));
        let embeds: Vec<Tensor> = texts
            .iter()
            .map(|text| clip.text_embeds(text).expect("a text").0)
            .collect();
        let embeds = Tensor::cat(&embeds, 0);
        report.close("text_embeds", &embeds, &expected.get("text_embeds"), BAR);
        let likeness = cosines(&clip.image_embeds(&pictures()), &embeds);
        report.close("clip_t", &likeness, &expected.get("clip_t"), BAR);
        let flat = likeness.contiguous().view([-1]);
        let scores: Vec<f64> = (0..flat.size()[0])
            .map(|i| clip_score(flat.double_value(&[i])))
            .collect();
        let scores = Tensor::from_slice(&scores).view_as(&likeness);
        report.close("clip_score", &scores, &expected.get("clip_score"), BAR);
        report.finish();
    }
}

#[test]
fn the_cut_tokens_of_a_long_text_are_counted() {
    let clip = clip("clip_gelu");
    let (_, cut_off) = clip.text_embeds("a red cat").expect("a text");
    assert_eq!(cut_off, 0);
    let words = "cat ".repeat(40);
    let (_, cut_off) = clip.text_embeds(&words).expect("a text");
    assert_eq!(
        cut_off, 10,
        "40 tokens, of which 30 fit between start and end"
    );
}

#[test]
fn a_checkpoint_of_another_network_is_refused_with_what_was_found() {
    let error = |result: anyhow::Result<()>| format!("{:#}", result.expect_err("another network"));
    let as_clip = error(ClipEncoder::load(&files("dino"), Device::Cpu).map(drop));
    assert!(
        as_clip.contains("config.json: architectures: found [\"ViTModel\"], expected CLIPModel"),
        "{as_clip}"
    );
    let as_vit = error(VitEncoder::load(&files("clip"), VitKind::Vit, Device::Cpu).map(drop));
    assert!(
        as_vit.contains("config.json: model_type: found \"clip\", expected vit"),
        "{as_vit}"
    );
    let as_dreamsim = VitEncoder::load(&files("dino"), VitKind::Dreamsim, Device::Cpu);
    let as_dreamsim = error(as_dreamsim.map(drop));
    assert!(
        as_dreamsim.contains("config.json: model_type: found \"vit\", expected dreamsim"),
        "{as_dreamsim}"
    );
    let as_lpips = error(LpipsEncoder::load(&files("dino"), Device::Cpu).map(drop));
    assert!(
        as_lpips.contains("config.json: model_type: found \"vit\", expected `lpips`"),
        "{as_lpips}"
    );
}

/// Those of the pictures that are large enough for AlexNet.
const LARGE_ENOUGH: [usize; 5] = [0, 1, 2, 4, 5];

/// `distance` between all pairs of some pictures, `[N, N]`.
fn pairs<T>(shown: &[T], distance: impl Fn(&T, &T) -> f64) -> Tensor {
    let rows: Vec<Tensor> = shown
        .iter()
        .map(|a| {
            let row: Vec<f64> = shown.iter().map(|b| distance(a, b)).collect();
            Tensor::from_slice(&row)
        })
        .collect();
    Tensor::stack(&rows, 0)
}

#[test]
fn lpips_is_that_of_its_package() {
    let expected = Expected::read("evaluate/lpips/expected.safetensors");
    let lpips = LpipsEncoder::load(&files("lpips"), Device::Cpu).expect("a converted folder");
    let (pictures, masks) = (pictures(), masks());
    let mut report = Report::new("lpips");
    let distance = |a: &RgbImage, b: &RgbImage| {
        let (a, b) = (lpips.features(a), lpips.features(b));
        lpips.distance(&a, &b).expect("a number")
    };

    let native: Vec<f64> = LARGE_ENOUGH
        .iter()
        .map(|&i| distance(&pictures[i], &imageops::flip_horizontal(&pictures[i])))
        .collect();
    report.close(
        "at their own size",
        &Tensor::from_slice(&native),
        &expected.get("native"),
        BAR,
    );
    for &i in &LARGE_ENOUGH {
        let found = LpipsEncoder::pixel_values(&pictures[i]).squeeze_dim(0);
        let wanted = expected.get(&format!("pixel_values.{i}"));
        // No picture is resized, so only the rounding of f32 remains.
        report.close(
            &format!("pixel values of picture {i}"),
            &found,
            &wanted,
            1e-6,
        );
    }

    let size = expected.get("size");
    let [width, height] = [0, 1].map(|i| size.int64_value(&[i]) as u32);
    for (region, key) in [
        (Region::Whole, "pairs"),
        (Region::Foreground, "foreground"),
        (Region::Background, "background"),
    ] {
        let fill = LpipsEncoder::mean_colour();
        let features: Vec<_> = LARGE_ENOUGH
            .iter()
            .map(|&i| region.of(&pictures[i], Some(&masks[i]), fill))
            .map(|part| resize_by(Filter::Bicubic, &part, width, height))
            .map(|part| lpips.features(&part))
            .collect();
        let found = pairs(&features, |a, b| lpips.distance(a, b).expect("a number"));
        report.close(key, &found, &expected.get(key), BAR);
        let equal = found.diag(0).abs().max().double_value(&[]);
        report.check(equal == 0.0, || {
            format!("{key}: the distance of a picture from itself is {equal}")
        });
    }
    report.finish();
}

#[test]
fn dreamsim_is_that_of_its_package() {
    let expected = Expected::read("evaluate/dreamsim/expected.safetensors");
    let loaded = VitEncoder::load(&files("dreamsim"), VitKind::Dreamsim, Device::Cpu);
    let dreamsim = loaded.expect("a converted folder");
    let (pictures, masks) = (pictures(), masks());
    let mut report = Report::new("dreamsim");
    // One level as in the test of the encoders' pixel values.
    let level = 1.0 / 255.0 / 0.225;
    for (i, picture) in pictures.iter().enumerate() {
        let found = dreamsim.processor().pixel_values(picture).squeeze_dim(0);
        for (key, bar) in [("pixel_values", 0.01), ("at_once", 1.01)] {
            let wanted = expected.get(&format!("{key}.{i}"));
            let gap = (&found - wanted).abs().max().double_value(&[]) / level;
            report.check(gap < bar, || {
                format!("{key} of picture {i}: {gap:.2} levels")
            });
        }
    }
    let embeds = |shown: &[RgbImage]| unit(&dreamsim.image_embeds(shown), "pictures");
    let whole = embeds(&pictures).expect("directions");
    report.close("embeds", &whole, &expected.get("embeds"), BAR);
    for (region, key) in [
        (Region::Whole, "pairs"),
        (Region::Foreground, "foreground"),
        (Region::Background, "background"),
    ] {
        let fill = dreamsim.processor().mean_colour();
        let parts: Vec<RgbImage> = pictures
            .iter()
            .zip(&masks)
            .map(|(picture, mask)| region.of(picture, Some(mask), fill))
            .collect();
        let rows = embeds(&parts).expect("directions").unbind(0);
        let found = pairs(&rows, |a, b| of_cosine(Measure::Dreamsim, cosine(a, b)));
        report.close(key, &found, &expected.get(key), BAR);
    }
    report.finish();
}

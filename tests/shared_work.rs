//! Results that the denoising loop computes once for several rows or steps equal those of each pass
//! computed alone.

mod common;

use std::rc::Rc;

use common::{Report, SHAPES, backbone};
use oneactor::backbone::Conditioning;
use oneactor::backbone::step_rows::StepRows;
use oneactor::backbone::unet_pass::UnetPass;
use oneactor::models::unet::attention_probe::{AttentionProbe, WatchedWords};
use oneactor::models::unet::cross_attention::AttentionRequest;
use oneactor::models::unet::token_mask::{Answers, TokenMask, TokenRules};
use tch::{Device, Kind, Tensor};

/// Bar: batches of other sizes use other kernels, which add in another order.
const BAR: f64 = 1e-5;
/// Pictures in a batch.
const IMAGES: i64 = 2;

fn noise(size: &[i64]) -> Tensor {
    Tensor::randn(size, (Kind::Float, Device::Cpu))
}

/// Rows ∅, target and average; only the last two have the same pooled prompt.
fn rows(negative: &Conditioning, prompt: &Conditioning) -> Conditioning {
    let moved =
        || prompt.with_prompt_embeds(&prompt.prompt_embeds + noise(&prompt.prompt_embeds.size()));
    Conditioning::cat(&[negative, &moved(), &moved()])
}

#[test]
fn rows_that_differ_only_in_text_are_computed_once_until_the_text_is_read() {
    for shape in SHAPES {
        let _frozen = tch::no_grad_guard();
        let backbone = backbone(shape);
        tch::manual_seed(0);
        let encode = |text| backbone.encode_prompt(text, 64, 64).expect("it is short");
        let rows = rows(&encode("noise"), &encode("a photo of a cat"));
        let one_of_each = backbone.initial_latents(3, 64, 64);
        let images = noise(&[&[IMAGES], &one_of_each.size()[1..]].concat());
        let sample = images.repeat([3, 1, 1, 1]);
        let [_, _, height, width] = sample.size()[..] else {
            panic!("latents have four axes");
        };
        let regions = noise(&[3 * IMAGES, 1, height, width]).gt(0.0);
        let mask = || {
            let mut rules = vec![Answers::Everywhere; rows.prompt_embeds.size()[1] as usize];
            rules[2] = Answers::Inside(0);
            rules[3] = Answers::OutsideOf(1);
            let rules = vec![rules; 3 * IMAGES as usize];
            TokenMask::new(&regions, &TokenRules::new(&rules, 1, &rows.prompt_embeds))
        };
        let tokens = rows.prompt_embeds.size()[1];
        let words = WatchedWords::new(&[vec![1], vec![2]], tokens, &rows.prompt_embeds);
        let probe = || AttentionProbe::new(IMAGES, IMAGES, &words);
        let apart = rows.repeat(IMAGES);
        let together = StepRows::new(&rows, IMAGES, &Rc::default());

        let mut report = Report::new(&format!("shared rows on {shape}"));
        // The second step reads the keys and values of the first.
        for (step, timestep) in [800f32, 300.0].into_iter().enumerate() {
            let timesteps = Tensor::from_slice(&[timestep]).expand([3 * IMAGES], false);
            let mut maps = Vec::new();
            let mut predict = |pass: UnetPass| {
                let request = AttentionRequest {
                    mask: Some(mask()),
                    probe: Some(probe()),
                    sharing: None,
                };
                let (noise_pred, attention) = backbone.predict_attending(pass, request);
                maps.push(attention.maps.expect("there is a probe"));
                noise_pred
            };
            let expected = predict(UnetPass::new(&sample, &timesteps, &apart));
            let found = predict(together.pass(&sample, &timesteps));
            report.close(&format!("noise_pred {step}"), &found, &expected, BAR);
            for (i, (found, expected)) in maps[1].iter().zip(&maps[0]).enumerate() {
                report.close(
                    &format!("maps {i} at step {step}"),
                    &found.maps,
                    &expected.maps,
                    BAR,
                );
            }
            // The loop must not read the average's rows: until the text is read, the target's rows
            // replace them.
            let garbled = Tensor::cat(&[sample.narrow(0, 0, 2 * IMAGES), images.zeros_like()], 0);
            let request = AttentionRequest {
                mask: Some(mask()),
                ..AttentionRequest::default()
            };
            let pass = together.pass(&garbled, &timesteps);
            let (garbled, _) = backbone.predict_attending(pass, request);
            report.check(garbled == found, || "the average's rows were read".into());
        }
        report.finish();
    }
}

//! A small file of a model behind a byte that says which: the config, and the network or schedule made of it. No
//! weights are there, so that every tensor is missing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oneactor::io::weights::{WeightPath, Weights};
use oneactor::models::autoencoder_kl::AutoencoderKl;
use oneactor::models::clip_model::ClipModel;
use oneactor::models::clip_text_model::ClipTextModel;
use oneactor::models::clip_vision_model::ClipVisionModel;
use oneactor::models::controlnet::{ControlNetConfig, ControlNetModel};
use oneactor::models::image_processor::ImageProcessor;
use oneactor::models::sam::SamModel;
use oneactor::models::sam::processor::SamProcessor;
use oneactor::models::unet_2d_condition::{UNet2DConditionConfig, UNet2DConditionModel};
use oneactor::models::vit::VitModel;
use oneactor::schedulers::{SchedulerConfig, SchedulerKind, new_scheduler};
use oneactor::tokenizer::{ClipTokenizer, TokenizerFiles};
use serde::de::DeserializeOwned;
use tch::{Device, Kind};

/// The network of a config.
fn build<C: DeserializeOwned, T>(
    text: &str,
    new: impl Fn(&WeightPath, &C) -> anyhow::Result<T>,
) {
    if let Ok(config) = serde_json::from_str(text) {
        with_weights(|path| new(path, &config));
    }
}

fn with_weights<T>(new: impl Fn(&WeightPath) -> anyhow::Result<T>) {
    let weights = Weights::open(&[], Device::Cpu, Kind::Float).expect("there is no file");
    if new(&weights.root()).is_ok() {
        assert!(weights.finish().is_err(), "all tensors are missing");
    }
}

fn schedule(text: &str) {
    let Ok(config) = SchedulerConfig::parse(text) else {
        return;
    };
    for kind in [
        SchedulerKind::Euler,
        SchedulerKind::DpmSolverMultistep,
        SchedulerKind::Ddim,
        SchedulerKind::Pndm,
    ] {
        for steps in [1, 2, 7, 30] {
            if let Ok(scheduler) = new_scheduler(kind, &config, steps) {
                assert!(scheduler.timesteps().len() >= steps);
            }
        }
    }
}

/// The parts of a tokenizer, divided by NULs.
fn tokenizer(text: &str) {
    let parts: Vec<&str> = text.split('\0').collect();
    let [vocab, merges, map, config] = parts[..] else {
        return;
    };
    let tokenizer = ClipTokenizer::new(&TokenizerFiles {
        vocab: Some(vocab),
        merges: Some(merges),
        special_tokens_map: Some(map),
        tokenizer_config: Some(config),
        ..TokenizerFiles::default()
    });
    if let Ok(tokenizer) = tokenizer {
        let tokens = tokenizer.tokens("a cat, zwölf, 猫!").expect("texts can be tokenized");
        let ids = tokenizer.frame(tokens.iter().map(|token| token.id));
        assert_eq!(ids.len(), tokenizer.model_max_length());
        let _ = tokenizer.check_encoder(10, 77);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, text)) = bytes.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    match choice % 11 {
        0 => build(text, |path, config: &UNet2DConditionConfig| {
            config.check()?;
            let _ = (config.pooled_width(), config.cross_attention_layers()?);
            UNet2DConditionModel::new(path, config)
        }),
        1 => build(text, |path, config: &oneactor::models::autoencoder_kl::AutoencoderKlConfig| {
            config.check()?;
            assert!(config.scale_factor() >= 1);
            AutoencoderKl::new(path, config)
        }),
        2 => build(text, ClipTextModel::new),
        3 => schedule(text),
        4 => tokenizer(text),
        5 => {
            if let Ok(processor) = ImageProcessor::from_json(text) {
                let _ = processor.check_side(32, "fuzz");
            }
        }
        6 => drop(SamProcessor::from_json(text)),
        7 => {
            if let Ok(config) = ControlNetConfig::parse(text) {
                assert!(config.scale_factor() >= 1);
                with_weights(|path| ControlNetModel::new(path, &config));
            }
        }
        8 => build(text, VitModel::new),
        9 => build(text, SamModel::new),
        _ => {
            build(text, ClipModel::new);
            build(text, |path, config| ClipVisionModel::new(path, config, 16));
        }
    }
});

//! A small file of a model; the first byte chooses which. The config is read, and the network or
//! schedule is built from it. There are no weights, so every tensor is missing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oneactor::io::config_file::{ConfigFile, Notes};
use oneactor::io::weights::{WeightPath, Weights};
use oneactor::models::autoencoder_kl::{AutoencoderKl, AutoencoderKlConfig};
use oneactor::models::vision::clip_model::{ClipConfig, ClipModel};
use oneactor::models::clip_text_model::{ClipTextConfig, ClipTextModel};
use oneactor::models::unet::controlnet::{ControlNetConfig, ControlNetModel};
use oneactor::models::vision::image_processor::ImageProcessor;
use oneactor::models::vision::sam::{SamConfig, SamModel};
use oneactor::models::vision::sam::processor::SamProcessor;
use oneactor::models::unet::unet_2d_condition::{UNet2DConditionConfig, UNet2DConditionModel};
use oneactor::models::vision::vit::{VitConfig, VitKind, VitModel};
use oneactor::schedulers::{SchedulerFile, SchedulerKind, new_scheduler};
use oneactor::tokenizer::{ClipTokenizer, TokenizerFiles};
use tch::{Device, Kind};

/// Builds the network of a config.
fn build<C, T>(
    text: &str,
    read: impl Fn(&ConfigFile) -> anyhow::Result<C>,
    new: impl Fn(&WeightPath, &C) -> anyhow::Result<T>,
) {
    if let Ok(config) = config_file(text).and_then(|file| read(&file)) {
        with_weights(|path| new(path, &config));
    }
}

fn config_file(text: &str) -> anyhow::Result<ConfigFile> {
    ConfigFile::parse("config.json", text, Notes::default())
}

fn with_weights<T>(new: impl Fn(&WeightPath) -> anyhow::Result<T>) {
    let weights = Weights::open(&[], Device::Cpu, Kind::Float).expect("there is no file");
    if new(&weights.root()).is_ok() {
        assert!(weights.finish().is_err(), "all tensors are missing");
    }
}

fn schedule(text: &str) {
    let Ok(file) = config_file(text).map(SchedulerFile::new) else {
        return;
    };
    let _ = file.noise_schedule();
    for kind in SchedulerKind::ALL {
        for steps in [1, 2, 7, 30] {
            if let Ok(scheduler) = new_scheduler(kind, &file, steps) {
                assert!(scheduler.timesteps().len() >= steps);
            }
        }
    }
}

/// The files of a tokenizer, separated by NULs.
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
        0 => build(text, UNet2DConditionConfig::read, |path, config| {
            let _ = (config.pooled_width(), config.cross_attention_layers()?);
            UNet2DConditionModel::new(path, config)
        }),
        1 => build(text, AutoencoderKlConfig::read, |path, config| {
            assert!(config.scale_factor() >= 1);
            Ok(AutoencoderKl::new(path, config))
        }),
        2 => build(text, ClipTextConfig::read, |path, config| {
            Ok(ClipTextModel::new(path, config))
        }),
        3 => schedule(text),
        4 => tokenizer(text),
        5 => {
            if let Ok(file) = config_file(text)
                && let Ok(processor) = ImageProcessor::read(&file)
            {
                let _ = processor.check_side(32, "fuzz");
            }
        }
        6 => drop(config_file(text).map(|file| SamProcessor::read(&file))),
        7 => build(text, ControlNetConfig::read, |path, config| {
            assert!(config.scale_factor() >= 1);
            ControlNetModel::new(path, config)
        }),
        8 => {
            for kind in [VitKind::Vit, VitKind::Dinov2, VitKind::Dreamsim] {
                build(text, |file| VitConfig::read(file, kind), VitModel::new);
            }
        }
        9 => build(text, SamConfig::read, SamModel::new),
        _ => build(text, ClipConfig::read, ClipModel::new),
    }
});

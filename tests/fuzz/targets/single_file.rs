//! A checkpoint in one file with the keys and shapes of a text: the configs that are read from
//! them, and the networks that are built from both.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use oneactor::io::single_file::Contents;
use oneactor::io::weights::Weights;
use oneactor::models::autoencoder_kl::AutoencoderKl;
use oneactor::models::clip_text_model::ClipTextModel;
use oneactor::models::unet::unet_2d_condition::UNet2DConditionModel;
use oneactor_fuzz::{forever, safetensors};
use tch::{Device, Kind};

/// Builds a network of the file.
fn build<C: serde::de::DeserializeOwned>(
    contents: &Contents,
    component: &str,
    new: impl Fn(&Weights, &C),
) {
    let Some(blob) = contents.weights(component) else {
        return;
    };
    let text = contents.text(&format!("{component}/config.json"));
    let config: C = serde_json::from_str(text.expect("it has the weights"))
        .expect("our own config has all fields");
    let weights = Weights::open(&[blob], Device::Cpu, Kind::Half);
    let weights = weights.expect("the file was read before");
    new(&weights, &config);
    let _ = weights.finish();
}

fuzz_target!(|text: &str| {
    let Some(bytes) = safetensors(text, "F16", 2) else {
        return;
    };
    // SAFETY: contents, weights and networks end in this block.
    let bytes = unsafe { forever(&bytes) };
    let Ok(contents) = Contents::read(Path::new("fuzz.safetensors"), bytes) else {
        return;
    };
    build(&contents, "unet", |weights, config| {
        drop(UNet2DConditionModel::new(&weights.root(), config));
    });
    build(&contents, "vae", |weights, config| {
        drop(AutoencoderKl::new(&weights.root(), config));
    });
    for component in ["text_encoder", "text_encoder_2"] {
        build(&contents, component, |weights, config| {
            drop(ClipTextModel::new(&weights.root(), config));
        });
    }
});

//! Every network, compared with Python diffusers and transformers, in f32 on the CPU.

use crate::bars::NETWORK;
use crate::common::{Expected, Report, SHAPES, config_file, difference, fixture};
use oneactor::io::blob::Blob;
use oneactor::io::weights::{WeightPath, Weights};
use oneactor::models::autoencoder_kl::{AutoencoderKl, AutoencoderKlConfig};
use oneactor::models::clip_text_model::{ClipTextConfig, ClipTextModel};
use oneactor::models::unet::unet_2d_condition::{
    AddedConditions, UNet2DConditionConfig, UNet2DConditionModel,
};
use tch::{Device, Kind, Tensor, no_grad};

/// Reads one network strictly: no tensor is missing, none is left over.
fn network<T>(shape: &str, file: &str, new: impl FnOnce(&WeightPath) -> anyhow::Result<T>) -> T {
    let blob = Blob::File(fixture(&format!("{shape}/{file}")));
    let weights = Weights::open(&[blob], Device::Cpu, Kind::Float).expect("fixtures are whole");
    weights.allow_unused("position_ids");
    let network = new(&weights.root()).expect("the config is of a known kind");
    weights
        .finish()
        .expect("names and shapes are those of diffusers");
    network
}

#[test]
fn text_encoders_give_every_hidden_state_and_the_pooled_one() {
    for shape in SHAPES {
        let parts = ["text_encoder", "text_encoder_2"];
        let parts = &parts[..if shape.starts_with("sd") { 1 } else { 2 }];
        for part in parts {
            let config = ClipTextConfig::read(&config_file(&format!("{shape}/{part}/config.json")))
                .expect("known config");
            let file = format!("{part}/model.safetensors");
            let model = network(shape, &file, |path| Ok(ClipTextModel::new(path, &config)));
            let expected = Expected::read(&format!("{shape}/expected/{part}.safetensors"));
            let output = no_grad(|| model.forward(&expected.get("ids")));

            let mut report = Report::new(&format!("{part} of {shape}"));
            let known = expected.below("hidden_states.");
            report.check(output.hidden_states.len() == known.len(), || {
                "number of hidden states".to_string()
            });
            for (i, state) in output.hidden_states.iter().enumerate() {
                report.close(
                    &format!("hidden_states.{i}"),
                    state,
                    &expected.get(&format!("hidden_states.{i}")),
                    NETWORK,
                );
            }
            report.close(
                "last_hidden_state",
                &output.last_hidden_state,
                &expected.get("last_hidden_state"),
                NETWORK,
            );
            report.close("pooled", &output.pooled, &expected.get("pooled"), NETWORK);
            report.finish();
        }
    }
}

#[test]
fn unet_gives_the_noise_prediction_and_h() {
    for shape in SHAPES {
        let config =
            UNet2DConditionConfig::read(&config_file(&format!("{shape}/unet/config.json")))
                .expect("known config");
        let file = "unet/diffusion_pytorch_model.safetensors";
        let unet = network(shape, file, |path| UNet2DConditionModel::new(path, &config));
        for case in ["unet", "unet_uneven"] {
            let expected = Expected::read(&format!("{shape}/expected/{case}.safetensors"));
            let get = |name| expected.get(name);
            let added = expected.has("time_ids").then(|| AddedConditions {
                text_embeds: get("text_embeds"),
                time_ids: get("time_ids"),
            });
            let text = get("encoder_hidden_states");
            let (h, noise_pred) = no_grad(|| {
                let encoded = unet.encode(&get("sample"), &get("timesteps"), &text, added.as_ref());
                (encoded.h.copy(), unet.decode(encoded, &text))
            });
            let mut report = Report::new(&format!("{case} of {shape}"));
            report.close("h", &h, &get("h"), NETWORK);
            report.close("noise_pred", &noise_pred, &get("noise_pred"), NETWORK);
            report.finish();
        }
    }
}

#[test]
fn upcast_attention_changes_half_precision_and_nothing_else() {
    let expected = Expected::read("sd21/expected/unet.safetensors");
    let blob = Blob::File(fixture("sd21/unet/diffusion_pytorch_model.safetensors"));
    let mut config =
        UNet2DConditionConfig::read(&config_file("sd21/unet/config.json")).expect("known config");
    assert_eq!(config.upcast_attention, Some(true), "as SD 2.1 has it");
    let mut predict = |kind: Kind, upcast: bool| {
        config.upcast_attention = Some(upcast);
        let weights = Weights::open(std::slice::from_ref(&blob), Device::Cpu, kind)
            .expect("fixtures are whole");
        let unet = UNet2DConditionModel::new(&weights.root(), &config).expect("a known kind");
        let get = |name| expected.get(name).to_kind(kind);
        let (sample, text) = (get("sample"), get("encoder_hidden_states"));
        no_grad(|| unet.forward(&sample, &expected.get("timesteps"), &text, None))
    };
    assert_eq!(predict(Kind::Float, true), predict(Kind::Float, false));
    let [upcast, plain] = [true, false].map(|upcast| predict(Kind::BFloat16, upcast));
    assert_ne!(upcast, plain);
    let error = |found: &Tensor| difference(found, &expected.get("noise_pred")).l2;
    // bf16 keeps eight bits of every weight, which alone makes 1.4e-2.
    assert!(error(&upcast) < 0.02 && error(&plain) < 0.02);
    println!(
        "bf16: {:.2e} with f32 products, {:.2e} without",
        error(&upcast),
        error(&plain)
    );
}

#[test]
fn vae_encodes_and_decodes() {
    for shape in SHAPES {
        let config = AutoencoderKlConfig::read(&config_file(&format!("{shape}/vae/config.json")))
            .expect("known config");
        let file = "vae/diffusion_pytorch_model.safetensors";
        let vae = network(shape, file, |path| Ok(AutoencoderKl::new(path, &config)));
        let expected = Expected::read(&format!("{shape}/expected/vae.safetensors"));
        let (posterior, decoded) = no_grad(|| {
            (
                vae.encode(&expected.get("images")),
                vae.decode(&expected.get("latents")),
            )
        });
        let mut report = Report::new(&format!("vae of {shape}"));
        report.close("mean", &posterior.mean, &expected.get("mean"), NETWORK);
        report.close("std", &posterior.std, &expected.get("std"), NETWORK);
        report.close("decoded", &decoded, &expected.get("decoded"), NETWORK);
        report.finish();
    }
}

#[test]
fn a_tiled_vae_equals_that_of_diffusers_and_tiles_from_the_same_size() {
    for shape in SHAPES {
        let config = AutoencoderKlConfig::read(&config_file(&format!("{shape}/vae/config.json")))
            .expect("known config");
        let file = "vae/diffusion_pytorch_model.safetensors";
        let expected = Expected::read(&format!("{shape}/expected/vae_tiles.safetensors"));
        let own = config.sample_size;
        let (images, latents) = (expected.get("images"), expected.get("latents"));
        let mut report = Report::new(&format!("tiled vae of {shape}"));
        for tile in [own, own / 2] {
            let vae = network(shape, file, |path| Ok(AutoencoderKl::new(path, &config)))
                .with_tiles(tile, config.scale_factor());
            let expected = |name: &str| expected.get(&format!("{name}.{tile}"));
            let (posterior, decoded) = no_grad(|| (vae.encode(&images), vae.decode(&latents)));
            report.close("mean", &posterior.mean, &expected("mean"), NETWORK);
            report.close("std", &posterior.std, &expected("std"), NETWORK);
            report.close("decoded", &decoded, &expected("decoded"), NETWORK);
        }
        let whole = network(shape, file, |path| Ok(AutoencoderKl::new(path, &config)));
        let small = no_grad(|| whole.decode(&expected.get("small")));
        report.close(
            "one tile is not cut",
            &small,
            &expected.get("small_decoded"),
            NETWORK,
        );
        // The picture must differ from the one without tiles; otherwise this test would compare
        // nothing.
        let plain = no_grad(|| whole.decode(&latents));
        let gap = difference(&plain, &expected.get(&format!("decoded.{own}"))).l2;
        report.check(gap > 10.0 * NETWORK, || {
            format!("tiles change nothing: {gap:.1e}")
        });
        report.finish();
    }
}

//! Files for the toy that it does not have itself: a ControlNet, a LoRA, a second actor.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use oneactor::io::blob::Blob;
use oneactor::io::tensors::TensorFile;
use oneactor::io::toy;
use oneactor::libtorch::seeded;
use oneactor::pictures::png::save_png;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::program::copy;

/// The toy's U-Net: its tensors by name, and its config.
fn toy_unet(scratch: &Path) -> (BTreeMap<String, Tensor>, Value) {
    let Some(Blob::Embedded { bytes, .. }) = toy::file("unet/diffusion_pytorch_model.safetensors")
    else {
        panic!("the toy is in the binary");
    };
    let path = scratch.join("unet.safetensors");
    fs::write(&path, bytes).expect("the folder is writable");
    let tensors = Tensor::read_safetensors(&path).expect("the toy is whole");
    fs::remove_file(path).expect("it is there");
    let config = toy::file("unet/config.json").expect("the toy is in the binary");
    let config = serde_json::from_str(&config.read_text().expect("it is text"));
    (tensors.into_iter().collect(), config.expect("it is JSON"))
}

/// Writes a ControlNet for the toy into `folder/name`. No ControlNet was trained for the toy: this
/// one has the encoder of its U-Net, as at the start of a training. The last convolutions have
/// random weights of standard deviation `size`.
pub fn write_controlnet(folder: &Path, name: &str, size: f64) {
    let _drawing = seeded(7);
    let (unet, config) = toy_unet(folder);
    let cpu = (Kind::Float, Device::Cpu);
    let mut net = TensorFile::default();
    let copied = [
        "conv_in.",
        "time_embedding.",
        "add_embedding.",
        "down_blocks.",
        "mid_block.",
    ];
    for (key, tensor) in &unet {
        if copied.iter().any(|prefix| key.starts_with(prefix)) {
            net.insert(key, tensor);
        }
    }
    let mut conv = |key: String, c_out: i64, c_in: i64, kernel: i64, size: f64| {
        let weight = Tensor::randn([c_out, c_in, kernel, kernel], cpu) * size;
        net.insert(&format!("{key}.weight"), &weight);
        net.insert(
            &format!("{key}.bias"),
            &(Tensor::randn([c_out], cpu) * size),
        );
    };
    let channels = [8, 12, 16];
    let embedding = "controlnet_cond_embedding";
    conv(format!("{embedding}.conv_in"), 8, 3, 3, 0.3);
    for (i, [c_in, c_out]) in [[8, 8], [8, 12], [12, 12], [12, 16]]
        .into_iter()
        .enumerate()
    {
        conv(format!("{embedding}.blocks.{i}"), c_out, c_in, 3, 0.2);
    }
    conv(format!("{embedding}.conv_out"), 64, 16, 3, 0.2);
    for (i, c) in [64, 64, 64, 96, 96, 128].into_iter().enumerate() {
        conv(format!("controlnet_down_blocks.{i}"), c, c, 1, size);
    }
    conv("controlnet_mid_block".into(), 128, 128, 1, size);

    let mut own = json!({
        "_class_name": "ControlNetModel",
        "conditioning_channels": 3,
        "conditioning_embedding_out_channels": channels,
        "controlnet_conditioning_channel_order": "rgb",
        "global_pool_conditions": false,
    });
    for key in [
        "addition_embed_type",
        "addition_time_embed_dim",
        "attention_head_dim",
        "block_out_channels",
        "cross_attention_dim",
        "down_block_types",
        "in_channels",
        "layers_per_block",
        "norm_num_groups",
        "projection_class_embeddings_input_dim",
        "transformer_layers_per_block",
        "use_linear_projection",
    ] {
        own[key] = config[key].clone();
    }
    let target = folder.join(name);
    fs::create_dir_all(&target).expect("the folder is writable");
    fs::write(target.join("config.json"), own.to_string()).expect("the folder is writable");
    let bytes = net.to_bytes().expect("it can be written");
    fs::write(target.join("diffusion_pytorch_model.safetensors"), bytes)
        .expect("the folder is writable");
}

/// A picture with a bright box.
pub fn write_picture(path: &Path, width: u32, height: u32, left: u32) {
    let picture = RgbImage::from_fn(width, height, |x, y| {
        let inside = (left..left + width / 4).contains(&x) && (10..40).contains(&y);
        Rgb(if inside { [250, 220, 40] } else { [20, 30, 60] })
    });
    save_png(path, &picture, &[]).expect("the folder is writable");
}

/// Writes a LoRA for two layers of the toy's networks; `size` scales its random weights.
pub fn lora(path: &Path, size: f64) {
    let mut file = TensorFile::default();
    let _drawing = seeded(3);
    for (layer, wide, high) in [
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", 64, 256),
        (
            "lora_te1_text_model_encoder_layers_1_self_attn_v_proj",
            64,
            64,
        ),
    ] {
        let random = |shape| Tensor::randn(shape, (Kind::Float, Device::Cpu)) * size;
        file.insert(&format!("{layer}.lora_down.weight"), &random([2, wide]));
        file.insert(&format!("{layer}.lora_up.weight"), &random([high, 2]));
        file.insert(&format!("{layer}.alpha"), &Tensor::from_slice(&[1.0f32]));
    }
    fs::write(path, file.to_bytes().expect("floats")).expect("the folder is writable");
}

/// A copy of the actor `robot` with other metadata.
pub fn disguised(folder: &Path, name: &str, metadata: &[(&str, &str)]) -> PathBuf {
    copy(&folder.join("robot"), &folder.join(name));
    let path = folder.join(name).join("actor.safetensors");
    let mut actor = TensorFile::read(&path).expect("it is readable");
    for (key, value) in metadata {
        actor.metadata.insert((*key).into(), (*value).into());
    }
    fs::write(&path, actor.to_bytes().expect("it can be written")).expect("the folder is writable");
    path
}

//! A LoRA with the keys and shapes of a text, merged into a few layers.

#![no_main]

use std::path::Path;
use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use oneactor::io::blob::Blob;
use oneactor::io::lora::LoraSet;
use oneactor::io::weights::Weights;
use oneactor_fuzz::{forever, safetensors};
use tch::{Device, Kind};

/// Layers of the model by component, with a name of each style that LoRAs use.
const LAYERS: [(&str, &[(&str, &[i64])]); 2] = [
    (
        "unet",
        &[
            ("conv_in.weight", &[4, 4, 3, 3]),
            ("time_embedding.linear_1.weight", &[8, 4]),
            ("down_blocks.0.resnets.0.conv1.weight", &[4, 4, 3, 3]),
            ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight", &[4, 4]),
            ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.weight", &[4, 4]),
            ("mid_block.attentions.0.proj_in.weight", &[4, 4, 1, 1]),
            ("up_blocks.0.upsamplers.0.conv.weight", &[4, 4, 3, 3]),
        ],
    ),
    (
        "text_encoder",
        &[
            ("text_model.encoder.layers.0.self_attn.q_proj.weight", &[4, 4]),
            ("text_model.encoder.layers.0.mlp.fc1.weight", &[8, 4]),
        ],
    ),
];

fuzz_target!(|text: &str| {
    let Some(bytes) = safetensors(text, "F32", 4) else {
        return;
    };
    let Ok(set) = LoraSet::read("fuzz", &bytes, 0.5, &["unet", "text_encoder"]) else {
        return;
    };
    let set = Rc::new(set);
    for (component, layers) in LAYERS {
        let lines = layers.iter().map(|(key, shape)| {
            let sides: Vec<String> = shape.iter().map(i64::to_string).collect();
            format!("{key} {}", sides.join(" "))
        });
        let model = lines.collect::<Vec<_>>().join("\n");
        let model = safetensors(&model, "F16", 2).expect("it is small");
        // SAFETY: weights and tensors end in this block.
        let bytes = unsafe { forever(&model) };
        let blob = Blob::Mapped { path: Path::new("model").to_owned(), bytes };
        let weights = Weights::open(&[blob], Device::Cpu, Kind::Float);
        let weights = weights.expect("the model is good").with_loras(&set, component);
        for (key, shape) in layers {
            assert_eq!(weights.root().tensor(key, shape).size(), *shape);
        }
        let _ = weights.finish();
    }
    let _ = set.finish();
});

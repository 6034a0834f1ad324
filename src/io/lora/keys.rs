//! The keys of LoRA files, and the layers that they make up.

use tch::{Device, Kind, Tensor};

use super::metadata::Metadata;
use super::name::{COMPONENTS, Name};
use crate::libtorch::sent;

/// The start of kohya's keys, before the layer.
const KOHYA: [(&str, &str); 4] = [
    ("lora_unet_", "unet"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"),
];

/// The end of diffusers' keys, after the layer, from the oldest form on, with the role of the
/// tensor.
const ENDINGS: [(&str, Role); 8] = [
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
];

/// Parts of keys that identify other kinds of adapter.
const OTHERS: [(&str, &str); 10] = [
    ("dora_scale", "DoRA"),
    ("lora_magnitude_vector", "DoRA"),
    ("hada_w", "LoHa"),
    ("hada_t", "LoHa"),
    ("lokr_", "LoKr"),
    ("lora_mid", "a LoRA in three parts (CP decomposition)"),
    ("oft_blocks", "OFT"),
    ("oft_diag", "OFT"),
    ("on_input", "IA3"),
    ("lora_controlnet", "a ControlNet as a LoRA"),
];

/// The kind of adapter that a key belongs to, if it is not a plain LoRA.
pub(super) fn other_adapter(key: &str) -> Option<&'static str> {
    if key.ends_with(".diff") || key.ends_with(".diff_b") {
        return Some("a difference of whole weights");
    }
    let found = OTHERS.iter().find(|(part, _)| key.contains(part));
    found.map(|(_, kind)| *kind)
}

/// The role of a tensor in its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Down,
    Up,
    Alpha,
}

/// The layer of a key and the tensor's role in it; `None` for an unknown key.
pub(super) fn parse(key: &str) -> Option<(Name, Role)> {
    let kohya = KOHYA.iter().find_map(|(prefix, component)| {
        let rest = key.strip_prefix(prefix)?;
        Some((*component, rest))
    });
    if let Some((component, rest)) = kohya {
        let (module, ending) = rest.split_once('.')?;
        let role = match ending {
            "lora_down.weight" => Role::Down,
            "lora_up.weight" => Role::Up,
            "alpha" => Role::Alpha,
            _ => return None,
        };
        let module = without_start(component, module, "text_model_");
        return Some((Name { component, module }, role));
    }
    let (component, rest) = key.split_once('.')?;
    let component = *COMPONENTS.iter().find(|known| **known == component)?;
    let (ending, role) = ENDINGS.iter().find(|(ending, _)| rest.ends_with(ending))?;
    let module = rest[..rest.len() - ending.len()].replace(".processor", "");
    let module = if ending.starts_with('_') {
        old_name(component, &module)?
    } else {
        module
    };
    let module = without_start(component, &module, "text_model.");
    Some((Name { component, module }, *role))
}

fn without_start(component: &str, module: &str, start: &str) -> String {
    let rest = (component != "unet").then(|| module.strip_prefix(start));
    rest.flatten().unwrap_or(module).to_owned()
}

/// The first form of diffusers named only attention layers: `to_q_lora` and so on, in all networks.
fn old_name(component: &str, module: &str) -> Option<String> {
    let (start, layer) = module.rsplit_once('.')?;
    let layer = match (component, layer) {
        ("unet", "to_q" | "to_k" | "to_v") => layer,
        ("unet", "to_out") => "to_out.0",
        (_, "to_q") => "q_proj",
        (_, "to_k") => "k_proj",
        (_, "to_v") => "v_proj",
        (_, "to_out") => "out_proj",
        _ => return None,
    };
    Some(format!("{start}.{layer}"))
}

/// The two matrices of a layer.
#[derive(Debug)]
pub(super) struct LoraLayer {
    /// One of the layer's keys, for messages.
    pub(super) key: String,
    /// `[R, I]`, or `[R, I, K, K]` for a convolution.
    pub(super) down: Option<Tensor>,
    /// `[O, R]`, or `[O, R, 1, 1]`.
    pub(super) up: Option<Tensor>,
    /// The rank R if the file does not give alpha.
    pub(super) alpha: Option<f64>,
}

impl LoraLayer {
    pub(super) fn new(key: &str) -> Self {
        LoraLayer {
            key: key.to_owned(),
            down: None,
            up: None,
            alpha: None,
        }
    }

    /// Checks that both matrices are present and agree, and fills in values from PEFT's metadata.
    pub(super) fn complete(&mut self, name: &Name, metadata: &Metadata) -> Result<(), String> {
        let (Some(down), Some(up)) = (&self.down, &self.up) else {
            let lost = if self.up.is_none() {
                "up (B)"
            } else {
                "down (A)"
            };
            return Err(format!("the layer's {lost} matrix is missing"));
        };
        let is_float = |t: &Tensor| t.is_floating_point();
        if !is_float(down) || !is_float(up) {
            return Err("expected floating point".to_owned());
        }
        let (down, up) = (down.size(), up.size());
        let is_conv = down.len() == 4 && up.len() == 4 && up[2..] == [1, 1];
        let is_linear = down.len() == 2 && up.len() == 2;
        if !(is_linear || is_conv) || down[0] != up[1] || down[0] == 0 {
            return Err(format!(
                "found down {down:?} and up {up:?}, expected [R, I] and [O, R], or [R, I, K, K] and [O, R, 1, 1]"
            ));
        }
        match self.alpha {
            Some(alpha) if !metadata.is_empty() => {
                return Err(format!(
                    "found an alpha of {alpha} and the metadata lora_adapter_metadata, expected one of the two"
                ));
            }
            Some(_) => {}
            None => {
                let is_kohya = KOHYA.iter().any(|(start, _)| self.key.starts_with(start));
                self.alpha = metadata.alpha(name, down[0], is_kohya)?;
            }
        }
        Ok(())
    }

    /// Number of values of the weight that the layer changes.
    pub(super) fn merged_values(&self) -> u64 {
        let [Some(down), Some(up)] = [&self.down, &self.up] else {
            return 0;
        };
        let rank = down.size()[0].max(1);
        (down.numel() as i64 / rank * (up.numel() as i64 / rank)) as u64
    }

    /// Whether the layer fits a weight of this shape; the error says what was found and expected.
    pub(super) fn check(&self, shape: &[i64]) -> Result<(), String> {
        let (Some(down), Some(up)) = (&self.down, &self.up) else {
            return Err("a matrix is missing".to_owned());
        };
        let rank = down.size()[0];
        let (mut down_shape, mut up_shape) = (shape.to_vec(), vec![1; shape.len()]);
        let fits = shape.len() >= 2 && {
            (up_shape[0], up_shape[1]) = (shape[0], rank);
            down_shape[0] = rank;
            down.size() == down_shape && up.size() == up_shape
        };
        if !fits {
            return Err(format!(
                "found down {:?} and up {:?} for a weight of {shape:?}, expected {down_shape:?} and {up_shape:?}",
                down.size(),
                up.size()
            ));
        }
        Ok(())
    }

    /// The change to a weight of this shape, which the layer must fit: `alpha / R · up · down`, f32
    /// on this device. Only the two factors are sent to it.
    pub(super) fn delta(&self, shape: &[i64], device: Device) -> Tensor {
        let [down, up] = [&self.down, &self.up].map(|matrix| {
            let matrix = matrix.as_ref().expect("a layer that fits has both");
            sent(matrix, device).to_kind(Kind::Float).flatten(1, -1)
        });
        let rank = down.size()[0] as f64;
        up.matmul(&down).reshape(shape) * (self.alpha.unwrap_or(rank) / rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_style_name_the_same_layer() {
        let cases = [
            (
                "unet.mid_block.attentions.0.proj_in.lora_A.weight",
                "unet",
                "mid_block.attentions.0.proj_in",
                Role::Down,
            ),
            (
                "unet.a.attn1.to_q.lora.up.weight",
                "unet",
                "a.attn1.to_q",
                Role::Up,
            ),
            (
                "unet.a.attn1.processor.to_out_lora.down.weight",
                "unet",
                "a.attn1.to_out.0",
                Role::Down,
            ),
            (
                "text_encoder_2.text_model.encoder.layers.1.self_attn.to_out_lora.up.weight",
                "text_encoder_2",
                "encoder.layers.1.self_attn.out_proj",
                Role::Up,
            ),
            (
                "text_encoder.text_model.encoder.layers.1.mlp.fc1.lora_linear_layer.down.weight",
                "text_encoder",
                "encoder.layers.1.mlp.fc1",
                Role::Down,
            ),
            (
                "lora_te_text_model_encoder_layers_1_mlp_fc1.alpha",
                "text_encoder",
                "encoder_layers_1_mlp_fc1",
                Role::Alpha,
            ),
            (
                "lora_te2_text_projection.lora_up.weight",
                "text_encoder_2",
                "text_projection",
                Role::Up,
            ),
            (
                "lora_unet_input_blocks_4_1_proj_in.lora_down.weight",
                "unet",
                "input_blocks_4_1_proj_in",
                Role::Down,
            ),
        ];
        for (key, component, module, role) in cases {
            let module = module.to_owned();
            assert_eq!(
                parse(key),
                Some((Name { component, module }, role)),
                "{key}"
            );
        }
        for key in [
            "",
            "unet",
            "unet.conv_in.weight",
            "vae.conv_in.lora_A.weight",
            "lora_unet_x.lora_A.bias",
            "unet.a.ff_lora.up.weight",
            "bundle_emb.x",
        ] {
            assert_eq!(parse(key), None, "{key}");
        }
    }
}

//! The keys of LoRA files, and the layers that they make up.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tch::{Kind, Tensor};

/// The components that a LoRA can be for.
pub(super) const COMPONENTS: [&str; 3] = ["unet", "text_encoder", "text_encoder_2"];

/// Before the layer in kohya's keys.
const KOHYA: [(&str, &str); 4] = [
    ("lora_unet_", "unet"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"),
];

/// What stands behind the layer in diffusers' keys, from the oldest on, and what it is.
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

/// Parts of keys by which other adapters are known.
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

/// The kind of adapter that a key tells of, if it is not a plain LoRA.
pub(super) fn other_adapter(key: &str) -> Option<&'static str> {
    if key.ends_with(".diff") || key.ends_with(".diff_b") {
        return Some("a difference of whole weights");
    }
    let found = OTHERS.iter().find(|(part, _)| key.contains(part));
    found.map(|(_, kind)| *kind)
}

/// A layer as a file names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) component: &'static str,
    /// diffusers' name of the module, or the same or the original's with `_` for `.`; without
    /// `text_model`, which newer versions of transformers leave out.
    pub(super) module: String,
}

/// What a tensor is for its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Down,
    Up,
    Alpha,
}

/// The layer of a key and what the tensor is for it; `None` for a key that is not known.
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
    let module = match ending.starts_with('_') {
        true => old_name(component, &module)?,
        false => module,
    };
    let module = without_start(component, &module, "text_model.");
    Some((Name { component, module }, *role))
}

fn without_start(component: &str, module: &str, start: &str) -> String {
    let rest = (component != "unet").then(|| module.strip_prefix(start));
    rest.flatten().unwrap_or(module).to_owned()
}

/// diffusers' first form named only attention layers: `to_q_lora` and so on, in all networks.
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
pub(super) struct Layer {
    /// One of its keys, for messages.
    pub(super) key: String,
    /// `[R, I]`, or `[R, I, K, K]` for a convolution.
    pub(super) down: Option<Tensor>,
    /// `[O, R]`, or `[O, R, 1, 1]`.
    pub(super) up: Option<Tensor>,
    /// The rank R where the file says nothing.
    pub(super) alpha: Option<f64>,
}

impl Layer {
    pub(super) fn new(key: &str) -> Self {
        Layer {
            key: key.to_owned(),
            down: None,
            up: None,
            alpha: None,
        }
    }

    /// Checks that both matrices are there and agree, and fills in what PEFT's metadata say.
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
        if self.alpha.is_none() {
            self.alpha = metadata.alpha(name, down[0]);
        }
        Ok(())
    }

    /// Values of the weight that it changes.
    pub(super) fn merged_values(&self) -> u64 {
        let [Some(down), Some(up)] = [&self.down, &self.up] else {
            return 0;
        };
        let rank = down.size()[0].max(1);
        (down.numel() as i64 / rank * (up.numel() as i64 / rank)) as u64
    }

    /// Whether it fits a weight of this shape; the error says what it has and should have.
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

    /// What it adds to a weight of this shape, which it fits: `alpha / R · up · down`, f32 on the CPU.
    pub(super) fn delta(&self, shape: &[i64]) -> Tensor {
        let [down, up] = [&self.down, &self.up].map(|matrix| {
            let matrix = matrix.as_ref().expect("a layer that fits has both");
            matrix.to_kind(Kind::Float).flatten(1, -1)
        });
        let rank = down.size()[0] as f64;
        up.matmul(&down).reshape(shape) * (self.alpha.unwrap_or(rank) / rank)
    }
}

/// What PEFT writes beside the tensors: `lora_adapter_metadata`, a flat JSON object with the
/// components' `LoraConfig` (`unet.lora_alpha`, …).
#[derive(Debug, Default)]
pub(super) struct Metadata(Map<String, Value>);

impl Metadata {
    /// Reads the metadata of a file.
    pub(super) fn read(metadata: &BTreeMap<String, String>) -> Result<Self, String> {
        let name = "lora_adapter_metadata";
        let Some(text) = metadata.get(name) else {
            return Ok(Self::default());
        };
        let values: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("metadata {name}: {error}"))?;
        for (key, value) in &values {
            let field = key.split_once('.').map_or(key.as_str(), |(_, field)| field);
            let is_off = match value {
                Value::Null | Value::Bool(false) => true,
                Value::String(text) => text == "none",
                _ => false,
            };
            let changes = [
                "use_dora",
                "lora_bias",
                "fan_in_fan_out",
                "bias",
                "alora_invocation_tokens",
            ];
            if changes.contains(&field) && !is_off {
                return Err(format!(
                    "metadata {name}: {key} is {value}, which is not built"
                ));
            }
            let is_pattern = field == "alpha_pattern";
            let is_plain =
                |pattern: &String| !pattern.contains(['*', '(', '[', '|', '\\', '+', '?']);
            let patterns = value.as_object().into_iter().flat_map(Map::keys);
            if let Some(pattern) = patterns.into_iter().find(|p| is_pattern && !is_plain(p)) {
                return Err(format!(
                    "metadata {name}: {key}: the pattern {pattern} is not built"
                ));
            }
        }
        Ok(Self(values))
    }

    /// The alpha of a layer of this rank, as PEFT finds it; scaled by √rank where it says so.
    fn alpha(&self, name: &Name, rank: i64) -> Option<f64> {
        let get = |field: &str| self.0.get(&format!("{}.{field}", name.component));
        let patterns = get("alpha_pattern").and_then(Value::as_object);
        let own = patterns.into_iter().flatten().find(|(pattern, _)| {
            let pattern = pattern.trim_start_matches('^').trim_end_matches('$');
            let pattern = pattern.strip_prefix("text_model.").unwrap_or(pattern);
            let start = name.module.strip_suffix(pattern);
            start.is_some_and(|start| start.is_empty() || start.ends_with('.'))
        });
        let alpha = match own {
            Some((_, alpha)) => alpha.as_f64()?,
            None => get("lora_alpha")?.as_f64()?,
        };
        let is_root = get("use_rslora").and_then(Value::as_bool) == Some(true);
        Some(if is_root {
            alpha * (rank as f64).sqrt()
        } else {
            alpha
        })
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

    #[test]
    fn peft_metadata_give_alpha() {
        let text = r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"b.to_q": 2}, "text_encoder.lora_alpha": 4, "text_encoder.use_rslora": true, "text_encoder.alpha_pattern": {"text_model.a.q_proj": 3}, "unet.use_dora": false}"#;
        let of = |text: &str| {
            let metadata = [("lora_adapter_metadata".to_owned(), text.to_owned())];
            Metadata::read(&metadata.into())
        };
        let metadata = of(text).expect("plain LoRA");
        let alpha = |component, module: &str| {
            let module = module.to_owned();
            metadata.alpha(&Name { component, module }, 4)
        };
        assert_eq!(alpha("unet", "a.b.to_q"), Some(2.0));
        assert_eq!(alpha("unet", "a.bb.to_q"), Some(8.0));
        assert_eq!(alpha("text_encoder", "a"), Some(8.0));
        assert_eq!(alpha("text_encoder", "a.q_proj"), Some(6.0));
        assert_eq!(alpha("text_encoder_2", "a"), None);
        assert!(of(r#"{"unet.use_dora": true}"#).is_err());
        assert!(of(r#"{"unet.alpha_pattern": {"a.*": 2}}"#).is_err());
    }
}

//! Derives the `config.json` of each network in a single file from the shapes of its tensors.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use super::Family;
use crate::error::model;
use crate::io::ldm_names::{LdmNames, OPEN_CLIP_PROJECTION, UnetNames};

/// Prefix of the U-Net's keys.
pub(super) const UNET: &str = "model.diffusion_model.";
/// Prefix of the VAE's keys.
pub(super) const VAE: &str = "first_stage_model.";
/// Prefix of the keys of SDXL's first text encoder.
pub(super) const CLIP_OF_SDXL: &str = "conditioner.embedders.0.transformer.";
/// Prefix of the keys of SDXL's second text encoder.
pub(super) const OPEN_CLIP: &str = "conditioner.embedders.1.model.";
/// Prefix of the keys of SD 1.5's text encoder.
pub(super) const CLIP_OF_SD15: &str = "cond_stage_model.transformer.";

/// Width of an attention head in SDXL's U-Net and in all CLIP text encoders. In SD 1.5's U-Net the
/// number of heads is fixed instead.
const HEAD_WIDTH: i64 = 64;
/// Number of heads in every block of SD 1.5's U-Net.
const HEADS_OF_SD15: i64 = 8;

/// Shapes of a file's tensors by key.
pub(super) struct Shapes(pub(super) BTreeMap<String, Vec<i64>>);

impl Shapes {
    pub(super) fn find(&self, prefix: &str, key: &str) -> Option<&[i64]> {
        self.0.get(&format!("{prefix}{key}")).map(Vec::as_slice)
    }

    /// The size of one axis of a tensor that must exist.
    fn side(&self, prefix: &str, key: &str, axis: usize) -> Result<i64> {
        let found = self.find(prefix, key).and_then(|shape| shape.get(axis));
        found.copied().ok_or_else(|| {
            model(format!(
                "found no tensor {prefix}{key} with {} axes or more",
                axis + 1
            ))
        })
    }

    /// The rest of each key that begins with `start`.
    fn rests<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a str> {
        let keys = self.0.range(start.to_owned()..).map(|(key, _)| key);
        keys.map_while(move |key| key.strip_prefix(start))
    }

    /// Whether there are tensors below this path.
    fn has(&self, prefix: &str, place: &str) -> bool {
        self.rests(&format!("{prefix}{place}.")).next().is_some()
    }

    /// One more than the highest number below `place`. Gaps are counted too: a missing tensor
    /// should be reported as missing, and not make the network smaller. No network has more than
    /// 255 of anything.
    fn count(&self, prefix: &str, place: &str) -> usize {
        let start = format!("{prefix}{place}.");
        let number = |rest: &str| rest.split('.').next()?.parse::<u8>().ok();
        let numbers = self.rests(&start).filter_map(number);
        numbers.max().map_or(0, |highest| usize::from(highest) + 1)
    }
}

/// Names of the networks, in the order of [`Family::components`], and the small files.
type Inferred = (Vec<LdmNames>, BTreeMap<&'static str, String>);

/// Derives the sizes from the shapes, or from the family's first model where shapes do not show
/// them.
///
/// # Errors
/// When a tensor that shows a size is missing, or the sizes do not agree.
pub(super) fn infer(shapes: &Shapes, family: Family) -> Result<Inferred> {
    let (unet_names, unet) = unet(shapes, family)?;
    let (blocks, vae) = vae(shapes, family)?;
    let mut names = vec![LdmNames::Unet(unet_names), LdmNames::Vae(blocks)];
    let mut texts = vec![("unet/config.json", unet), ("vae/config.json", vae)];
    match family {
        Family::Sdxl => {
            let open_clip_names = LdmNames::OpenClip {
                has_linear_projection: has_linear_projection(shapes),
            };
            names.extend([LdmNames::Clip, open_clip_names]);
            texts.extend([
                ("text_encoder/config.json", clip(shapes, CLIP_OF_SDXL)?),
                ("text_encoder_2/config.json", open_clip(shapes)?),
                ("model_index.json", index_of_sdxl()),
                ("scheduler/scheduler_config.json", scheduler_of_sdxl()),
            ]);
        }
        Family::Sd15 => {
            names.push(LdmNames::Clip);
            texts.extend([
                ("text_encoder/config.json", clip(shapes, CLIP_OF_SD15)?),
                ("model_index.json", index_of_sd15()),
                ("scheduler/scheduler_config.json", scheduler_of_sd15()),
            ]);
        }
    }
    let texts = texts
        .into_iter()
        .map(|(name, json)| (name, json.to_string()));
    Ok((names, texts.collect()))
}

/// The sizes of the U-Net's blocks.
struct UnetBlocks {
    names: UnetNames,
    channels: Vec<i64>,
    down_types: Vec<&'static str>,
    /// Transformer blocks in each attention.
    depths: Vec<i64>,
}

impl UnetBlocks {
    fn read(shapes: &Shapes) -> Result<Self> {
        // The first layer that halves the resolution comes after the residual blocks of the first
        // block.
        let places = shapes.count(UNET, "input_blocks");
        let halves = |at: &usize| shapes.has(UNET, &format!("input_blocks.{at}.0.op"));
        let step = (1..places).find(halves).unwrap_or(0);
        if step < 2 || !places.is_multiple_of(step) {
            return Err(model(format!(
                "found {places} places in {UNET}input_blocks, of which the first with a layer `op` is {step}: expected \
                 blocks of equal length, each of residual blocks and, but for the last one, such a layer"
            )));
        }
        let (layers, blocks) = (step - 1, places / step);
        let depth = |at: &str| shapes.count(UNET, &format!("{at}.transformer_blocks")) as i64;
        let (mut channels, mut down_types, mut depths) = (Vec::new(), Vec::new(), Vec::new());
        for b in 0..blocks {
            let first = format!("input_blocks.{}", 1 + b * step);
            let conv2 = format!("{first}.0.out_layers.3.weight");
            channels.push(shapes.side(UNET, &conv2, 0)?);
            let (kind, count) = match depth(&format!("{first}.1")) {
                // For a block without attention the number is used by the middle block alone.
                0 if b + 1 == blocks => ("DownBlock2D", depth("middle_block.1")),
                0 => ("DownBlock2D", 1),
                count => ("CrossAttnDownBlock2D", count),
            };
            down_types.push(kind);
            depths.push(count);
        }
        let has_attention = |b| {
            let at = format!("output_blocks.{}.1.transformer_blocks", b * step);
            shapes.has(UNET, &at)
        };
        let names = UnetNames {
            layers_per_block: layers,
            up_attention: (0..blocks).map(has_attention).collect(),
        };
        Ok(Self {
            names,
            channels,
            down_types,
            depths,
        })
    }

    fn up_types(&self) -> Vec<&'static str> {
        let kind = |attention: &bool| {
            if *attention {
                "CrossAttnUpBlock2D"
            } else {
                "UpBlock2D"
            }
        };
        self.names.up_attention.iter().map(kind).collect()
    }
}

fn unet(shapes: &Shapes, family: Family) -> Result<(UnetNames, Value)> {
    let side = |key: &str, axis| shapes.side(UNET, key, axis);
    let blocks = UnetBlocks::read(shapes)?;
    let projection = shapes.find(UNET, "middle_block.1.proj_in.weight");
    let middle = "middle_block.1.transformer_blocks.0.attn2.to_k.weight";
    let mut config = json!({
        "_class_name": "UNet2DConditionModel",
        "in_channels": side("input_blocks.0.0.weight", 1)?,
        "out_channels": side("out.2.weight", 0)?,
        "block_out_channels": blocks.channels,
        "down_block_types": blocks.down_types,
        "up_block_types": blocks.up_types(),
        "layers_per_block": blocks.names.layers_per_block,
        "transformer_layers_per_block": blocks.depths,
        "cross_attention_dim": side(middle, 1)?,
        "use_linear_projection": projection.is_some_and(|shape| shape.len() == 2),
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "norm_num_groups": 32,
        "norm_eps": 1e-5,
    });
    match family {
        Family::Sd15 => {
            config["attention_head_dim"] = json!(HEADS_OF_SD15);
            config["sample_size"] = json!(64);
        }
        Family::Sdxl => {
            let heads = blocks.channels.iter().map(|&c| heads(c, UNET));
            config["attention_head_dim"] = json!(heads.collect::<Result<Vec<i64>>>()?);
            config["sample_size"] = json!(128);
            let (sizes, width) = embedded_sizes(shapes)?;
            config["addition_embed_type"] = json!("text_time");
            config["addition_time_embed_dim"] = json!(sizes);
            config["projection_class_embeddings_input_dim"] = json!(width);
        }
    }
    Ok((blocks.names, config))
}

/// Width of one embedded size of SDXL, and width of the pooled text and six embedded sizes
/// together.
fn embedded_sizes(shapes: &Shapes) -> Result<(i64, i64)> {
    let width = shapes.side(UNET, "label_emb.0.0.weight", 1)?;
    let pooled = projected_width(shapes)?;
    let sizes = width - pooled;
    if sizes <= 0 || sizes % 6 != 0 {
        return Err(model(format!(
            "{UNET}label_emb.0.0.weight takes {width} values and {OPEN_CLIP}text_projection gives {pooled}: expected the difference to be six sizes of equal width"
        )));
    }
    Ok((sizes / 6, width))
}

fn heads(channels: i64, what: &str) -> Result<i64> {
    if channels > 0 && channels % HEAD_WIDTH == 0 {
        return Ok(channels / HEAD_WIDTH);
    }
    Err(model(format!(
        "{what}: found {channels} channels, expected a multiple of {HEAD_WIDTH}, the width of a head"
    )))
}

/// The VAE's number of blocks and its config.
fn vae(shapes: &Shapes, family: Family) -> Result<(usize, Value)> {
    let side = |key: &str, axis| shapes.side(VAE, key, axis);
    let halves = ["encoder.down", "decoder.up"].map(|half| shapes.count(VAE, half));
    let blocks = halves[0].max(halves[1]);
    let layers = shapes.count(VAE, "encoder.down.0.block");
    let channels: Result<Vec<i64>> = (0..blocks)
        .map(|i| side(&format!("encoder.down.{i}.block.0.conv1.weight"), 0))
        .collect();
    let (scaling_factor, sample_size) = match family {
        Family::Sdxl => (0.13025, 1024),
        Family::Sd15 => (0.18215, 512),
    };
    let config = json!({
        "_class_name": "AutoencoderKL",
        "in_channels": side("encoder.conv_in.weight", 1)?,
        "out_channels": side("decoder.conv_out.weight", 0)?,
        "latent_channels": side("decoder.conv_in.weight", 1)?,
        "block_out_channels": channels?,
        "down_block_types": vec!["DownEncoderBlock2D"; blocks],
        "up_block_types": vec!["UpDecoderBlock2D"; blocks],
        "layers_per_block": layers,
        "norm_num_groups": 32,
        "sample_size": sample_size,
        "scaling_factor": scaling_factor,
        "force_upcast": true,
        "use_quant_conv": shapes.has(VAE, "quant_conv"),
        "use_post_quant_conv": shapes.has(VAE, "post_quant_conv"),
    });
    Ok((blocks, config))
}

/// A text encoder with transformers' names. Newer files omit the leading `text_model`.
fn clip(shapes: &Shapes, prefix: &str) -> Result<Value> {
    let is_bare = shapes
        .find(prefix, "embeddings.token_embedding.weight")
        .is_some();
    let start = if is_bare { "" } else { "text_model." };
    let sizes = TextSizes {
        tokens: (format!("{start}embeddings.token_embedding.weight"), prefix),
        positions: format!("{start}embeddings.position_embedding.weight"),
        inner: format!("{start}encoder.layers.0.mlp.fc1.weight"),
        layers: shapes.count(prefix, &format!("{start}encoder.layers")),
    };
    let mut config = sizes.config(shapes)?;
    config["architectures"] = json!(["CLIPTextModel"]);
    config["hidden_act"] = json!("quick_gelu");
    config["projection_dim"] = config["hidden_size"].clone();
    Ok(config)
}

fn open_clip(shapes: &Shapes) -> Result<Value> {
    let sizes = TextSizes {
        tokens: ("token_embedding.weight".to_owned(), OPEN_CLIP),
        positions: "positional_embedding".to_owned(),
        inner: "transformer.resblocks.0.mlp.c_fc.weight".to_owned(),
        layers: shapes.count(OPEN_CLIP, "transformer.resblocks"),
    };
    let mut config = sizes.config(shapes)?;
    config["architectures"] = json!(["CLIPTextModelWithProjection"]);
    config["hidden_act"] = json!("gelu");
    config["projection_dim"] = json!(projected_width(shapes)?);
    Ok(config)
}

fn has_linear_projection(shapes: &Shapes) -> bool {
    shapes.find(OPEN_CLIP, OPEN_CLIP_PROJECTION).is_some()
}

/// Width of SDXL's pooled text. A linear layer stores its matrix transposed.
fn projected_width(shapes: &Shapes) -> Result<i64> {
    if has_linear_projection(shapes) {
        shapes.side(OPEN_CLIP, OPEN_CLIP_PROJECTION, 0)
    } else {
        shapes.side(OPEN_CLIP, "text_projection", 1)
    }
}

/// The keys that show the sizes of a text encoder.
struct TextSizes<'a> {
    /// Key of the token embeddings, and the prefix of all keys.
    tokens: (String, &'a str),
    positions: String,
    inner: String,
    layers: usize,
}

impl TextSizes<'_> {
    fn config(&self, shapes: &Shapes) -> Result<Value> {
        let (tokens, prefix) = (&self.tokens.0, self.tokens.1);
        let width = shapes.side(prefix, tokens, 1)?;
        Ok(json!({
            "hidden_size": width,
            "intermediate_size": shapes.side(prefix, &self.inner, 0)?,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads(width, prefix)?,
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": shapes.side(prefix, &self.positions, 0)?,
            "vocab_size": shapes.side(prefix, tokens, 0)?,
            // The old placeholder, as in the configs of both families' repositories.
            "eos_token_id": 2,
        }))
    }
}

/// `model_index.json` of stabilityai/stable-diffusion-xl-base-1.0.
fn index_of_sdxl() -> Value {
    json!({
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": true,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}

/// `scheduler_config.json` of stabilityai/stable-diffusion-xl-base-1.0.
fn scheduler_of_sdxl() -> Value {
    json!({
        "_class_name": "EulerDiscreteScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": false,
        "interpolation_type": "linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "sample_max_value": 1.0,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "trained_betas": null,
        "use_karras_sigmas": false,
    })
}

/// `model_index.json` of stable-diffusion-v1-5/stable-diffusion-v1-5, without the safety checker,
/// which single files do not contain.
fn index_of_sd15() -> Value {
    json!({
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}

/// `scheduler_config.json` of stable-diffusion-v1-5/stable-diffusion-v1-5.
fn scheduler_of_sd15() -> Value {
    json!({
        "_class_name": "PNDMScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "trained_betas": null,
        "clip_sample": false,
    })
}

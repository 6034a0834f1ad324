//! The names that the original code of Stable Diffusion (CompVis' LDM, Stability's SGM, OpenCLIP)
//! gives to tensors, where diffusers and transformers use other names.
//!
//! All lookups go from diffusers' name to the original's; `None` means that the original has no
//! such tensor. Checked against the converters of diffusers' `loaders/single_file_utils.py`.

use tch::Tensor;

/// Which part of the file's tensor is the tensor of diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LdmPart {
    /// The tensor itself.
    Whole,
    /// A third of its rows: OpenCLIP has query, key and value in one tensor.
    Third(i64),
    /// Its transpose.
    Transposed,
    /// A 1×1 convolution, read as a matrix.
    Matrix,
}

impl LdmPart {
    /// The shape of the file's tensor if this part of it has `shape`. `axes` is the file's number
    /// of axes: a matrix may be stored as a matrix or as a convolution.
    pub(super) fn shape_in_file(self, shape: &[i64], axes: usize) -> Vec<i64> {
        let mut expected = shape.to_vec();
        match self {
            LdmPart::Whole => {}
            LdmPart::Third(_) => expected[0] *= 3,
            LdmPart::Transposed => expected.reverse(),
            LdmPart::Matrix => expected.resize(axes.max(shape.len()), 1),
        }
        expected
    }

    /// This part, with `shape`, of the file's tensor.
    pub(super) fn of(self, tensor: &Tensor, shape: &[i64]) -> Tensor {
        match self {
            LdmPart::Whole => tensor.shallow_clone(),
            LdmPart::Third(i) => tensor.narrow(0, i * shape[0], shape[0]),
            LdmPart::Transposed => tensor.tr().contiguous(),
            LdmPart::Matrix => tensor.reshape(shape),
        }
    }
}

/// Where a tensor of diffusers is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LdmPlace {
    /// The tensor's key, without the prefix of the network.
    pub(super) key: String,
    /// Which part of it.
    pub(super) part: LdmPart,
}

/// The sizes of a U-Net on which its names depend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnetNames {
    /// Residual blocks in each block on the way down; blocks on the way up have one more.
    pub(super) layers_per_block: usize,
    /// For each block on the way up, whether it has attention.
    pub(super) up_attention: Vec<bool>,
}

/// OpenCLIP's projection if it is stored as a linear layer; the name is the same as in
/// transformers.
pub(super) const OPEN_CLIP_PROJECTION: &str = "text_projection.weight";

/// A network and its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LdmNames {
    /// `UNet2DConditionModel`.
    Unet(UnetNames),
    /// `AutoencoderKL` with this number of blocks.
    Vae(usize),
    /// `CLIPTextModel`; the original uses transformers' names.
    Clip,
    /// `CLIPTextModelWithProjection`; the original is OpenCLIP's text transformer.
    OpenClip {
        /// Whether the projection is stored as a linear layer, as some tools do, and not as a bare
        /// matrix.
        has_linear_projection: bool,
    },
}

impl LdmNames {
    /// Where the tensor that diffusers calls `key` is.
    pub(super) fn find(&self, key: &str) -> Option<LdmPlace> {
        let whole = |key| LdmPlace {
            key,
            part: LdmPart::Whole,
        };
        match self {
            LdmNames::Unet(names) => names.find(key).map(whole),
            LdmNames::Clip => Some(whole(key.to_owned())),
            LdmNames::Vae(blocks) => vae(*blocks, &split(key)),
            LdmNames::OpenClip {
                has_linear_projection: true,
            } if key == OPEN_CLIP_PROJECTION => Some(whole(key.to_owned())),
            LdmNames::OpenClip { .. } => open_clip(&split(key)),
        }
    }
}

fn split(key: &str) -> Vec<&str> {
    key.split('.').collect()
}

/// `start` followed by the rest of a key.
fn join(start: impl Into<String>, rest: &[&str]) -> String {
    rest.iter()
        .fold(start.into(), |key, part| format!("{key}.{part}"))
}

impl UnetNames {
    /// The sizes of the U-Net that has these keys, in diffusers' names.
    pub(super) fn of_diffusers<'a>(keys: impl Iterator<Item = &'a str> + Clone) -> Self {
        let has = |start: String| keys.clone().any(|key| key.starts_with(&start));
        let count = |of: &dyn Fn(usize) -> String| (0..).take_while(|&i| has(of(i))).count();
        Self {
            layers_per_block: count(&|i| format!("down_blocks.0.resnets.{i}.")),
            up_attention: (0..count(&|i| format!("up_blocks.{i}.")))
                .map(|i| has(format!("up_blocks.{i}.attentions.")))
                .collect(),
        }
    }

    /// The original's name of a tensor or module.
    pub(super) fn find(&self, key: &str) -> Option<String> {
        let number = |text: &str| text.parse::<usize>().ok();
        let in_a_block = self.layers_per_block + 1;
        Some(match split(key).as_slice() {
            ["conv_in", rest @ ..] => join("input_blocks.0.0", rest),
            ["conv_norm_out", rest @ ..] => join("out.0", rest),
            ["conv_out", rest @ ..] => join("out.2", rest),
            ["time_embedding", "linear_1", rest @ ..] => join("time_embed.0", rest),
            ["time_embedding", "linear_2", rest @ ..] => join("time_embed.2", rest),
            ["add_embedding", "linear_1", rest @ ..] => join("label_emb.0.0", rest),
            ["add_embedding", "linear_2", rest @ ..] => join("label_emb.0.2", rest),
            ["down_blocks", block, kind, layer, rest @ ..] => {
                let at = 1 + number(block)? * in_a_block + number(layer)?;
                match *kind {
                    "resnets" => join(format!("input_blocks.{at}.0"), &resnet(rest)?),
                    "attentions" => join(format!("input_blocks.{at}.1"), rest),
                    "downsamplers" => {
                        let at = at + self.layers_per_block;
                        join(format!("input_blocks.{at}.0.op"), after_conv(rest)?)
                    }
                    _ => return None,
                }
            }
            ["mid_block", "resnets", layer, rest @ ..] => {
                let at = 2 * number(layer)?;
                join(format!("middle_block.{at}"), &resnet(rest)?)
            }
            ["mid_block", "attentions", "0", rest @ ..] => join("middle_block.1", rest),
            ["up_blocks", block, kind, layer, rest @ ..] => {
                let block = number(block)?;
                let at = block * in_a_block + number(layer)?;
                match *kind {
                    "resnets" => join(format!("output_blocks.{at}.0"), &resnet(rest)?),
                    "attentions" => join(format!("output_blocks.{at}.1"), rest),
                    "upsamplers" => {
                        let at = at + self.layers_per_block;
                        // After the residual block, and after the attention if there is one.
                        let place = 1 + usize::from(*self.up_attention.get(block)?);
                        let conv = after_conv(rest)?;
                        join(format!("output_blocks.{at}.{place}.conv"), conv)
                    }
                    _ => return None,
                }
            }
            _ => return None,
        })
    }
}

/// The key's part after `conv`.
fn after_conv<'a, 'b>(rest: &'a [&'b str]) -> Option<&'a [&'b str]> {
    match rest {
        ["conv", rest @ ..] => Some(rest),
        _ => None,
    }
}

/// The original numbers the layers of the U-Net's residual blocks.
fn resnet<'a>(rest: &[&'a str]) -> Option<Vec<&'a str>> {
    let (layer, rest) = rest.split_first()?;
    let layer: &[&str] = match *layer {
        "norm1" => &["in_layers", "0"],
        "conv1" => &["in_layers", "2"],
        "time_emb_proj" => &["emb_layers", "1"],
        "norm2" => &["out_layers", "0"],
        "conv2" => &["out_layers", "3"],
        "conv_shortcut" => &["skip_connection"],
        _ => return None,
    };
    Some([layer, rest].concat())
}

fn vae(blocks: usize, key: &[&str]) -> Option<LdmPlace> {
    let whole = |key: String| {
        Some(LdmPlace {
            key,
            part: LdmPart::Whole,
        })
    };
    match key {
        ["quant_conv" | "post_quant_conv", ..] => whole(key.join(".")),
        [half @ ("encoder" | "decoder"), rest @ ..] => match rest {
            ["conv_in" | "conv_out", ..] => whole(key.join(".")),
            ["conv_norm_out", rest @ ..] => whole(join(format!("{half}.norm_out"), rest)),
            ["mid_block", "resnets", layer, rest @ ..] => {
                let at = layer.parse::<usize>().ok()? + 1;
                whole(join(format!("{half}.mid.block_{at}"), &vae_resnet(rest)))
            }
            ["mid_block", "attentions", "0", rest @ ..] => {
                vae_attention(&format!("{half}.mid.attn_1"), rest)
            }
            ["down_blocks", block, rest @ ..] => {
                whole(vae_block(format!("encoder.down.{block}"), rest)?)
            }
            // The original numbers the decoder's blocks from the outermost.
            ["up_blocks", block, rest @ ..] => {
                let at = blocks.checked_sub(1 + block.parse::<usize>().ok()?)?;
                whole(vae_block(format!("decoder.up.{at}"), rest)?)
            }
            _ => None,
        },
        _ => None,
    }
}

fn vae_block(block: String, rest: &[&str]) -> Option<String> {
    Some(match rest {
        ["resnets", layer, rest @ ..] => join(format!("{block}.block.{layer}"), &vae_resnet(rest)),
        ["downsamplers", "0", rest @ ..] => join(format!("{block}.downsample"), rest),
        ["upsamplers", "0", rest @ ..] => join(format!("{block}.upsample"), rest),
        _ => return None,
    })
}

fn vae_resnet<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    let rename = |part: &&'a str| match *part {
        "conv_shortcut" => "nin_shortcut",
        part => part,
    };
    rest.iter().map(rename).collect()
}

/// In the original the four layers are 1×1 convolutions.
fn vae_attention(attention: &str, rest: &[&str]) -> Option<LdmPlace> {
    let (name, rest) = match rest {
        ["group_norm", rest @ ..] => ("norm", rest),
        ["to_q", rest @ ..] => ("q", rest),
        ["to_k", rest @ ..] => ("k", rest),
        ["to_v", rest @ ..] => ("v", rest),
        ["to_out", "0", rest @ ..] => ("proj_out", rest),
        _ => return None,
    };
    let part = match (name, rest) {
        ("norm", _) | (_, ["bias"]) => LdmPart::Whole,
        _ => LdmPart::Matrix,
    };
    let key = join(format!("{attention}.{name}"), rest);
    Some(LdmPlace { key, part })
}

fn open_clip(key: &[&str]) -> Option<LdmPlace> {
    let (key, part) = match key {
        ["text_projection", "weight"] => ("text_projection".to_owned(), LdmPart::Transposed),
        ["text_model", "embeddings", "position_embedding", "weight"] => {
            ("positional_embedding".to_owned(), LdmPart::Whole)
        }
        ["text_model", "embeddings", "token_embedding", rest @ ..] => {
            (join("token_embedding", rest), LdmPart::Whole)
        }
        ["text_model", "final_layer_norm", rest @ ..] => (join("ln_final", rest), LdmPart::Whole),
        ["text_model", "encoder", "layers", layer, rest @ ..] => {
            let (rest, part) = open_clip_layer(rest)?;
            (format!("transformer.resblocks.{layer}.{rest}"), part)
        }
        _ => return None,
    };
    Some(LdmPlace { key, part })
}

fn open_clip_layer(key: &[&str]) -> Option<(String, LdmPart)> {
    let whole = |start: &str, rest: &[&str]| Some((join(start, rest), LdmPart::Whole));
    match key {
        ["layer_norm1", rest @ ..] => whole("ln_1", rest),
        ["layer_norm2", rest @ ..] => whole("ln_2", rest),
        ["mlp", "fc1", rest @ ..] => whole("mlp.c_fc", rest),
        ["mlp", "fc2", rest @ ..] => whole("mlp.c_proj", rest),
        ["self_attn", "out_proj", rest @ ..] => whole("attn.out_proj", rest),
        [
            "self_attn",
            proj @ ("q_proj" | "k_proj" | "v_proj"),
            kind @ ("weight" | "bias"),
        ] => {
            let third = ["q_proj", "k_proj", "v_proj"]
                .iter()
                .position(|p| p == proj)?;
            Some((format!("attn.in_proj_{kind}"), LdmPart::Third(third as i64)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SDXL's U-Net: three blocks of two layers, the outermost without attention.
    fn sdxl() -> UnetNames {
        UnetNames {
            layers_per_block: 2,
            up_attention: vec![true, true, false],
        }
    }

    #[test]
    fn names_of_the_unet_are_those_of_sdxls_single_file() {
        for (diffusers, ldm) in [
            ("conv_in.weight", "input_blocks.0.0.weight"),
            (
                "down_blocks.0.downsamplers.0.conv.bias",
                "input_blocks.3.0.op.bias",
            ),
            (
                "down_blocks.2.resnets.1.time_emb_proj.weight",
                "input_blocks.8.0.emb_layers.1.weight",
            ),
            (
                "down_blocks.1.attentions.1.proj_in",
                "input_blocks.5.1.proj_in",
            ),
            (
                "mid_block.resnets.1.conv2.weight",
                "middle_block.2.out_layers.3.weight",
            ),
            (
                "up_blocks.0.upsamplers.0.conv.weight",
                "output_blocks.2.2.conv.weight",
            ),
            (
                "up_blocks.2.resnets.2.conv_shortcut.weight",
                "output_blocks.8.0.skip_connection.weight",
            ),
        ] {
            assert_eq!(sdxl().find(diffusers).as_deref(), Some(ldm));
        }
        let mut sd15 = sdxl();
        sd15.up_attention[0] = false;
        let upsampler = sd15.find("up_blocks.0.upsamplers.0.conv.weight");
        assert_eq!(upsampler.as_deref(), Some("output_blocks.2.1.conv.weight"));
        for unknown in [
            "",
            "conv_middle",
            "down_blocks.x.resnets.0.conv1",
            "mid_block.resnets.0.norm3",
        ] {
            assert_eq!(sdxl().find(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_shape_of_a_unet_is_read_from_its_names() {
        let keys = [
            "down_blocks.0.resnets.0.conv1.weight",
            "down_blocks.0.resnets.1.conv1.weight",
            "up_blocks.0.attentions.0.norm.weight",
            "up_blocks.1.attentions.0.norm.weight",
            "up_blocks.2.resnets.0.conv1.weight",
        ];
        assert_eq!(UnetNames::of_diffusers(keys.into_iter()), sdxl());
    }
}

//! Values in a `config.json` that have more than one form.

use std::fmt;
use std::ops::RangeInclusive;

use anyhow::Result;
use serde::de::{Deserializer, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize};

use crate::error::model;
use crate::io::config_file::Field::{Harmless, Only, Read, ReadOrNull};
use crate::io::config_file::Fields;

/// One number for all blocks, or one for each.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(untagged)]
pub enum PerBlock {
    /// The same number for every block.
    Same(i64),
    /// One for each block, from the outermost.
    Each(Vec<i64>),
}

impl<'de> Deserialize<'de> for PerBlock {
    /// Written by hand, so that the error says what is allowed.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(PerBlockVisitor)
    }
}

struct PerBlockVisitor;

impl<'de> Visitor<'de> for PerBlockVisitor {
    type Value = PerBlock;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("a whole number, or a list of them, one for each block")
    }

    fn visit_i64<E>(self, n: i64) -> std::result::Result<PerBlock, E> {
        Ok(PerBlock::Same(n))
    }

    fn visit_u64<E: serde::de::Error>(self, n: u64) -> std::result::Result<PerBlock, E> {
        let n = i64::try_from(n);
        n.map(PerBlock::Same)
            .map_err(|_| E::invalid_value(Unexpected::Other("a number that is too large"), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<PerBlock, A::Error> {
        let mut each = Vec::new();
        while let Some(n) = list.next_element()? {
            each.push(n);
        }
        Ok(PerBlock::Each(each))
    }
}

impl PerBlock {
    /// One number for each of `blocks` blocks.
    ///
    /// When the list has another length; the message names `key`.
    pub fn expand(&self, blocks: usize, key: &str) -> Result<Vec<i64>> {
        match self {
            PerBlock::Same(n) => Ok(vec![*n; blocks]),
            PerBlock::Each(list) if list.len() == blocks => Ok(list.clone()),
            PerBlock::Each(list) => Err(model(format!(
                "{key}: found {} values, expected {blocks}, one for each block",
                list.len()
            ))),
        }
    }
}

/// Refuses a value that is not supported, so that no option of a checkpoint is ignored.
///
/// # Errors
/// When `found` is not `expected`.
pub fn expect<T: PartialEq + std::fmt::Debug>(key: &str, found: &T, expected: &T) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(model(format!(
        "{key}: found {found:?}, expected {expected:?}"
    )))
}

/// Allowed numbers of layers: the limit is several times the largest known number.
pub const LAYERS: RangeInclusive<i64> = 1..=256;
/// Allowed widths of a token, channels of a map and sides of a picture.
pub const WIDTHS: RangeInclusive<i64> = 1..=1 << 18;

/// Refuses sizes outside the given ranges, because a config of a few bytes could ask for more
/// layers than fit in memory. Whether the weights have these sizes is checked when they are read.
/// Each entry of `sizes` is a key, the value found and the allowed range.
///
/// # Errors
/// For the first size outside its range; the message names its key.
pub fn expect_sizes(file: &str, sizes: &[(&str, i64, RangeInclusive<i64>)]) -> Result<()> {
    match sizes
        .iter()
        .find(|(_, found, range)| !range.contains(found))
    {
        None => Ok(()),
        Some((key, found, range)) => Err(model(format!(
            "{file}: {key}: found {found}, expected {} to {}",
            range.start(),
            range.end()
        ))),
    }
}

/// Refuses numbers of layers outside the range of any U-Net: `layers_per_block` and
/// `transformer_layers_per_block` of `blocks` blocks.
///
/// # Errors
/// As [`expect_sizes`], or when a list has another length.
pub fn expect_layers(
    file: &str,
    blocks: usize,
    (layers, transformers): (&PerBlock, &PerBlock),
) -> Result<()> {
    for (key, values, range) in [
        ("layers_per_block", layers, 1..=8),
        ("transformer_layers_per_block", transformers, 0..=32),
    ] {
        for value in values.expand(blocks, &format!("{file}: {key}"))? {
            expect_sizes(file, &[(key, value, range.clone())])?;
        }
    }
    Ok(())
}

/// Refuses widths of added conditions outside the range of any U-Net: `addition_time_embed_dim` and
/// `projection_class_embeddings_input_dim`, where the config has them.
///
/// # Errors
/// As [`expect_sizes`].
pub fn expect_added(file: &str, (time, projection): (Option<i64>, Option<i64>)) -> Result<()> {
    let widths = [
        ("addition_time_embed_dim", time),
        ("projection_class_embeddings_input_dim", projection),
    ];
    let sizes = widths.map(|(key, value)| (key, value.unwrap_or(1), WIDTHS));
    expect_sizes(file, &sizes)
}

/// Parameters that U-Net and ControlNet share.
pub(super) const UNET_AND_CONTROLNET: &Fields = &[
    ("in_channels", Read),
    ("block_out_channels", Read),
    ("down_block_types", Read),
    ("layers_per_block", Read),
    ("transformer_layers_per_block", Read),
    ("attention_head_dim", Read),
    ("cross_attention_dim", Read),
    ("use_linear_projection", Read),
    ("upcast_attention", ReadOrNull),
    ("flip_sin_to_cos", Read),
    ("freq_shift", Read),
    ("norm_num_groups", Read),
    ("norm_eps", Read),
    ("downsample_padding", Read),
    ("addition_time_embed_dim", ReadOrNull),
    ("projection_class_embeddings_input_dim", ReadOrNull),
    (
        "addition_embed_type_num_heads",
        Harmless("only with addition_embed_type text"),
    ),
    ("act_fn", Only(&["\"silu\"", "\"swish\""])),
    ("class_embed_type", Only(&["null"])),
    ("encoder_hid_dim", Only(&["null"])),
    ("encoder_hid_dim_type", Only(&["null"])),
    ("mid_block_scale_factor", Only(&["1"])),
    ("num_class_embeds", Only(&["null"])),
    ("only_cross_attention", Only(&["false"])),
    ("resnet_time_scale_shift", Only(&["\"default\""])),
];

/// A key that diffusers reads besides the parameters of a network's class.
pub(super) const NETWORKS_BESIDE: &Fields = &[("quantization_config", Only(&["null"]))];

/// Parameters that every config of transformers has, and further keys of its files.
pub(super) const PRETRAINED: &Fields = &[
    ("architectures", Harmless("the model_type names the class")),
    (
        "transformers_version",
        Harmless("the version that wrote the file"),
    ),
    (
        "output_hidden_states",
        Harmless("only the form of the output"),
    ),
    ("return_dict", Harmless("only the form of the output")),
    ("dtype", Harmless("the option dtype decides")),
    (
        "chunk_size_feed_forward",
        Harmless("the same values in separate parts"),
    ),
    ("is_encoder_decoder", Harmless("for text generation")),
    ("id2label", Harmless("for classification")),
    ("label2id", Harmless("for classification")),
    ("problem_type", Harmless("for classification")),
];

/// Keys that transformers wrote into every file before its version 5.
pub(super) const PRETRAINED_BEFORE_5: &Fields = &[
    ("model_type", Harmless("the architectures name the class")),
    ("torch_dtype", Harmless("the option dtype decides")),
    ("output_attentions", Harmless("only the form of the output")),
    ("output_scores", Harmless("only the form of the output")),
    (
        "return_dict_in_generate",
        Harmless("only the form of the output"),
    ),
    // A quantized checkpoint stores its weights in another form.
    ("quantization_config", Only(&["null"])),
    ("pruned_heads", Only(&["{}", "null"])),
    ("torchscript", Harmless("how Python runs the class")),
    ("use_bfloat16", Harmless("the option dtype decides")),
    (
        "attn_implementation",
        Harmless("the option attention decides"),
    ),
    (
        "tie_word_embeddings",
        Harmless("for networks that write text"),
    ),
    (
        "tie_encoder_decoder",
        Harmless("for networks that write text"),
    ),
    ("is_decoder", Only(&["false", "null"])),
    ("add_cross_attention", Only(&["false", "null"])),
    (
        "cross_attention_hidden_size",
        Harmless("for networks that write text"),
    ),
    ("tf_legacy_loss", Harmless("only in training")),
    (
        "tokenizer_class",
        Harmless("the tokenizer has files of its own"),
    ),
    (
        "bos_token_id",
        Harmless("the tokenizer has files of its own"),
    ),
    (
        "eos_token_id",
        Harmless("the tokenizer has files of its own"),
    ),
    (
        "pad_token_id",
        Harmless("the tokenizer has files of its own"),
    ),
    (
        "sep_token_id",
        Harmless("the tokenizer has files of its own"),
    ),
    ("prefix", Harmless("for text generation")),
    ("finetuning_task", Harmless("for classification")),
    ("num_labels", Harmless("for classification")),
    ("task_specific_params", Harmless("for text generation")),
    ("decoder_start_token_id", Harmless("for text generation")),
    ("max_length", Harmless("for text generation")),
    ("min_length", Harmless("for text generation")),
    ("do_sample", Harmless("for text generation")),
    ("early_stopping", Harmless("for text generation")),
    ("num_beams", Harmless("for text generation")),
    ("num_beam_groups", Harmless("for text generation")),
    ("diversity_penalty", Harmless("for text generation")),
    ("temperature", Harmless("for text generation")),
    ("top_k", Harmless("for text generation")),
    ("top_p", Harmless("for text generation")),
    ("typical_p", Harmless("for text generation")),
    ("repetition_penalty", Harmless("for text generation")),
    ("length_penalty", Harmless("for text generation")),
    ("no_repeat_ngram_size", Harmless("for text generation")),
    (
        "encoder_no_repeat_ngram_size",
        Harmless("for text generation"),
    ),
    ("bad_words_ids", Harmless("for text generation")),
    ("num_return_sequences", Harmless("for text generation")),
    ("forced_bos_token_id", Harmless("for text generation")),
    ("forced_eos_token_id", Harmless("for text generation")),
    ("remove_invalid_values", Harmless("for text generation")),
    (
        "exponential_decay_length_penalty",
        Harmless("for text generation"),
    ),
    ("suppress_tokens", Harmless("for text generation")),
    ("begin_suppress_tokens", Harmless("for text generation")),
];

//! What is done with each field of `tokenizer_config.json` and `special_tokens_map.json`.

use serde_json::Value;

use crate::io::config_file::Field::{Harmless, Only, Read, ReadOrNull};
use crate::io::config_file::{Class, Fields};

/// Special tokens that have names, in the order in which transformers adds them.
pub(super) const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];
/// Special tokens without names, or with names of their own.
pub(super) const EXTRA: &str = "extra_special_tokens";
/// The older name of [`EXTRA`].
pub(super) const ADDITIONAL: &str = "additional_special_tokens";
/// Special tokens with names of their own.
pub(super) const NAMES: &str = "model_specific_special_tokens";

/// Whether a field is a special token with a name of its own, such as `image_token`.
pub(super) fn is_own_name(key: &str, value: Option<&Value>) -> bool {
    let is_token = value.is_some_and(|value| value.is_string() || value.is_object());
    is_token && key.ends_with("_token") && !NAMED.contains(&key)
}

/// transformers' class.
pub const CLASS: Class = Class {
    name: "CLIPTokenizer",
    fields: &[&[
        // The files of the folder count; a vocabulary in the config would take their place.
        ("vocab", Only(&["null"])),
        ("merges", Only(&["null"])),
        // Where `null` would be the value of one, it is refused with the others that are no token.
        ("unk_token", ReadOrNull),
        ("bos_token", ReadOrNull),
        ("eos_token", ReadOrNull),
        ("pad_token", ReadOrNull),
    ]],
    besides: &[TOKENS, BASE, PLACES, CHATS],
};

/// What adds tokens or changes their numbers, of the classes above it.
const TOKENS: &Fields = &[
    ("sep_token", ReadOrNull),
    ("cls_token", ReadOrNull),
    ("mask_token", ReadOrNull),
    (EXTRA, ReadOrNull),
    (ADDITIONAL, ReadOrNull),
    (NAMES, ReadOrNull),
    ("added_tokens_decoder", Read),
    ("model_max_length", Read),
    ("max_len", Read),
    ("split_special_tokens", Read),
    ("padding_side", Only(&["\"right\""])),
    ("truncation_side", Only(&["\"right\""])),
    ("tokenizer_object", Only(&["null"])),
    ("gguf_file", Only(&["null"])),
    ("init_inputs", Only(&["[]", "null"])),
    (
        "fast_tokenizer_files",
        Only(&["[\"tokenizer.json\"]", "[]"]),
    ),
    (
        "tokenizer_class",
        Only(&["\"CLIPTokenizer\"", "\"CLIPTokenizerFast\"", "null"]),
    ),
    ("backend", Only(&["\"tokenizers\"", "null"])),
];

/// What the class does not look at, or not when it turns a text into numbers.
const BASE: &Fields = &[
    ("add_prefix_space", Harmless(OWN)),
    ("do_lower_case", Harmless(OWN)),
    ("trim_offsets", Harmless(OWN)),
    (
        "add_bos_token",
        Harmless("CLIP's start and end are always there"),
    ),
    (
        "add_eos_token",
        Harmless("CLIP's start and end are always there"),
    ),
    ("errors", Harmless(BACK)),
    ("clean_up_tokenization_spaces", Harmless(BACK)),
    (
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
        Harmless(BACK),
    ),
    (
        "model_input_names",
        Harmless("the numbers are always handed out"),
    ),
    ("max_length", Harmless(CALL)),
    ("stride", Harmless(CALL)),
    ("truncation_strategy", Harmless(CALL)),
    ("pad_to_multiple_of", Harmless(CALL)),
    ("pad_token_type_id", Harmless("CLIP has no types of tokens")),
    ("verbose", Harmless("what Python tells")),
    ("use_fast", Harmless("how Python runs it")),
];

const OWN: &str = "the class builds its normalizer and pre-tokenizer itself";
const BACK: &str = "only where numbers are turned into a text";
const CALL: &str = "diffusers says it at every call";

/// Where the files lay, and for whom they are.
const PLACES: &Fields = &[
    ("name_or_path", Harmless(LAY)),
    ("vocab_file", Harmless(LAY)),
    ("merges_file", Harmless(LAY)),
    ("tokenizer_file", Harmless(LAY)),
    ("special_tokens_map_file", Harmless(LAY)),
    ("files_loaded", Harmless(LAY)),
    ("is_local", Harmless(LAY)),
    ("local_files_only", Harmless(LAY)),
    ("from_slow", Harmless(LAY)),
    ("processor_class", Harmless("who else reads the folder")),
    ("auto_map", Harmless("who else reads the folder")),
    ("device_map", Harmless("how Python runs it")),
];

const LAY: &str = "where the files lay when they were saved";

/// Fields of tokenizers for chats.
const CHATS: &Fields = &[
    ("chat_template", Harmless(CHAT)),
    ("response_template", Harmless(CHAT)),
    ("response_schema", Harmless(CHAT)),
    ("chat_control_tokens", Harmless(CHAT)),
];

const CHAT: &str = "only for chats";

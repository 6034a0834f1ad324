//! How each field of `tokenizer_config.json` and `special_tokens_map.json` is treated.

use serde_json::Value;

use crate::io::config_file::Field::{Harmless, Only, Read, ReadOrNull};
use crate::io::config_file::{Class, Fields};

/// Special tokens with fixed names, in the order in which transformers adds them.
pub(super) const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];
/// Special tokens without names, or with custom names.
pub(super) const EXTRA: &str = "extra_special_tokens";
/// The older name of [`EXTRA`].
pub(super) const ADDITIONAL: &str = "additional_special_tokens";
/// Special tokens with custom names.
pub(super) const NAMES: &str = "model_specific_special_tokens";

/// Whether a field is a special token with a custom name, such as `image_token`.
pub(super) fn is_own_name(key: &str, value: Option<&Value>) -> bool {
    let is_token = value.is_some_and(|value| value.is_string() || value.is_object());
    is_token && key.ends_with("_token") && !NAMED.contains(&key)
}

/// The class in transformers.
pub const CLASS: Class = Class {
    name: "CLIPTokenizer",
    fields: &[&[
        // The vocabulary comes from the folder's files; one in the config would replace it.
        ("vocab", Only(&["null"])),
        ("merges", Only(&["null"])),
        // `null` is refused together with all other values that are not tokens.
        ("unk_token", ReadOrNull),
        ("bos_token", ReadOrNull),
        ("eos_token", ReadOrNull),
        ("pad_token", ReadOrNull),
    ]],
    besides: &[TOKENS, BASE, PLACES, CHATS],
};

/// Parameters of base classes that add tokens or change token numbers.
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

/// Parameters that the class ignores, at least when it turns a text into token numbers.
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
        Harmless("token numbers are always returned"),
    ),
    ("max_length", Harmless(CALL)),
    ("stride", Harmless(CALL)),
    ("truncation_strategy", Harmless(CALL)),
    ("pad_to_multiple_of", Harmless(CALL)),
    ("pad_token_type_id", Harmless("CLIP has no types of tokens")),
    ("verbose", Harmless("log output of Python")),
    ("use_fast", Harmless("how Python runs the class")),
];

const OWN: &str = "the class builds its normalizer and pre-tokenizer itself";
const BACK: &str = "only when token numbers are turned into text";
const CALL: &str = "diffusers passes the value at every call";

/// Where the files were saved, and what else reads them.
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
    ("processor_class", Harmless("which class reads the folder")),
    ("auto_map", Harmless("which class reads the folder")),
    ("device_map", Harmless("how Python runs the class")),
];

const LAY: &str = "where the files were when they were saved";

/// Fields of tokenizers for chats.
const CHATS: &Fields = &[
    ("chat_template", Harmless(CHAT)),
    ("response_template", Harmless(CHAT)),
    ("response_schema", Harmless(CHAT)),
    ("chat_control_tokens", Harmless(CHAT)),
];

const CHAT: &str = "only for chats";

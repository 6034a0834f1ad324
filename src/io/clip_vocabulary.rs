//! CLIP's vocabulary. All models of Stable Diffusion share it, and no single-file checkpoint
//! contains it. The merges are in the binary, and the tokens are derived from them.
//!
//! `scripts/clip_vocabulary.py` makes `clip/merges.txt`; `clip/LICENSE` is its licence.

use serde_json::{Map, Value, json};

/// `merges.txt`: a line with the version, then two parts in each line, most frequent pair first.
const MERGES: &str = include_str!("clip/merges.txt");

/// Appended to the last character of a word.
const END_OF_WORD: &str = "</w>";

/// Token at the start of a text.
const START: &str = "<|startoftext|>";
/// Token at the end of a text.
pub(super) const END: &str = "<|endoftext|>";

/// The file with this name in the folder of a tokenizer whose padding token is `pad`; `None` if the
/// tokenizer has no such file.
pub(super) fn file(name: &str, pad: &str) -> Option<String> {
    let special = |text: &str| json!({"content": text, "lstrip": false, "normalized": true, "rstrip": false, "single_word": false});
    let special_tokens = json!({
        "bos_token": special(START),
        "eos_token": special(END),
        "pad_token": pad,
        "unk_token": special(END),
    });
    Some(match name {
        "merges.txt" => MERGES.to_owned(),
        "vocab.json" => vocabulary().to_string(),
        "special_tokens_map.json" => special_tokens.to_string(),
        "tokenizer_config.json" => {
            json!({"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}).to_string()
        }
        _ => return None,
    })
}

/// `vocab.json`: every byte, every byte at the end of a word, the result of each merge, and the two
/// special tokens, in the order of their numbers.
fn vocabulary() -> Value {
    let bytes: Vec<String> = byte_characters().map(String::from).collect();
    let at_the_end = bytes.iter().map(|byte| format!("{byte}{END_OF_WORD}"));
    let merged = MERGES.lines().skip(1).map(|line| line.replace(' ', ""));
    let special = [START, END].map(str::to_owned);
    let tokens = bytes.iter().cloned().chain(at_the_end);
    let tokens = tokens.chain(merged).chain(special);
    let numbered = tokens.zip(0..).map(|(token, id)| (token, Value::from(id)));
    Value::Object(numbered.collect::<Map<_, _>>())
}

/// The character that stands for each byte, in the order of CLIP's vocabulary: first the printable
/// bytes of Latin-1, as themselves, then the other bytes, as the characters from U+0100 on.
fn byte_characters() -> impl Iterator<Item = char> {
    let shown = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
    let hidden = 256 - shown.clone().count() as u32;
    let others = (256..256 + hidden).filter_map(char::from_u32);
    shown.chain(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Token numbers that models rely on: SDXL's padding and CLIP's two special tokens.
    #[test]
    fn tokens_have_clip_s_numbers() {
        let vocabulary = vocabulary();
        assert_eq!(vocabulary.as_object().map(Map::len), Some(49_408));
        for (token, number) in [
            ("!", 0),
            ("Ā", 188),
            ("!</w>", 256),
            ("in", 512),
            ("a</w>", 320),
            (START, 49_406),
            (END, 49_407),
        ] {
            assert_eq!(vocabulary[token], number, "{token}");
        }
    }
}

//! CLIP's vocabulary, which all models of Stable Diffusion share and no checkpoint in one file holds: its merges are in
//! the binary, and its tokens follow from them.
//!
//! `scripts/clip_vocabulary.py` makes `clip/merges.txt`; `clip/LICENSE` is its licence.

use serde_json::{Map, Value, json};

/// `merges.txt`: a line of its version, then two parts in each line, the most frequent pair first.
const MERGES: &str = include_str!("clip/merges.txt");

/// Behind the last character of a word.
const END_OF_WORD: &str = "</w>";

/// Begins a text.
const START: &str = "<|startoftext|>";
/// Ends a text.
pub(super) const END: &str = "<|endoftext|>";

/// The file of this name in the folder of a tokenizer that fills texts up with `pad`; `None` for one that it lacks.
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

/// `vocab.json`: every byte, every byte at the end of a word, what each merge makes, and the two special tokens, by
/// their numbers.
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

/// The character that stands for each byte, in the order of CLIP's vocabulary: first the bytes that Latin-1 shows, as
/// themselves, then the others, as the characters from U+0100 on.
fn byte_characters() -> impl Iterator<Item = char> {
    let shown = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
    let hidden = 256 - shown.clone().count() as u32;
    let others = (256..256 + hidden).filter_map(char::from_u32);
    shown.chain(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that models rely on: SDXL's padding, CLIP's two special tokens.
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

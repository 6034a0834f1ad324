//! The toy model that is compiled into the binary: a real, very small SDXL in diffusers' layout.
//! Beside its components there is a small CLIP, which measures its pictures (`oneactor evaluate
//! --model toy`) and is the image encoder of an IP-Adapter (`sample --method ip-adapter`).

use super::blob::Blob;

/// Bytes aligned to 64, like memory that libtorch allocates, so that tensors can use the binary's
/// bytes directly.
#[repr(C, align(64))]
struct Aligned<Bytes: ?Sized>(Bytes);

/// The files by path, all aligned.
macro_rules! embedded {
    ($($path:literal),* $(,)?) => {
        &[$((
            $path,
            {
                static FILE: &Aligned<[u8]> =
                    &Aligned(*include_bytes!(concat!("toy/", $path)));
                &FILE.0
            },
        )),*]
    };
}

static FILES: &[(&str, &[u8])] = embedded![
    "clip/config.json",
    "clip/merges.txt",
    "clip/model.safetensors",
    "clip/preprocessor_config.json",
    "clip/special_tokens_map.json",
    "clip/tokenizer_config.json",
    "clip/vocab.json",
    "ip_adapter/ip-adapter.safetensors",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "tokenizer_2/merges.txt",
    "tokenizer_2/special_tokens_map.json",
    "tokenizer_2/tokenizer_config.json",
    "tokenizer_2/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// The words of the captions that the toy was trained on, and function words, one on each line and
/// sorted; written by `scripts/toy/vocabulary.py`.
const WORDS: &str = include_str!("toy/words.txt");

/// The words of a prompt that the toy has never seen, each once and in lower case. Numbers do not
/// count as words.
pub fn unknown_words(prompt: &str) -> Vec<String> {
    let mut unknown: Vec<String> = Vec::new();
    let lower = prompt.to_lowercase();
    let words = lower.split(|c: char| !(c.is_alphanumeric() || c == '\'' || c == '’'));
    for word in words {
        let word = word.split(['\'', '’']).find(|part| !part.is_empty());
        let word = word.unwrap_or_default();
        let is_number = word.chars().all(char::is_numeric);
        if !is_number
            && !WORDS.lines().any(|known| known == word)
            && !unknown.iter().any(|w| w == word)
        {
            unknown.push(word.to_owned());
        }
    }
    unknown
}

/// The paths of all files.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The file at `path` inside the toy model's folder.
pub fn file(path: &str) -> Option<Blob> {
    let &(name, bytes) = FILES.iter().find(|(name, _)| *name == path)?;
    Some(Blob::Embedded { name, bytes })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::io::hub::files_under;

    #[test]
    fn words_that_no_caption_has_are_found_once_each() {
        let known = [
            "A photo of a robot in a library surrounded by books, watercolor.",
            "a wide striped bluetrim red cat with its 2 eyes",
            "the girl's garden; a close-up photo of the Eiffel Tower",
            "",
        ];
        for prompt in known {
            let unknown = unknown_words(prompt);
            // No caption names the parts of a figure.
            assert_eq!(
                unknown,
                if prompt.contains("eyes") {
                    vec!["eyes"]
                } else {
                    vec![]
                }
            );
        }
        let unknown = unknown_words("a pirate's ship, PIRATE on 3 ships at sea, détective");
        assert_eq!(unknown, ["pirate", "ship", "ships", "sea", "détective"]);
    }

    #[test]
    fn every_file_of_the_folder_is_compiled_in_and_aligned() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/io/toy");
        let listed: Vec<&str> = names().collect();
        let present: Vec<String> = files_under(&folder)
            .into_iter()
            .filter(|name| name.contains('/') || name == "model_index.json")
            .collect();
        assert_eq!(listed, present);
        for (name, bytes) in FILES {
            assert_eq!(bytes.as_ptr().align_offset(64), 0, "{name}");
        }
    }
}

//! A prompt and a base word, separated by a NUL, after a byte that chooses options: text to tokens,
//! chunks and places.

#![no_main]

use std::cell::OnceCell;

use libfuzzer_sys::fuzz_target;
use oneactor::tokenizer::prompt_tokens::{PromptOptions, PromptTokens};
use oneactor::tokenizer::{ClipTokenizer, TokenizerFiles, find_word};

/// One of the toy's two tokenizers with this limit; their own limit is 32.
fn tokenizer(folder: usize, limit: usize) -> ClipTokenizer {
    let [vocab, merges, map] = [
        [
            include_str!("../../../src/io/toy/tokenizer/vocab.json"),
            include_str!("../../../src/io/toy/tokenizer/merges.txt"),
            include_str!("../../../src/io/toy/tokenizer/special_tokens_map.json"),
        ],
        [
            include_str!("../../../src/io/toy/tokenizer_2/vocab.json"),
            include_str!("../../../src/io/toy/tokenizer_2/merges.txt"),
            include_str!("../../../src/io/toy/tokenizer_2/special_tokens_map.json"),
        ],
    ][folder];
    ClipTokenizer::new(&TokenizerFiles {
        vocab: Some(vocab),
        merges: Some(merges),
        special_tokens_map: Some(map),
        tokenizer_config: Some(&format!(r#"{{"model_max_length": {limit}}}"#)),
        ..TokenizerFiles::default()
    })
    .expect("the toy's files are good")
}

thread_local! {
    static TOKENIZERS: OnceCell<Vec<[ClipTokenizer; 2]>> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, text)) = bytes.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let (prompt, word) = text.split_once('\0').unwrap_or((text, "cat"));
    let options = PromptOptions {
        long_prompts: choice & 1 != 0,
        prompt_weights: choice & 2 != 0,
    };
    TOKENIZERS.with(|tokenizers| {
        let tokenizers = tokenizers.get_or_init(|| {
            let limits = [3, 5, 10, 32];
            limits.map(|limit| [tokenizer(0, limit), tokenizer(1, limit)]).into()
        });
        let tokenizers = &tokenizers[usize::from(choice >> 2) % tokenizers.len()];
        let limit = tokenizers[0].model_max_length();
        let Ok(mut tokens) = PromptTokens::new(tokenizers, prompt, options, &[word]) else {
            return;
        };
        let chunks = tokens.num_chunks();
        for encoder in 0..2 {
            assert_eq!(tokens.ids(encoder).len(), chunks * limit);
            assert!(tokens.weights(encoder).is_none_or(|w| w.len() == chunks * limit));
            assert!(tokens.ends(encoder).iter().all(|end| (1..limit as i64).contains(end)));
        }
        assert_eq!(tokens.chunk_texts().len(), chunks);
        let _ = tokens.lost_text();
        let _ = tokens.word_positions(word);
        if let Ok(places) = tokens.places(word) {
            let mut places = places.iter().flatten().flatten();
            assert!(places.all(|place| place % limit != 0 && *place < chunks * limit));
        }
        tokens.pad_to(chunks + 1);
        assert_eq!(tokens.without_weights().num_chunks(), chunks + 1);
    });
    for span in find_word(prompt, word) {
        assert!(!prompt[span].is_empty());
    }
});

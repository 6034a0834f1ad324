//! Weights in a prompt, and a text whose brackets are escaped.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oneactor::config::prompts::{fill_in, overlapping_words, require_word, subject_phrase};
use oneactor::tokenizer::weights::{WeightedText, escape};

fuzz_target!(|prompt: &str| {
    if let Ok(read) = WeightedText::parse(prompt) {
        let mut end = 0;
        for (span, weight) in &read.spans {
            assert_eq!(span.start, end, "no gap and no overlap");
            assert!(read.text.get(span.clone()).is_some_and(|text| !text.is_empty()));
            assert!((0.01..=10.0).contains(weight));
            end = span.end;
        }
        assert_eq!(end, read.text.len());
    }
    let read = WeightedText::parse(&escape(prompt)).expect("an escaped text has no weights");
    assert_eq!(read.text, prompt);
    assert!(read.spans.iter().all(|(_, weight)| *weight == 1.0));
    // The other functions that process the text of a prompt before it is tokenized.
    let (prompt, word) = prompt.split_once('\0').unwrap_or((prompt, "cat"));
    let _ = require_word(prompt, word);
    let phrase = subject_phrase(prompt, word);
    assert!(prompt.contains(phrase));
    let _ = fill_in(prompt, phrase);
    let _ = overlapping_words(&[word, prompt]);
});

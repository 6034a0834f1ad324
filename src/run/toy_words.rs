//! A warning for prompts with words that the toy model was never trained on.

use super::located::LocatedModel;
use crate::io::model_files::TOY;
use crate::io::toy::unknown_words;
use crate::progress::Reporter;
use crate::tokenizer::prompt_tokens::PromptTokens;
use crate::wording::excerpt;

/// The most words that the warning lists.
const MOST_LISTED: usize = 10;

impl LocatedModel {
    /// Warns of words that the toy model does not know. The base words in `tuned` are known, because an actor was tuned
    /// on them.
    pub fn check_words(&self, tokens: &PromptTokens, tuned: &[String], reporter: &Reporter) {
        if self.files.name() != TOY {
            return;
        }
        let tuned = tuned.join(" ").to_lowercase();
        let mut unknown = unknown_words(&tokens.chunk_texts().join(" "));
        unknown.retain(|word| !tuned.split_whitespace().any(|known| known == word));
        let (list, them) = match &unknown[..] {
            [] => return,
            [word] => (format!("\"{word}\""), "this word"),
            words => {
                let listed = &words[..words.len().min(MOST_LISTED)];
                let rest = match words.len() - listed.len() {
                    0 => String::new(),
                    rest => format!(" and {rest} more"),
                };
                let listed = listed.join("\", \"");
                (format!("\"{listed}\"{rest}"), "these words")
            }
        };
        reporter.warn(&format!(
            "the toy model does not know {them} of the prompt \"{}\": {list}; configs/GUIDE.md lists the words that it \
             was trained on",
            excerpt(tokens.prompt())
        ));
    }
}

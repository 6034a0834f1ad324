//! A warning for prompts with words that the toy model was never trained on.

use super::located::LocatedModel;
use crate::io::model_files::TOY;
use crate::io::toy::unknown_words;
use crate::progress::Reporter;
use crate::tokenizer::prompt_tokens::PromptTokens;

impl LocatedModel {
    /// Warns of words that the toy does not know. Base words in `tuned` have got their meaning from an actor.
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
            words => (format!("\"{}\"", words.join("\", \"")), "these words"),
        };
        reporter.warn(&format!(
            "the toy model does not know {them} of the prompt \"{}\": {list}; configs/GUIDE.md lists the words that it \
             was trained on",
            tokens.prompt()
        ));
    }
}

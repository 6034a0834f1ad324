//! Reports how prompts will be read: number of tokens, places of the base words, and text that would be cut.

use anyhow::Result;
use serde_json::{Map, json};

use super::super::session::Session;
use crate::error::usage;
use crate::tokenizer::prompt_tokens::PromptTokens;
use crate::wording::{counted, excerpt};

/// A prompt as it will be read.
pub(super) struct Prompt {
    pub(super) tokens: PromptTokens,
    /// `prompt`, `negative prompt`, or `sentence` of Algorithm 1.
    pub(super) role: &'static str,
    pub(super) words: Vec<String>,
}

impl Prompt {
    /// Reports the prompt as a note and, with `--format json`, as an object.
    ///
    /// # Errors
    /// When a base word is missing from the tokens.
    pub(super) fn tell(&self, session: &Session) -> Result<()> {
        let tokens = &self.tokens;
        let counts = tokens.token_counts();
        let room = tokens.ids(0).len() / tokens.num_chunks() - 2;
        let mut places = Map::new();
        let mut shown = Vec::new();
        for word in &self.words {
            let found = tokens.word_positions(word)?;
            shown.push(format!("{word} at {}", shown_places(&found)));
            places.insert(word.clone(), json!(found));
        }
        let lost = tokens.lost_text().map(str::trim);
        let count = if counts.windows(2).all(|pair| pair[0] == pair[1]) {
            counts[0].to_string()
        } else {
            counts
                .iter()
                .map(usize::to_string)
                .collect::<Vec<_>>()
                .join(" and ")
        };
        let mut line = format!(
            "{} \"{}\": {count} of at most {room} tokens",
            self.role,
            excerpt(tokens.prompt())
        );
        if tokens.num_chunks() > 1 {
            line += &format!(" in each of {} chunks", tokens.num_chunks());
        }
        shown.iter().for_each(|word| line += &format!("; {word}"));
        if let Some(lost) = lost {
            line += &format!("; the end is cut off: \"{}\"", excerpt(lost));
        }
        match self.role {
            // The dozens of sentences come from templates, not from the user.
            "sentence" => session.reporter.detail(&line),
            _ => session.reporter.note(&line),
        }
        session.list_object(
            self.role,
            "planned",
            json!({
                "prompt": tokens.prompt(),
                "tokens": counts,
                "limit": room,
                "chunks": tokens.chunk_texts(),
                "places": places,
                "cut": lost,
            }),
        );
        Ok(())
    }
}

/// The places of a word: `2`, `2-3`, `2 and 7`; `2 | 3` if the text encoders have it at different places.
fn shown_places(encoders: &[Vec<Vec<usize>>]) -> String {
    let span = |places: &Vec<usize>| match &places[..] {
        [only] => only.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    };
    let times = |times: &Vec<Vec<usize>>| {
        let spans: Vec<String> = times.iter().map(span).collect();
        spans.join(" and ")
    };
    let mut shown: Vec<String> = encoders.iter().map(times).collect();
    shown.dedup();
    shown.join(" | ")
}

/// Refuses prompts whose end the model will not read.
///
/// # Errors
/// With the first such prompt.
pub(super) fn check_cuts(prompts: &[Prompt]) -> Result<()> {
    let cut = |prompt: &Prompt| {
        let lost = prompt.tokens.lost_text()?.trim().to_owned();
        Some((prompt.tokens.prompt().to_owned(), lost))
    };
    let cuts: Vec<(String, String)> = prompts.iter().filter_map(cut).collect();
    match &cuts[..] {
        [] => Ok(()),
        [(prompt, lost), ..] => Err(usage(format!(
            "{} of {} would be cut: the model will not see the end of \"{}\", which is \"{}\": shorten it, or have it \
             read in chunks with --long-prompts",
            cuts.len(),
            counted(prompts.len(), "prompt", "prompts"),
            excerpt(prompt),
            excerpt(lost)
        ))),
    }
}

//! A prompt as the text encoders read it: cut at the model's limit or split into chunks, with or
//! without weights. Also the positions of a word among the tokens.

use std::ops::Range;

use anyhow::Result;
use serde::Serialize;

use super::chunks::cuts;
use super::weights::{WeightedText, escape};
use super::{ClipTokenizer, Token, WordError, find_word};
use crate::error::{model, usage};

/// The largest number of chunks: far more than a model can use, and few enough that a text given by
/// mistake is refused and not computed.
const MOST_CHUNKS: usize = 64;

/// How prompts are read. Both options are off by default; prompts are then read as in diffusers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PromptOptions {
    /// Whether text after the model's limit is read in further chunks instead of being cut off.
    pub long_prompts: bool,
    /// Whether brackets are weights, see [`super::weights`].
    pub prompt_weights: bool,
}

impl PromptOptions {
    fn read(self, prompt: &str) -> Result<WeightedText> {
        if self.prompt_weights {
            WeightedText::parse(prompt)
        } else {
            Ok(WeightedText::plain(prompt))
        }
    }

    /// The prompt without the characters that mark weights.
    ///
    /// # Errors
    /// When the weights cannot be read.
    pub fn plain_text(self, prompt: &str) -> Result<String> {
        Ok(self.read(prompt)?.text)
    }

    /// Escapes a text so that a prompt contains it literally.
    pub fn literal(self, text: &str) -> String {
        if self.prompt_weights {
            escape(text)
        } else {
            text.to_owned()
        }
    }
}

/// A prompt as the text encoders read it. All encoders get the same text in the same chunk.
#[derive(Clone, Debug)]
pub struct PromptTokens {
    /// The prompt as it was written.
    prompt: String,
    weighted: WeightedText,
    options: PromptOptions,
    /// Length of a chunk, including the start and end tokens.
    limit: usize,
    /// Byte of the text at which each chunk but the first begins.
    cuts: Vec<usize>,
    encoders: Vec<EncoderTokens>,
}

/// The input of one text encoder.
#[derive(Clone, Debug, Default)]
struct EncoderTokens {
    /// The token numbers, chunk after chunk.
    ids: Vec<i64>,
    /// The weight of each of `ids`; 1 for start, end and padding.
    weights: Vec<f32>,
    /// Position of the end token in each chunk.
    ends: Vec<i64>,
    /// All tokens of the text with their positions among `ids`; `None` for tokens that are cut off.
    places: Vec<(Range<usize>, Option<usize>)>,
    /// The ids of a chunk without text.
    empty: Vec<i64>,
}

impl PromptTokens {
    /// Reads `prompt` with one tokenizer for each text encoder. The words in `whole` are not split
    /// between two chunks.
    ///
    /// # Errors
    /// When weights cannot be read, or the prompt has more than 64 chunks.
    pub fn new(
        tokenizers: &[ClipTokenizer],
        prompt: &str,
        options: PromptOptions,
        whole: &[&str],
    ) -> Result<PromptTokens> {
        let weighted = options.read(prompt)?;
        let tokens = tokenizers
            .iter()
            .map(|tokenizer| tokens_of_spans(tokenizer, &weighted))
            .collect::<Result<Vec<_>>>()?;
        let room = tokenizers[0].room();
        let cuts = if options.long_prompts {
            let starts = tokens.iter().map(|tokens| tokens.iter());
            let starts: Vec<Vec<usize>> = starts
                .map(|tokens| tokens.map(|(token, _)| token.bytes.start).collect())
                .collect();
            let whole: Vec<Range<usize>> = whole
                .iter()
                .flat_map(|word| find_word(&weighted.text, word))
                .collect();
            cuts(&weighted.text, &starts, room, &whole)
        } else {
            Vec::new()
        };
        if cuts.len() >= MOST_CHUNKS {
            return Err(usage(format!(
                "a prompt of {} characters makes {} chunks of {room} tokens, expected at most \
                 {MOST_CHUNKS}",
                weighted.text.chars().count(),
                cuts.len() + 1
            )));
        }
        let encoders = tokenizers.iter().zip(&tokens);
        let encoders = encoders.map(|(tokenizer, tokens)| encoder_tokens(tokenizer, tokens, &cuts));
        Ok(PromptTokens {
            encoders: encoders.collect(),
            limit: tokenizers[0].model_max_length(),
            prompt: prompt.to_owned(),
            weighted,
            options,
            cuts,
        })
    }

    /// The prompt as it was written, including the characters that mark weights.
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// The number of chunks.
    pub fn num_chunks(&self) -> usize {
        self.encoders[0].ends.len()
    }

    /// Adds chunks without text until there are `chunks` chunks.
    pub fn pad_to(&mut self, chunks: usize) {
        for encoder in &mut self.encoders {
            while encoder.ends.len() < chunks {
                encoder.ids.extend(&encoder.empty);
                encoder.weights.resize(encoder.ids.len(), 1.0);
                encoder.ends.push(1);
            }
        }
    }

    /// The ids that a text encoder reads, chunk after chunk, each as long as the model's limit.
    pub fn ids(&self, encoder: usize) -> &[i64] {
        &self.encoders[encoder].ids
    }

    /// The weight of each of [`Self::ids`], or `None` if all weights are 1.
    pub fn weights(&self, encoder: usize) -> Option<&[f32]> {
        let weights = &self.encoders[encoder].weights;
        weights.iter().any(|w| *w != 1.0).then_some(weights)
    }

    /// Whether any weight of any text encoder differs from 1.
    pub fn is_weighted(&self) -> bool {
        (0..self.encoders.len()).any(|encoder| self.weights(encoder).is_some())
    }

    /// Position of the end token in each chunk.
    pub fn ends(&self, encoder: usize) -> &[i64] {
        &self.encoders[encoder].ends
    }

    /// The same tokens with all weights 1.
    pub fn without_weights(&self) -> PromptTokens {
        let mut tokens = self.clone();
        for encoder in &mut tokens.encoders {
            encoder.weights.fill(1.0);
        }
        tokens
    }

    /// The text of each chunk.
    pub fn chunk_texts(&self) -> Vec<&str> {
        let text = &self.weighted.text;
        let begins = std::iter::once(0).chain(self.cuts.iter().copied());
        let ends = self.cuts.iter().copied().chain([text.len()]);
        begins.zip(ends).map(|(a, b)| text[a..b].trim()).collect()
    }

    /// The end of the text that the limit cuts off, or `None` if nothing is cut off.
    pub fn lost_text(&self) -> Option<&str> {
        let lost = |encoder: &EncoderTokens| {
            let mut places = encoder.places.iter();
            places
                .find(|(_, place)| place.is_none())
                .map(|(bytes, _)| bytes.start)
        };
        self.weighted.text.get(lost(&self.encoders[0])?..)
    }

    /// For each text encoder, the prompt's number of tokens, including tokens that are cut off.
    pub fn token_counts(&self) -> Vec<usize> {
        let counts = self.encoders.iter().map(|encoder| encoder.places.len());
        counts.collect()
    }

    /// The positions of `word` among the ids of each text encoder: one list for each occurrence of
    /// the word as a whole word in any case, with W positions each. Occurrences after the limit are
    /// left out; one that is cut off for a single encoder is left out for all. Positions may differ
    /// between encoders, for example after a "!", which SDXL's second tokenizer uses for padding
    /// and therefore never merges with its neighbours.
    ///
    /// # Errors
    /// [`WordError`] when there is no position.
    pub fn places(&self, word: &str) -> Result<Vec<Vec<Vec<usize>>>, WordError> {
        let spans = find_word(&self.weighted.text, word);
        if spans.is_empty() {
            return Err(WordError::Missing);
        }
        let mut edges = self.weighted.spans.iter().map(|(span, _)| span.start);
        if edges.any(|edge| spans.iter().any(|s| s.start < edge && edge < s.end)) {
            return Err(WordError::Torn);
        }
        let mut places: Vec<Vec<Vec<usize>>> = self
            .encoders
            .iter()
            .map(|encoder| {
                let places = spans.iter().map(|span| encoder.places_of(span));
                let in_one_chunk = |places: &Vec<usize>| {
                    let chunk = |place: Option<&usize>| place.map(|place| place / self.limit);
                    !places.is_empty() && chunk(places.first()) == chunk(places.last())
                };
                places.flatten().filter(in_one_chunk).collect()
            })
            .collect();
        let times = places.iter().map(Vec::len).min().unwrap_or(0);
        if times == 0 {
            return Err(WordError::CutOff);
        }
        for places in &mut places {
            places.truncate(times);
        }
        Ok(places)
    }

    /// As [`Self::places`], with an error message for the user, or for the makers of the model if
    /// the tokenizers disagree.
    ///
    /// # Errors
    /// When there is no position; the message names the prompt and the word.
    pub fn word_positions(&self, word: &str) -> Result<Vec<Vec<Vec<usize>>>> {
        let (prompt, room) = (&self.prompt, self.limit - 2);
        let places = self.places(word).map_err(|e| {
            let what = match e {
                WordError::Missing => "is missing from the prompt".to_owned(),
                WordError::CutOff if self.options.long_prompts => {
                    format!("has more tokens than a chunk, which holds {room}")
                }
                WordError::CutOff => format!(
                    "comes after the limit of {} tokens; move it forward, shorten the prompt, or \
                     read the prompt in chunks with --long-prompts",
                    self.limit
                ),
                WordError::Torn => {
                    "is split by a weight that starts or ends inside it; put the whole \
                                    word in the brackets"
                        .to_owned()
                }
            };
            usage(format!("prompt {prompt:?}: the base word {word:?} {what}"))
        })?;
        let tokens = |encoder: &Vec<Vec<usize>>| encoder[0].len();
        if let Some(other) = places
            .iter()
            .find(|other| tokens(other) != tokens(&places[0]))
        {
            return Err(model(format!(
                "the two tokenizers make {} and {} tokens of {word:?}, expected the same number; choose another base word",
                tokens(&places[0]),
                tokens(other)
            )));
        }
        Ok(places)
    }
}

impl EncoderTokens {
    /// The positions of all tokens that overlap these bytes of the text; `None` if one is cut off.
    fn places_of(&self, span: &Range<usize>) -> Option<Vec<usize>> {
        let overlaps = |o: &Range<usize>| o.start < span.end && span.start < o.end;
        let tokens = self.places.iter().filter(|(bytes, _)| overlaps(bytes));
        tokens.map(|(_, place)| *place).collect()
    }
}

/// Tokenizes each span separately, as stable-diffusion-webui and diffusers' community pipelines do.
/// The tokens' byte ranges refer to the whole text.
fn tokens_of_spans(
    tokenizer: &ClipTokenizer,
    weighted: &WeightedText,
) -> Result<Vec<(Token, f64)>> {
    let mut found = Vec::new();
    for (span, weight) in &weighted.spans {
        let tokens = tokenizer.prompt_tokens(&weighted.text[span.clone()])?;
        found.extend(tokens.into_iter().map(|token| {
            let bytes = token.bytes.start + span.start..token.bytes.end + span.start;
            (Token { bytes, ..token }, *weight)
        }));
    }
    Ok(found)
}

/// Puts the tokens into chunks; tokens that do not fit in the last chunk are cut off.
fn encoder_tokens(
    tokenizer: &ClipTokenizer,
    tokens: &[(Token, f64)],
    cuts: &[usize],
) -> EncoderTokens {
    let mut encoder = EncoderTokens {
        empty: tokenizer.frame(std::iter::empty()),
        ..EncoderTokens::default()
    };
    let mut rest = tokens;
    for cut in cuts.iter().copied().chain([usize::MAX]) {
        let count = rest.partition_point(|(token, _)| token.bytes.start < cut);
        let (chunk, behind) = rest.split_at(count);
        rest = behind;
        let first = encoder.ids.len() + 1;
        encoder
            .ids
            .extend(tokenizer.frame(chunk.iter().map(|(token, _)| token.id)));
        encoder.weights.resize(encoder.ids.len(), 1.0);
        let read = chunk.len().min(tokenizer.room());
        encoder.ends.push(read as i64 + 1);
        for (i, (token, weight)) in chunk.iter().enumerate() {
            let place = (i < read).then_some(first + i);
            if let Some(place) = place {
                encoder.weights[place] = *weight as f32;
            }
            encoder.places.push((token.bytes.clone(), place));
        }
    }
    encoder
}

//! A prompt as the text encoders read it: cut at the model's limit or in chunks, with weights or
//! without, and where a word stands in what comes out.

use std::ops::Range;

use anyhow::Result;
use serde::Serialize;

use super::chunks::cuts;
use super::weights::{WeightedText, escape};
use super::{ClipTokenizer, Token, WordError, find_word};
use crate::error::{model, usage};

/// Most chunks of a prompt: far more than a model makes sense of, and few enough that a text given
/// by mistake is refused and not computed.
const MOST_CHUNKS: usize = 64;

/// How prompts are read. Neither is on by default, and then they are read as by diffusers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PromptOptions {
    /// Whether what lies behind the model's limit is read in further chunks instead of cut off.
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

    /// The prompt without the marks of weights.
    ///
    /// # Errors
    /// When the weights can not be read.
    pub fn plain_text(self, prompt: &str) -> Result<String> {
        Ok(self.read(prompt)?.text)
    }

    /// How a text is written in a prompt so that all of it is read as text.
    pub fn literal(self, text: &str) -> String {
        if self.prompt_weights {
            escape(text)
        } else {
            text.to_owned()
        }
    }
}

/// A prompt as the text encoders read it. All of them get the same text in the same chunk.
#[derive(Clone, Debug)]
pub struct PromptTokens {
    /// As it was written.
    prompt: String,
    weighted: WeightedText,
    options: PromptOptions,
    /// Length of a chunk, start and end token included.
    limit: usize,
    /// Byte of the text at which each chunk but the first begins.
    cuts: Vec<usize>,
    encoders: Vec<EncoderTokens>,
}

/// What one text encoder reads.
#[derive(Clone, Debug, Default)]
struct EncoderTokens {
    /// Chunk after chunk.
    ids: Vec<i64>,
    /// One for each of `ids`; 1 for start, end and padding.
    weights: Vec<f32>,
    /// Place of the end token in each chunk.
    ends: Vec<i64>,
    /// All tokens of the text with their places among `ids`; `None` for those cut off.
    places: Vec<(Range<usize>, Option<usize>)>,
    /// A chunk without text.
    empty: Vec<i64>,
}

impl PromptTokens {
    /// Reads `prompt` with one tokenizer for each text encoder. Words of `whole` are not divided
    /// between two chunks.
    ///
    /// # Errors
    /// When weights can not be read, or the prompt is absurdly long.
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

    /// The prompt as it was written, marks and all.
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// How many chunks there are.
    pub fn num_chunks(&self) -> usize {
        self.encoders[0].ends.len()
    }

    /// Adds chunks without text until there are `chunks` of them.
    pub fn pad_to(&mut self, chunks: usize) {
        for encoder in &mut self.encoders {
            while encoder.ends.len() < chunks {
                encoder.ids.extend(&encoder.empty);
                encoder.weights.resize(encoder.ids.len(), 1.0);
                encoder.ends.push(1);
            }
        }
    }

    /// Ids that a text encoder reads, chunk after chunk, each as long as the model's limit.
    pub fn ids(&self, encoder: usize) -> &[i64] {
        &self.encoders[encoder].ids
    }

    /// The weight of each of [`Self::ids`], where any is not 1.
    pub fn weights(&self, encoder: usize) -> Option<&[f32]> {
        let weights = &self.encoders[encoder].weights;
        weights.iter().any(|w| *w != 1.0).then_some(weights)
    }

    /// Whether any text encoder has a weight that is not 1.
    pub fn is_weighted(&self) -> bool {
        (0..self.encoders.len()).any(|encoder| self.weights(encoder).is_some())
    }

    /// Place of the end token in each chunk.
    pub fn ends(&self, encoder: usize) -> &[i64] {
        &self.encoders[encoder].ends
    }

    /// The same tokens, all of weight 1.
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

    /// The end of the text that the limit cuts off, if it does.
    pub fn lost_text(&self) -> Option<&str> {
        let lost = |encoder: &EncoderTokens| {
            let mut places = encoder.places.iter();
            places
                .find(|(_, place)| place.is_none())
                .map(|(bytes, _)| bytes.start)
        };
        self.weighted.text.get(lost(&self.encoders[0])?..)
    }

    /// For each text encoder, how many tokens the prompt has, those that are cut off too.
    pub fn token_counts(&self) -> Vec<usize> {
        let counts = self.encoders.iter().map(|encoder| encoder.places.len());
        counts.collect()
    }

    /// Places of `word` among the ids of each text encoder: one list for each time the prompt holds
    /// the word as a whole, whatever its case, W places each. Times behind the limit are left out,
    /// for all encoders if for one. Encoders may have different places: behind a "!", which SDXL's
    /// second tokenizer uses for padding and therefore never joins with its neighbours.
    ///
    /// # Errors
    /// [`WordError`] when there is no place.
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

    /// [`Self::places`], refused with messages for the user and, at times, for the makers of a
    /// model.
    ///
    /// # Errors
    /// When there is no place; the message names prompt and word.
    pub fn word_positions(&self, word: &str) -> Result<Vec<Vec<Vec<usize>>>> {
        let (prompt, room) = (&self.prompt, self.limit - 2);
        let places = self.places(word).map_err(|e| {
            let what = match e {
                WordError::Missing => "is not in it".to_owned(),
                WordError::CutOff if self.options.long_prompts => {
                    format!("has more tokens than the {room} of a chunk")
                }
                WordError::CutOff => format!(
                    "lies behind the limit of {} tokens; move it forward, shorten the prompt, or \
                     have it read in chunks with --long-prompts",
                    self.limit
                ),
                WordError::Torn => "is divided by a weight that begins or ends inside it; put all \
                                    of it in the brackets"
                    .to_owned(),
            };
            usage(format!("prompt {prompt:?}: the base word {word:?} {what}"))
        })?;
        let tokens = |encoder: &Vec<Vec<usize>>| encoder[0].len();
        if let Some(other) = places
            .iter()
            .find(|other| tokens(other) != tokens(&places[0]))
        {
            return Err(model(format!(
                "the two tokenizers make {} and {} tokens of {word:?}; choose another base word",
                tokens(&places[0]),
                tokens(other)
            )));
        }
        Ok(places)
    }
}

impl EncoderTokens {
    /// Places of the tokens that these bytes of the text have a part in; `None` if one is cut off.
    fn places_of(&self, span: &Range<usize>) -> Option<Vec<usize>> {
        let overlaps = |o: &Range<usize>| o.start < span.end && span.start < o.end;
        let tokens = self.places.iter().filter(|(bytes, _)| overlaps(bytes));
        tokens.map(|(_, place)| *place).collect()
    }
}

/// Tokens of each span by itself, as the web interface and diffusers' community pipelines do it;
/// their bytes are those of the whole text.
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

/// Puts the tokens in chunks; what does not fit in the last one is cut off.
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

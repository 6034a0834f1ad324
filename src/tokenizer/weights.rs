//! Weights inside a prompt, in the notation of stable-diffusion-webui: text to spans with weights.
//!
//! | written | weight |
//! | --- | --- |
//! | `(word)` | 1.1 |
//! | `[word]` | 1 / 1.1 |
//! | `(some words:1.3)` | 1.3 |
//! | `((word))`, `(a (word:1.3))` | the weights of all brackets around the word, multiplied |
//! | `\(`, `\)`, `\[`, `\]`, `\:`, `\|`, `\\` | none: the character itself |
//!
//! stable-diffusion-webui accepts any text. Here brackets that do not close are refused. So is
//! everything that means something other than a weight there: a number or `|` in square brackets
//! (words that change at a step or alternate), `AND`, `BREAK` and `<lora:name:1>`. The placeholder
//! `[b]` is replaced before weights are read, so it is never a weight.

use std::ops::{Range, RangeInclusive};

use anyhow::Result;

use crate::error::usage;
use crate::io::a1111;

/// The weight of round brackets without a number; square brackets divide by it.
const STEP: f64 = 1.1;
/// Allowed weights, also for the product of nested weights. A weight of zero would not remove a
/// word: what remains of a token is the end token's state, which describes the whole prompt.
const WEIGHTS: RangeInclusive<f64> = 0.01..=10.0;
/// Characters with a special meaning, which a backslash removes.
const MARKS: [char; 7] = ['(', ')', '[', ']', ':', '|', '\\'];

/// A prompt without its marks, and the weights that they gave.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedText {
    /// The prompt without brackets, numbers and backslashes.
    pub text: String,
    /// Byte ranges of `text` with their weights: in order, without gaps; neighbours have different
    /// weights.
    pub spans: Vec<(Range<usize>, f64)>,
}

impl WeightedText {
    /// A prompt read as plain text, including its brackets.
    pub fn plain(prompt: &str) -> WeightedText {
        WeightedText {
            text: prompt.to_owned(),
            spans: vec![(0..prompt.len(), 1.0)],
        }
    }

    /// Reads the weights of `prompt`.
    ///
    /// # Errors
    /// For brackets that do not match and weights out of range; the message gives the character's
    /// position, counted from 1.
    pub fn parse(prompt: &str) -> Result<WeightedText> {
        let weighted = refuse_commands(prompt)
            .and_then(|()| Marked::read(prompt))
            .and_then(|marked| marked.multiplied());
        weighted.map_err(|e| usage(format!("prompt {prompt:?}: {e}")))
    }

    fn push(&mut self, c: char, weight: f64) {
        let start = self.text.len();
        self.text.push(c);
        match self.spans.last_mut() {
            Some((span, last)) if *last == weight => span.end = self.text.len(),
            _ => self.spans.push((start..self.text.len(), weight)),
        }
    }
}

/// Escapes `text` so that [`WeightedText::parse`] returns it unchanged.
pub fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        if MARKS.contains(&c) {
            escaped.push('\\');
        }
        escaped.push(c);
        escaped
    })
}

/// Refuses commands of stable-diffusion-webui that are not supported here.
fn refuse_commands(prompt: &str) -> Result<(), String> {
    Err(match a1111::command(prompt) {
        None => return Ok(()),
        Some(word @ ("AND" | "BREAK")) => format!(
            "the command {word} of stable-diffusion-webui is not supported; write \"{}\" for the word itself",
            word.to_lowercase()
        ),
        Some(network) => format!(
            "{network} in a prompt is not supported; remove it and give the file and its strength in the option lora"
        ),
    })
}

/// A piece of a prompt.
#[derive(Clone, Copy)]
enum Piece {
    Char(char),
    /// The opening bracket with this number in `Marked::weights`.
    Open(usize),
    Close,
}

/// A prompt whose brackets match.
struct Marked {
    pieces: Vec<Piece>,
    /// The weight of each pair of brackets, and the position of its opening bracket.
    weights: Vec<(f64, usize)>,
}

/// A bracket that is not closed yet.
struct Bracket {
    mark: char,
    /// Its position in the prompt, in characters from 1.
    place: usize,
    number: usize,
    /// The index of the last `:` among the pieces, if only text follows it.
    colon: Option<usize>,
}

impl Marked {
    fn read(prompt: &str) -> Result<Marked, String> {
        let mut marked = Marked {
            pieces: Vec::new(),
            weights: Vec::new(),
        };
        let mut open: Vec<Bracket> = Vec::new();
        let mut chars = (1..).zip(prompt.chars()).peekable();
        while let Some((place, mark)) = chars.next() {
            match mark {
                '\\' => {
                    let escaped = chars.next_if(|(_, c)| MARKS.contains(c));
                    marked
                        .pieces
                        .push(Piece::Char(escaped.map_or('\\', |(_, c)| c)));
                }
                '(' | '[' => {
                    if let Some(outer) = open.last_mut() {
                        outer.colon = None;
                    }
                    let number = marked.weights.len();
                    marked.weights.push((1.0, place));
                    marked.pieces.push(Piece::Open(number));
                    open.push(Bracket {
                        mark,
                        place,
                        number,
                        colon: None,
                    });
                }
                ')' | ']' => marked.close(open.pop(), mark, place)?,
                '|' if open.last().is_some_and(|bracket| bracket.mark == '[') => {
                    return Err(format!(
                        "\"|\" at character {place}: alternating words in square brackets are not supported; write \\| for the \
                         character itself"
                    ));
                }
                _ => {
                    if let (':', Some(bracket)) = (mark, open.last_mut()) {
                        bracket.colon = Some(marked.pieces.len());
                    }
                    marked.pieces.push(Piece::Char(mark));
                }
            }
        }
        match open.pop() {
            None => Ok(marked),
            Some(Bracket { mark, place, .. }) => Err(format!(
                "\"{mark}\" at character {place} is not closed; write \\{mark} for the character \
                 itself"
            )),
        }
    }

    fn close(&mut self, open: Option<Bracket>, mark: char, place: usize) -> Result<(), String> {
        let Some(bracket) = open else {
            return Err(format!(
                "\"{mark}\" at character {place} closes no bracket; write \\{mark} for the \
                 character itself"
            ));
        };
        if (bracket.mark == '(') != (mark == ')') {
            return Err(format!(
                "\"{mark}\" at character {place} does not close the \"{}\" at character {}",
                bracket.mark, bracket.place
            ));
        }
        let number = bracket.colon.map(|colon| self.number_behind(colon));
        let weight = match (mark, number.transpose()) {
            (')', Ok(None | Some(None))) => STEP,
            (')', Ok(Some(Some(weight)))) => {
                self.pieces
                    .truncate(bracket.colon.unwrap_or(self.pieces.len()));
                weight
            }
            (')', Err(e)) => {
                return Err(format!("the brackets at character {}: {e}", bracket.place));
            }
            (_, Ok(None | Some(None))) => 1.0 / STEP,
            (_, Ok(Some(Some(_))) | Err(_)) => {
                return Err(format!(
                    "the brackets at character {}: square brackets take no number, because changing a word at a step is \
                     not supported; write (…:0.9) for a weight, or \\: for a colon",
                    bracket.place
                ));
            }
        };
        self.weights[bracket.number].0 = weight;
        self.pieces.push(Piece::Close);
        Ok(())
    }

    /// The weight after a colon, or `None` if text follows the colon.
    fn number_behind(&self, colon: usize) -> Result<Option<f64>, String> {
        let behind = self.pieces[colon + 1..].iter().map(|piece| match piece {
            Piece::Char(c) => *c,
            Piece::Open(_) | Piece::Close => unreachable!("brackets make a colon text"),
        });
        let behind: String = behind.collect();
        let text = behind.trim();
        let expected = format!(
            "expected a number from {} to {} after the colon; write \\: for a colon",
            WEIGHTS.start(),
            WEIGHTS.end()
        );
        let is_like_a_number = text.contains(|c: char| c.is_ascii_digit())
            && text.chars().all(|c| "0123456789.,+-eE".contains(c));
        match text.parse::<f64>() {
            Ok(weight) if WEIGHTS.contains(&weight) => Ok(Some(weight)),
            Err(_) if !text.is_empty() && !is_like_a_number => Ok(None),
            _ => Err(format!("found {text:?}, {expected}")),
        }
    }

    /// The text, each character with the product of the weights of all brackets around it.
    fn multiplied(&self) -> Result<WeightedText, String> {
        let mut weighted = WeightedText {
            text: String::new(),
            spans: Vec::new(),
        };
        let mut around = vec![1.0];
        for piece in &self.pieces {
            let weight = *around.last().expect("brackets match");
            match piece {
                Piece::Char(c) => weighted.push(*c, weight),
                Piece::Close => drop(around.pop()),
                Piece::Open(number) => {
                    let (own, place) = self.weights[*number];
                    let product = weight * own;
                    if !WEIGHTS.contains(&product) {
                        return Err(format!(
                            "the brackets at character {place} and those around them multiply to \
                             {product:.3}, expected {} to {}",
                            WEIGHTS.start(),
                            WEIGHTS.end()
                        ));
                    }
                    around.push(product);
                }
            }
        }
        Ok(weighted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text and weights, each weight rounded to six digits.
    fn read(prompt: &str) -> Vec<(String, f64)> {
        let weighted = WeightedText::parse(prompt).unwrap_or_else(|e| panic!("{prompt:?}: {e}"));
        let mut end = 0;
        let spans = weighted.spans.iter().map(|(span, weight)| {
            assert_eq!(span.start, end, "spans leave no gap");
            end = span.end;
            let weight = (weight * 1e6).round() / 1e6;
            (weighted.text[span.clone()].to_owned(), weight)
        });
        let spans = spans.collect();
        assert_eq!(end, weighted.text.len());
        spans
    }

    fn spans(expected: &[(&str, f64)]) -> Vec<(String, f64)> {
        let owned = |(text, weight): &(&str, f64)| ((*text).to_owned(), *weight);
        expected.iter().map(owned).collect()
    }

    #[test]
    fn brackets_give_weights_and_nested_ones_multiply() {
        let cases: [(&str, &[(&str, f64)]); 12] = [
            ("normal text", &[("normal text", 1.0)]),
            ("", &[]),
            (
                "an (important) word",
                &[("an ", 1.0), ("important", 1.1), (" word", 1.0)],
            ),
            ("((word))", &[("word", 1.21)]),
            ("[word]", &[("word", 0.909091)]),
            ("[[word]]", &[("word", 0.826446)]),
            ("(some words:1.3)", &[("some words", 1.3)]),
            ("(word: 1.3 )x", &[("word", 1.3), ("x", 1.0)]),
            ("(unnecessary)(parens)", &[("unnecessaryparens", 1.1)]),
            // The example in the documentation of stable-diffusion-webui's parser, with closed
            // brackets.
            (
                "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).)",
                &[
                    ("a ", 1.0),
                    ("house", 1.573),
                    (" ", 1.1),
                    ("on", 1.0),
                    (" a ", 1.1),
                    ("hill", 0.55),
                    (", sun, ", 1.1),
                    ("sky", 1.4641),
                    (".", 1.1),
                ],
            ),
            ("(é:2)ü", &[("é", 2.0), ("ü", 1.0)]),
            ("()a[]( ):0.5", &[("a", 1.0), (" ", 1.1), (":0.5", 1.0)]),
        ];
        for (prompt, expected) in cases {
            assert_eq!(read(prompt), spans(expected), "{prompt:?}");
        }
    }

    #[test]
    fn a_backslash_takes_the_meaning_away() {
        let cases: [(&str, &[(&str, f64)]); 7] = [
            (r"\(literal\]", &[("(literal]", 1.0)]),
            (r"(smiling \(:1.2)", &[("smiling (", 1.2)]),
            (r"(at 5\:30)", &[("at 5:30", 1.1)]),
            (r"a\\b\c\", &[(r"a\b\c\", 1.0)]),
            (r"(a:1.5\)b)", &[("a:1.5)b", 1.1)]),
            (r"[a\|b]", &[("a|b", 0.909091)]),
            ("a|b (c|d)", &[("a|b ", 1.0), ("c|d", 1.1)]),
        ];
        for (prompt, expected) in cases {
            assert_eq!(read(prompt), spans(expected), "{prompt:?}");
        }
        for text in [r"a (cat) [b] c:\d\", "(((", r"\\("] {
            let back = WeightedText::parse(&escape(text)).expect("nothing but text");
            assert_eq!(back, WeightedText::plain(text));
        }
    }

    #[test]
    fn a_colon_before_words_is_text() {
        assert_eq!(read("(cat: sitting)"), spans(&[("cat: sitting", 1.1)]));
        assert_eq!(read("(at 5:30pm)"), spans(&[("at 5:30pm", 1.1)]));
        assert_eq!(
            read("(a:(b)1.5)"),
            spans(&[("a:", 1.1), ("b", 1.21), ("1.5", 1.1)])
        );
        assert_eq!(read("a:1.5"), spans(&[("a:1.5", 1.0)]));
        assert_eq!(read("(a:b:1.5)"), spans(&[("a:b", 1.5)]));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_place() {
        let cases = [
            ("é (cat", "\"(\" at character 3 is not closed"),
            ("a [cat", "\"[\" at character 3 is not closed; write \\["),
            ("((cat)", "\"(\" at character 1 is not closed"),
            ("a cat)", "\")\" at character 6 closes no bracket"),
            ("a ]cat", "\"]\" at character 3 closes no bracket"),
            (
                "a (cat]",
                "\"]\" at character 7 does not close the \"(\" at character 3",
            ),
            (
                "[a (b] c)",
                "\"]\" at character 6 does not close the \"(\" at character 4",
            ),
            (
                "a (cat:0)",
                "at character 3: found \"0\", expected a number from 0.01 to 10",
            ),
            ("(cat:-1)", "found \"-1\", expected a number from 0.01"),
            ("(cat:1e9)", "found \"1e9\""),
            ("(cat:nan)", "found \"nan\""),
            ("(cat:inf)", "found \"inf\""),
            ("(cat:)", "found \"\""),
            ("(cat:1,3)", "found \"1,3\""),
            ("(cat:1.2.3)", "found \"1.2.3\""),
            ("[cat:0.5]", "square brackets take no number"),
            ("[cat:dog:0.5]", "square brackets take no number"),
            ("[cat:dog:20]", "square brackets take no number"),
            ("[:dog:0.5]", "square brackets take no number"),
            ("[cat::0]", "square brackets take no number"),
            (
                "a [cat|dog]",
                "\"|\" at character 7: alternating words in square brackets",
            ),
            (
                "[a|b|c:2]",
                "alternating words in square brackets are not supported; write \\|",
            ),
            ("([a|b])", "\"|\" at character 4"),
            (
                "a cat AND a dog",
                "the command AND of stable-diffusion-webui is not supported",
            ),
            ("a cat BREAK a dog", "write \"break\" for the word"),
            (
                "a <lora:x:1> cat",
                "<lora:x:1> in a prompt is not supported; remove it and give the file and its strength in the option lora",
            ),
            (
                "<hypernet:x:1>",
                "<hypernet:x:1> in a prompt is not supported",
            ),
            (
                "((cat:4):4)",
                "at character 2 and those around them multiply to 16.000",
            ),
        ];
        for (prompt, expected) in cases {
            let error = WeightedText::parse(prompt).expect_err(prompt).to_string();
            assert!(error.contains(expected), "{error}");
            assert!(
                error.starts_with(&format!("prompt {prompt:?}: ")),
                "{error}"
            );
        }
        let deep = "(".repeat(26) + "cat" + &")".repeat(26);
        let error = WeightedText::parse(&deep).expect_err("1.1^26 is 11.9");
        assert!(error.to_string().contains("at character 25"), "{error}");
    }
}

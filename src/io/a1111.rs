//! The generation text of stable-diffusion-webui, which its "PNG info" tab and most viewers of
//! generated pictures read from the text chunk `parameters`. Pasted into stable-diffusion-webui,
//! the text has the same meaning as the prompt of the picture.

use std::ops::Range;

/// Keyword of the PNG text chunk.
pub const KEYWORD: &str = "parameters";

/// Commands in the prompts of stable-diffusion-webui, recognised in capitals only: `AND` joins
/// prompts, `BREAK` begins a chunk.
const COMMANDS: [&str; 2] = ["AND", "BREAK"];

/// The content of the generation text.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    /// The prompt of the picture, as [`prompt`] writes it.
    pub prompt: String,
    /// The negative prompt; `None` if there is none.
    pub negative_prompt: Option<String>,
    /// `Steps`, `Sampler`, … in the order in which they are written.
    pub fields: Vec<(&'static str, String)>,
}

impl Parameters {
    /// Prompt, negative prompt and, on the last line, `key: value` pairs separated by commas.
    pub fn to_text(&self) -> String {
        let mut text = self.prompt.clone();
        if let Some(negative_prompt) = &self.negative_prompt {
            text.push_str("\nNegative prompt: ");
            text.push_str(negative_prompt);
        }
        let fields: Vec<String> = self
            .fields
            .iter()
            .map(|(key, value)| format!("{key}: {}", quoted(value)))
            .collect();
        text.push('\n');
        text.push_str(&fields.join(", "));
        text
    }
}

/// A value that contains a separator is written as a JSON string.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

/// A prompt on one line, from pieces of text with their weights.
pub fn prompt<'a>(pieces: impl IntoIterator<Item = (&'a str, f64)>) -> String {
    let mut written = String::new();
    for (text, weight) in pieces {
        let text = literal(text);
        if weight == 1.0 && !ends_in_number(&text) {
            written += &text
        } else {
            let weight = (weight * 1e6).round() / 1e6;
            written += &format!("({text}:{weight})");
        }
    }
    match written.strip_prefix("Negative prompt:") {
        Some(rest) => format!("negative prompt:{rest}"),
        None => written,
    }
}

/// The text in a prompt that stands for a LoRA of this name.
pub fn lora(name: &str, scale: f64) -> String {
    let name = name.replace([':', '>', '\n'], "_");
    format!("<lora:{name}:{scale}>")
}

/// The first command in a prompt: a word of `COMMANDS`, or an extra network such as
/// `<lora:name:1>`.
pub fn command(prompt: &str) -> Option<&str> {
    let network = extra_networks(prompt).next().map(|place| &prompt[place]);
    network.or_else(|| words(prompt).find(|word| COMMANDS.contains(word)))
}

/// Escapes text so that stable-diffusion-webui reads it literally. CLIP's tokenizer, which ignores
/// case and kinds of white space, makes the same tokens of the result.
fn literal(text: &str) -> String {
    let mut opened = text.to_owned();
    for place in extra_networks(text).collect::<Vec<_>>().into_iter().rev() {
        opened.insert(place.start + 1, ' ');
    }
    let mut written = String::new();
    for word in opened.split_inclusive(|c| !is_of_word(c)) {
        let end = word.find(|c| !is_of_word(c)).unwrap_or(word.len());
        let (word, rest) = word.split_at(end);
        if COMMANDS.contains(&word) {
            written += &word.to_lowercase()
        } else {
            written += word
        }
        for c in rest.chars() {
            if matches!(c, '(' | ')' | '[' | ']' | '\\') {
                written.push('\\');
            }
            written.push(if c.is_control() { ' ' } else { c });
        }
    }
    written
}

/// Whether text ends like `16:9`; stable-diffusion-webui reads such an end as the weight of the
/// prompt.
fn ends_in_number(text: &str) -> bool {
    let text = text.trim_end();
    let number =
        text.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+'));
    number.len() < text.len() && number.trim_end().ends_with(':')
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_of_word(c))
}

/// The byte ranges of `<name:…>`.
fn extra_networks(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices('<').filter_map(|(start, _)| {
        let inner = &text[start + 1..];
        let colon = inner.find(|c| !is_of_word(c))?;
        let end = inner.find('>')?;
        let has_content = inner[colon..].starts_with(':') && end > colon + 1;
        (colon > 0 && has_content).then_some(start..start + end + 2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_reads_as_the_web_interface_writes_it() {
        let parameters = Parameters {
            prompt: "a robot, at the beach".to_owned(),
            negative_prompt: Some("blurry".to_owned()),
            fields: vec![
                ("Steps", "30".into()),
                ("Sampler", "Euler".into()),
                ("OneActor subject", "a robot, red".into()),
            ],
        };
        assert_eq!(
            parameters.to_text(),
            "a robot, at the beach\nNegative prompt: blurry\n\
             Steps: 30, Sampler: Euler, OneActor subject: \"a robot, red\""
        );
    }

    #[test]
    fn text_stays_text_and_weights_stay_weights() {
        let cases: [(&[(&str, f64)], &str); 10] = [
            (&[("a (cat) [b]", 1.0)], r"a \(cat\) \[b\]"),
            (&[(r"a\b", 1.0)], r"a\\b"),
            (&[("a ", 1.0), ("cat", 1.21), (".", 1.0)], "a (cat:1.21)."),
            (&[("cat", 1.0 / 1.1)], "(cat:0.909091)"),
            (&[("at 5:30", 1.1)], "(at 5:30:1.1)"),
            (&[("as wide as 16:9", 1.0)], "(as wide as 16:9:1)"),
            (
                &[("salt AND BREAKFAST, BREAK", 1.0)],
                "salt and BREAKFAST, break",
            ),
            (&[("<lora:x:1> 1 <2> <a:>", 1.0)], "< lora:x:1> 1 <2> <a:>"),
            (&[("two\r\nlines", 1.0)], "two  lines"),
            (&[("Negative prompt: x", 1.0)], "negative prompt: x"),
        ];
        for (pieces, written) in cases {
            assert_eq!(prompt(pieces.iter().copied()), written);
        }
        assert_eq!(lora("my:style", 0.8), "<lora:my_style:0.8>");
    }

    #[test]
    fn commands_are_found_in_capitals_and_brackets() {
        assert_eq!(command("a cat AND a dog"), Some("AND"));
        assert_eq!(command("a cat,BREAK"), Some("BREAK"));
        assert_eq!(command("a <lora:x y:0.5> cat"), Some("<lora:x y:0.5>"));
        for text in [
            "a cat and a dog",
            "SAND BREAKS",
            "1 < 2: 3 > 2",
            "<3",
            "<a>",
            "<é",
        ] {
            assert_eq!(command(text), None, "{text}");
        }
    }
}

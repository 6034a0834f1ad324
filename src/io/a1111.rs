//! The generation text of stable-diffusion-webui: what its "PNG info" tab, and most viewers of
//! generated pictures, read from the text chunk `parameters`.

/// Keyword of the PNG text chunk.
pub const KEYWORD: &str = "parameters";

/// What the text tells about a picture.
#[derive(Clone, Debug, Default)]
pub struct Parameters<'a> {
    /// The prompt the picture was drawn from.
    pub prompt: &'a str,
    /// The negative prompt, left out where there is none.
    pub negative_prompt: Option<&'a str>,
    /// `Steps`, `Sampler`, … in the order they are written.
    pub fields: Vec<(&'static str, String)>,
}

impl Parameters<'_> {
    /// Prompt, negative prompt and, on the last line, `key: value` pairs separated by commas.
    pub fn to_text(&self) -> String {
        let mut text = self.prompt.to_owned();
        if let Some(negative_prompt) = self.negative_prompt {
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

/// A value that holds a separator is written as a JSON string.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_reads_as_the_web_interface_writes_it() {
        let parameters = Parameters {
            prompt: "a robot, at the beach",
            negative_prompt: Some("blurry"),
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
}

//! A picture's settings in the format of stable-diffusion-webui, for other programs. Settings that only this program
//! has follow the model's name.

use std::path::Path;

use serde_json::{Value, json};

use crate::config::batch::Settings;
use crate::io::a1111::{self, Parameters};
use crate::schedulers::SchedulerKind;
use crate::tokenizer::weights::WeightedText;

/// The text of the PNG chunk `parameters`.
pub(crate) fn parameters_text(settings: &Settings, facts: &Settings) -> String {
    let written = |key: &str| {
        let text = settings.get(key).and_then(Value::as_str)?;
        Some(prompt(
            text,
            settings.get("prompt_weights") == Some(&json!(true)),
        ))
    };
    let mut prompt = written("prompt").unwrap_or_default();
    for lora in texts(settings.get("lora")) {
        let (file, scale) = lora.rsplit_once(':').unwrap_or((lora, "1"));
        let scale = scale.parse().unwrap_or(1.0);
        prompt += &format!(" {}", a1111::lora(&file_name(file), scale));
    }
    let negative_prompt = written("negative_prompt");
    Parameters {
        prompt,
        negative_prompt: negative_prompt.filter(|text| !text.trim().is_empty()),
        fields: fields(settings, facts),
    }
    .to_text()
}

/// A prompt as the web interface reads it: weights become its brackets, and brackets that are text are escaped.
fn prompt(text: &str, has_weights: bool) -> String {
    let weighted = if has_weights {
        // The prompt was parsed before the picture was drawn, so that this cannot fail for our own pictures.
        WeightedText::parse(text).unwrap_or_else(|_| WeightedText::plain(text))
    } else {
        WeightedText::plain(text)
    };
    let pieces = weighted.spans.iter();
    a1111::prompt(pieces.map(|(span, weight)| (&weighted.text[span.clone()], *weight)))
}

fn fields(settings: &Settings, facts: &Settings) -> Vec<(&'static str, String)> {
    let text = |key: &str| settings.get(key).and_then(Value::as_str);
    let side = |key: &str| settings.get(key).map(plain).unwrap_or_default();
    let sampler = [
        SchedulerKind::Euler,
        SchedulerKind::DpmSolverMultistep,
        SchedulerKind::Ddim,
        SchedulerKind::Pndm,
    ]
    .into_iter()
    .find(|kind| text("scheduler") == Some(kind.name()))
    .map_or("", sampler_name);
    let mut fields = vec![("Steps", side("steps")), ("Sampler", sampler.to_owned())];
    let mut add = |name: &'static str, value: Option<String>| {
        fields.extend(value.map(|value| (name, value)));
    };
    let setting = |key: &str| settings.get(key).map(plain);
    add("CFG scale", setting("guidance_scale"));
    add("Seed", setting("seed"));
    add(
        "Size",
        Some(format!("{}x{}", side("width"), side("height"))),
    );
    add("Model", text("model").map(file_name));
    add("VAE", text("vae").map(file_name));
    add("OneActor g", setting("semantic_interpolation"));
    if let Some(nets @ Value::Array(_)) = settings.get("controlnet") {
        add("OneActor ControlNet", Some(plain(nets)));
    }
    if settings.contains_key("semantic_scale") {
        add("OneActor v", setting("semantic_scale"));
        add("OneActor eta1", setting("eta_1"));
        add("OneActor eta2", setting("eta_2"));
        add("OneActor steps", setting("guided_steps"));
        add("OneActor subject", facts.get("subject").map(plain));
    }
    let version = concat!("oneactor ", env!("CARGO_PKG_VERSION"));
    add("Version", Some(version.to_owned()));
    fields
}

/// The name of a model, LoRA or VAE as the web interface writes it: the last part of its path or repository.
fn file_name(path: &str) -> String {
    let name = Path::new(path).file_name();
    let name = name.map_or(path.into(), |name| name.to_string_lossy());
    name.trim_end_matches(".safetensors").to_owned()
}

/// The texts of a list, or a single text as a list.
fn texts(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(value) => value.as_str().into_iter().collect(),
        None => Vec::new(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(_) => texts(Some(value)).join(", "),
        value => value.to_string(),
    }
}

fn sampler_name(kind: SchedulerKind) -> &'static str {
    match kind {
        SchedulerKind::Euler => "Euler",
        SchedulerKind::DpmSolverMultistep => "DPM++ 2M",
        SchedulerKind::Ddim => "DDIM",
        SchedulerKind::Pndm => "PLMS",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        serde_json::from_str(text).expect("the test's JSON is an object")
    }

    #[test]
    fn the_text_for_other_programs_names_our_scales_between_model_and_version() {
        let settings = settings(
            r#"{"prompt": "a cat", "negative_prompt": "dog", "seed": 7, "steps": 30,
                "guidance_scale": 7.5, "width": 64, "height": 32, "scheduler": "dpm++2m",
                "model": "toy", "semantic_scale": 0.8, "eta_1": 8.5, "eta_2": 1.0,
                "guided_steps": "1-20"}"#,
        );
        let mut facts = Settings::new();
        facts.insert("subject".to_owned(), json!("cat"));
        let text = parameters_text(&settings, &facts);
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            text,
            format!(
                "a cat\nNegative prompt: dog\nSteps: 30, Sampler: DPM++ 2M, CFG scale: 7.5, \
                 Seed: 7, Size: 64x32, Model: toy, OneActor v: 0.8, OneActor eta1: 8.5, \
                 OneActor eta2: 1.0, OneActor steps: 1-20, OneActor subject: cat, \
                 Version: oneactor {version}"
            )
        );
    }

    #[test]
    fn brackets_loras_and_paths_are_written_for_another_reader() {
        let of = |more: &str| {
            let text = format!(
                r#"{{"prompt": "a (cat)", "steps": 4, "seed": 1, "width": 64, "height": 64,
                    "scheduler": "euler", "guidance_scale": 5{more}}}"#
            );
            parameters_text(&settings(&text), &Settings::new())
        };
        let start = |text: String, lines: usize| -> Vec<String> {
            text.lines().take(lines).map(str::to_owned).collect()
        };
        assert_eq!(start(of(""), 1), [r"a \(cat\)"]);
        assert_eq!(start(of(r#", "prompt_weights": true"#), 1), ["a (cat:1.1)"]);
        let empty = of(r#", "negative_prompt": """#);
        assert!(!empty.contains("Negative prompt"), "{empty}");
        let with_files = of(
            r#", "lora": ["/me/a b.safetensors:0.5", "x/c.safetensors:-1"], "model": "/me/models/dream.safetensors",
                "vae": "madebyollin/sdxl-vae-fp16-fix", "negative_prompt": "[x]""#,
        );
        assert_eq!(
            start(with_files.clone(), 2),
            [
                r"a \(cat\) <lora:a b:0.5> <lora:c:-1>",
                r"Negative prompt: \[x\]"
            ]
        );
        assert!(
            with_files.contains(", Model: dream, VAE: sdxl-vae-fp16-fix, "),
            "{with_files}"
        );
        assert!(!with_files.contains("/me"), "{with_files}");
    }
}

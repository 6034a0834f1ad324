//! Long and weighted prompts, compared with Python written from the definition around transformers'
//! text encoders (`scripts/parity/expected_prompts.py`): tokens, embeddings, the places and offset
//! of the base word, and the U-Net's prediction from them.

use crate::bars::NETWORK;
use crate::common::{Expected, Report, SHAPES, backbone, json};
use oneactor::backbone::prompt_pair::PromptPair;
use oneactor::backbone::{Backbone, Conditioning};
use oneactor::method::base_word::BaseWordPrompt;
use oneactor::tokenizer::prompt_tokens::PromptOptions;
use serde::Deserialize;
use tch::{Kind, Tensor};

#[derive(Deserialize)]
struct Case {
    prompt: String,
    negative_prompt: Option<String>,
    long_prompts: bool,
    prompt_weights: bool,
    bases: Vec<String>,
    /// For each base word and text encoder: one list for each occurrence of the word in the prompt.
    positions: Vec<Vec<Vec<Vec<usize>>>>,
}

impl Case {
    fn pair(&self, backbone: &Backbone) -> PromptPair {
        let options = PromptOptions {
            long_prompts: self.long_prompts,
            prompt_weights: self.prompt_weights,
        };
        let negative = self.negative_prompt.as_deref();
        let bases: Vec<&str> = self.bases.iter().map(String::as_str).collect();
        PromptPair::new(
            &backbone.tokenizers,
            &self.prompt,
            negative,
            options,
            &bases,
        )
        .expect("Python reads this prompt")
    }
}

/// The ids of an encoder, `[n, S]`.
fn ids(pair: &PromptPair, encoder: usize) -> Tensor {
    let chunks = pair.prompt.num_chunks() as i64;
    Tensor::from_slice(pair.prompt.ids(encoder)).view([chunks, -1])
}

fn compare(backbone: &Backbone, i: usize, case: &Case, expected: &Expected, report: &mut Report) {
    let get = |name: &str| expected.get(&format!("{i}.{name}"));
    let pair = case.pair(backbone);
    for encoder in 0..backbone.token_widths().len() {
        let (found, expected) = (ids(&pair, encoder), get(&format!("ids.{encoder}")));
        report.check(found == expected, || {
            format!("{i}: ids of encoder {encoder}: found {found:?}, expected {expected:?}")
        });
        if found != expected {
            return;
        }
    }
    let places = |word: &String| pair.prompt.word_positions(word).expect("it is there");
    let places: Vec<_> = case.bases.iter().map(places).collect();
    report.check(places == case.positions, || {
        format!("{i}: places {places:?}, expected {:?}", case.positions)
    });

    let height = get("sample").size()[2] * backbone.vae_scale_factor();
    let width = get("sample").size()[3] * backbone.vae_scale_factor();
    let prompt = BaseWordPrompt::from_tokens(backbone, &pair.prompt, &case.bases, [height, width])
        .expect("it is there");
    let negative = pair.encode_negative(backbone, height, width);
    let moved = prompt.shifted(&get("offset").unsqueeze(0));
    let conditioning = prompt
        .conditioning
        .with_prompt_embeds(moved.shallow_clone());
    let timesteps = Tensor::from_slice(&[500i64]);
    let noise_pred = tch::no_grad(|| backbone.predict(&get("sample"), &timesteps, &conditioning));
    let base_embedding = prompt.base_embedding();
    let mut compared = vec![
        ("prompt_embeds", &prompt.conditioning.prompt_embeds),
        ("negative_prompt_embeds", &negative.prompt_embeds),
        ("base_embedding", &base_embedding),
        ("moved", &moved),
        ("noise_pred", &noise_pred),
    ];
    // Only SDXL's prompts have pooled embeddings.
    let is_told = expected.has(&format!("{i}.pooled_prompt_embeds"));
    report.check(conditioning.added.is_some() == is_told, || {
        format!("{i}: pooled embedding and sizes")
    });
    if let (Some(added), Some(negative)) = (&conditioning.added, &negative.added) {
        compared.extend([
            ("pooled_prompt_embeds", &added.text_embeds),
            ("negative_pooled_prompt_embeds", &negative.text_embeds),
        ]);
    }
    for (name, found) in compared {
        report.close(&format!("{i} {name}"), found, &get(name), NETWORK);
    }
}

#[test]
fn long_and_weighted_prompts_are_encoded_as_defined() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let cases: Vec<Case> = json(&format!("{shape}/expected/prompts.json"));
        let expected = Expected::read(&format!("{shape}/expected/prompts.safetensors"));
        let mut report = Report::new(&format!("long and weighted prompts on {shape}"));
        for (i, case) in cases.iter().enumerate() {
            compare(&backbone, i, case, &expected, &mut report);
        }
        report.finish();
    }
}

#[derive(Deserialize)]
struct Lpw {
    prompt: String,
}

#[test]
fn the_rows_of_the_community_pipeline_are_the_same() {
    // The community pipeline with this rule exists for SDXL only.
    for shape in &SHAPES[..3] {
        let backbone = backbone(shape);
        let Lpw { prompt } = json(&format!("{shape}/expected/lpw.json"));
        let rows = Expected::read(&format!("{shape}/expected/lpw.safetensors"));
        let options = PromptOptions {
            long_prompts: true,
            prompt_weights: true,
        };
        let tokens = backbone.tokenizers.tokens(&prompt, options, &[]);
        let found = backbone.encode_tokens(&tokens.expect("letters"), 64, 64);
        let expected = rows.get("prompt_embeds"); // its last chunk is not padded
        let found = found.prompt_embeds.narrow(1, 0, expected.size()[1]);
        let mut report = Report::new(&format!("community pipeline on {shape}"));
        report.close("prompt_embeds", &found, &expected, NETWORK);
        report.finish();
    }
}

fn pooled(conditioning: &Conditioning) -> Option<&Tensor> {
    conditioning.added.as_ref().map(|added| &added.text_embeds)
}

#[test]
fn options_that_change_nothing_leave_embeddings_equal_to_the_bit() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let read = |prompt: &str, long_prompts, prompt_weights| {
            let options = PromptOptions {
                long_prompts,
                prompt_weights,
            };
            let tokens = backbone.tokenizers.tokens(prompt, options, &["cat"]);
            backbone.encode_tokens(&tokens.expect("text"), 64, 64)
        };
        for prompt in ["", "a cat, at night!", "a photo of a cat in the snow"] {
            let plain = backbone.encode_prompt(prompt, 64, 64).expect("text");
            for (long_prompts, prompt_weights) in [(true, false), (false, true), (true, true)] {
                let found = read(prompt, long_prompts, prompt_weights);
                assert_eq!(found.prompt_embeds, plain.prompt_embeds);
                assert_eq!(pooled(&found), pooled(&plain));
            }
        }
        // A weight of 1 changes nothing; without the option brackets are text.
        let plain = read("a cat, at night", false, false).prompt_embeds;
        let (a, b) = ("a (cat:1), at (night:1.0)", "a (cat), at night");
        assert_eq!(read(a, true, true).prompt_embeds, plain);
        let text = read(b, true, false).prompt_embeds;
        let again = backbone.encode_prompt(b, 64, 64).expect("text");
        assert_eq!(text, again.prompt_embeds);
        assert_ne!(read(b, false, true).prompt_embeds, text);
    }
}

#[test]
fn a_weight_changes_only_the_tokens_inside_its_brackets() {
    let backbone = backbone("narrow");
    let read = |prompt: &str| {
        let options = PromptOptions {
            long_prompts: true,
            prompt_weights: true,
        };
        let tokens = backbone.tokenizers.tokens(prompt, options, &[]);
        backbone.encode_tokens(&tokens.expect("text"), 64, 64)
    };
    let plain = read("a red hobbit in the snow");
    let weighted = read("a red (hobbit:1.5) in the snow");
    let gap = (&plain.prompt_embeds - &weighted.prompt_embeds).abs();
    let moved = gap.sum_dim_intlist([0i64, 2].as_slice(), false, Kind::Float);
    let moved: Vec<f32> = Vec::try_from(moved.gt(0.0).to_kind(Kind::Float)).expect("one row");
    assert_eq!(moved.iter().sum::<f32>(), 1.0, "{moved:?}");
    assert_eq!(moved[3], 1.0, "start, a, red, hobbit");
    assert_eq!(pooled(&plain), pooled(&weighted));
}

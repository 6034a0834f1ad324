//! Files with false claims: a size in a file is checked before memory is allocated or a loop is run
//! by it. Each case was found by fuzzing (`tests/fuzz`) or by reading, and once caused a panic, a
//! hang, or used all memory.

#![allow(clippy::unwrap_used, reason = "a test that fails says why by itself")]

use std::io::Cursor;

use oneactor::io::config_file::{ConfigFile, Notes};
use oneactor::io::header::Header;
use oneactor::io::tensors::TensorFile;
use oneactor::io::weights::Weights;
use oneactor::models::autoencoder_kl::AutoencoderKlConfig;
use oneactor::models::clip_text_model::ClipTextConfig;
use oneactor::models::unet::controlnet::ControlNetConfig;
use oneactor::models::unet::unet_2d_condition::UNet2DConditionConfig;
use oneactor::models::vision::sam::{SamConfig, SamModel};
use oneactor::models::vision::vit::{VitConfig, VitKind, VitModel};
use oneactor::pictures::png::png_text;
use oneactor::schedulers::{SchedulerFile, SchedulerKind};
use oneactor::tokenizer::prompt_tokens::{PromptOptions, PromptTokens};
use oneactor::tokenizer::{ClipTokenizer, TokenizerFiles};
use serde_json::{Value, json};
use tch::{Device, Kind};

const UNET: &str = include_str!("../src/io/toy/unet/config.json");
const VAE: &str = include_str!("../src/io/toy/vae/config.json");
const TEXT: &str = include_str!("../src/io/toy/text_encoder/config.json");
const SCHEDULER: &str = include_str!("../src/io/toy/scheduler/scheduler_config.json");

/// A config with one field changed, as text.
fn changed(text: &str, key: &str, value: &Value) -> String {
    let mut config: Value = serde_json::from_str(text).unwrap();
    config[key] = value.clone();
    config.to_string()
}

/// Checks that each change of a config is refused, and that the message names the key.
fn refuses<T>(text: &str, changes: &[(&str, Value)], read: impl Fn(&str) -> anyhow::Result<T>) {
    assert!(read(text).is_ok(), "the config itself is good");
    for (key, value) in changes {
        let error = read(&changed(text, key, value)).err();
        let said = format!(
            "{:#}",
            error.unwrap_or_else(|| panic!("{key} {value} is taken"))
        );
        assert!(said.contains(key), "{key} {value}: {said}");
    }
}

fn config_file(text: &str) -> anyhow::Result<ConfigFile> {
    ConfigFile::parse("config.json", text, Notes::default())
}

/// Numbers that are not valid sizes.
fn no_sizes() -> [Value; 4] {
    [json!(0), json!(-1), json!(1i64 << 40), json!(i64::MAX)]
}

fn each<'a>(keys: &[&'a str]) -> Vec<(&'a str, Value)> {
    let of_key = |key: &&'a str| no_sizes().map(|value| (*key, value));
    keys.iter().flat_map(of_key).collect()
}

#[test]
fn invalid_sizes_of_a_unet_are_refused() {
    let mut changes = each(&[
        "in_channels",
        "out_channels",
        "sample_size",
        "cross_attention_dim",
        "norm_num_groups",
        "layers_per_block",
        "addition_time_embed_dim",
        "projection_class_embeddings_input_dim",
    ]);
    changes.extend([
        ("transformer_layers_per_block", json!(1_000_000_000)),
        ("transformer_layers_per_block", json!(-1)),
        ("block_out_channels", json!([])),
        ("block_out_channels", json!(vec![32; 64])),
        ("downsample_padding", json!(-1)),
    ]);
    refuses(UNET, &changes, |text| {
        UNet2DConditionConfig::read(&config_file(text)?)
    });
    let config = json!([1i64 << 40, 64]);
    let config = changed(UNET, "block_out_channels", &config);
    let config = config_file(&config).unwrap();
    assert!(UNet2DConditionConfig::read(&config).is_err());
}

#[test]
fn invalid_sizes_of_a_vae_are_refused() {
    let mut changes = each(&[
        "in_channels",
        "out_channels",
        "latent_channels",
        "layers_per_block",
        "norm_num_groups",
        "sample_size",
    ]);
    changes.extend([
        ("block_out_channels", json!([])),
        ("block_out_channels", json!(vec![32; 64])),
        ("block_out_channels", json!([0])),
        ("scaling_factor", json!(0.0)),
        ("scaling_factor", json!(-1.0)),
    ]);
    refuses(VAE, &changes, |text| {
        AutoencoderKlConfig::read(&config_file(text)?)
    });
}

#[test]
fn invalid_sizes_of_an_encoder_are_refused() {
    let weights = || Weights::open(&[], Device::Cpu, Kind::Float).unwrap();
    let keys = [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
        "vocab_size",
        "projection_dim",
    ];
    refuses(TEXT, &each(&keys), |text| {
        ClipTextConfig::read(&config_file(text)?)
    });
    let vit = json!({
        "model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "mlp_ratio": 4, "image_size": 8, "patch_size": 4, "layer_norm_eps": 1e-6,
    });
    let dinov2 = |text: &str| VitConfig::read(&config_file(text)?, VitKind::Dinov2);
    let mut changes = each(&[
        "hidden_size",
        "num_hidden_layers",
        "image_size",
        "patch_size",
    ]);
    // The message has the width that results.
    changes.retain(|(key, value)| *key != "patch_size" || value.as_i64() < Some(1));
    refuses(&vit.to_string(), &changes, |text| {
        VitModel::new(&weights().root(), &dinov2(text)?).map(drop)
    });
    let wide = changed(&vit.to_string(), "mlp_ratio", &json!(i64::MAX));
    let said = VitModel::new(&weights().root(), &dinov2(&wide).unwrap()).err();
    assert!(said.unwrap().to_string().contains("feed-forward"));
}

#[test]
fn sizes_of_sam_that_would_take_all_memory_are_refused() {
    let sam = |vision: Value, decoder: Value| {
        let mut config = json!({
            "model_type": "sam",
            "vision_config": {
                "hidden_size": 8, "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
                "num_hidden_layers": 1, "window_size": 2, "output_channels": 16, "num_pos_feats": 8,
                "global_attn_indexes": [0],
            },
            "prompt_encoder_config": {"hidden_size": 16, "image_size": 32, "patch_size": 8},
            "mask_decoder_config": {"hidden_size": 16, "num_attention_heads": 2},
        });
        for (part, changes) in [("vision_config", vision), ("mask_decoder_config", decoder)] {
            for (key, value) in changes.as_object().unwrap() {
                config[part][key] = value.clone();
            }
        }
        let weights = Weights::open(&[], Device::Cpu, Kind::Float).unwrap();
        let config = SamConfig::read(&config_file(&config.to_string()).unwrap());
        SamModel::new(&weights.root(), &config.unwrap()).map(drop)
    };
    assert!(sam(json!({}), json!({})).is_ok());
    for value in no_sizes() {
        for key in [
            "num_hidden_layers",
            "window_size",
            "num_pos_feats",
            "mlp_dim",
        ] {
            assert!(
                sam(json!({key: value}), json!({})).is_err(),
                "{key} {value}"
            );
        }
        for key in [
            "num_hidden_layers",
            "num_multimask_outputs",
            "iou_head_depth",
            "attention_downsample_rate",
            "num_attention_heads",
        ] {
            assert!(
                sam(json!({}), json!({key: value})).is_err(),
                "{key} {value}"
            );
        }
    }
    // Relative positions of all pairs of patches: 4096 patches a side, 32 GB.
    assert!(sam(json!({"image_size": 4096, "patch_size": 1}), json!({})).is_err());
}

#[test]
fn invalid_sizes_of_a_controlnet_are_refused() {
    let config = json!({
        "_class_name": "ControlNetModel", "in_channels": 4, "block_out_channels": [32, 64],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "layers_per_block": 1,
        "attention_head_dim": 8, "cross_attention_dim": 16,
        "conditioning_embedding_out_channels": [16, 32],
    });
    let mut changes = each(&["in_channels", "cross_attention_dim", "norm_num_groups"]);
    changes.extend(each(&["layers_per_block"]));
    changes.extend([
        ("block_out_channels", json!([])),
        ("conditioning_embedding_out_channels", json!([])),
        ("conditioning_embedding_out_channels", json!(vec![16; 65])),
    ]);
    refuses(&config.to_string(), &changes, |text| {
        ControlNetConfig::read(&config_file(text)?)
    });
}

#[test]
fn invalid_schedules_are_refused() {
    let changes = [
        ("num_train_timesteps", json!(1_000_000_000_000u64)),
        ("num_train_timesteps", json!(1)),
        ("beta_start", json!(-0.1)),
        ("beta_end", json!(1.0)),
        ("beta_end", json!(1e308)),
        ("steps_offset", json!(-1)),
        ("steps_offset", json!(i64::MAX)),
    ];
    refuses(SCHEDULER, &changes, |text| {
        let file = SchedulerFile::new(config_file(text)?);
        file.noise_schedule()?;
        file.read_for(SchedulerKind::Euler)
    });
}

/// The missing tensor would have 256 GB of zeros.
#[test]
fn a_missing_tensor_takes_no_memory() {
    let weights = Weights::open(&[], Device::Cpu, Kind::Float).unwrap();
    let side = 1 << 18;
    let tensor = weights.root().tensor("weight", &[side, side]);
    assert_eq!(tensor.size(), [side, side]);
    assert!(weights.finish().is_err());
}

fn safetensors(header: &Value, bytes: usize) -> Vec<u8> {
    let json = header.to_string();
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend(json.as_bytes());
    file.resize(file.len() + bytes, 0);
    file
}

#[test]
fn a_size_beside_a_zero_is_checked_too() {
    for side in [u64::MAX, 1 << 63, 1 << 40] {
        let header = json!({"a": {"dtype": "F32", "shape": [0, side], "data_offsets": [0, 0]}});
        let file = safetensors(&header, 0);
        let said = TensorFile::from_bytes(&file).err();
        let said = format!("{:#}", said.unwrap_or_else(|| panic!("{side} is taken")));
        assert!(said.contains("along an axis"), "{said}");
    }
    let header = json!({"a": {"dtype": "F32", "shape": [0, 7], "data_offsets": [0, 0]}});
    let file = TensorFile::from_bytes(&safetensors(&header, 0)).unwrap();
    assert_eq!(file.tensors["a"].size(), [0, 7]);
}

#[test]
fn a_header_that_claims_more_than_the_file_has_takes_no_memory() {
    for length in [u64::MAX, 1 << 40, 99_999_999, 9] {
        let mut file = length.to_le_bytes().to_vec();
        file.extend(b"{}");
        assert!(Header::parse(&file[..], file.len() as u64).is_err());
        assert!(TensorFile::from_bytes(&file).is_err());
    }
    let header =
        json!({"a": {"dtype": "F32", "shape": [1u64 << 40], "data_offsets": [0, 1u64 << 42]}});
    let file = safetensors(&header, 16);
    assert!(Header::parse(&file[..], file.len() as u64).is_err());
    assert!(TensorFile::from_bytes(&file).is_err());
}

/// 64 MiB of spaces, compressed in a chunk of 64 KiB.
#[test]
fn a_text_that_is_far_longer_than_its_file_is_not_decompressed() {
    let texts = |size: usize| {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 1, 1);
        encoder
            .add_ztxt_chunk("oneactor".to_owned(), " ".repeat(size))
            .unwrap();
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[0]).unwrap();
        writer.finish().unwrap();
        png_text(Cursor::new(file))
    };
    assert_eq!(texts(1 << 20).unwrap()[0].1.len(), 1 << 20);
    assert!(texts(64 << 20).is_err());
}

fn toy_tokenizer(limit: usize) -> ClipTokenizer {
    ClipTokenizer::new(&TokenizerFiles {
        vocab: Some(include_str!("../src/io/toy/tokenizer/vocab.json")),
        merges: Some(include_str!("../src/io/toy/tokenizer/merges.txt")),
        tokenizer_config: Some(&format!(r#"{{"model_max_length": {limit}}}"#)),
        ..TokenizerFiles::default()
    })
    .unwrap()
}

/// The character has four bytes, each of them a token, and a chunk holds one token: the loop that
/// fills chunks must still end.
#[test]
fn a_character_with_more_tokens_than_a_chunk_does_not_hang() {
    let tokenizers = [toy_tokenizer(3)];
    let options = PromptOptions {
        long_prompts: true,
        ..PromptOptions::default()
    };
    for (prompt, chunks) in [("\u{1F431}", 1), ("\u{1F431} \u{1F431}", 2)] {
        let tokens = PromptTokens::new(&tokenizers, prompt, options, &[]).unwrap();
        assert_eq!(tokens.num_chunks(), chunks, "{prompt}");
    }
}

#[test]
fn a_tokenizer_that_writes_more_than_its_encoder_reads_is_refused() {
    let tokenizer = toy_tokenizer(32);
    let config = ClipTextConfig::read(&config_file(TEXT).unwrap()).unwrap();
    let check = |vocab, positions| tokenizer.check_encoder(vocab, positions);
    assert!(check(config.vocab_size, config.max_position_embeddings).is_ok());
    let said = check(10, 32).unwrap_err().to_string();
    assert!(said.contains("expected less than 10"), "{said}");
    let said = check(config.vocab_size, 31).unwrap_err().to_string();
    assert!(
        said.contains("model_max_length: found 32, expected at most 31"),
        "{said}"
    );
}

/// The toy's tokenizer with other files beside its vocabulary, or with a `tokenizer.json` instead
/// of it.
fn toy_with(file: &str, text: &str) -> anyhow::Result<ClipTokenizer> {
    let mut files = TokenizerFiles {
        vocab: Some(include_str!("../src/io/toy/tokenizer/vocab.json")),
        merges: Some(include_str!("../src/io/toy/tokenizer/merges.txt")),
        ..TokenizerFiles::default()
    };
    let place = match file {
        "tokenizer.json" => &mut files.tokenizer,
        "special_tokens_map.json" => &mut files.special_tokens_map,
        "tokenizer_config.json" => &mut files.tokenizer_config,
        _ => &mut files.added_tokens,
    };
    *place = Some(text);
    ClipTokenizer::new(&files)
}

#[test]
fn a_damaged_file_of_a_tokenizer_is_refused_by_name() {
    let model = |model: &str| format!(r#"{{"model": {model}, "added_tokens": []}}"#);
    let decoder = |token: &str| format!(r#"{{"added_tokens_decoder": {{{token}}}}}"#);
    let cases = [
        ("tokenizer.json", "{".to_owned(), "tokenizer.json: "),
        (
            "tokenizer.json",
            "{}".to_owned(),
            "tokenizer.json: missing field",
        ),
        (
            "tokenizer.json",
            model(r#"{"type": "WordPiece", "vocab": {}, "merges": []}"#),
            "model.type: found WordPiece, expected BPE",
        ),
        (
            "tokenizer.json",
            model(r#"{"vocab": {"a": 0}, "merges": ["a b c"]}"#),
            "merges: found \"a b c\", expected two parts",
        ),
        (
            "tokenizer.json",
            model(r#"{"vocab": {"a": 0, "<|endoftext|>": 1}, "merges": [["a", "b"]]}"#),
            "building the tokenizer",
        ),
        (
            "tokenizer.json",
            model(r#"{"vocab": {"a": 4294967295}, "merges": []}"#),
            "found a token with the number 4294967295",
        ),
        (
            "tokenizer.json",
            r#"{"model": {"vocab": {}, "merges": []}, "padding": {"direction": "Left"}}"#
                .to_owned(),
            "padding.direction: found Left, expected right",
        ),
        ("added_tokens.json", "[]".to_owned(), "added_tokens.json: "),
        (
            "added_tokens.json",
            r#"{"<a>": 4000000000}"#.to_owned(),
            "the added token \"<a>\" has the number 4000000000",
        ),
        (
            "tokenizer_config.json",
            decoder(r#""9999": {"content": "<a>"}"#),
            "the added token \"<a>\" has the number 9999 in its file, expected ",
        ),
        (
            "tokenizer_config.json",
            decoder(r#""x": {"content": "<a>"}"#),
            "tokenizer_config.json: added_tokens_decoder",
        ),
        (
            "tokenizer_config.json",
            decoder(r#""3": {"content": "<a>", "colour": 1}"#),
            "unknown field `colour`",
        ),
        (
            "tokenizer_config.json",
            r#"{"extra_special_tokens": [{"content": "<A>"}, {"content": "<a>"}]}"#.to_owned(),
            "the added tokens \"<A>\" and \"<a>\" are the same in lower case",
        ),
        (
            "tokenizer_config.json",
            r#"{"padding_side": "left"}"#.to_owned(),
            "padding_side: found \"left\", expected \"right\"",
        ),
        (
            "tokenizer_config.json",
            r#"{"tokenizer_class": "T5Tokenizer"}"#.to_owned(),
            "tokenizer_class: found \"T5Tokenizer\", expected \"CLIPTokenizer\"",
        ),
        (
            "tokenizer_config.json",
            r#"{"model_max_length": 1e30}"#.to_owned(),
            "model_max_length: found 1e+30, expected a whole number from 3 to 10000",
        ),
        (
            "tokenizer_config.json",
            r#"{"model_max_length": 76.5}"#.to_owned(),
            "model_max_length: found 76.5",
        ),
        (
            "special_tokens_map.json",
            r#"{"eos_token": null}"#.to_owned(),
            "eos_token: found null, expected a token",
        ),
        (
            "special_tokens_map.json",
            r#"{"pad_token": 3}"#.to_owned(),
            "pad_token: found 3, expected a token",
        ),
        (
            "special_tokens_map.json",
            r#"{"bos_token": ""}"#.to_owned(),
            "the special token \"\" is not in the vocabulary",
        ),
    ];
    for (file, text, expected) in cases {
        let refused = toy_with(file, &text).err();
        let said = refused.map(|error| format!("{error:#}"));
        let said = said.unwrap_or_else(|| panic!("{file} {text} is taken"));
        assert!(said.contains(expected), "{said}");
    }
}

/// Tokens with every combination of flags, whose contents are parts of each other, and texts made
/// of the same pieces.
#[test]
fn added_tokens_of_any_kind_divide_every_text() {
    let pieces = [
        "a",
        " ",
        "\u{3000}",
        "é",
        "e\u{301}",
        "İ",
        "ß",
        "猫",
        "<a>",
        "A",
        "_1",
        "!",
        "\n",
        "<|endoftext|>",
    ];
    let mut state = 7u64;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let mut read = 0;
    for _ in 0..60 {
        let mut word = |most: usize| {
            (0..=next(most))
                .map(|_| pieces[next(pieces.len())])
                .collect::<String>()
        };
        let contents = [word(3), word(2), word(1)];
        let texts: Vec<String> = (0..20).map(|_| word(12)).collect();
        let records = contents.map(|content| {
            let mut flag = |_| next(2) == 0;
            let [lstrip, rstrip, single_word, normalized] = std::array::from_fn(&mut flag);
            serde_json::json!({"content": content, "lstrip": lstrip, "rstrip": rstrip, "single_word": single_word, "normalized": normalized})
        });
        let config = serde_json::json!({"extra_special_tokens": records, "model_max_length": 32});
        // Two tokens that are equal after normalization are refused.
        let Ok(tokenizer) = toy_with("tokenizer_config.json", &config.to_string()) else {
            continue;
        };
        for text in &texts {
            read += 1;
            for token in tokenizer.prompt_tokens(text).unwrap() {
                assert!(
                    text.get(token.bytes.clone()).is_some(),
                    "{config} {text:?} {token:?}"
                );
            }
        }
    }
    assert!(read > 500, "only {read} texts");
}

#[test]
fn a_tokenizer_whose_unknown_token_has_no_number_is_refused() {
    let refused = ClipTokenizer::new(&TokenizerFiles {
        vocab: Some(include_str!("../src/io/toy/tokenizer/vocab.json")),
        merges: Some(include_str!("../src/io/toy/tokenizer/merges.txt")),
        special_tokens_map: Some(r#"{"unk_token": "<|unknown|>"}"#),
        ..TokenizerFiles::default()
    });
    let said = refused.err().unwrap().to_string();
    assert!(said.contains("<|unknown|>"), "{said}");
}

#[test]
fn a_single_missing_number_is_named() {
    let weights = Weights::open(&[], Device::Cpu, Kind::Float).unwrap();
    assert_eq!(weights.root().tensor("d", &[]).numel(), 1);
    assert!(weights.finish().is_err());
}

//! The lists of fields of config files, with what the program does with each, compared with the
//! constructors of the pinned diffusers, transformers and PEFT
//! (`scripts/parity/expected_constructors.py`). No field is missing, none is made up, and a field
//! that a file leaves out has the default of the class.

mod common;

use std::collections::BTreeMap;

use common::json;
use oneactor::backbone::Pipeline;
use oneactor::backbone::model_index::{ModelIndex, STABLE_DIFFUSION, STABLE_DIFFUSION_XL};
use oneactor::io::config_file::{Class, ConfigFile, Field, Notes};
use oneactor::io::lora::metadata::{self, LoraConfig};
use oneactor::models::autoencoder_kl::{self, AutoencoderKlConfig};
use oneactor::models::clip_text_model::{self, ClipTextConfig};
use oneactor::models::unet::controlnet::{self, ControlNetConfig};
use oneactor::models::unet::unet_2d_condition::{self, UNet2DConditionConfig};
use oneactor::models::vision::clip_model::{self, ClipConfig};
use oneactor::models::vision::clip_vision_model::{self, ClipVisionConfig};
use oneactor::models::vision::sam::{self, SamConfig};
use oneactor::models::vision::vit::{self, VitConfig, VitKind};
use oneactor::schedulers::fields::OTHERS;
use oneactor::schedulers::{SchedulerFile, SchedulerKind, new_scheduler};
use oneactor::tokenizer;
use serde::Deserialize;
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};

#[derive(Deserialize)]
struct Constructors {
    classes: BTreeMap<String, Map<String, Value>>,
    samplers: Vec<String>,
}

/// The result of reading a file as a class, as text: its config, a sampler's trajectory, or the
/// error.
type Reads = Box<dyn Fn(&ConfigFile) -> String>;

/// A class, the other fields that its file must have, and the function that reads it.
struct Case {
    class: &'static Class,
    base: Value,
    reads: Reads,
}

fn case<T: std::fmt::Debug>(
    class: &'static Class,
    base: Value,
    read: impl Fn(&ConfigFile) -> anyhow::Result<T> + 'static,
) -> Case {
    let reads = move |file: &ConfigFile| format!("{:?}", read(file).map_err(|e| format!("{e:#}")));
    Case {
        class,
        base,
        reads: Box::new(reads),
    }
}

/// A part of SAM's file.
fn part(class: &'static Class, key: &'static str) -> Case {
    case(class, Value::Null, move |file| {
        let part: Map<String, Value> = class
            .fields
            .iter()
            .flat_map(|list| list.iter())
            .filter_map(|(name, _)| Some((name.to_string(), file.get(name)?.clone())))
            .collect();
        let whole = serde_json::json!({"model_type": "sam", key: part});
        SamConfig::read(&config_file(&whole))
    })
}

/// All passes of a sampler on made-up outputs; every field of its schedule changes them.
fn trajectory(kind: SchedulerKind, file: &ConfigFile) -> anyhow::Result<Vec<Vec<f64>>> {
    let mut scheduler = new_scheduler(kind, &SchedulerFile::new(file.clone()), 7)?;
    let timesteps = scheduler.timesteps().to_vec();
    let mut latents = Tensor::ones([3], (Kind::Double, Device::Cpu)) * scheduler.init_noise_sigma();
    let mut all = vec![timesteps.clone()];
    for i in 0..timesteps.len() {
        let output = Tensor::from_slice(&[0.3, -0.2, i as f64]);
        latents = scheduler.step(&output, i, &latents);
        all.push(Vec::<f64>::try_from(&latents)?);
    }
    Ok(all)
}

fn cases() -> Vec<Case> {
    let vae = serde_json::json!({"norm_num_groups": 1});
    let control = serde_json::json!({"_class_name": "ControlNetModel"});
    let text = serde_json::json!({"architectures": ["CLIPTextModel"]});
    let clip = serde_json::json!({"architectures": ["CLIPModel"]});
    let mut cases = vec![
        case(
            &unet_2d_condition::CLASS,
            Value::Null,
            UNet2DConditionConfig::read,
        ),
        case(&controlnet::CLASS, control, ControlNetConfig::read),
        case(&autoencoder_kl::CLASS, vae, AutoencoderKlConfig::read),
        case(&clip_text_model::CLASS, text, ClipTextConfig::read),
        case(&clip_vision_model::CLASS, Value::Null, |file| {
            file.read::<ClipVisionConfig>(&clip_vision_model::CLASS)
        }),
        case(&clip_model::CLASS, clip, ClipConfig::read),
        case(
            &sam::CLASS,
            serde_json::json!({"model_type": "sam"}),
            SamConfig::read,
        ),
        part(&sam::VISION, "vision_config"),
        part(&sam::PROMPT_ENCODER, "prompt_encoder_config"),
        part(&sam::MASK_DECODER, "mask_decoder_config"),
    ];
    for (class, pipeline) in [
        (&STABLE_DIFFUSION_XL, Pipeline::StableDiffusionXl),
        (&STABLE_DIFFUSION, Pipeline::StableDiffusion),
    ] {
        cases.push(case(class, Value::Null, move |file| {
            ModelIndex::read(file, pipeline)
        }));
    }
    cases.push(case(&metadata::CLASS, Value::Null, LoraConfig::read));
    cases.push(case(
        &tokenizer::CLASS,
        Value::Null,
        tokenizer::special_tokens,
    ));
    for (class, kind) in [(&vit::VIT, VitKind::Vit), (&vit::DINOV2, VitKind::Dinov2)] {
        let base = serde_json::json!({"model_type": kind.name()});
        cases.push(case(class, base, move |file| VitConfig::read(file, kind)));
    }
    for kind in SchedulerKind::ALL {
        let base = match kind {
            SchedulerKind::Pndm => serde_json::json!({"skip_prk_steps": true}),
            _ => Value::Null,
        };
        cases.push(case(kind.class(), base, move |file| trajectory(kind, file)));
    }
    cases
}

fn config_file(values: &Value) -> ConfigFile {
    let text = match values {
        Value::Null => "{}".to_owned(),
        values => values.to_string(),
    };
    ConfigFile::parse("config.json", &text, Notes::default()).expect("it is an object")
}

#[test]
fn the_lists_have_every_parameter_of_a_constructor_and_no_others() {
    let constructors: Constructors = json("constructors.json");
    let cases = cases();
    for name in constructors.classes.keys() {
        assert!(
            cases.iter().any(|case| case.class.name == name),
            "{name} is not compared"
        );
    }
    for Case { class, .. } in cases {
        let parameters = &constructors.classes[class.name];
        let listed: Vec<&str> = class
            .fields
            .iter()
            .flat_map(|list| list.iter().map(|(name, _)| *name))
            .collect();
        for name in parameters.keys() {
            assert!(
                listed.contains(&name.as_str()),
                "{}: {name} is in no list",
                class.name
            );
        }
        for name in listed {
            assert!(
                parameters.contains_key(name),
                "{}: {name} is no parameter",
                class.name
            );
        }
    }
    assert_eq!(constructors.samplers, OTHERS);
}

#[test]
fn a_field_that_is_absent_has_the_default_of_its_class() {
    let constructors: Constructors = json("constructors.json");
    for Case { class, base, reads } in cases() {
        let absent = reads(&config_file(&base));
        assert!(absent.starts_with("Ok"), "{}: {absent}", class.name);
        for (name, default) in &constructors.classes[class.name] {
            if base.get(name).is_some() {
                continue;
            }
            let with = |value: &Value| {
                let mut file = config_file(&base);
                file.set(name, value.clone());
                reads(&file)
            };
            assert_eq!(with(default), absent, "{}: {name} {default}", class.name);
            let lists = class.fields.iter().flat_map(|list| list.iter());
            let fields: Vec<Field> = lists
                .filter(|(listed, _)| listed == name)
                .map(|(_, field)| *field)
                .collect();
            if matches!(
                fields[0],
                Field::Read | Field::ReadOrNull | Field::ReadAsFlag
            ) {
                let said = with(&serde_json::json!({"no field": "has this value"}));
                // The error may name a key inside the object.
                let is_named = [": ", "."].map(|end| said.contains(&format!("{name}{end}")));
                assert!(is_named.contains(&true), "{}: {said}", class.name);
            }
        }
    }
}

/// Python passes `null` as `None`, which is a default only if the class declares it.
#[test]
fn null_is_refused_by_name_or_false_or_one_of_the_values_and_never_the_default() {
    let constructors: Constructors = json("constructors.json");
    for Case { class, base, reads } in cases() {
        let absent = reads(&config_file(&base));
        for (name, field) in class.fields.iter().flat_map(|list| list.iter()) {
            let with = |value: Value| {
                let mut file = config_file(&base);
                file.set(name, value);
                reads(&file)
            };
            let default = &constructors.classes[class.name][*name];
            match field {
                Field::Read => {
                    let (said, message) = (with(Value::Null), format!("{name}: found null"));
                    assert!(said.contains(&message), "{}: {said}", class.name);
                }
                Field::ReadAsFlag => {
                    let off = with(Value::Bool(false)).replace("found false", "found null");
                    assert_eq!(with(Value::Null), off, "{}: {name}", class.name);
                }
                Field::ReadOrNull if !default.is_null() => {
                    assert_ne!(with(Value::Null), absent, "{}: {name}", class.name);
                }
                Field::ReadOrNull | Field::Harmless(_) | Field::Only(_) => {}
            }
        }
    }
}

#[test]
fn listed_values_are_computed_and_other_values_are_refused_by_name() {
    for Case { class, base, reads } in cases() {
        let absent = reads(&config_file(&base));
        for (name, field) in class.fields.iter().flat_map(|list| list.iter()) {
            let Field::Only(values) = field else { continue };
            for value in *values {
                let mut file = config_file(&base);
                file.set(name, serde_json::from_str(value).expect("it is JSON"));
                assert_eq!(reads(&file), absent, "{}: {name} {value}", class.name);
            }
            let mut file = config_file(&base);
            file.set(name, "something else".into());
            let said = reads(&file);
            let message = format!("{name}: found");
            assert!(said.contains(&message), "{}: {said}", class.name);
        }
    }
}

/// diffusers and transformers read these keys, although they are not parameters of a constructor.
#[test]
fn keys_that_change_results_but_are_not_parameters_are_refused_by_name() {
    let quantised = serde_json::json!({"quant_method": "bitsandbytes", "load_in_8bit": true});
    let networks: Vec<Case> = cases()
        .into_iter()
        .filter(|case| {
            let name = case.class.name;
            let is_part = ["SamVision", "SamPrompt", "SamMask"]
                .iter()
                .any(|part| name.starts_with(part));
            !is_part
                && (name.ends_with("Model") || name == "AutoencoderKL" || name.ends_with("Config"))
        })
        .filter(|case| case.class.name != "LoraConfig")
        .collect();
    assert_eq!(networks.len(), 9);
    for Case { class, base, reads } in networks {
        let with = |key: &str, value: Value| {
            let mut file = config_file(&base);
            file.set(key, value);
            reads(&file)
        };
        let absent = reads(&config_file(&base));
        let mut keys = vec![("quantization_config", quantised.clone(), Value::Null)];
        if class.name == "CLIPTextConfig" {
            keys.push(("is_causal", false.into(), true.into()));
            keys.push(("is_causal", Value::Null, true.into()));
        }
        if ["ViTConfig", "Dinov2Config"].contains(&class.name) {
            keys.push(("head_dim", 32.into(), 64.into()));
            keys.push(("head_dim", Value::Null, 64.into()));
        }
        for (key, refused, neutral) in keys {
            let said = with(key, refused);
            assert!(
                said.contains(&format!("{key}: found")),
                "{}: {said}",
                class.name
            );
            assert_eq!(with(key, neutral), absent, "{}: {key}", class.name);
        }
    }
}

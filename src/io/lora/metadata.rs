//! The metadata that PEFT writes into a LoRA file: `lora_adapter_metadata`, a flat JSON object with
//! the `LoraConfig` of each component (`unet.lora_alpha`, …). It is read as PEFT 0.21 reads it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::name::{COMPONENTS, Name};
use crate::error::model;
use crate::io::config_file::Field::{Harmless, Only, Read, ReadAsFlag};
use crate::io::config_file::{Class, ConfigFile, Notes};

/// The key in the file's own metadata.
const KEY: &str = "lora_adapter_metadata";

const TENSORS: &str = "the tensors show which layers exist";
const TRAINING: &str = "only in training";
const BEFORE: &str = "only with that init_lora_weights";

/// How each parameter of PEFT's class is treated. Refused parameters change the result, make PEFT
/// fail, or belong to another kind of adapter.
pub const CLASS: Class = Class {
    name: "LoraConfig",
    fields: &[
        &[
            ("r", Read),
            ("lora_alpha", Read),
            ("use_rslora", ReadAsFlag),
            ("alpha_pattern", Read),
            ("rank_pattern", Read),
        ],
        &[
            ("target_modules", Harmless(TENSORS)),
            ("exclude_modules", Harmless(TENSORS)),
            ("layers_to_transform", Harmless(TENSORS)),
            ("layers_pattern", Harmless(TENSORS)),
            ("lora_dropout", Harmless(TRAINING)),
            ("velora_config", Harmless(TRAINING)),
            ("inference_mode", Harmless(TRAINING)),
            ("eva_config", Harmless(BEFORE)),
            ("corda_config", Harmless(BEFORE)),
            ("lora_ga_config", Harmless(BEFORE)),
            ("loftq_config", Harmless(BEFORE)),
            ("megatron_core", Harmless("only with megatron_config")),
            ("qalora_group_size", Harmless("only with use_qalora")),
            ("ensure_weight_tying", Harmless("only for embeddings")),
            ("runtime_config", Harmless("how Python runs the class")),
            ("task_type", Harmless("only for other heads")),
            ("auto_mapping", Harmless("where the file was made")),
            ("peft_version", Harmless("where the file was made")),
            (
                "base_model_name_or_path",
                Harmless("where the file was made"),
            ),
            ("revision", Harmless("where the file was made")),
        ],
        &[
            ("peft_type", Only(&["\"LORA\"", "null"])),
            ("bias", Only(&["\"none\""])),
            ("use_dora", Only(&["false", "null"])),
            ("lora_bias", Only(&["false", "null"])),
            ("fan_in_fan_out", Only(&["false", "null"])),
            ("use_qalora", Only(&["false", "null"])),
            ("modules_to_save", Only(&["null", "[]"])),
            ("layer_replication", Only(&["null", "[]"])),
            ("alora_invocation_tokens", Only(&["null", "[]"])),
            ("target_parameters", Only(&["null", "[]"])),
            ("megatron_config", Only(&["null", "{}"])),
            ("trainable_token_indices", Only(&["null"])),
            ("use_bdlora", Only(&["null"])),
            ("arrow_config", Only(&["null"])),
            ("kasa_config", Only(&["null"])),
            ("monteclora_config", Only(&["null"])),
            // The other values change the model's own weights when PEFT adds the adapter, or make
            // PEFT fail.
            (
                "init_lora_weights",
                Only(&[
                    "true",
                    "false",
                    "null",
                    "\"gaussian\"",
                    "\"orthogonal\"",
                    "\"eva\"",
                    "\"mica\"",
                    "\"lora_ga\"",
                ]),
            ),
        ],
    ],
    besides: &[],
};

/// The fields that are read, with the defaults of PEFT's class.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    r: i64,
    lora_alpha: f64,
    /// Whether α is divided by √r instead of r.
    use_rslora: bool,
    alpha_pattern: BTreeMap<String, f64>,
    rank_pattern: BTreeMap<String, i64>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        LoraConfig {
            r: 8,
            lora_alpha: 8.0,
            use_rslora: false,
            alpha_pattern: BTreeMap::new(),
            rank_pattern: BTreeMap::new(),
        }
    }
}

impl LoraConfig {
    /// Reads the fields of one component.
    ///
    /// # Errors
    /// When a field has an unsupported value, or a value of the wrong type.
    pub fn read(file: &ConfigFile) -> anyhow::Result<Self> {
        let config: Self = file.read(&CLASS)?;
        let alphas = config
            .alpha_pattern
            .keys()
            .map(|key| ("alpha_pattern", key));
        let ranks = config.rank_pattern.keys().map(|key| ("rank_pattern", key));
        for (field, pattern) in alphas.chain(ranks) {
            if Pattern::new(pattern).is_none() {
                return Err(model(format!(
                    "{}: {field}: found the pattern {pattern:?}, expected a module's name; of a regular expression only \
                     a dot, and ^ and $ at the ends, are supported",
                    file.name()
                )));
            }
        }
        Ok(config)
    }
}

/// A key of a pattern. PEFT asks whether `(.*\.)?(KEY)$` matches the module's name, with `KEY` as a
/// regular expression. Here only names are supported, in which a dot stands for any character.
struct Pattern {
    name: Vec<char>,
    /// Whether the name must match the whole module's name, as with a leading `^`.
    is_whole: bool,
}

impl Pattern {
    /// `None` for any other regular expression.
    fn new(key: &str) -> Option<Self> {
        let name = key.strip_prefix('^').unwrap_or(key);
        let is_whole = name.len() < key.len();
        let name = name.strip_suffix('$').unwrap_or(name);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ['_', '.', '-'].contains(&c);
        name.chars().all(is_plain).then(|| Pattern {
            name: name.chars().collect(),
            is_whole,
        })
    }

    fn matches(&self, module: &str) -> bool {
        let module: Vec<char> = module.chars().collect();
        let Some(start) = module.len().checked_sub(self.name.len()) else {
            return false;
        };
        let (before, own) = module.split_at(start);
        let is_begun = before.is_empty() || (!self.is_whole && before.ends_with(&['.']));
        let mut both = self.name.iter().zip(own);
        is_begun && both.all(|(pattern, c)| *pattern == '.' || pattern == c)
    }
}

/// Values by pattern, in the order of the file; the first pattern that matches is used.
struct Patterns<T>(Vec<(Pattern, T)>);

impl<T: Copy> Patterns<T> {
    fn new(values: &BTreeMap<String, T>, order: Option<&JsonKeys>) -> Self {
        let keys = order.into_iter().flat_map(|JsonKeys(keys)| keys);
        let known = keys.filter_map(|key| Some((Pattern::new(key)?, *values.get(key)?)));
        Patterns(known.collect())
    }

    fn find(&self, module: &str) -> Option<T> {
        let mut all = self.0.iter();
        all.find(|(pattern, _)| pattern.matches(module))
            .map(|(_, value)| *value)
    }
}

/// The keys of a JSON object in the order of the file; empty for any other value.
#[derive(Default)]
struct JsonKeys(Vec<String>);

impl<'de> Deserialize<'de> for JsonKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeysVisitor)
    }
}

struct KeysVisitor;

impl<'de> Visitor<'de> for KeysVisitor {
    type Value = JsonKeys;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("a JSON value")
    }

    /// A key that occurs twice keeps its first place, as in Python.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonKeys, A::Error> {
        let mut keys = Vec::new();
        while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        Ok(JsonKeys(keys))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<JsonKeys, A::Error> {
        while let Some(IgnoredAny) = list.next_element()? {}
        Ok(JsonKeys::default())
    }

    fn visit_unit<E>(self) -> Result<JsonKeys, E> {
        Ok(JsonKeys::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<JsonKeys, E> {
        Ok(JsonKeys::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<JsonKeys, E> {
        Ok(JsonKeys::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<JsonKeys, E> {
        Ok(JsonKeys::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<JsonKeys, E> {
        Ok(JsonKeys::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<JsonKeys, E> {
        Ok(JsonKeys::default())
    }
}

/// The metadata of a file.
#[derive(Default)]
pub(super) struct Metadata {
    /// Empty for a file without metadata.
    components: BTreeMap<&'static str, AdapterComponent>,
}

/// The metadata of one component.
struct AdapterComponent {
    config: LoraConfig,
    alphas: Patterns<f64>,
    ranks: Patterns<i64>,
}

impl Metadata {
    /// Reads the metadata of the file that messages call `file`.
    ///
    /// # Errors
    /// When a component's fields are not those of a plain LoRA, see [`CLASS`].
    pub(super) fn read(
        metadata: &BTreeMap<String, String>,
        file: &str,
        notes: &Notes,
    ) -> anyhow::Result<Self> {
        let Some(text) = metadata.get(KEY) else {
            return Ok(Self::default());
        };
        let name = format!("{file}: metadata {KEY}");
        let whole = ConfigFile::parse(name.as_str(), text, notes.clone())?;
        let order: BTreeMap<String, JsonKeys> = serde_json::from_str(text)
            .map_err(|error| model(format!("{name}: this is not valid JSON: {error}")))?;
        let mut components = BTreeMap::new();
        for component in COMPONENTS {
            let config = LoraConfig::read(&whole.component(component))?;
            let of = |field: &str| order.get(&format!("{component}.{field}"));
            let known = AdapterComponent {
                alphas: Patterns::new(&config.alpha_pattern, of("alpha_pattern")),
                ranks: Patterns::new(&config.rank_pattern, of("rank_pattern")),
                config,
            };
            components.insert(component, known);
        }
        let is_known = |key: &str| COMPONENTS.iter().any(|c| key.split('.').next() == Some(c));
        let others: Vec<&str> = whole.keys().filter(|key| !is_known(key)).collect();
        if !others.is_empty() {
            whole.note(&format!(
                "not read, because they belong to no network of the model: {}",
                others.join(", ")
            ));
        }
        Ok(Metadata { components })
    }

    /// Whether the file has no metadata. If it has metadata, a layer must not have an alpha of its
    /// own.
    pub(super) fn is_empty(&self) -> bool {
        self.components.is_empty()
    }

    /// The alpha of a layer of this rank as PEFT determines it, times √rank if `use_rslora` is set.
    /// `is_kohya` says that the module's name has `_` for `.`.
    pub(super) fn alpha(
        &self,
        name: &Name,
        rank: i64,
        is_kohya: bool,
    ) -> Result<Option<f64>, String> {
        let Some(said) = self.components.get(name.component) else {
            return Ok(None);
        };
        let component = name.component;
        if is_kohya && !(said.alphas.0.is_empty() && said.ranks.0.is_empty()) {
            return Err(format!(
                "metadata {KEY}: {component}.alpha_pattern or rank_pattern cannot be used with module names that have `_` for `.`; expected names of diffusers"
            ));
        }
        let of = |module: &str| (said.alphas.find(module), said.ranks.find(module));
        // Newer versions of transformers omit `text_model` in SDXL's first text encoder and SD's
        // text encoder.
        let full = format!("text_model.{}", name.module);
        let (alpha, expected) = match component {
            "text_encoder" if of(&full) != of(&name.module) => {
                return Err(format!(
                    "metadata {KEY}: {component}.alpha_pattern or rank_pattern: found `text_model` in a pattern, which only older versions \
                     of transformers have in the module's name; expected patterns without it"
                ));
            }
            "text_encoder_2" if name.module != "text_projection" => of(&full),
            _ => of(&name.module),
        };
        let (alpha, expected) = (
            alpha.unwrap_or(said.config.lora_alpha),
            expected.unwrap_or(said.config.r),
        );
        if expected != rank {
            return Err(format!(
                "found matrices of rank {rank}, expected {expected} as in metadata {KEY} ({component}.r, which is 8 where it is \
                 missing, or {component}.rank_pattern)"
            ));
        }
        let is_root = said.config.use_rslora;
        let times = if is_root { (rank as f64).sqrt() } else { 1.0 };
        Ok(Some(alpha * times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<(Metadata, Vec<String>)> {
        let metadata = [(KEY.to_owned(), text.to_owned())];
        let notes = Notes::default();
        let read = Metadata::read(&metadata.into(), "a.safetensors", &notes)?;
        Ok((read, notes.take()))
    }

    fn alpha(text: &str, component: &'static str, module: &str) -> Result<f64, String> {
        let (metadata, _) = read(text).map_err(|error| error.to_string())?;
        let module = module.to_owned();
        let alpha = metadata.alpha(&Name { component, module }, 4, false)?;
        Ok(alpha.expect("there are metadata"))
    }

    /// The numbers are those of PEFT 0.21.2 for a layer of rank 4.
    #[test]
    fn peft_metadata_give_alpha() {
        let text = r#"{"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": {"b.to_q": 2},
            "text_encoder.r": 4, "text_encoder.lora_alpha": 4, "text_encoder.use_rslora": true,
            "text_encoder_2.r": 4, "text_encoder_2.alpha_pattern": {"text_model.a.q_proj": 3},
            "text_encoder_2.rank_pattern": {"b.q_proj": 2}}"#;
        assert_eq!(alpha(text, "unet", "a.b.to_q"), Ok(2.0));
        assert_eq!(alpha(text, "unet", "a.bb.to_q"), Ok(8.0));
        assert_eq!(alpha(text, "text_encoder", "a"), Ok(8.0));
        assert_eq!(alpha(text, "text_encoder_2", "a.q_proj"), Ok(3.0));
        assert_eq!(alpha(text, "text_encoder_2", "a.k_proj"), Ok(8.0));
        let wrong = alpha(text, "text_encoder_2", "b.q_proj").expect_err("another rank");
        assert!(wrong.contains("rank 4, expected 2"), "{wrong}");
        let wrong = alpha("{}", "unet", "a").expect_err("PEFT's r is 8");
        assert!(wrong.contains("rank 4, expected 8"), "{wrong}");
    }

    #[test]
    fn the_first_pattern_of_the_file_counts_and_a_dot_is_any_sign() {
        for (patterns, to_q, to_k) in [
            (r#"{"to_q": 1, "attn1.to_q": 12}"#, 1.0, 4.0),
            (r#"{"attn1.to_q": 12, "to_q": 1}"#, 12.0, 4.0),
            (r#"{"attn..to_k": 12}"#, 4.0, 12.0),
            (r#"{"^to_q": 12}"#, 4.0, 4.0),
            (r#"{"^mid.attn1.to_q": 12}"#, 12.0, 4.0),
            (r#"{"to_q$": 12, "": 3, "q": 5, "unet.mid": 6}"#, 12.0, 4.0),
            (r#"{"to_q": 1, "to_k": 2.5, "to_q": 3}"#, 3.0, 2.5),
        ] {
            let text = format!(
                r#"{{"unet.r": 4, "unet.lora_alpha": 4, "unet.alpha_pattern": {patterns}}}"#
            );
            assert_eq!(
                alpha(&text, "unet", "mid.attn1.to_q"),
                Ok(to_q),
                "{patterns}"
            );
            assert_eq!(
                alpha(&text, "unet", "mid.attn1.to_k"),
                Ok(to_k),
                "{patterns}"
            );
        }
    }

    #[test]
    fn what_peft_fails_on_or_computes_otherwise_is_refused_by_name() {
        for (field, value) in [
            ("lora_alpha", "true"),
            ("lora_alpha", "null"),
            ("lora_alpha", "\"8\""),
            ("use_rslora", "1"),
            ("use_rslora", "\"yes\""),
            ("alpha_pattern", "[\"to_q\"]"),
            ("alpha_pattern", "null"),
            ("alpha_pattern", "{\"to_q{1}\": 2}"),
            ("alpha_pattern", "{\"a.*\": 2}"),
            ("rank_pattern", "{\"to_(q|k)\": 2}"),
            ("r", "4.0"),
            ("r", "null"),
            ("modules_to_save", "[\"conv_in\"]"),
            ("layer_replication", "[[0,1]]"),
            ("megatron_config", "{\"a\":1}"),
            ("init_lora_weights", "\"pissa\""),
            ("init_lora_weights", "\"olora\""),
            ("use_dora", "1"),
            ("bias", "null"),
            ("kasa_config", "{\"beta\":0.1}"),
        ] {
            let text = format!(r#"{{"unet.r": 4, "unet.{field}": {value}}}"#);
            let said = read(&text).err().expect(&text).to_string();
            let start = format!("a.safetensors: metadata {KEY}: unet: {field}");
            assert!(said.starts_with(&start), "{said}");
            assert!(said.contains("found"), "{said}");
        }
        let inside = r#"{"unet.r": 4, "unet.alpha_pattern": {"attn1.to_q": null}}"#;
        let said = read(inside).err().expect("no number").to_string();
        assert!(said.contains("alpha_pattern.attn1.to_q: found"), "{said}");
        let old =
            r#"{"text_encoder.r": 4, "text_encoder.alpha_pattern": {"text_model.a.q_proj": 3}}"#;
        let said = alpha(old, "text_encoder", "a.q_proj").expect_err("two readings");
        assert!(said.contains("found `text_model` in a pattern"), "{said}");
    }

    #[test]
    fn keys_that_are_unknown_are_named_in_a_note() -> anyhow::Result<()> {
        let (_, notes) = read(r#"{"unet.r": 4, "unet.colour": 1, "transformer.r": 4, "mood": 2}"#)?;
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(
            notes[0].ends_with("no class has such a field: colour"),
            "{notes:?}"
        );
        assert!(
            notes[1].ends_with("of the model: mood, transformer.r"),
            "{notes:?}"
        );
        Ok(())
    }
}

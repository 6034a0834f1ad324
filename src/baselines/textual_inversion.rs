//! Textual inversion (arXiv 2208.01618), written from the paper: an embedding v* is learnt in place of the base
//! word, and everything else is frozen.
//!
//! `v* = argmin_v E_{z, t, ε} ‖ε - ε_θ(z_t, t, c_v)‖²`, Eq. (2) there, where `c_v` is the encoding of a
//! template with v in place of the base word. z is the target or its mirror image. The paper learns one vector;
//! here there is one for each text encoder and each of the W tokens of the base word, and the vectors start
//! from the embeddings of these tokens.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use tch::{Kind, Tensor};

use super::{Baseline, Lesson, Scene};
use crate::backbone::guidance::{Guidance, PlainGuidance};
use crate::backbone::prompt::Replaced;
use crate::backbone::{Backbone, Conditioning};
use crate::error::usage;
use crate::io::tensors::TensorFile;
use crate::libtorch::{seeded, sent};
use crate::method::base_set::{BaseFacts, BaseSet};
use crate::method::diffusion_rows::{DiffusionRows, loss_scale, parts};
use crate::method::learner::{Learner, Losses, TuneProgress};
use crate::method::origin::Origin;
use crate::method::target::variants;
use crate::models::unet::unet_2d_condition::AddedConditions;
use crate::tokenizer::prompt_tokens::PromptTokens;
use crate::wording::counted;

/// Version of the file's layout.
const FORMAT: &str = "oneactor.textual-inversion/v1";
/// Number of pictures in a step: the paper's batch size.
pub const ROWS: i64 = 4;
/// The names of each text encoder's vectors in the file.
const NAMES: [&str; 2] = ["text_encoder", "text_encoder_2"];

/// A base word with its learnt embedding.
pub struct LearntWord {
    base_word: String,
    /// v* `[W, D]` f32 of each text encoder, by the names in the file.
    vectors: BTreeMap<String, Tensor>,
}

/// Refuses a file that was not made by this method, before anything is loaded.
///
/// # Errors
/// When the file was made by another method.
pub fn check_file(path: &Path) -> Result<()> {
    TensorFile::read_format(path, "the embedding", FORMAT).map(drop)
}

impl LearntWord {
    /// The model's own embeddings of the word in `tokens`, with which v starts.
    ///
    /// # Errors
    /// When the word is not among the tokens.
    pub fn of_model(backbone: &Backbone, base_word: &str, tokens: &PromptTokens) -> Result<Self> {
        let places = tokens.word_positions(base_word)?;
        let vectors = places.iter().enumerate().map(|(i, times)| {
            let ids: Vec<i64> = times[0].iter().map(|&at| tokens.ids(i)[at]).collect();
            let own = backbone.token_embeddings(i, &ids).copy();
            (NAMES[i].to_owned(), own.set_requires_grad(true))
        });
        Ok(LearntWord {
            base_word: base_word.to_owned(),
            vectors: vectors.collect(),
        })
    }

    /// Reads `textual-inversion.safetensors` for this model.
    ///
    /// # Errors
    /// When the file is missing, damaged or of another format, or its vectors do not fit the model.
    pub fn read(path: &Path, backbone: &Backbone) -> Result<Self> {
        let file = TensorFile::read_format(path, "the embedding", FORMAT)?;
        let facts = BaseFacts::from_file(&file, path)?;
        let mut vectors = BTreeMap::new();
        for (name, &width) in NAMES.iter().zip(backbone.token_widths()) {
            let found = file.get(name, path)?;
            if found.dim() != 2 || found.size()[1] != width || found.size()[0] == 0 {
                return Err(usage(format!(
                    "{}: {name}: found {:?}, expected [W, {width}]",
                    path.display(),
                    found.size()
                )));
            }
            let vector = found.to_kind(Kind::Float).to_device(backbone.device());
            vectors.insert((*name).to_owned(), vector);
        }
        let [base_word] = &facts.base_words[..] else {
            return Err(usage(format!(
                "{}: found the base words {}, expected one",
                path.display(),
                facts.base_words.join(", ")
            )));
        };
        Ok(LearntWord {
            base_word: base_word.clone(),
            vectors,
        })
    }

    /// The learnt vectors, by the names in the file.
    pub fn vectors(&self) -> &BTreeMap<String, Tensor> {
        &self.vectors
    }

    /// c_v: a prompt with v in place of every occurrence of the base word; differentiable in v.
    ///
    /// # Errors
    /// When the prompt does not contain the word, or contains it with a different number of tokens.
    pub fn encode(
        &self,
        backbone: &Backbone,
        tokens: &PromptTokens,
        size: [i64; 2],
    ) -> Result<Conditioning> {
        let mut replaced = Vec::new();
        for (i, times) in tokens.word_positions(&self.base_word)?.iter().enumerate() {
            let vectors = &self.vectors[NAMES[i]];
            let count = vectors.size()[0] as usize;
            if times[0].len() != count {
                return Err(usage(format!(
                    "the base word {:?} has {} here, expected {count} as in the tuning",
                    self.base_word,
                    counted(times[0].len(), "token", "tokens")
                )));
            }
            let places: Vec<i64> = times.iter().flatten().map(|&at| at as i64).collect();
            replaced.push(Replaced {
                places: Tensor::from_slice(&places).to_device(vectors.device()),
                embeddings: vectors.repeat([times.len() as i64, 1]),
            });
        }
        Ok(backbone.encode_replaced(tokens, &replaced, size))
    }
}

impl Baseline for LearntWord {
    fn guidance(&self, scene: &Scene) -> Result<Box<dyn Guidance>> {
        let _frozen = tch::no_grad_guard();
        let prompt = self.encode(scene.backbone, scene.prompt, scene.size)?;
        let plain = PlainGuidance::new(scene.negative, &prompt, scene.guidance_scale);
        Ok(Box::new(plain))
    }
}

/// One batch.
pub struct LessonRows {
    /// Index of the template, the same for all rows.
    pub template: usize,
    /// The target's variants that were drawn.
    pub rows: DiffusionRows,
}

/// A running tuning of v.
pub struct Inversion<'a> {
    backbone: &'a Backbone,
    word: LearntWord,
    templates: Vec<PromptTokens>,
    size: [i64; 2],
    target_variants: Tensor,
    progress: TuneProgress,
}

impl<'a> Inversion<'a> {
    /// Reads the templates and encodes the target's variants.
    ///
    /// # Errors
    /// When the base images were drawn by another model, or a template cannot be read.
    pub fn new(backbone: &'a Backbone, base: &BaseSet, lesson: &Lesson) -> Result<Self> {
        let base_word = lesson.base_word(backbone, base)?;
        let prompts = lesson.kind.prompts(&[base_word]);
        let templates = prompts.iter();
        let templates: Vec<PromptTokens> = templates
            .map(|prompt| backbone.tokenizers.plain_tokens(prompt))
            .collect::<Result<_>>()?;
        let word = LearntWord::of_model(backbone, base_word, &templates[0])?;
        for template in &templates {
            word.encode(backbone, template, [base.facts.height, base.facts.width])?;
        }
        let target = lesson.target(backbone, base);
        let mut inversion = Inversion {
            progress: TuneProgress::new(lesson.course, word.vectors()),
            target_variants: variants(backbone, &target, None)?,
            size: [base.facts.height, base.facts.width],
            backbone,
            word,
            templates,
        };
        inversion.begin();
        Ok(inversion)
    }

    fn draw(&self, seed: i64) -> LessonRows {
        let _drawing = seeded(seed);
        let cpu = (Kind::Int64, tch::Device::Cpu);
        let template = Tensor::randint(self.templates.len() as i64, [1], cpu).int64_value(&[0]);
        let drawn = Tensor::randint(self.target_variants.size()[0], [ROWS], cpu);
        let z_0 = self
            .target_variants
            .index_select(0, &sent(&drawn, self.backbone.device()));
        LessonRows {
            template: template as usize,
            rows: DiffusionRows::draw(self.backbone, z_0),
        }
    }

    /// Takes one optimiser step on this batch. Returns the error of every row before the step.
    ///
    /// # Errors
    /// When an error is not finite.
    pub fn learn(&mut self, batch: &LessonRows) -> Result<Tensor> {
        let errors = self.differentiate(batch)?;
        let scale = loss_scale(self.backbone.kind());
        self.progress.descend(self.word.vectors(), scale, &errors)
    }

    /// Forward and backward pass. Afterwards v has the gradient of the mean error, multiplied by the loss's
    /// scale. The text is encoded and differentiated once; the rows may pass through the U-Net in parts.
    fn differentiate(&self, batch: &LessonRows) -> Result<Tensor> {
        let text = self.encode(batch)?;
        let leaf = |t: &Tensor| t.detach().set_requires_grad(true);
        let leaves = Conditioning {
            prompt_embeds: leaf(&text.prompt_embeds),
            added: text.added.as_ref().map(|added| AddedConditions {
                text_embeds: leaf(&added.text_embeds),
                time_ids: added.time_ids.shallow_clone(),
            }),
            image: None,
        };
        let rows = batch.rows.count();
        let share = loss_scale(self.backbone.kind()) / rows as f64;
        let mut errors = Vec::new();
        for (first, count) in parts(rows, self.progress.course().micro_batch) {
            let part = batch.rows.narrow(first, count);
            let part = part.errors(self.backbone, &leaves.repeat(count));
            (&part * share).sum(Kind::Float).backward();
            errors.push(part.detach());
        }
        let along = |t: &Tensor, leaf: &Tensor| (t * leaf.grad()).sum(Kind::Float);
        let mut whole = along(&text.prompt_embeds, &leaves.prompt_embeds);
        if let (Some(text), Some(leaves)) = (&text.added, &leaves.added) {
            whole += along(&text.text_embeds, &leaves.text_embeds);
        }
        whole.backward();
        Ok(Tensor::cat(&errors, 0))
    }

    fn encode(&self, batch: &LessonRows) -> Result<Conditioning> {
        let template = &self.templates[batch.template];
        self.word.encode(self.backbone, template, self.size)
    }

    fn errors(&self, batch: &LessonRows) -> Result<Tensor> {
        let text = self.encode(batch)?;
        let part = |(first, count)| {
            let rows = batch.rows.narrow(first, count);
            rows.errors(self.backbone, &text.repeat(count))
        };
        let parts = parts(batch.rows.count(), self.progress.course().micro_batch);
        Ok(Tensor::cat(&parts.map(part).collect::<Vec<_>>(), 0))
    }
}

impl Learner for Inversion<'_> {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        self.word.vectors()
    }

    fn progress(&self) -> &TuneProgress {
        &self.progress
    }

    fn progress_mut(&mut self) -> &mut TuneProgress {
        &mut self.progress
    }

    fn learn_from(&mut self, seed: i64) -> Result<Losses> {
        let errors = self.learn(&self.draw(seed))?;
        Ok(Losses {
            loss: errors.mean(Kind::Float).double_value(&[]),
            parts: Vec::new(),
        })
    }

    fn loss_on(&self, seed: i64) -> Tensor {
        let errors = self.errors(&self.draw(seed));
        let errors = errors.expect("every template was encoded before");
        errors.mean(Kind::Float)
    }

    fn file(&self, origin: &Origin) -> Result<Vec<u8>> {
        let mut file = TensorFile {
            metadata: origin.metadata(FORMAT),
            ..TensorFile::default()
        };
        for (name, vectors) in self.progress.best() {
            file.insert(name, vectors);
        }
        file.to_bytes()
    }
}

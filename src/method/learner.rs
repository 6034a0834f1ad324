//! What is learnt in steps: the projector of the paper's method, or what a baseline learns in its place. Steps,
//! criterion, checkpoints and the best state are the same for all of them.
//!
//! Everything random in step k follows from the seed and k alone, so that a tuning that was interrupted goes on
//! as if it had not been.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use tch::Tensor;

use super::adamw::AdamW;
use super::convergence::{Convergence, VALIDATE_EVERY};
use super::origin::Origin;
use crate::error::usage;
use crate::io::tensors::TensorFile;
use crate::io::values::are_finite;

/// Batches of the convergence criterion.
const VALIDATION_BATCHES: i64 = 6;
/// Seeds of the criterion lie apart from those of the steps, in the 32 bits that count (see `libtorch::seed_in_use`).
const VALIDATION_SEED: i64 = 0x5EED_0000;

/// How a tuning goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Course {
    /// Steps at most.
    pub max_steps: usize,
    /// AdamW's learning rate.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Seed of everything random.
    pub seed: i64,
    /// Rows that go through the U-Net together; fewer need less memory and give the same step.
    pub micro_batch: usize,
}

/// The loss of a batch, and the parts that it is the weighted sum of, by their names in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// What is minimised.
    pub loss: f64,
    /// Its parts.
    pub parts: Vec<(&'static str, f64)>,
}

/// One step as the log records it.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Counted from 1.
    pub step: usize,
    /// The losses of the step's own batch, before the step.
    pub losses: Losses,
    /// The loss on the fixed pairs, at the steps where it is looked at.
    pub validation: Option<f64>,
}

/// How far a tuning is.
pub struct TuneProgress {
    course: Course,
    optimizer: AdamW,
    step: usize,
    convergence: Convergence,
    best: BTreeMap<String, Tensor>,
}

impl TuneProgress {
    /// Before the first step. The criterion begins with [`Learner::begin`].
    pub fn new(course: Course, parameters: &BTreeMap<String, Tensor>) -> Self {
        TuneProgress {
            optimizer: AdamW::new(course.learning_rate, course.weight_decay),
            best: snapshot(parameters),
            convergence: Convergence::new(f64::INFINITY),
            step: 0,
            course,
        }
    }

    /// Steps begun so far.
    pub fn step(&self) -> usize {
        self.step
    }

    /// How the tuning goes.
    pub fn course(&self) -> &Course {
        &self.course
    }

    /// The parameters with the smallest loss on the fixed pairs.
    pub fn best(&self) -> &BTreeMap<String, Tensor> {
        &self.best
    }

    /// One step of AdamW along the gradients of `parameters`, which are divided by the loss's scale first and
    /// cleared. In fp16 a scaled gradient can overflow; such a step is left out.
    pub fn descend(&mut self, parameters: &BTreeMap<String, Tensor>, loss_scale: f64) {
        let grads = parameters.values().map(Tensor::grad);
        let mut grads: Vec<Tensor> = grads.filter(Tensor::defined).collect();
        if loss_scale != 1.0 {
            for grad in &mut grads {
                let _ = tch::no_grad(|| grad.g_div_scalar_(loss_scale));
            }
        }
        if are_finite(&grads) {
            self.optimizer.step(parameters);
            return;
        }
        for grad in &mut grads {
            let _ = grad.zero_();
        }
    }
}

/// Something that is learnt.
pub trait Learner {
    /// What is learnt, by name.
    fn parameters(&self) -> &BTreeMap<String, Tensor>;

    /// How far it is.
    fn progress(&self) -> &TuneProgress;

    /// The same, to be changed.
    fn progress_mut(&mut self) -> &mut TuneProgress;

    /// Draws the batch of `seed` and takes a step along the gradient of its loss.
    ///
    /// # Errors
    /// When the loss is not finite.
    fn learn_from(&mut self, seed: i64) -> Result<Losses>;

    /// The loss on the batch of `seed`; called without gradients.
    fn loss_on(&self, seed: i64) -> f64;

    /// The file that drawing needs, with the best parameters.
    ///
    /// # Errors
    /// When a tensor can not be saved.
    fn file(&self, origin: &Origin) -> Result<Vec<u8>>;

    /// Steps taken so far.
    fn steps_taken(&self) -> usize {
        self.progress().step
    }

    /// The criterion so far.
    fn convergence(&self) -> &Convergence {
        &self.progress().convergence
    }

    /// Whether tuning is at its end: converged, or out of steps.
    fn is_done(&self) -> bool {
        let progress = self.progress();
        progress.step >= progress.course.max_steps || progress.convergence.is_reached()
    }

    /// Measures what the criterion begins with.
    fn begin(&mut self) {
        self.progress_mut().convergence = Convergence::new(self.validate());
    }

    /// One step, on a batch of its own.
    ///
    /// # Errors
    /// When the loss is not finite.
    fn step(&mut self) -> Result<StepReport> {
        self.progress_mut().step += 1;
        let TuneProgress { step, course, .. } = *self.progress();
        let seed = course.seed.wrapping_mul(1_000_003);
        let losses = self.learn_from(seed.wrapping_add(step as i64))?;
        let look = step.is_multiple_of(VALIDATE_EVERY) || step == course.max_steps;
        let validation = look.then(|| self.validate());
        if let Some(validation) = validation
            && self.progress_mut().convergence.look(step, validation)
        {
            self.progress_mut().best = snapshot(self.parameters());
        }
        Ok(StepReport {
            step,
            losses,
            validation,
        })
    }

    /// The loss on batches that stay the same throughout: fixed rows, templates, t and ε.
    fn validate(&self) -> f64 {
        let _frozen = tch::no_grad_guard();
        let losses = (0..VALIDATION_BATCHES).map(|i| self.loss_on(VALIDATION_SEED + i));
        losses.sum::<f64>() / VALIDATION_BATCHES as f64
    }

    /// All that [`restore`](Self::restore) needs, between two steps.
    ///
    /// # Errors
    /// When a tensor can not be saved.
    fn checkpoint(&self) -> Result<Vec<u8>> {
        let progress = self.progress();
        let mut file = TensorFile::default();
        for (name, tensor) in self.parameters() {
            file.insert(&format!("now.{name}"), tensor);
        }
        for (name, tensor) in &progress.best {
            file.insert(&format!("best.{name}"), tensor);
        }
        let (optimizer_steps, moments) = progress.optimizer.state();
        for (name, tensor) in &moments {
            file.insert(&format!("adamw.{name}"), tensor);
        }
        for (key, value) in [
            ("step", progress.step.to_string()),
            ("optimizer_steps", optimizer_steps.to_string()),
            ("convergence", serde_json::to_string(&progress.convergence)?),
        ] {
            file.metadata.insert(key.to_string(), value);
        }
        file.to_bytes()
    }

    /// Goes on from a checkpoint of a tuning with the same options.
    ///
    /// # Errors
    /// When the file does not fit; then nothing has changed.
    fn restore(&mut self, path: &Path) -> Result<()> {
        let file = TensorFile::read(path)?;
        let parameters = self.parameters();
        let state = |prefix: &str| -> Result<BTreeMap<String, Tensor>> {
            let one = |(name, parameter): (&String, &Tensor)| {
                let key = format!("{prefix}{name}");
                let found = file.get(&key, path)?;
                if found.size() != parameter.size() {
                    return Err(usage(format!(
                        "{}: {key}: found {:?}, expected {:?}",
                        path.display(),
                        found.size(),
                        parameter.size()
                    )));
                }
                Ok((name.clone(), found.to_device(parameter.device())))
            };
            parameters.iter().map(one).collect()
        };
        let (now, best) = (state("now.")?, state("best.")?);
        let device = |name: &str| parameters.get(name).map(Tensor::device);
        let moment = |(key, t): (&String, &Tensor)| {
            let key = key.strip_prefix("adamw.")?;
            let (_, name) = key.split_once('.')?;
            Some((key.to_owned(), t.to_device(device(name)?)))
        };
        let moments: BTreeMap<String, Tensor> = file.tensors.iter().filter_map(moment).collect();
        let convergence = serde_json::from_str(file.text("convergence", path)?).map_err(|error| {
            usage(format!(
                "{}: metadata \"convergence\": {error}: delete the file, and tuning begins anew",
                path.display()
            ))
        })?;
        let (step, steps) = (
            file.number("step", path)?,
            file.number("optimizer_steps", path)?,
        );
        tch::no_grad(|| {
            for (name, parameter) in parameters {
                parameter.shallow_clone().copy_(&now[name]);
            }
        });
        let progress = self.progress_mut();
        progress.optimizer.restore(steps, &moments);
        (progress.step, progress.convergence, progress.best) = (step, convergence, best);
        Ok(())
    }
}

/// A copy of the parameters as they are now.
pub fn snapshot(parameters: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let copy = |(name, t): (&String, &Tensor)| (name.clone(), t.detach().copy());
    parameters.iter().map(copy).collect()
}

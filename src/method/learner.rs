//! Learning in steps, for the projector of the paper's method and for the parameters of the baselines. Steps,
//! convergence criterion, checkpoints and the best state work the same for all of them.
//!
//! All random values in step k depend only on the seed and k, so that an interrupted tuning continues as if it
//! had not been interrupted.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use tch::{Device, Tensor};

use super::adamw::AdamW;
use super::convergence::{Convergence, VALIDATE_EVERY};
use super::diffusion_rows::require_finite;
use super::origin::Origin;
use crate::error::usage;
use crate::io::json;
use crate::io::tensors::TensorFile;
use crate::libtorch::foreach;

/// Number of batches of the convergence criterion.
const VALIDATION_BATCHES: i64 = 6;
/// Offset of the criterion's seeds, so that they differ from those of the steps in the 32 bits that libtorch
/// uses (see `libtorch::seed_in_use`).
const VALIDATION_SEED: i64 = 0x5EED_0000;

/// Options of a tuning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Course {
    /// Maximum number of steps.
    pub max_steps: usize,
    /// AdamW's learning rate.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Seed of all random values.
    pub seed: i64,
    /// Rows that pass through the U-Net together; fewer rows need less memory and give the same step.
    pub micro_batch: usize,
}

/// The loss of a batch, and the parts of this weighted sum, by their names in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// The loss that is minimised.
    pub loss: f64,
    /// The parts of the loss.
    pub parts: Vec<(&'static str, f64)>,
}

/// One step as the log records it.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// The number of the step, counted from 1.
    pub step: usize,
    /// The losses of the step's own batch, before the step.
    pub losses: Losses,
    /// The loss on the fixed pairs, at the steps at which the criterion is checked.
    pub validation: Option<f64>,
}

/// The progress of a tuning.
pub struct TuneProgress {
    course: Course,
    optimizer: AdamW,
    step: usize,
    convergence: Convergence,
    best: BTreeMap<String, Tensor>,
}

impl TuneProgress {
    /// The progress before the first step. The criterion starts with [`Learner::begin`].
    pub fn new(course: Course, parameters: &BTreeMap<String, Tensor>) -> Self {
        TuneProgress {
            optimizer: AdamW::new(course.learning_rate, course.weight_decay),
            best: snapshot(parameters),
            convergence: Convergence::new(f64::INFINITY),
            step: 0,
            course,
        }
    }

    /// Number of steps that have begun.
    pub fn step(&self) -> usize {
        self.step
    }

    /// The options of the tuning.
    pub fn course(&self) -> &Course {
        &self.course
    }

    /// The parameters with the smallest loss on the fixed pairs.
    pub fn best(&self) -> &BTreeMap<String, Tensor> {
        &self.best
    }

    /// One step of AdamW along the gradients of `parameters`, which are first divided by the loss's scale, and
    /// are cleared afterwards. In fp16 a scaled gradient can overflow; such a step is skipped. Returns `errors [R]`,
    /// from which the gradients were computed, on the host. This is the only place where a step waits for a GPU.
    ///
    /// # Errors
    /// When an error is not finite.
    pub fn descend(
        &mut self,
        parameters: &BTreeMap<String, Tensor>,
        loss_scale: f64,
        errors: &Tensor,
    ) -> Result<Tensor> {
        let grads = parameters.values().map(Tensor::grad);
        let grads: Vec<Tensor> = grads.filter(Tensor::defined).collect();
        let overflow = foreach::unscale_(&grads, loss_scale);
        let rows = errors.size()[0];
        let overflow = overflow.unwrap_or_else(|| errors.zeros_like().narrow(0, 0, 1));
        let told = Tensor::cat(&[errors, &overflow], 0).to_device(Device::Cpu);
        let errors = told.narrow(0, 0, rows);
        require_finite(&errors, self.step)?;
        if told.double_value(&[rows]) == 0.0 {
            self.optimizer.step(parameters);
        } else {
            let all: Vec<Tensor> = parameters.values().map(Tensor::shallow_clone).collect();
            foreach::forget_gradients(&all);
        }
        Ok(errors)
    }
}

/// A learner: a method's parameters, and how they are trained.
pub trait Learner {
    /// The learnt parameters, by name.
    fn parameters(&self) -> &BTreeMap<String, Tensor>;

    /// The progress.
    fn progress(&self) -> &TuneProgress;

    /// The progress, to be changed.
    fn progress_mut(&mut self) -> &mut TuneProgress;

    /// Draws the batch of `seed` and takes a step along the gradient of its loss.
    ///
    /// # Errors
    /// When the loss is not finite.
    fn learn_from(&mut self, seed: i64) -> Result<Losses>;

    /// The loss on the batch of `seed`, a scalar f32 on the device. Called without gradients.
    fn loss_on(&self, seed: i64) -> Tensor;

    /// The file that is needed for drawing, with the best parameters.
    ///
    /// # Errors
    /// When a tensor cannot be saved.
    fn file(&self, origin: &Origin) -> Result<Vec<u8>>;

    /// Number of steps taken.
    fn steps_taken(&self) -> usize {
        self.progress().step
    }

    /// The state of the criterion.
    fn convergence(&self) -> &Convergence {
        &self.progress().convergence
    }

    /// Whether tuning has ended: it converged, or reached the maximum of steps.
    fn is_done(&self) -> bool {
        let progress = self.progress();
        progress.step >= progress.course.max_steps || progress.convergence.is_reached()
    }

    /// Measures the loss before the first step, with which the criterion starts.
    fn begin(&mut self) {
        self.progress_mut().convergence = Convergence::new(self.validate());
    }

    /// Takes one step on a new batch.
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

    /// The loss on batches that stay the same during the tuning: fixed rows, templates, t and ε.
    fn validate(&self) -> f64 {
        let _frozen = tch::no_grad_guard();
        let losses = (0..VALIDATION_BATCHES).map(|i| self.loss_on(VALIDATION_SEED + i));
        let losses = Tensor::stack(&losses.collect::<Vec<_>>(), 0).to_device(Device::Cpu);
        let losses = (0..VALIDATION_BATCHES).map(|i| losses.double_value(&[i]));
        losses.sum::<f64>() / VALIDATION_BATCHES as f64
    }

    /// The checkpoint between two steps, for [`restore`](Self::restore).
    ///
    /// # Errors
    /// When a tensor cannot be saved.
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

    /// Continues from a checkpoint of a tuning with the same options.
    ///
    /// # Errors
    /// When the file does not fit; nothing is changed then.
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
        let convergence = json::read(file.text("convergence", path)?).map_err(|problem| {
            usage(format!(
                "{}: metadata \"convergence\": {problem}: delete the file to start tuning again",
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

/// A copy of the current parameters.
pub fn snapshot(parameters: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let copy = |(name, t): (&String, &Tensor)| (name.clone(), t.detach().copy());
    parameters.iter().map(copy).collect()
}

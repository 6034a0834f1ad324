//! The Rust side of the benchmarks: a process that loads a model and then does one piece of work
//! for each line on stdin. The driver (`pairs.py`) measures the time. For U-Net passes the answer
//! also has `host_seconds`, the time of the host before it waits for the device. `peer.py` answers
//! the same lines.
//!
//! Arguments: MODEL DEVICE DTYPE. It prints `started` before loading, `ready` after, and one line
//! of JSON for each request, `{"do": NAME, …}`. `repeat` does the work so many times on inputs that
//! are read once:
//! | `do` | further fields | work |
//! | --- | --- | --- |
//! | `forward`, `backward` | `inputs`, `output` | a U-Net pass; differentiated to the prompt embeddings |
//! | `decode` | `inputs`, `output` | the VAE |
//! | `touch` | | one small pass through every network, so that every weight has been read |
//! | `image` | `prompt`, `word`, `seed`, `steps`, `size`, `png`, `output`, `offsets`, `eta_2`, `guided_steps` | text, steps, VAE, PNG |
//! | `prepare_tune` | `base`, `num_auxiliary`, `micro_batch` | reads a base set |
//! | `tune_check` | `inputs`, `output` | row errors and gradients of a given batch |
//! | `tune` | | one step |
//!
//! With `release`, `image` and `prepare_tune` free each network after use, as the program does; the
//! next request that needs the network loads it again. This is for measuring memory: where times
//! are compared, networks stay loaded.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Error, Result, bail};
use clap::ValueEnum;
use image::RgbImage;
use oneactor::backbone::denoise::denoise;
use oneactor::backbone::guidance::{Guidance, PlainGuidance};
use oneactor::backbone::{Backbone, Conditioning, LoadOptions, MemoryOptions};
use oneactor::device::{DeviceName, Dtype};
use oneactor::io::model_files::{ModelFiles, ModelOptions};
use oneactor::io::tensors::TensorFile;
use oneactor::io::values::bytes;
use oneactor::libtorch::{ask_for_huge_pages, prepare_allocator};
use oneactor::method::base_set::BaseSet;
use oneactor::method::base_word::BaseWordPrompt;
use oneactor::method::diffusion_rows::DiffusionRows;
use oneactor::method::guidance::{ClusterGuidance, GuidanceSettings, Offsets};
use oneactor::method::learner::{Course, Learner};
use oneactor::method::loss::LossWeights;
use oneactor::method::projector::{Head, Projector};
use oneactor::method::templates;
use oneactor::method::tune::{TuneOptions, Tuner, TuningRows};
use oneactor::models::unet::unet_2d_condition::AddedConditions;
use oneactor::pictures::png::save_png;
use oneactor::schedulers::{SchedulerKind, new_scheduler};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Cuda, Device, Kind, Tensor};

/// Side of the latents of `touch`.
const SMALL: i64 = 16;

/// Small gradients vanish in fp16 unless the loss is scaled up; the peer scales its loss too.
const HALF_LOSS_SCALE: f64 = 4096.0;

/// A line of the driver.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(rename = "do")]
    work: String,
    #[serde(default = "once")]
    repeat: usize,
    inputs: Option<String>,
    output: Option<String>,
    png: Option<String>,
    offsets: Option<String>,
    base: Option<String>,
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    word: String,
    #[serde(default)]
    seed: i64,
    #[serde(default)]
    steps: usize,
    #[serde(default)]
    size: i64,
    #[serde(default)]
    eta_2: f64,
    #[serde(default)]
    guided_steps: (usize, usize),
    #[serde(default)]
    num_auxiliary: usize,
    #[serde(default)]
    micro_batch: usize,
    #[serde(default)]
    release: bool,
}

fn once() -> usize {
    1
}

/// Tensors of a file, on the model's device.
struct Inputs {
    path: String,
    file: TensorFile,
    device: Device,
}

impl Inputs {
    fn read(path: &Option<String>, device: Device) -> Result<Inputs> {
        let path = path.clone().context("the request names no file")?;
        let file = TensorFile::read(Path::new(&path))?;
        Ok(Inputs { path, file, device })
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        let tensor = self.file.get(name, Path::new(&self.path))?;
        Ok(tensor.to_device(self.device))
    }
}

fn save(path: &Option<String>, tensors: &[(&str, &Tensor)]) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let mut file = TensorFile::default();
    for (name, tensor) in tensors {
        file.insert(
            name,
            &tensor.detach().to_kind(Kind::Float).to_device(Device::Cpu),
        );
    }
    Ok(std::fs::write(path, file.to_bytes()?)?)
}

/// The inputs of a U-Net pass, on the device and in the model's precision.
struct PassInputs {
    sample: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
}

impl PassInputs {
    fn read(backbone: &Backbone, path: &Option<String>) -> Result<PassInputs> {
        let x = Inputs::read(path, backbone.device())?;
        let get = |name: &str| -> Result<Tensor> { Ok(x.get(name)?.to_kind(backbone.kind())) };
        Ok(PassInputs {
            sample: get("sample")?,
            timesteps: x.get("timesteps")?,
            conditioning: Conditioning {
                prompt_embeds: get("prompt_embeds")?,
                added: Some(AddedConditions {
                    text_embeds: get("text_embeds")?,
                    time_ids: get("time_ids")?,
                }),
                image: None,
            },
        })
    }

    /// The prediction; with `grad` the gradient of its mean square at the prompt embeddings, in
    /// fp16 with a scaled loss.
    fn pass(&self, backbone: &Backbone, grad: bool) -> Tensor {
        let pass = |conditioning: &Conditioning| {
            backbone.predict(&self.sample, &self.timesteps, conditioning)
        };
        if !grad {
            return tch::no_grad(|| pass(&self.conditioning));
        }
        let text = &self.conditioning.prompt_embeds;
        let leaf = text.copy().set_requires_grad(true);
        let scale = match backbone.kind() {
            Kind::Half => HALF_LOSS_SCALE,
            _ => 1.0,
        };
        let conditioning = self.conditioning.with_prompt_embeds(leaf.shallow_clone());
        let loss = pass(&conditioning).square().mean(Kind::Float) * scale;
        loss.backward();
        leaf.grad()
    }
}

/// U-Net passes, and the seconds that the host needed for them.
fn passes(backbone: &Backbone, request: &Request) -> Result<Value> {
    let inputs = PassInputs::read(backbone, &request.inputs)?;
    let begin = Instant::now();
    let mut output = Tensor::new();
    for _ in 0..request.repeat {
        output = inputs.pass(backbone, request.work == "backward");
    }
    let host_seconds = begin.elapsed().as_secs_f64();
    save(&request.output, &[("output", &output)])?;
    Ok(json!({"host_seconds": host_seconds}))
}

/// Reads every weight once: the text encoders, the U-Net, both halves of the VAE.
fn touch(backbone: &Backbone, prompt: &str) -> Result<()> {
    let _frozen = tch::no_grad_guard();
    let side = SMALL * backbone.vae_scale_factor();
    let conditioning = backbone.encode_prompt(prompt, side, side)?;
    let latents = backbone.initial_latents(0, side, side);
    let timesteps = Tensor::from_slice(&[500.0f32]).to_device(backbone.device());
    let _ = backbone.predict(&latents, &timesteps, &conditioning);
    let _ = backbone.encode(&backbone.decode(&latents)?);
    Ok(())
}

/// A whole image: plain without `offsets`, guided by Eq. (19) with them.
fn image(backbone: &Backbone, request: &Request) -> Result<()> {
    let side = request.size;
    let negative = backbone.encode_negative(None, side, side)?;
    let guidance: Box<dyn Guidance> = match &request.offsets {
        None => {
            let prompt = backbone.encode_prompt(&request.prompt, side, side)?;
            Box::new(PlainGuidance::new(&negative, &prompt, 7.5))
        }
        Some(_) => {
            let x = Inputs::read(&request.offsets, backbone.device())?;
            let offsets = Offsets {
                target_offset: x.get("target_offset")?,
                average_offset: x.get("average_offset")?,
            };
            let settings = GuidanceSettings {
                eta_1: 7.5 + request.eta_2,
                eta_2: request.eta_2,
                guided_steps: request.guided_steps,
                ..GuidanceSettings::default()
            };
            let prompt = BaseWordPrompt::new(backbone, &request.prompt, &request.word, side, side)?;
            Box::new(ClusterGuidance::new(
                &negative, &prompt, &offsets, &settings,
            )?)
        }
    };
    if request.release {
        backbone.release_text_encoders();
    }
    let mut scheduler = new_scheduler(
        SchedulerKind::Euler,
        &backbone.scheduler_file,
        request.steps,
    )?;
    let latents = backbone.initial_latents(request.seed, side, side);
    let denoised = denoise(
        backbone,
        scheduler.as_mut(),
        &latents,
        guidance.as_ref(),
        None,
        &mut |_| Ok(()),
    )?;
    let picture = backbone.decode(&denoised.latents)?;
    if let Some(png) = &request.png {
        let pixels = (picture.get(0) * 255.0).round().to_kind(Kind::Uint8);
        let bytes = bytes(&pixels.permute([1, 2, 0]))?; // [H, W, 3]
        let rgb = RgbImage::from_raw(side as u32, side as u32, bytes).context("too few pixels")?;
        save_png(Path::new(png), &rgb, &[])?;
    }
    save(
        &request.output,
        &[("output", &denoised.latents), ("picture", &picture)],
    )
}

fn tuner<'a>(backbone: &'a Backbone, request: &Request) -> Result<Tuner<'a>> {
    let base = request
        .base
        .as_ref()
        .context("the request names no base set")?;
    let base = BaseSet::read(&Path::new(base).join("base.safetensors"))?;
    let options = TuneOptions {
        target: 0,
        crop: None,
        kind: templates::SubjectKind::Character,
        head: Head::AdaIn,
        num_auxiliary: request.num_auxiliary,
        loss_weights: LossWeights {
            lambda_1: 0.5,
            lambda_2: 0.2,
        },
        course: Course {
            max_steps: usize::MAX,
            learning_rate: 1e-4,
            weight_decay: 0.01,
            seed: 0,
            micro_batch: request.micro_batch,
        },
    };
    Tuner::new(backbone, &base, options)
}

/// Errors of the rows of a given batch, and the gradients of a given projector.
fn tune_check(tuner: &mut Tuner, request: &Request, device: Device) -> Result<()> {
    let x = Inputs::read(&request.inputs, device)?;
    let projector = tuner.projector_mut();
    let parameters = x.file.tensors.iter();
    let parameters = parameters.filter_map(|(name, t)| {
        let name = name.strip_prefix("projector.")?;
        Some((name.to_owned(), t.shallow_clone()))
    });
    *projector =
        Projector::from_parameters(projector.config.clone(), &parameters.collect(), device)?;
    let batch = TuningRows {
        template: 0,
        auxiliary: Vec::<i64>::try_from(&x.get("auxiliary")?)?,
        rows: DiffusionRows {
            z_0: x.get("z_0")?,
            eps: x.get("eps")?,
            timesteps: x.get("timesteps")?,
        },
    };
    let errors = tuner.differentiate(&batch);
    let parameters = tuner.projector_mut().parameters();
    let gradients: Vec<Tensor> = parameters.values().map(|p| p.grad().view(-1)).collect();
    let gradients = Tensor::cat(&gradients, 0);
    parameters.values().for_each(|p| {
        let mut p = p.shallow_clone();
        p.zero_grad();
    });
    save(
        &request.output,
        &[("output", &errors), ("gradients", &gradients)],
    )
}

fn answer<'a>(
    backbone: &'a Backbone,
    tuning: &mut Option<Tuner<'a>>,
    request: &Request,
) -> Result<Value> {
    let device = backbone.device();
    match request.work.as_str() {
        "forward" | "backward" => return passes(backbone, request),
        "decode" => {
            let latents = Inputs::read(&request.inputs, device)?.get("sample")?;
            let mut output = Tensor::new();
            for _ in 0..request.repeat {
                output = backbone.decode(&latents.narrow(0, 0, 1))?;
            }
            save(&request.output, &[("output", &output)])?;
        }
        "touch" => touch(backbone, &request.prompt)?,
        "image" => (0..request.repeat).try_for_each(|_| image(backbone, request))?,
        "prepare_tune" => {
            *tuning = Some(tuner(backbone, request)?);
            if request.release {
                backbone.release_text_encoders();
                backbone.release_vae();
            }
        }
        "tune" | "tune_check" => {
            let tuner = tuning.as_mut().context("prepare_tune comes first")?;
            match request.work.as_str() {
                "tune_check" => tune_check(tuner, request, device)?,
                _ => (0..request.repeat).try_for_each(|_| tuner.step().map(drop))?,
            }
        }
        other => bail!("no such work: {other:?}"),
    }
    Ok(json!({}))
}

fn main() -> Result<()> {
    ask_for_huge_pages();
    let args: Vec<String> = std::env::args().collect();
    let [_, model, device, dtype] = args.as_slice() else {
        bail!("expected: MODEL DEVICE DTYPE");
    };
    let threads = std::env::var("OMP_NUM_THREADS").ok();
    if let Some(threads) = threads.and_then(|n| n.parse().ok()) {
        tch::set_num_threads(threads);
    }
    let device = device.parse::<DeviceName>()?.resolve()?;
    let options = LoadOptions {
        device,
        kind: Dtype::from_str(dtype, false)
            .map_err(Error::msg)?
            .resolve(device),
        vae: None,
        memory: MemoryOptions::default(),
    };
    let files = ModelOptions {
        model: model.clone(),
        variant: None,
        revision: None,
        offline: true,
    };
    let say = |line: &str| -> Result<()> {
        println!("{line}");
        Ok(std::io::stdout().flush()?)
    };
    let wait = || {
        if let Device::Cuda(index) = device {
            Cuda::synchronize(index as i64);
        }
    };
    say("started")?;
    prepare_allocator(device)?;
    let backbone = Backbone::load(&ModelFiles::locate(&files)?, &options, &mut |_| ())?;
    wait();
    say("ready")?;
    let mut tuning = None;
    for line in std::io::stdin().lock().lines() {
        let done = answer(&backbone, &mut tuning, &serde_json::from_str(&line?)?);
        wait();
        let answer = done.unwrap_or_else(|e| json!({"error": format!("{e:#}")}));
        say(&answer.to_string())?;
    }
    Ok(())
}

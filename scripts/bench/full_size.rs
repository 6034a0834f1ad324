//! Loads a model, takes one guided step of one picture and decodes it; prints seconds of each stage and the peak
//! memory as one line of JSON. The Rust side of `scripts/bench/full_size.py`.
//!
//! Arguments: model folder, inputs (safetensors: `latents`, `target_offset`, `average_offset`), prompt, base word,
//! where to write `latents` and `picture`.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use oneactor::huge_pages::ask_for_huge_pages;
use oneactor::io::model_files::{ModelFiles, ModelOptions};
use oneactor::io::tensors::TensorFile;
use oneactor::oneactor::base_word::BaseWordPrompt;
use oneactor::oneactor::guidance::{ClusterGuidance, GuidanceSettings, Offsets};
use oneactor::schedulers::{SchedulerKind, new_scheduler};
use oneactor::sdxl::denoise::denoise;
use oneactor::sdxl::{Backbone, LoadOptions};
use tch::{Device, Kind};

/// Largest resident memory of this process so far, in bytes.
fn peak_memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: u64 = line
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .context("no VmHWM in /proc/self/status")?
        .trim()
        .parse()?;
    Ok(kilobytes * 1024)
}

fn main() -> Result<()> {
    ask_for_huge_pages();
    let args: Vec<String> = std::env::args().collect();
    let [_, model, inputs, prompt, word, output] = args.as_slice() else {
        anyhow::bail!("expected: MODEL INPUTS PROMPT WORD OUTPUT");
    };
    tch::set_num_threads(1);
    let path = Path::new(inputs);
    let file = TensorFile::read(path)?;
    let mut stages = serde_json::Map::new();
    let mut clock = Instant::now();
    let mut stage = |name: &str, clock: &mut Instant| {
        stages.insert(name.to_owned(), clock.elapsed().as_secs_f64().into());
        *clock = Instant::now();
    };

    let files = ModelFiles::locate(&ModelOptions {
        model: model.clone(),
        variant: None,
        revision: None,
        offline: true,
    })?;
    let options = LoadOptions {
        device: Device::Cpu,
        kind: Kind::Float,
        vae: None,
    };
    let backbone = Backbone::load(&files, &options, &mut |_| ())?;
    stage("load", &mut clock);

    let latents = file.get("latents", path)?;
    let f = backbone.vae_scale_factor();
    let (height, width) = (latents.size()[2] * f, latents.size()[3] * f);
    let negative = backbone.encode_negative(None, height, width)?;
    let prompt = BaseWordPrompt::new(&backbone, prompt, word, height, width)?;
    stage("text", &mut clock);

    let offsets = Offsets {
        target_offset: file.get("target_offset", path)?.shallow_clone(),
        average_offset: file.get("average_offset", path)?.shallow_clone(),
    };
    let settings = GuidanceSettings::default();
    let guidance = ClusterGuidance::new(&negative, &prompt, &offsets, &settings)?;
    let mut scheduler = new_scheduler(SchedulerKind::Euler, &backbone.scheduler_config, 1)?;
    let denoised = denoise(
        &backbone,
        scheduler.as_mut(),
        latents,
        &guidance,
        None,
        &mut |_| Ok(()),
    )?;
    stage("step", &mut clock);

    let picture = backbone.decode(&denoised.latents)?;
    stage("decode", &mut clock);
    stages.insert("peak".to_owned(), peak_memory()?.into());
    let mut results = TensorFile::default();
    results.insert("latents", &denoised.latents);
    results.insert("picture", &picture);
    std::fs::write(output, results.to_bytes()?)?;
    println!("{}", serde_json::Value::Object(stages));
    Ok(())
}

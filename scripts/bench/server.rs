//! One U-Net forward for each line on stdin; prints wall and CPU seconds. The Rust side of
//! `scripts/bench/forward.py`, which sends the lines.
//!
//! Arguments: model folder, inputs (safetensors: `sample`, `timesteps`, `prompt_embeds`, `text_embeds`,
//! `time_ids`), where to write the first output, and `grad` to differentiate back to the prompt.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use oneactor::huge_pages::ask_for_huge_pages;
use oneactor::io::model_files::{ModelFiles, ModelOptions};
use oneactor::io::tensors::TensorFile;
use oneactor::models::cross_attention::AttentionRequest;
use oneactor::models::unet_2d_condition::AddedConditions;
use oneactor::sdxl::{Backbone, Conditioning, LoadOptions};
use tch::{Device, Kind, Tensor};

/// CPU seconds of this process so far, all threads.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks =
        |i: usize| -> Result<f64> { Ok(fields.get(i).context("short /proc/self/stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

fn main() -> Result<()> {
    ask_for_huge_pages();
    let args: Vec<String> = std::env::args().collect();
    let [_, model, inputs, output, mode] = args.as_slice() else {
        anyhow::bail!("expected: MODEL INPUTS OUTPUT forward|grad");
    };
    let grad = mode == "grad";
    let threads = std::env::var("OMP_NUM_THREADS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1);
    tch::set_num_threads(threads);
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
    let path = Path::new(inputs);
    let file = TensorFile::read(path)?;
    let get = |name: &str| Ok::<Tensor, anyhow::Error>(file.get(name, path)?.shallow_clone());
    let (sample, timesteps, text) = (get("sample")?, get("timesteps")?, get("prompt_embeds")?);
    let conditioning = |prompt_embeds: Tensor| -> Result<Conditioning> {
        Ok(Conditioning {
            prompt_embeds,
            added: Some(AddedConditions {
                text_embeds: get("text_embeds")?,
                time_ids: get("time_ids")?,
            }),
            request: AttentionRequest::default(),
        })
    };
    let run = || -> Result<Tensor> {
        if !grad {
            return tch::no_grad(|| {
                Ok(backbone.predict(&sample, &timesteps, &conditioning(text.shallow_clone())?))
            });
        }
        let leaf = text.copy().set_requires_grad(true);
        backbone
            .predict(&sample, &timesteps, &conditioning(leaf.shallow_clone())?)
            .square()
            .mean(Kind::Float)
            .backward();
        Ok(leaf.grad())
    };
    let mut first = TensorFile::default();
    first.insert("output", &run()?);
    std::fs::write(output, first.to_bytes()?)?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        let (wall, cpu) = (Instant::now(), cpu_seconds()?);
        let _ = run()?;
        println!("{} {}", wall.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
        std::io::stdout().flush()?;
    }
    Ok(())
}

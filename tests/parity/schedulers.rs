//! Every scheduler, compared with Python diffusers: the whole trajectory on a fixed sequence of
//! made-up model outputs, and the noising in training.

use crate::common::{Expected, Report, json};
use oneactor::io::config_file::{ConfigFile, Notes};
use oneactor::schedulers::{NoiseSchedule, SchedulerFile, SchedulerKind, new_scheduler};
use serde::Deserialize;
use tch::{Kind, Tensor};

/// Bar of the port. diffusers builds its tables in f32, this program in f64: the sigmas differ by
/// up to 1e-6 relative (a product of a thousand f32 factors). Latents of Euler, DDIM and PNDM
/// differ by up to 4e-6, those of DPM-Solver++ by 7e-6, because it divides by differences of
/// logarithms.
const BAR: f64 = 1e-5;

#[derive(Deserialize)]
struct Case {
    kind: SchedulerKind,
    steps: usize,
    config: serde_json::Value,
    init_noise_sigma: f64,
}

fn file(config: &serde_json::Value) -> SchedulerFile {
    let notes = Notes::default();
    let file = ConfigFile::parse("scheduler_config.json", &config.to_string(), notes);
    SchedulerFile::new(file.expect("it is an object"))
}

/// Latents before each step and after the last, and the scaled input of the model.
fn run(case: &Case, noise: &Tensor, outputs: &Tensor) -> (Vec<f64>, f64, Tensor, Tensor) {
    let mut scheduler = new_scheduler(case.kind, &file(&case.config), case.steps)
        .expect("diffusers takes this number of steps");
    let timesteps = scheduler.timesteps().to_vec();
    let sigma = scheduler.init_noise_sigma();
    let mut trajectory = vec![noise * sigma];
    let mut inputs = Vec::new();
    for i in 0..timesteps.len() {
        let latents = trajectory[i].shallow_clone();
        inputs.push(scheduler.scale_model_input(&latents, i));
        trajectory.push(scheduler.step(&outputs.get(i as i64), i, &latents));
    }
    (
        timesteps,
        sigma,
        Tensor::stack(&trajectory, 0),
        Tensor::stack(&inputs, 0),
    )
}

fn trajectories_of(kind: SchedulerKind) {
    let cases: Vec<Case> = json("schedulers/cases.json");
    let expected = Expected::read("schedulers/expected.safetensors");
    let mut report = Report::new(&format!("trajectories of {}", kind.name()));
    for (i, case) in cases
        .iter()
        .enumerate()
        .filter(|(_, case)| case.kind == kind)
    {
        let name = format!("case {i}, {} steps, {}", case.steps, case.config);
        let (timesteps, sigma, trajectory, inputs) =
            run(case, &expected.get("noise"), &expected.get("outputs"));
        let sigma_is = (sigma / case.init_noise_sigma - 1.0).abs() < BAR;
        report.check(sigma_is, || {
            format!("{name}: sigma {sigma}, expected {}", case.init_noise_sigma)
        });
        // Whole numbers must be exact; Karras timesteps are interpolated between the entries of the
        // table.
        let timesteps = Tensor::from_slice(&timesteps);
        report.close(
            &format!("{name}: timesteps"),
            &timesteps,
            &expected.get(&format!("{i}.timesteps")),
            BAR,
        );
        report.close(
            &format!("{name}: trajectory"),
            &trajectory,
            &expected.get(&format!("{i}.trajectory")),
            BAR,
        );
        report.close(
            &format!("{name}: inputs"),
            &inputs,
            &expected.get(&format!("{i}.inputs")),
            BAR,
        );
        // The last latents apart: early latents are large and would hide an error in them.
        let (end, known) = (
            trajectory.get(-1),
            expected.get(&format!("{i}.trajectory")).get(-1),
        );
        report.close(&format!("{name}: last latents"), &end, &known, BAR);
    }
    report.finish();
}

#[test]
fn euler_follows_diffusers_step_by_step() {
    trajectories_of(SchedulerKind::Euler);
}

#[test]
fn dpm_solver_follows_diffusers_step_by_step() {
    trajectories_of(SchedulerKind::DpmSolverMultistep);
}

#[test]
fn ddim_follows_diffusers_step_by_step() {
    trajectories_of(SchedulerKind::Ddim);
}

#[test]
fn pndm_follows_diffusers_pass_by_pass() {
    trajectories_of(SchedulerKind::Pndm);
}

#[test]
fn noising_and_its_target_are_those_of_ddpm() {
    let expected = Expected::read("schedulers/ddpm.safetensors");
    let cases: Vec<Case> = json("schedulers/cases.json");
    let mut report = Report::new("noising");
    for prediction in ["epsilon", "v_prediction"] {
        let mut config = cases[0].config.clone();
        config["prediction_type"] = prediction.into();
        let config = file(&config).noise_schedule().expect("known config");
        let schedule = NoiseSchedule::new(&config);
        let (z0, eps) = (expected.get("z0"), expected.get("eps"));
        let timesteps = expected.get("timesteps");
        assert_eq!(timesteps.kind(), Kind::Int64);
        report.close(
            "noisy",
            &schedule.add_noise(&z0, &eps, &timesteps),
            &expected.get("noisy"),
            BAR,
        );
        let target = if prediction == "epsilon" {
            eps.shallow_clone()
        } else {
            expected.get("velocity")
        };
        report.close(
            prediction,
            &schedule.target(&z0, &eps, &timesteps),
            &target,
            BAR,
        );
    }
    report.finish();
}

#[derive(Deserialize)]
struct Swept {
    kind: SchedulerKind,
    config: serde_json::Value,
    timesteps: Vec<Vec<f64>>,
}

#[test]
fn timesteps_are_those_of_diffusers_for_every_number_of_steps() {
    let mut report = Report::new("timesteps of 1 to 150 steps");
    for Swept {
        kind,
        config,
        timesteps,
    } in json::<Vec<Swept>>("schedulers/timesteps.json")
    {
        let parsed = file(&config);
        for (i, expected) in timesteps.iter().enumerate() {
            let scheduler = new_scheduler(kind, &parsed, i + 1).expect("up to 150 steps are fine");
            let found = scheduler.timesteps();
            // For a few numbers of steps with trailing spacing, numpy's arange has one entry too
            // many, and diffusers then uses timestep -1. Here the number of steps is always as
            // requested.
            let expected = expected.strip_suffix(&[-1.0]).unwrap_or(expected);
            // Written with three digits after the point; whole numbers must be exact.
            let differ = |(a, b): (&f64, &f64)| (a - b).abs() >= 2e-3;
            let at = found.iter().zip(expected).position(differ);
            // PNDM repeats its first step if there is a second step to look ahead to.
            let again = usize::from(kind == SchedulerKind::Pndm && i > 0);
            let number = found.len() == i + 1 + again && found.len() == expected.len();
            let last_step = scheduler.step_of(found.len() - 1);
            let same = number && last_step == i + 1 && at.is_none();
            report.check(same, || {
                let pair = at.map(|at| (found[at], expected[at]));
                let (n, spacing) = (i + 1, &config["timestep_spacing"]);
                format!("{} {spacing} {n} steps: at {at:?} found and expected {pair:?}, {} and {} of them", kind.name(), found.len(), expected.len())
            });
        }
    }
    report.finish();
}

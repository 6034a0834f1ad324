//! Getting the files of a model: from a hub on this machine, which follows the protocol of the real
//! hub and makes faults on demand; from its cache; from a folder; and from the binary.

// A failing test says why: unwrap needs no message.
#![allow(clippy::unwrap_used, missing_docs)]

mod answer;
mod cache;
#[path = "../common/mod.rs"]
mod common;
mod download;
mod fetch;
mod fetch_flags;
mod ip_adapter;
mod leftover;
mod moved;
mod names;
mod outside;
mod places;
mod refresh;
mod refusals;
mod repositories;
mod secrets;
mod server;
mod settings;
mod single_file;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use oneactor::error::{ErrorKind, kind_of};
use oneactor::io::blob::Blob;
use oneactor::io::hub::{HubSettings, HubToken, Patience};
use oneactor::io::model_files::{ModelFiles, ModelOptions};
use server::FakeHub;

/// The repository of most tests.
const ID: &str = "org/tiny-sdxl";

/// A folder for one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("oneactor-hub-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Bytes that differ from place to place, so that a shifted piece is detected.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A hub with a small pipeline: the U-Net in both variants, the text encoder in the plain one only.
fn pipeline() -> (FakeHub, Vec<u8>) {
    let hub = FakeHub::start();
    let unet = content(300_000, 1);
    hub.add(
        ID,
        &[
            ("README.md", b"a readme"),
            ("model_index.json", b"{}"),
            ("unet/config.json", b"{\"sample_size\": 8}"),
            (
                "unet/diffusion_pytorch_model.safetensors",
                &content(600_000, 2),
            ),
            ("unet/diffusion_pytorch_model.fp16.safetensors", &unet),
            ("text_encoder/config.json", b"{}"),
            ("text_encoder/model.safetensors", &content(50_000, 3)),
        ],
    );
    (hub, unet)
}

/// Settings for `hub` with the cache in `scratch`, and short time limits.
fn settings(hub: &FakeHub, scratch: &Scratch) -> HubSettings {
    let mut settings = HubSettings::new(scratch.path().join("hub"));
    settings.endpoint = hub.endpoint.clone().into();
    settings.patience = Patience {
        tries: 3,
        wait: Duration::from_millis(5),
        stall: Duration::from_secs(20),
        lock: Duration::from_secs(20),
    };
    settings
}

fn with_token(mut settings: HubSettings, token: &str) -> HubSettings {
    settings.token = Some(HubToken::new(token, "HF_TOKEN"));
    settings
}

fn options(model: &str) -> ModelOptions {
    ModelOptions {
        model: model.to_owned(),
        ..ModelOptions::default()
    }
}

fn fp16(model: &str) -> ModelOptions {
    ModelOptions {
        variant: Some("fp16".to_owned()),
        ..options(model)
    }
}

fn locate(options: &ModelOptions, settings: &HubSettings) -> anyhow::Result<ModelFiles> {
    ModelFiles::locate_with(options, &|| Ok(settings.clone()))
}

fn bytes(blobs: &[Blob]) -> Vec<u8> {
    let [Blob::File(path)] = blobs else {
        panic!("expected one file on disk, found {blobs:?}");
    };
    std::fs::read(path).unwrap()
}

/// The one-line message of an error, which must have exit code 3.
fn message<T: std::fmt::Debug>(result: anyhow::Result<T>) -> String {
    let error = result.unwrap_err();
    let text = format!("{error:#}");
    assert_eq!(kind_of(&error), ErrorKind::Model, "{text}");
    assert!(!text.contains('\n'), "{text}");
    text
}

/// Checks that the message has every one of the pieces.
fn assert_says(message: &str, pieces: &[&str]) {
    for piece in pieces {
        assert!(message.contains(piece), "`{piece}` is not in: {message}");
    }
}

/// Whether any link below `folder` makes `name` part of a snapshot.
fn is_in_snapshot(settings: &HubSettings, name: &str) -> bool {
    let repo = settings.cache.join("models--org--tiny-sdxl/snapshots");
    repo.join(server::COMMIT).join(name).exists()
}

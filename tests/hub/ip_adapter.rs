//! The files of an IP-Adapter, from a repository with the authors' layout.

use oneactor::io::ip_adapter::{
    Fingerprint, IpAdapterFiles, IpAdapterLayout, REPOSITORY, SDXL, STABLE_DIFFUSION,
};

use super::server::{COMMIT, FakeHub};
use super::*;

/// The files for both kinds of model, and others that must not be fetched.
fn authors() -> FakeHub {
    let hub = FakeHub::start();
    let files = [
        "README.md",
        "models/ip-adapter_sd15.safetensors",
        "models/ip-adapter-plus_sd15.safetensors",
        "models/image_encoder/config.json",
        "models/image_encoder/model.safetensors",
        "models/image_encoder/pytorch_model.bin",
        "sdxl_models/ip-adapter_sdxl.bin",
        "sdxl_models/ip-adapter_sdxl.safetensors",
        "sdxl_models/ip-adapter_sdxl_vit-h.safetensors",
        "sdxl_models/image_encoder/config.json",
        "sdxl_models/image_encoder/model.safetensors",
    ];
    // The content of every file is its own name.
    let files: Vec<(&str, &[u8])> = files.iter().map(|name| (*name, name.as_bytes())).collect();
    hub.add(REPOSITORY, &files);
    hub
}

fn locate_adapter(
    settings: &HubSettings,
    adapter: Option<&str>,
    layout: IpAdapterLayout,
) -> anyhow::Result<IpAdapterFiles> {
    let find = |name: &str| locate(&options(name), settings);
    IpAdapterFiles::locate(adapter, None, ("org/some-model", layout), &find)
}

#[test]
fn each_kind_of_model_gets_its_adapter_and_encoder_and_nothing_else_is_fetched() {
    for (layout, below, adapter) in [
        (SDXL, "sdxl_models", "ip-adapter_sdxl.safetensors"),
        (STABLE_DIFFUSION, "models", "ip-adapter_sd15.safetensors"),
    ] {
        let hub = authors();
        let scratch = Scratch::new();
        let settings = settings(&hub, &scratch);
        let files = locate_adapter(&settings, None, layout).unwrap();
        let commit = Fingerprint::Commit(COMMIT.to_owned());
        assert_eq!(files.fingerprints().unwrap(), [commit.clone(), commit]);
        assert_eq!(hub.take_downloads().len(), 0, "nothing is read yet");
        let of_adapter = format!("{below}/{adapter}");
        assert_eq!(bytes(&[files.adapter().unwrap()]), of_adapter.as_bytes());
        let (encoder, folder) = files.encoder();
        assert_eq!(folder, format!("{below}/image_encoder"));
        let weights = format!("{folder}/model.safetensors");
        assert_eq!(bytes(&encoder.weights(folder).unwrap()), weights.as_bytes());
        assert_eq!(hub.take_downloads().len(), 2);
    }
}

#[test]
fn a_repository_without_the_adapter_is_refused_with_the_missing_file() {
    let hub = authors();
    hub.add("org/other", &[("README.md", b"nothing")]);
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    let error = locate_adapter(&settings, Some("org/other"), SDXL).unwrap_err();
    let message = format!("{error:#}");
    assert!(message.contains("the IP-Adapter"), "{message}");
    assert!(
        message.contains("no file sdxl_models/ip-adapter_sdxl.safetensors in"),
        "{message}"
    );
}

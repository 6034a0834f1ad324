//! Using the cache without a network, and sharing the cache with Python's `huggingface_hub`.

use std::process::Command;

use super::server::COMMIT;
use super::*;

#[test]
fn cached_files_are_used_if_the_network_is_gone() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    let run = || {
        let files = locate(&fp16(ID), &settings)?;
        files.text("unet/config.json")?;
        assert_eq!(files.optional_text("tokenizer/merges.txt")?, None);
        files.weights("text_encoder")?;
        assert_eq!(bytes(&files.weights("unet")?), unet);
        anyhow::Ok(files)
    };
    run().unwrap();
    hub.go_down();
    let files = run().unwrap();
    // The error distinguishes a file that is not cached from a file that the repository does not
    // have.
    let said = message(files.text("text_encoder/config.json"));
    assert_says(
        &said,
        &["text_encoder/config.json", "the cached part of", ID],
    );
}

#[test]
fn offline_the_missing_file_is_named_with_repository_revision_and_cache() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let mut settings = settings(&hub, &scratch);
    let cache = settings.cache.display().to_string();
    locate(&fp16(ID), &settings)
        .unwrap()
        .weights("unet")
        .unwrap();
    hub.take_requests();

    settings.offline = Some("HF_HUB_OFFLINE");
    let files = locate(&fp16(ID), &settings).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
    let said = message(files.text("unet/config.json"));
    assert_says(
        &said,
        &[
            "unet/config.json",
            ID,
            "main",
            &cache,
            "HF_HUB_OFFLINE",
            "run once with the network",
        ],
    );
    let said = message(files.weights("vae"));
    assert_says(&said, &["weights of vae", ID, "offline"]);

    let other = ModelOptions {
        revision: Some("v2".to_owned()),
        ..options(ID)
    };
    let said = message(locate(&other, &settings));
    assert_says(&said, &[ID, "revision v2", "only main", "HF_HUB_OFFLINE"]);
    let said = message(locate(&options("org/other"), &settings));
    assert_says(&said, &["org/other", "nothing of this repository", &cache]);
    assert_eq!(hub.take_requests().len(), 0);
}

#[test]
fn the_flag_offline_alone_prevents_every_request() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    let options = ModelOptions {
        offline: true,
        ..options(ID)
    };
    let said = message(locate(&options, &settings(&hub, &scratch)));
    assert_says(&said, &["the option offline"]);
    assert_eq!(hub.take_requests().len(), 0);
}

#[test]
fn a_cached_repository_is_used_under_its_old_name() {
    let hub = server::FakeHub::start();
    let scratch = Scratch::new();
    let gone = "runwayml/stable-diffusion-v1-5";
    let settings = settings(&hub, &scratch);
    let repo = settings
        .cache
        .join("models--runwayml--stable-diffusion-v1-5");
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::create_dir_all(repo.join("snapshots").join(COMMIT)).unwrap();
    std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
    std::fs::write(
        repo.join("snapshots").join(COMMIT).join("model_index.json"),
        "{}",
    )
    .unwrap();
    let files = locate(&options(gone), &settings).unwrap();
    assert_eq!(files.text("model_index.json").unwrap(), "{}");
    assert_eq!(hub.take_requests().len(), 0);
}

#[test]
fn a_link_to_nothing_is_fetched_again() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    let weights = || {
        locate(&fp16(ID), &settings)
            .unwrap()
            .weights("unet")
            .unwrap()
    };
    weights();
    std::fs::remove_dir_all(settings.cache.join("models--org--tiny-sdxl/blobs")).unwrap();
    assert_eq!(bytes(&weights()), unet);
}

/// Runs a script with the cache folder as its argument.
pub fn python(script: &str, settings: &HubSettings) -> String {
    python_with(script, settings, &[])
}

/// As `python`, with further arguments.
pub fn python_with(script: &str, settings: &HubSettings, arguments: &[&str]) -> String {
    let way_out =
        "this test needs Python with huggingface_hub: run scripts/test.sh, or set ONEACTOR_PYTHON";
    let mut command = python_command(script, settings);
    let output = command.args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}; {way_out}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{way_out}");
    String::from_utf8(output.stdout).unwrap()
}

/// The command that runs a script with the hub and the cache of these settings.
pub fn python_command(script: &str, settings: &HubSettings) -> Command {
    let interpreter = std::env::var("ONEACTOR_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(interpreter);
    command
        .args(["-c", script])
        .arg(&settings.cache)
        .env("HF_ENDPOINT", settings.endpoint.to_string())
        .env("HF_HUB_CACHE", &settings.cache)
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .env_remove("HF_TOKEN")
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("TRANSFORMERS_OFFLINE");
    command
}

#[test]
fn python_reads_the_cache_that_was_written_here() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    let files = locate(&fp16(ID), &settings).unwrap();
    files.text("unet/config.json").unwrap();
    files.optional_text("tokenizer/merges.txt").unwrap();
    files.weights("unet").unwrap();
    hub.go_down();
    let said = python(
        r#"
import hashlib, sys
from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, scan_cache_dir, snapshot_download, try_to_load_from_cache
repo = "org/tiny-sdxl"
path = hf_hub_download(repo, "unet/diffusion_pytorch_model.fp16.safetensors", cache_dir=sys.argv[1], local_files_only=True)
print(hashlib.sha256(open(path, "rb").read()).hexdigest())
print(try_to_load_from_cache(repo, "tokenizer/merges.txt", cache_dir=sys.argv[1]) is _CACHED_NO_EXIST)
print(snapshot_download(repo, cache_dir=sys.argv[1], local_files_only=True).rsplit("/", 1)[1])
scan = scan_cache_dir(sys.argv[1])
print(len(scan.warnings), [(r.repo_id, r.nb_files, [(v.commit_hash, sorted(v.refs)) for v in r.revisions]) for r in scan.repos])
"#,
        &settings,
    );
    let expected = format!(
        "{}\nTrue\n{COMMIT}\n0 [('{ID}', 2, [('{COMMIT}', ['main'])])]\n",
        server::sha256(&unet)
    );
    assert_eq!(said, expected);
}

#[test]
fn the_cache_that_python_wrote_is_read_here() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    python(
        r#"
import sys
from huggingface_hub import hf_hub_download
for name in ["unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors"]:
    hf_hub_download("org/tiny-sdxl", name, cache_dir=sys.argv[1])
try:
    hf_hub_download("org/tiny-sdxl", "unet/none.json", cache_dir=sys.argv[1])
except Exception:
    pass
"#,
        &settings,
    );
    hub.take_requests();
    let files = locate(&fp16(ID), &settings).unwrap();
    assert_eq!(
        files.text("unet/config.json").unwrap(),
        "{\"sample_size\": 8}"
    );
    assert_eq!(files.optional_text("unet/none.json").unwrap(), None);
    assert_eq!(hub.take_requests().len(), 0);
    // The missing index would have priority over the whole file. Python does not record that it is
    // missing, so the files are listed once.
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
    let asked = hub.take_requests();
    assert!(asked.len() == 1 && asked[0].path.starts_with("/api/"));
    let again = locate(&fp16(ID), &settings).unwrap();
    assert_eq!(bytes(&again.weights("unet").unwrap()), unet);
    assert_eq!(hub.take_requests().len(), 0);
    // Another file is added to Python's snapshot.
    files.weights("text_encoder").unwrap();
    assert!(is_in_snapshot(&settings, "text_encoder/model.safetensors"));
}

//! `oneactor fetch`: the files it brings, its messages, and drawing without a network afterwards.

use std::process::{Command, Output};

use oneactor::io::toy;
use serde_json::Value;

use super::server::{COMMIT, FakeHub, Fault, GOOD_TOKEN};
use super::*;

const MODEL: &str = "org/small";
pub const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const FETCH: &str = "fetch org/small";

/// A hub with the toy as a repository that also has a card, a licence, and files that no network
/// reads.
pub fn hub() -> FakeHub {
    let hub = FakeHub::start();
    let mut files: Vec<(&str, Vec<u8>)> = toy::names()
        .filter(|name| !name.starts_with("clip/") && !name.starts_with("ip_adapter/"))
        .map(|name| match toy::file(name) {
            Some(Blob::Embedded { bytes, .. }) => (name, bytes.to_vec()),
            other => panic!("{name}: {other:?}"),
        })
        .collect();
    files.push((
        "README.md",
        b"---\nlicense: openrail++\n---\n# Small\n".to_vec(),
    ));
    files.push(("LICENSE.md", b"Do no harm.\n".to_vec()));
    files.push(("safety_checker/model.safetensors", b"not read".to_vec()));
    files.push(("unet/diffusion_pytorch_model.bin", b"\x80".to_vec()));
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, b)| (*name, &b[..])).collect();
    hub.add(MODEL, &files);
    hub.change(MODEL, |repository| repository.licence = Some("openrail++"));
    hub
}

pub fn oneactor(hub: &FakeHub, scratch: &Scratch, line: &str) -> Output {
    run(hub, scratch, line, &[])
}

/// The program with these environment variables added.
pub fn run(hub: &FakeHub, scratch: &Scratch, line: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = command(hub, scratch, line);
    command.envs(variables.iter().copied());
    command.output().unwrap()
}

/// The program's command line, with spaces between the arguments.
pub fn command(hub: &FakeHub, scratch: &Scratch, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oneactor"));
    command
        .args(line.split(' '))
        .current_dir(scratch.path())
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("HF_TOKEN")
        .env("HF_HOME", scratch.path().join("home"))
        .env("HF_ENDPOINT", &hub.endpoint)
        .env("OMP_NUM_THREADS", "1")
        .env("ONEACTOR_DEVICE", "cpu");
    command
}

pub fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
pub fn exits_with(output: Output, code: i32) -> Output {
    assert_eq!(output.status.code(), Some(code), "{}", told(&output));
    output
}

pub fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::to_owned).collect()
}

fn objects(output: &Output) -> Vec<Value> {
    let parse = |line: String| serde_json::from_str(&line).unwrap();
    lines(output).into_iter().map(parse).collect()
}

fn downloaded(hub: &FakeHub) -> Vec<String> {
    hub.take_downloads().into_iter().map(|r| r.path).collect()
}

#[test]
fn a_fetched_model_draws_without_a_network() {
    let (hub, scratch) = (hub(), Scratch::new());
    let fetched = exits_with(oneactor(&hub, &scratch, FETCH), 0);
    let paths = lines(&fetched);
    assert!(
        paths.iter().all(|path| Path::new(path).is_file()),
        "{paths:?}"
    );
    for end in ["LICENSE.md", "README.md", UNET, "tokenizer_2/merges.txt"] {
        assert!(paths.iter().any(|path| path.ends_with(end)), "{end}");
    }
    let asked = downloaded(&hub);
    for left_out in ["safety_checker", ".bin"] {
        assert!(
            !asked.iter().any(|path| path.contains(left_out)),
            "{left_out}"
        );
    }
    let said = told(&fetched);
    let link = format!(
        "openrail++; the full text is at {}/{MODEL}/blob/{COMMIT}/LICENSE.md",
        hub.endpoint
    );
    assert_says(&said, &[&link, "all are in the cache"]);
    assert_eq!(said.matches("licence of").count(), 1, "{said}");

    // Everything is cached: no request, and the same list.
    let again = exits_with(oneactor(&hub, &scratch, FETCH), 0);
    assert_eq!(lines(&again), paths);
    assert_says(
        &told(&again),
        &["of which 0 B were fetched now", "openrail++"],
    );
    assert_eq!(hub.take_requests().len(), 0);
    exits_with(oneactor(&hub, &scratch, "fetch org/small --offline"), 0);

    hub.go_down();
    let draw = "generate-base --model org/small --offline -p robot --subject robot --num-images 2 --steps 2 -o base";
    exits_with(oneactor(&hub, &scratch, draw), 0);
    exits_with(
        oneactor(&hub, &scratch, "tune base --max-steps 1 --offline"),
        0,
    );
    exits_with(
        oneactor(
            &hub,
            &scratch,
            "sample base -p robot --steps 2 -o out --offline",
        ),
        0,
    );
    assert_eq!(hub.take_requests().len(), 0);
}

#[test]
fn a_dry_run_lists_the_files_and_fetches_no_weights() {
    let (hub, scratch) = (hub(), Scratch::new());
    let line = "fetch org/small --dry-run --format json";
    let planned = objects(&exits_with(oneactor(&hub, &scratch, line), 0));
    let unet = planned.iter().find(|file| file["name"] == UNET).unwrap();
    assert_eq!(unet["status"], "planned");
    let Some(Blob::Embedded { bytes, .. }) = toy::file(UNET) else {
        panic!("the toy is in the binary");
    };
    assert_eq!(unet["bytes"], bytes.len());
    let asked = downloaded(&hub);
    assert!(
        asked.iter().all(|path| path.ends_with(".json")),
        "{asked:?}"
    );

    let model = planned.last().unwrap();
    assert_eq!(
        (&model["kind"], &model["status"]),
        (&"model".into(), &"planned".into())
    );
    assert_eq!(model["licence"]["name"], "openrail++");
    assert_eq!(model["files"], planned.len() - 1);
    let fetched = objects(&exits_with(
        oneactor(&hub, &scratch, "fetch org/small --format json"),
        0,
    ));
    let sum = |of: &str| -> u64 {
        let files = planned
            .iter()
            .filter(|file| file["status"] == of && file["kind"] == "file");
        files.map(|file| file["bytes"].as_u64().unwrap()).sum()
    };
    // The dry run has fetched the small files.
    assert_eq!(fetched.last().unwrap()["fetched_bytes"], sum("planned"));
    assert_eq!(model["bytes"], sum("planned") + sum("present"));
}

#[test]
fn a_broken_download_continues_where_it_stopped() {
    let (hub, scratch) = (hub(), Scratch::new());
    let mut faults = vec![Fault::Cut(100_000)];
    faults.extend([Fault::Cut(0); 9]);
    hub.fail(UNET, &faults);
    let broken = exits_with(oneactor(&hub, &scratch, FETCH), 3);
    assert_says(
        &told(&broken),
        &[UNET, "broke off at 100 kB", "run the same command again"],
    );
    assert!(!lines(&broken).iter().any(|path| path.ends_with(UNET)));
    hub.fail(UNET, &[]);
    hub.take_requests();
    let fetched = exits_with(oneactor(&hub, &scratch, FETCH), 0);
    assert_says(&told(&fetched), &["from 100 kB on"]);
    let requests = hub.take_downloads();
    let unet = requests
        .iter()
        .find(|asked| asked.path.contains(UNET))
        .unwrap();
    assert_eq!(unet.range_start(), Some(100_000));
}

#[test]
fn damaged_content_is_refused_and_the_other_files_are_fetched() {
    let (hub, scratch) = (hub(), Scratch::new());
    hub.fail(UNET, &[Fault::Damage; 9]);
    let damaged = exits_with(oneactor(&hub, &scratch, FETCH), 3);
    assert_says(&told(&damaged), &[UNET, "arrived damaged", "SHA-256"]);
    let path = |name: &str| {
        let repository = scratch.path().join("home/hub/models--org--small/snapshots");
        repository.join(COMMIT).join(name)
    };
    assert!(!path(UNET).exists() && path("text_encoder/model.safetensors").is_file());
}

#[test]
fn a_model_that_cannot_be_fetched_is_reported_and_the_others_are_fetched() {
    let (hub, scratch) = (hub(), Scratch::new());
    let missing = exits_with(oneactor(&hub, &scratch, "fetch org/nothing"), 3);
    assert_says(
        &told(&missing),
        &["org/nothing", "no repository of this name"],
    );
    let offline = exits_with(oneactor(&hub, &scratch, "fetch org/small --offline"), 3);
    assert_says(
        &told(&offline),
        &[
            "is not in the cache",
            "the network is off (the option offline): run once without the option offline, give a local folder, or try \
             the model toy",
        ],
    );
    let both = exits_with(oneactor(&hub, &scratch, "fetch org/nothing org/small"), 5);
    assert_says(
        &told(&both),
        &[
            "error: org/nothing is not a folder here",
            "1 of 2 downloads failed",
        ],
    );
    assert!(lines(&both).iter().any(|path| path.ends_with(UNET)));

    hub.change(MODEL, |repository| repository.gated = true);
    let fresh = Scratch::new();
    let gated = exits_with(oneactor(&hub, &fresh, FETCH), 3);
    assert_says(
        &told(&gated),
        &["gated", "accept its licence at", "HF_TOKEN"],
    );
    let token = [("HF_TOKEN", GOOD_TOKEN)];
    exits_with(run(&hub, &fresh, FETCH, &token), 0);
    let output = run(&hub, &fresh, FETCH, &token);
    assert!(!told(&output).contains(GOOD_TOKEN));
}

#[test]
fn models_on_this_machine_need_no_fetch() {
    let (hub, scratch) = (hub(), Scratch::new());
    std::fs::create_dir(scratch.path().join("model")).unwrap();
    std::fs::write(
        scratch.path().join("model/model_index.json"),
        "{\"_class_name\": \"StableDiffusionPipeline\"}",
    )
    .unwrap();
    let local = exits_with(oneactor(&hub, &scratch, "fetch toy model"), 0);
    assert_says(
        &told(&local),
        &[
            "toy is inside this program: there is nothing to fetch",
            "model is a folder on this machine",
        ],
    );
    assert_eq!(lines(&local).len() + hub.take_requests().len(), 0);
    let wrong = exits_with(oneactor(&hub, &scratch, "fetch toy --revision v1"), 2);
    assert_says(&told(&wrong), &["revision `v1`"]);
    let several = exits_with(
        oneactor(&hub, &scratch, "fetch org/small toy --revision v1"),
        2,
    );
    assert_says(&told(&several), &["found 2 models, expected one"]);
}

/// A hub with the repositories that other flags name. The content of each weight file is its own
/// name.
pub fn others(hub: &FakeHub) {
    let control = r#"{"_class_name": "ControlNetModel", "in_channels": 4, "block_out_channels": [32], "layers_per_block": 1, "attention_head_dim": 8, "down_block_types": ["DownBlock2D"], "cross_attention_dim": 8}"#;
    hub.add(
        "org/control",
        &[
            ("config.json", control.as_bytes()),
            ("diffusion_pytorch_model.safetensors", b"plain"),
            ("diffusion_pytorch_model.fp16.safetensors", b"half"),
        ],
    );
    hub.add(
        "org/vae",
        &[
            ("config.json", b"{\"_class_name\": \"AutoencoderKL\"}"),
            ("diffusion_pytorch_model.safetensors", b"plain"),
            ("diffusion_pytorch_model.fp16.safetensors", b"half"),
        ],
    );
    hub.add(
        "org/clip",
        &[
            ("config.json", b"{\"model_type\": \"clip\"}"),
            ("preprocessor_config.json", b"{}"),
            ("vocab.json", b"{}"),
            ("merges.txt", b"#"),
            ("model.safetensors", b"plain"),
            ("pytorch_model.bin", b"\x80"),
        ],
    );
    hub.add(
        "org/clip5",
        &[
            ("config.json", b"{\"model_type\": \"clip\"}"),
            ("processor_config.json", b"{\"image_processor\": {}}"),
            ("preprocessor_config.json", b"{}"),
            ("tokenizer.json", b"{}"),
            ("tokenizer_config.json", b"{}"),
            ("added_tokens.json", b"{}"),
            ("vocab.json", b"{}"),
            ("merges.txt", b"#"),
            ("model.safetensors", b"plain"),
            ("model.safetensors.index.json", b"{}"),
        ],
    );
    hub.add(
        "org/lora",
        &[
            ("a.safetensors", b"a"),
            ("b.safetensors", b"b"),
            ("README.md", b"---\nlicense: mit\n---\n"),
        ],
    );
    hub.add(
        "org/language",
        &[("config.json", b"{\"model_type\": \"llama\"}")],
    );
    hub.add(
        "org/adapter",
        &[
            ("sdxl_models/ip-adapter_sdxl.safetensors", b"adapter"),
            ("sdxl_models/image_encoder/config.json", b"{}"),
            ("sdxl_models/image_encoder/model.safetensors", b"encoder"),
            ("models/ip-adapter_sd15.safetensors", b"another"),
        ],
    );
}

fn names_of(output: &Output) -> Vec<String> {
    let name = |line: String| match line.split_once(&format!("{COMMIT}/")) {
        Some((_, name)) => name.to_owned(),
        None => panic!("{line}"),
    };
    let mut names: Vec<String> = lines(output).into_iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn files_of_other_flags_are_fetched_as_those_flags_will_look_for_them() {
    let (hub, scratch) = (hub(), Scratch::new());
    others(&hub);
    let fetch = |line: &str| exits_with(oneactor(&hub, &scratch, &format!("fetch {line}")), 0);
    assert_eq!(
        names_of(&fetch("org/lora --file b.safetensors")),
        ["b.safetensors"]
    );
    assert_eq!(
        names_of(&fetch("org/clip")),
        [
            "config.json",
            "merges.txt",
            "model.safetensors",
            "preprocessor_config.json",
            "vocab.json"
        ]
    );
    // Of two files with the same settings, only the one that is read: see tests/parity/tokenizer.rs
    // and folders.rs.
    assert_eq!(
        names_of(&fetch("org/clip5")),
        [
            "added_tokens.json",
            "config.json",
            "model.safetensors",
            "preprocessor_config.json",
            "processor_config.json",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    // A ControlNet is searched in the variant of the model, a VAE never is.
    assert_eq!(
        names_of(&fetch("org/control --variant fp16")),
        ["config.json", "diffusion_pytorch_model.fp16.safetensors"]
    );
    assert_eq!(
        names_of(&fetch("org/vae --variant fp16")),
        ["config.json", "diffusion_pytorch_model.safetensors"]
    );
    let beside = fetch("org/small --vae org/vae --controlnet org/control --ip-adapter org/adapter");
    let names = names_of(&beside);
    assert!(
        !names.iter().any(|name| name.starts_with("vae/")),
        "{names:?}"
    );
    for wanted in [
        "diffusion_pytorch_model.safetensors",
        "sdxl_models/ip-adapter_sdxl.safetensors",
        "sdxl_models/image_encoder/model.safetensors",
        UNET,
    ] {
        assert!(
            names.iter().any(|name| name == wanted),
            "{wanted}: {names:?}"
        );
    }
    assert!(
        !names.iter().any(|name| name.starts_with("models/")),
        "{names:?}"
    );
}

#[test]
fn a_repository_that_no_command_reads_is_refused_with_what_to_do() {
    let (hub, scratch) = (hub(), Scratch::new());
    others(&hub);
    let fetch = |line: &str, code| told(&exits_with(oneactor(&hub, &scratch, line), code));
    assert_says(
        &fetch("fetch org/lora", 3),
        &["neither model_index.json nor config.json", "--file"],
    );
    assert_says(
        &fetch("fetch org/language", 3),
        &["model_type \"llama\"", "--file"],
    );
    assert_says(
        &fetch("fetch org/lora --file c.safetensors", 3),
        &["--file: no file c.safetensors in org/lora"],
    );
    assert_says(
        &fetch("fetch org/vae --revision main", 2),
        &["--revision main", "leave --revision out"],
    );
    assert_says(
        &fetch("fetch org/small --file x --vae y", 2),
        &["cannot be used with"],
    );
    assert_says(&fetch("fetch", 2), &["<MODEL>"]);
}

#[test]
fn a_dry_run_of_a_job_says_how_much_would_be_fetched() {
    let (hub, scratch) = (hub(), Scratch::new());
    let line =
        "generate-base --model org/small -p robot --subject robot -o out --dry-run --format json";
    let outlook = |output: Output| {
        let planned = objects(&exits_with(output, 0));
        let found = planned.iter().find(|object| object["kind"] == "outlook");
        found.unwrap().clone()
    };
    let before = outlook(oneactor(&hub, &scratch, line));
    let asked = downloaded(&hub);
    assert!(
        !asked.iter().any(|path| path.contains("safetensors")),
        "{asked:?}"
    );
    let fetched = objects(&exits_with(
        oneactor(&hub, &scratch, "fetch org/small --format json"),
        0,
    ));
    // A job fetches neither the card nor the licence.
    let is_of_card = |file: &&Value| {
        ["README.md", "LICENSE.md"]
            .iter()
            .any(|name| file["name"] == *name)
    };
    let card: u64 = fetched
        .iter()
        .filter(is_of_card)
        .map(|file| file["bytes"].as_u64().unwrap())
        .sum();
    let whole = fetched.last().unwrap()["fetched_bytes"].as_u64().unwrap();
    assert_eq!(before["download_bytes"], whole - card);
    let after = outlook(oneactor(&hub, &scratch, line));
    assert_eq!(after["download_bytes"], 0);
    // Before the fetch, files without a variant are counted as f32; the headers then show that the
    // toy's values are fp16.
    let memory = |outlook: &Value| outlook["memory_bytes"].as_u64().unwrap();
    assert!(memory(&after) > memory(&before), "{before} {after}");
    let offline = oneactor(&hub, &Scratch::new(), &format!("{line} --offline"));
    assert_says(&told(&exits_with(offline, 3)), &["is not in the cache"]);
}

//! Downloads, with all faults that a connection can have.

use std::thread;
use std::time::Duration;

use super::server::{COMMIT, FakeHub, Fault, sha256};
use super::*;

const FP16: &str = "unet/diffusion_pytorch_model.fp16.safetensors";

#[test]
fn only_the_files_that_are_asked_for_are_fetched_and_a_second_run_asks_nothing() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    let run = || {
        let files = locate(&fp16(ID), &settings).unwrap();
        assert_eq!(
            files.text("unet/config.json").unwrap(),
            "{\"sample_size\": 8}"
        );
        assert_eq!(
            files
                .optional_text("tokenizer/special_tokens_map.json")
                .unwrap(),
            None
        );
        assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
        // The text encoder has no fp16 variant: its plain weights are fetched.
        assert_eq!(
            bytes(&files.weights("text_encoder").unwrap()),
            content(50_000, 3)
        );
        assert_eq!(files.revision(), Some(COMMIT));
        assert_eq!(files.name(), ID);
    };
    run();
    let mut fetched: Vec<String> = hub.take_downloads().into_iter().map(|r| r.path).collect();
    fetched.sort();
    assert_eq!(
        fetched,
        [
            "/blob/org/tiny-sdxl/text_encoder/model.safetensors?Signature=secret".to_owned(),
            format!("/blob/org/tiny-sdxl/{FP16}?Signature=secret"),
            format!("/org/tiny-sdxl/resolve/{COMMIT}/unet/config.json"),
        ]
    );
    run();
    assert_eq!(hub.take_requests().len(), 0);
}

#[test]
fn the_list_of_files_is_asked_for_once() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    let files = locate(&options(ID), &settings(&hub, &scratch)).unwrap();
    for component in ["unet", "text_encoder"] {
        files.weights(component).unwrap();
        files.text(&format!("{component}/config.json")).unwrap();
    }
    let lists = hub
        .take_requests()
        .into_iter()
        .filter(|r| r.path.starts_with("/api/"));
    assert_eq!(lists.count(), 1);
}

#[test]
fn nothing_but_blobs_snapshots_refs_and_absences_stays_in_the_cache() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    locate(&fp16(ID), &settings)
        .unwrap()
        .weights("unet")
        .unwrap();
    let repo = settings.cache.join("models--org--tiny-sdxl");
    let mut names: Vec<String> = std::fs::read_dir(&repo)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [".no_exist", "blobs", "refs", "snapshots"]);
    assert_eq!(
        std::fs::read_to_string(repo.join("refs/main")).unwrap(),
        COMMIT
    );
    let link = std::fs::read_link(repo.join("snapshots").join(COMMIT).join(FP16)).unwrap();
    let blob = format!("../../../blobs/{}", sha256(&content(300_000, 1)));
    assert_eq!(link, Path::new(&blob));
}

#[test]
fn a_download_continues_where_the_connection_broke() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    hub.fail(FP16, &[Fault::Cut(100_000), Fault::Cut(50_000)]);
    let files = locate(&fp16(ID), &settings(&hub, &scratch)).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
    let starts: Vec<_> = hub
        .take_downloads()
        .iter()
        .map(|r| r.range_start())
        .collect();
    assert_eq!(starts, [Some(0), Some(100_000), Some(150_000)]);
}

#[test]
fn an_abandoned_download_is_not_in_the_snapshot_and_the_next_run_continues_it() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    let mut faults = vec![Fault::Cut(100_000)];
    faults.extend([Fault::Cut(0); 4]);
    hub.fail(FP16, &faults);
    let files = locate(&fp16(ID), &settings).unwrap();
    let said = message(files.weights("unet"));
    assert_says(
        &said,
        &[
            FP16,
            "broke off at 100 kB of 300 kB",
            "run the same command again",
        ],
    );
    assert!(!is_in_snapshot(&settings, FP16));

    hub.fail(FP16, &[]);
    hub.take_requests();
    let files = locate(&fp16(ID), &settings).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
    let starts: Vec<_> = hub
        .take_downloads()
        .iter()
        .map(|r| r.range_start())
        .collect();
    assert_eq!(starts, [Some(100_000)]);
}

#[test]
fn a_body_without_a_length_that_ends_early_is_not_taken_as_the_file() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    hub.fail(FP16, &[Fault::CutUnnoticed(100_000)]);
    let files = locate(&fp16(ID), &settings(&hub, &scratch)).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
}

#[test]
fn a_server_that_ignores_the_range_does_no_harm() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    hub.fail(FP16, &[Fault::Cut(100_000), Fault::WholeFile]);
    let files = locate(&fp16(ID), &settings(&hub, &scratch)).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
}

#[test]
fn damaged_content_never_enters_the_snapshot() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    hub.fail(FP16, &[Fault::Damage; 9]);
    let files = locate(&fp16(ID), &settings).unwrap();
    let said = message(files.weights("unet"));
    assert_says(
        &said,
        &[FP16, "damaged", "SHA-256", &sha256(&content(300_000, 1))],
    );
    assert!(!is_in_snapshot(&settings, FP16));
}

#[test]
fn content_damaged_once_is_fetched_again() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    hub.fail(FP16, &[Fault::Damage]);
    let files = locate(&fp16(ID), &settings(&hub, &scratch)).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
}

#[test]
fn a_complete_part_that_was_not_renamed_is_used_without_a_request() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    let etag = sha256(&unet);
    let name = "models--org--tiny-sdxl";
    let staging = settings
        .cache
        .join(name)
        .join(".partial")
        .join(&etag)
        .join(name)
        .join("blobs");
    std::fs::create_dir_all(&staging).unwrap();
    std::fs::write(staging.join(format!("{etag}.part")), &unet).unwrap();
    let files = locate(&fp16(ID), &settings).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
    assert_eq!(hub.take_downloads().len(), 0);
}

#[test]
fn a_part_that_is_longer_than_the_file_is_fetched_again() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    let etag = sha256(&unet);
    let name = "models--org--tiny-sdxl";
    let staging = settings
        .cache
        .join(name)
        .join(".partial")
        .join(&etag)
        .join(name)
        .join("blobs");
    std::fs::create_dir_all(&staging).unwrap();
    std::fs::write(staging.join(format!("{etag}.part")), vec![0; 400_000]).unwrap();
    let files = locate(&fp16(ID), &settings).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
}

#[test]
fn a_silent_connection_is_given_up() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    let mut settings = settings(&hub, &scratch);
    settings.patience.stall = Duration::from_millis(700);
    hub.fail(FP16, &[Fault::Silence(120_000)]);
    let files = locate(&fp16(ID), &settings).unwrap();
    let said = message(files.weights("unet"));
    assert_says(
        &said,
        &[
            FP16,
            "has stopped",
            "of 300 kB",
            "run the same command again",
        ],
    );
}

/// Total length of the unfinished files below `folder`.
pub fn part_length(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let length = |path: PathBuf| match path.is_dir() {
        true => part_length(&path),
        false if path.extension().is_some_and(|end| end == "part") => {
            path.metadata().map_or(0, |data| data.len())
        }
        false => 0,
    };
    entries.map(|entry| length(entry.path())).sum()
}

#[test]
fn ctrl_c_ends_the_program_during_a_download_and_keeps_the_received_bytes() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    let index = content(400_000, 5);
    hub.change(ID, |repository| {
        repository
            .files
            .insert("model_index.json".to_owned(), index);
    });
    hub.fail("model_index.json", &[Fault::Silence(150_000)]);
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_oneactor"))
        .args(["generate-base", "--model", ID, "-p", "a cat"])
        .args(["--subject", "cat", "-o", "out"])
        .current_dir(scratch.path())
        .env_clear()
        .env("HF_HOME", scratch.path())
        .env("HF_ENDPOINT", &hub.endpoint)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let cache = scratch.path().join("hub");
    let arrived = || part_length(&cache);
    while arrived() < 100_000 {
        if program.try_wait().unwrap().is_some() {
            panic!("it ended too early: {:?}", program.wait_with_output());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let pid = program.id().to_string();
    let status = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(status.unwrap().success());
    let ended = program.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("stopped by Ctrl-C"), "{said}");
    assert!(arrived() >= 100_000, "the received bytes stay");
}

#[test]
fn a_file_requested_twice_at_once_is_fetched_once() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let files = locate(&fp16(ID), &settings).unwrap();
                assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
            });
        }
    });
    assert_eq!(hub.take_downloads().len(), 1);
}

#[test]
fn a_file_held_by_a_stalled_process_is_reported_as_held() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let mut settings = settings(&hub, &scratch);
    settings.patience.lock = Duration::from_millis(300);
    let locks = settings.cache.join(".locks/models--org--tiny-sdxl");
    std::fs::create_dir_all(&locks).unwrap();
    let lock = std::fs::File::create(locks.join(format!("{}.lock", sha256(&unet)))).unwrap();
    lock.lock().unwrap();
    let files = locate(&fp16(ID), &settings).unwrap();
    assert_says(
        &message(files.weights("unet")),
        &[FP16, "locked by another process"],
    );
    assert_eq!(hub.take_downloads().len(), 0);
}

#[test]
fn the_shards_that_an_index_names_are_fetched() {
    let hub = FakeHub::start();
    let scratch = Scratch::new();
    let shards = [content(10_000, 4), content(20_000, 5)];
    let index = r#"{"metadata": {}, "weight_map": {
        "a": "diffusion_pytorch_model-00001-of-00002.safetensors",
        "b": "diffusion_pytorch_model-00002-of-00002.safetensors",
        "c": "diffusion_pytorch_model-00002-of-00002.safetensors"}}"#;
    hub.add(
        ID,
        &[
            (
                "unet/diffusion_pytorch_model.safetensors.index.json",
                index.as_bytes(),
            ),
            (
                "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
                &shards[0],
            ),
            (
                "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
                &shards[1],
            ),
        ],
    );
    let files = locate(&options(ID), &settings(&hub, &scratch)).unwrap();
    let blobs = files.weights("unet").unwrap();
    let read: Vec<Vec<u8>> = blobs
        .iter()
        .map(|blob| bytes(std::slice::from_ref(blob)))
        .collect();
    assert_eq!(read, shards);
}

#[test]
fn a_separate_component_has_its_files_at_the_top_level() {
    let hub = FakeHub::start();
    let scratch = Scratch::new();
    let vae = content(10_000, 6);
    hub.add(
        "org/vae-fix",
        &[
            ("config.json", b"{}"),
            ("diffusion_pytorch_model.safetensors", &vae),
            ("sdxl_vae.safetensors", b"the same in another layout"),
        ],
    );
    let files = locate(&fp16("org/vae-fix"), &settings(&hub, &scratch)).unwrap();
    assert_eq!(files.text("config.json").unwrap(), "{}");
    assert_eq!(bytes(&files.weights("").unwrap()), vae);
}

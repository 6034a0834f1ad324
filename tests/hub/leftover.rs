//! Unfinished downloads of Python's `huggingface_hub` in the shared cache, and of this program for
//! Python.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use oneactor::io::model_files::Needs;

use super::cache::{python, python_command};
use super::server::{FakeHub, Fault, sha256};
use super::*;

const FP16: &str = "unet/diffusion_pytorch_model.fp16.safetensors";
const CONFIG: &str = "unet/config.json";

/// Writes Python's unfinished download as `blobs/<etag><ending>`, and returns its path.
fn leave(settings: &HubSettings, etag: &str, ending: &str, content: &[u8]) -> PathBuf {
    let blobs = settings.cache.join("models--org--tiny-sdxl/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let path = blobs.join(format!("{etag}{ending}"));
    std::fs::write(&path, content).unwrap();
    path
}

fn starts(hub: &FakeHub) -> Vec<Option<u64>> {
    let downloads = hub.take_downloads();
    downloads.iter().map(|asked| asked.range_start()).collect()
}

#[test]
fn an_unfinished_download_of_python_is_continued_in_a_copy() {
    // Older versions have one name for each file; newer ones add a name of the process.
    for ending in [".incomplete", ".0a1b2c3d.incomplete"] {
        let (hub, unet) = pipeline();
        let scratch = Scratch::new();
        let settings = settings(&hub, &scratch);
        let left = leave(&settings, &sha256(&unet), ending, &unet[..100_000]);
        let files = locate(&fp16(ID), &settings).unwrap();
        let mut needs = Needs::of(&files);
        needs.require(FP16).unwrap();
        assert_eq!(needs.found[0].missing, Some(200_000));
        assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
        assert_eq!(starts(&hub), [Some(100_000)]);
        assert_eq!(std::fs::read(left).unwrap(), unet[..100_000]);
    }
}

#[test]
fn the_longest_part_that_is_not_longer_than_the_file_is_continued() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    let etag = sha256(&unet);
    leave(&settings, &etag, ".incomplete", &unet[..50_000]);
    leave(&settings, &etag, ".00000001.incomplete", &unet[..120_000]);
    leave(&settings, &etag, ".00000002.incomplete", &[7; 300_001]);
    leave(&settings, &etag, ".00000003.incomplete", &[]);
    let files = locate(&fp16(ID), &settings).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
    assert_eq!(starts(&hub), [Some(120_000)]);
}

#[test]
fn a_part_that_is_not_the_start_of_the_file_is_detected_and_fetched_whole() {
    let (_, unet) = pipeline();
    // A writer that fills a file in any order leaves such a file.
    let mut with_hole = unet[..250_000].to_vec();
    with_hole[60_000..180_000].fill(0);
    let mut whole = unet.clone();
    whole[299_999] ^= 1;
    for (content, asked) in [
        (with_hole, vec![Some(250_000), Some(0)]),
        (whole, vec![Some(0)]),
    ] {
        let (hub, _) = pipeline();
        let scratch = Scratch::new();
        let settings = settings(&hub, &scratch);
        let left = leave(&settings, &sha256(&unet), ".incomplete", &content);
        let files = locate(&fp16(ID), &settings).unwrap();
        assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
        assert_eq!(starts(&hub), asked);
        assert_eq!(std::fs::read(left).unwrap(), content);
    }
}

#[test]
fn a_wrong_part_of_python_is_not_reported_as_damage_by_the_hub() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    leave(&settings, &sha256(&unet), ".incomplete", &[0; 300_000]);
    hub.fail(FP16, &[Fault::Damage; 2]);
    let files = locate(&fp16(ID), &settings).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
    assert_eq!(starts(&hub), [Some(0); 3]);
}

#[test]
fn a_part_that_no_hash_can_verify_is_not_used() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    // git's hash of a small file is not the hash of its bytes alone.
    let etag = &sha256(b"{\"sample_size\": 8}")[..40];
    let left = leave(&settings, etag, ".incomplete", b"[\"sample");
    let files = locate(&fp16(ID), &settings).unwrap();
    assert_eq!(files.text(CONFIG).unwrap(), "{\"sample_size\": 8}");
    assert_eq!(starts(&hub), [Some(0)]);
    assert_eq!(std::fs::read(left).unwrap(), b"[\"sample");
}

#[test]
fn an_own_unfinished_download_has_priority_over_that_of_python() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    let mut faults = vec![Fault::Cut(80_000)];
    faults.extend([Fault::Cut(0); 4]);
    hub.fail(FP16, &faults);
    let files = locate(&fp16(ID), &settings).unwrap();
    message(files.weights("unet"));
    hub.fail(FP16, &[]);
    hub.take_requests();
    leave(&settings, &sha256(&unet), ".incomplete", &[0; 100_000]);
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
    assert_eq!(starts(&hub), [Some(80_000)]);
}

/// Fetches the file and writes each received piece to disk at once.
const SLOW_PYTHON: &str = r#"
import sys
from huggingface_hub import constants, file_download, hf_hub_download
constants.DOWNLOAD_CHUNK_SIZE = 1 << 14
get = file_download.http_get
def unbuffered(url, file, **kwargs):
    write = file.write
    class Through:
        def __getattr__(self, name): return getattr(file, name)
        def write(self, data): write(data); file.flush()
    return get(url, Through(), **kwargs)
file_download.http_get = unbuffered
hf_hub_download("org/tiny-sdxl", "unet/diffusion_pytorch_model.fp16.safetensors", cache_dir=sys.argv[1])
"#;

#[test]
fn a_fetching_python_is_waited_for_and_a_killed_one_is_continued() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let mut settings = settings(&hub, &scratch);
    hub.fail(FP16, &[Fault::Silence(120_000)]);
    let mut program = python_command(SLOW_PYTHON, &settings)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let blobs = settings.cache.join("models--org--tiny-sdxl/blobs");
    let left = loop {
        let entries = std::fs::read_dir(&blobs).into_iter().flatten().flatten();
        let mut paths = entries.map(|entry| entry.path());
        let long = |path: &PathBuf| path.metadata().is_ok_and(|data| data.len() >= 80_000);
        if let Some(path) = paths.find(long) {
            break path;
        }
        assert!(program.try_wait().unwrap().is_none(), "it ended too early");
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(left.extension().unwrap(), "incomplete");
    hub.take_requests();
    settings.patience.lock = Duration::from_millis(300);
    let files = locate(&fp16(ID), &settings).unwrap();
    assert_says(
        &message(files.weights("unet")),
        &[FP16, "locked by another process"],
    );
    assert_eq!(hub.take_downloads().len(), 0);

    program.kill().unwrap();
    program.wait().unwrap();
    let length = left.metadata().unwrap().len();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
    assert_eq!(starts(&hub), [Some(length)]);
    let after = python(
        r#"
import sys
from huggingface_hub import hf_hub_download, scan_cache_dir
hf_hub_download("org/tiny-sdxl", "unet/diffusion_pytorch_model.fp16.safetensors", cache_dir=sys.argv[1], local_files_only=True)
scan = scan_cache_dir(sys.argv[1])
print(len(scan.warnings), [file.size_on_disk for file in scan.incomplete_files])
"#,
        &settings,
    );
    assert_eq!(after, format!("0 [{length}]\n"));
}

#[test]
fn an_own_unfinished_download_does_not_block_python_and_is_removed_after_it() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    let mut faults = vec![Fault::Cut(100_000)];
    faults.extend([Fault::Cut(0); 4]);
    hub.fail(FP16, &faults);
    let files = locate(&fp16(ID), &settings).unwrap();
    message(files.weights("unet"));
    let said = python(
        r#"
import sys
from huggingface_hub import hf_hub_download, scan_cache_dir
hf_hub_download("org/tiny-sdxl", "unet/diffusion_pytorch_model.fp16.safetensors", cache_dir=sys.argv[1])
scan = scan_cache_dir(sys.argv[1])
print(len(scan.warnings), len(scan.incomplete_files))
"#,
        &settings,
    );
    assert_eq!(said, "0 0\n");
    hub.take_requests();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
    assert_eq!(hub.take_downloads().len(), 0);
}

#[test]
fn an_empty_file_is_fetched_without_a_range() {
    let hub = FakeHub::start();
    let scratch = Scratch::new();
    hub.add(ID, &[("empty.safetensors", b""), ("empty.txt", b"")]);
    let files = locate(&options(ID), &settings(&hub, &scratch)).unwrap();
    for name in ["empty.safetensors", "empty.txt"] {
        assert_eq!(bytes(&[files.file(name).unwrap()]), b"");
    }
    assert_eq!(hub.take_downloads().len(), 0);
}

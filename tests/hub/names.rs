//! Names that must be encoded in an address, and the requests that the hub gets for them.

use super::fetch::{exits_with, told};
use super::server::{COMMIT, FakeHub, Request};
use super::*;

/// File names, and the end of the address that `hf_hub_url` of Python's huggingface_hub 2.4.0
/// builds for each. `python_builds_the_same_addresses` compares the table with the installed
/// version.
const FILES: [(&str, &str); 14] = [
    ("unet/config.json", "unet/config.json"),
    ("my lora#1.safetensors", "my%20lora%231.safetensors"),
    ("what?.safetensors", "what%3F.safetensors"),
    ("50%.safetensors", "50%25.safetensors"),
    ("a&b=c+d.safetensors", "a%26b%3Dc%2Bd.safetensors"),
    ("sub folder/x;y,z.json", "sub%20folder/x%3By%2Cz.json"),
    (
        "(a) [b] {c}.safetensors",
        "%28a%29%20%5Bb%5D%20%7Bc%7D.safetensors",
    ),
    ("it's \"so\".safetensors", "it%27s%20%22so%22.safetensors"),
    (
        "猫/größe é.safetensors",
        "%E7%8C%AB/gr%C3%B6%C3%9Fe%20%C3%A9.safetensors",
    ),
    ("%2e%2e/a.json", "%252e%252e/a.json"),
    ("a%2Fb.json", "a%252Fb.json"),
    (
        "~.-_$!*@:|^`<>.json",
        "~.-_%24%21%2A%40%3A%7C%5E%60%3C%3E.json",
    ),
    ("...json", "...json"),
    ("a..b/c...safetensors", "a..b/c...safetensors"),
];

/// The same for revisions.
const REVISIONS: [(&str, &str); 6] = [
    ("refs/pr/1", "refs%2Fpr%2F1"),
    ("feature/fp16-weights", "feature%2Ffp16-weights"),
    ("v1.0+cu&x", "v1.0%2Bcu%26x"),
    ("fix#12", "fix%2312"),
    ("100%25", "100%2525"),
    ("größe@x", "gr%C3%B6%C3%9Fe%40x"),
];

fn odd_hub(hub: &FakeHub) {
    let files = FILES.map(|(name, _)| (name, name.as_bytes()));
    hub.add(ID, &files);
    hub.change(ID, |repository| {
        repository.branches = REVISIONS.map(|(name, _)| name.to_owned()).to_vec();
    });
}

fn asked_of_hub(requests: &[Request]) -> Vec<String> {
    let of_hub = requests.iter().filter(|asked| !asked.cdn);
    of_hub.map(|asked| asked.path.clone()).collect()
}

#[test]
fn files_are_requested_like_python_and_cached_under_their_own_names() {
    for raw_location in [false, true] {
        let (hub, scratch) = (FakeHub::start(), Scratch::new());
        odd_hub(&hub);
        // Unencoded, `?`, `#` and `%` have a meaning of their own in an address; HTTP headers are
        // ASCII.
        let is_plain = |name: &str| name.is_ascii() && !name.contains(['?', '#', '%']);
        hub.change(ID, |repository| repository.raw_location = raw_location);
        let settings = settings(&hub, &scratch);
        let files = locate(&options(ID), &settings).unwrap();
        for (name, address) in FILES {
            if raw_location && !is_plain(name) {
                continue;
            }
            hub.take_requests();
            let fetched = files.file(name).unwrap();
            assert_eq!(bytes(&[fetched]), name.as_bytes(), "{name}");
            assert!(is_in_snapshot(&settings, name), "{name}");
            let asked = asked_of_hub(&hub.take_requests());
            assert_eq!(asked, [format!("/{ID}/resolve/{COMMIT}/{address}")]);
        }
    }
}

#[test]
fn revisions_are_requested_like_python() {
    for (revision, address) in REVISIONS {
        let (hub, scratch) = (FakeHub::start(), Scratch::new());
        odd_hub(&hub);
        let settings = settings(&hub, &scratch);
        let options = ModelOptions {
            revision: Some(revision.to_owned()),
            ..options(ID)
        };
        let files = locate(&options, &settings).unwrap();
        files.text("unet/config.json").unwrap();
        let asked = asked_of_hub(&hub.take_requests());
        let list = format!("/api/models/{ID}/revision/{address}?blobs=true");
        let file = format!("/{ID}/resolve/{COMMIT}/unet/config.json");
        assert_eq!(asked, [list, file]);
        let name = settings
            .cache
            .join("models--org--tiny-sdxl/refs")
            .join(revision);
        assert_eq!(std::fs::read_to_string(name).unwrap(), COMMIT);
        locate(&options, &settings).unwrap();
        assert_eq!(hub.take_requests().len(), 0);
    }
}

#[test]
fn python_builds_the_same_addresses() {
    let script = r#"
import json, sys
from huggingface_hub import hf_hub_url
files, revisions = json.loads(sys.argv[2])
print(json.dumps([[hf_hub_url("o/n", name, endpoint="http://h") for name in files],
                  [hf_hub_url("o/n", "f", revision=name, endpoint="http://h") for name in revisions]]))
"#;
    let names = serde_json::json!([FILES.map(|(name, _)| name), REVISIONS.map(|(name, _)| name)]);
    let (hub, scratch) = (FakeHub::start(), Scratch::new());
    let said = super::cache::python_with(script, &settings(&hub, &scratch), &[&names.to_string()]);
    let said: [Vec<String>; 2] = serde_json::from_str(&said).unwrap();
    let files = FILES.map(|(_, address)| format!("http://h/o/n/resolve/main/{address}"));
    let revisions = REVISIONS.map(|(_, address)| format!("http://h/o/n/resolve/{address}/f"));
    assert_eq!(said, [files.to_vec(), revisions.to_vec()]);
}

#[test]
fn a_mirror_at_a_path_gets_its_requests_below_this_path() {
    let (hub, scratch) = (FakeHub::start_below("/mirror/hf"), Scratch::new());
    odd_hub(&hub);
    hub.rename("org/old-name", ID);
    let settings = settings(&hub, &scratch);
    for id in [ID, "org/old-name"] {
        let files = locate(&options(id), &settings).unwrap();
        for (name, _) in &FILES[..3] {
            assert_eq!(bytes(&[files.file(name).unwrap()]), name.as_bytes());
        }
    }
    let asked = asked_of_hub(&hub.take_requests());
    let list = format!("/mirror/hf/api/models/{ID}/revision/main?blobs=true");
    assert_eq!(asked[0], list);
    assert!(asked.iter().all(|path| path.starts_with("/mirror/hf/")));
}

/// `fetch` with arguments that contain spaces.
fn fetch(hub: &FakeHub, scratch: &Scratch, arguments: &[&str]) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_oneactor"))
        .arg("fetch")
        .args(arguments)
        .current_dir(scratch.path())
        .env_clear()
        .env("HF_HOME", scratch.path())
        .env("HF_ENDPOINT", &hub.endpoint)
        .output()
        .unwrap()
}

#[test]
fn fetch_brings_a_file_of_any_name_and_prints_its_path() {
    let (hub, scratch) = (FakeHub::start(), Scratch::new());
    odd_hub(&hub);
    for name in ["my lora#1.safetensors", "猫/größe é.safetensors"] {
        let fetched = exits_with(fetch(&hub, &scratch, &[ID, "--file", name]), 0);
        let printed = String::from_utf8(fetched.stdout).unwrap();
        assert!(printed.trim_end().ends_with(name), "{printed}");
        assert_eq!(std::fs::read(printed.trim_end()).unwrap(), name.as_bytes());
    }
    hub.take_requests();
    for name in [
        "a\\b.safetensors",
        "../a.safetensors",
        "/a",
        "a//b",
        "./a",
        "",
    ] {
        let refused = exits_with(fetch(&hub, &scratch, &[ID, "--file", name]), 2);
        assert_says(
            &told(&refused),
            &[
                "--file",
                "cannot be a file of a repository",
                "unet/config.json",
            ],
        );
    }
    assert_eq!(hub.take_requests().len(), 0);
}

#[test]
fn an_address_instead_of_a_model_is_refused_with_what_to_type() {
    let (hub, scratch) = (FakeHub::start(), Scratch::new());
    odd_hub(&hub);
    let page = "https://huggingface.co/org/name/blob/main/my%20lora%231.safetensors";
    let command = "oneactor fetch org/name --file 'my lora#1.safetensors'";
    for name in [
        page,
        "hf://org/name/my lora#1.safetensors",
        "org/name/my lora#1.safetensors",
    ] {
        assert_says(
            &message(locate(&options(name), &settings(&hub, &scratch))),
            &[command],
        );
    }
    let said = message(locate(
        &options("https://huggingface.co/org/name"),
        &settings(&hub, &scratch),
    ));
    assert_says(
        &said,
        &["is an address", "give the repository's id, org/name"],
    );
    let said = message(locate(
        &options("https://me:hf_secret@some.where/a.safetensors?token=hf_secret"),
        &settings(&hub, &scratch),
    ));
    assert_says(&said, &["is an address", "fetch the file yourself"]);
    assert!(!said.contains("hf_secret"), "{said}");
    let lora = std::process::Command::new(env!("CARGO_BIN_EXE_oneactor"))
        .args([
            "generate-base",
            "--model",
            "toy",
            "-p",
            "a cat",
            "--subject",
            "cat",
        ])
        .args(["-o", "out", "--lora", &format!("{page}:0.8")])
        .current_dir(scratch.path())
        .output()
        .unwrap();
    assert_says(&told(&exits_with(lora, 2)), &["--lora", command]);
    assert_eq!(hub.take_requests().len(), 0);
}

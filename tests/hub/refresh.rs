//! `oneactor fetch --refresh`: the hub is asked again for a cached branch; the branch moves only
//! once all its files are there.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use super::download::part_length;
use super::fetch::{UNET, command, exits_with, hub, lines, oneactor, others, run, told};
use super::server::{COMMIT, FakeHub, Fault, Request};
use super::*;

const MODEL: &str = "org/small";
const REFRESH: &str = "fetch org/small --refresh";

fn newer() -> String {
    "b".repeat(40)
}

/// A hub whose U-Net weights have changed since the cache was filled.
fn moved_hub() -> (FakeHub, Scratch) {
    let (hub, scratch) = (hub(), Scratch::new());
    exits_with(oneactor(&hub, &scratch, "fetch org/small"), 0);
    push(&hub, MODEL, UNET, &content(200_000, 9));
    hub.take_requests();
    (hub, scratch)
}

/// Adds a commit with another content of one file.
fn push(hub: &FakeHub, id: &str, name: &str, content: &[u8]) {
    hub.change(id, |repository| {
        repository.commit = newer();
        repository.files.insert(name.to_owned(), content.to_vec());
    });
}

fn main_of(scratch: &Scratch, folder: &str) -> String {
    let path = scratch
        .path()
        .join("home/hub")
        .join(folder)
        .join("refs/main");
    std::fs::read_to_string(path).unwrap()
}

fn small(scratch: &Scratch) -> String {
    main_of(scratch, "models--org--small")
}

/// The paths that `fetch --offline` finds; all must be of this commit.
#[track_caller]
fn assert_whole(hub: &FakeHub, scratch: &Scratch, commit: &str) -> Vec<String> {
    let found = lines(&exits_with(
        oneactor(hub, scratch, "fetch org/small --offline"),
        0,
    ));
    assert!(found.iter().any(|path| path.ends_with(UNET)), "{found:?}");
    assert!(
        found
            .iter()
            .all(|path| path.contains(commit) && Path::new(path).is_file()),
        "{found:?}"
    );
    found
}

fn lists(requests: &[Request]) -> Vec<&str> {
    let paths = requests.iter().map(|asked| asked.path.as_str());
    paths.filter(|path| path.starts_with("/api/")).collect()
}

#[test]
fn a_refresh_follows_a_moved_branch_and_fetches_only_changed_files() {
    let (hub, scratch) = moved_hub();
    exits_with(oneactor(&hub, &scratch, "fetch org/small"), 0);
    assert_eq!(hub.take_requests().len(), 0);
    assert_eq!(small(&scratch), COMMIT);

    let renewed = exits_with(oneactor(&hub, &scratch, REFRESH), 0);
    let said = format!("main of org/small was renewed from {COMMIT} to {}", newer());
    assert_says(
        &told(&renewed),
        &[&said, "of which 200 kB were fetched now"],
    );
    let asked = hub.take_downloads();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].path.contains(UNET));
    assert_eq!(small(&scratch), newer());
    let found = assert_whole(&hub, &scratch, &newer());
    let unet = found.iter().find(|path| path.ends_with(UNET)).unwrap();
    assert_eq!(std::fs::read(unet).unwrap(), content(200_000, 9));
    // The old commit can still be named.
    let old = format!("fetch org/small --offline --revision {COMMIT}");
    exits_with(oneactor(&hub, &scratch, &old), 0);
}

#[test]
fn a_branch_that_has_not_moved_costs_one_request_for_each_repository() {
    let (hub, scratch) = (hub(), Scratch::new());
    others(&hub);
    let line =
        "fetch org/small org/vae --variant fp16 --controlnet org/control --ip-adapter org/adapter";
    // The toy has no variant.
    let line = line.replace(" --variant fp16", "");
    let first = lines(&exits_with(oneactor(&hub, &scratch, &line), 0));
    hub.take_requests();
    let again = exits_with(oneactor(&hub, &scratch, &format!("{line} --refresh")), 0);
    assert_eq!(lines(&again), first);
    let still = format!("main of org/small is still at {COMMIT}");
    assert_says(&told(&again), &[&still, "of which 0 B were fetched now"]);
    let asked = hub.take_requests();
    let mut asked = lists(&asked);
    asked.sort_unstable();
    let expected: Vec<String> = ["adapter", "control", "small", "vae"]
        .map(|name| format!("/api/models/org/{name}/revision/main?blobs=true"))
        .to_vec();
    assert_eq!(asked, expected);
}

#[test]
fn a_dry_run_of_a_refresh_lists_its_files_and_moves_no_branch() {
    let (hub, scratch) = moved_hub();
    let line = format!("{REFRESH} --dry-run");
    let planned = exits_with(oneactor(&hub, &scratch, &line), 0);
    let said = format!("main of org/small has moved from {COMMIT} to {}", newer());
    assert_says(&told(&planned), &[&said, "200 kB still to be fetched"]);
    assert_eq!(small(&scratch), COMMIT);
    assert_whole(&hub, &scratch, COMMIT);
    let line = format!("{REFRESH} --dry-run --format json");
    let planned = exits_with(oneactor(&hub, &scratch, &line), 0);
    let model: serde_json::Value = serde_json::from_str(lines(&planned).last().unwrap()).unwrap();
    assert_eq!(model["previous_revision"], COMMIT);
    assert_eq!(model["revision"], newer());
}

#[test]
fn an_interrupted_refresh_leaves_the_old_state_and_the_next_one_continues() {
    let (hub, scratch) = moved_hub();
    hub.fail(UNET, &[Fault::Silence(100_000)]);
    let mut program = command(&hub, &scratch, REFRESH)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let cache = scratch.path().join("home/hub");
    while part_length(&cache) < 100_000 {
        assert!(program.try_wait().unwrap().is_none(), "it ended too early");
        thread::sleep(Duration::from_millis(20));
    }
    program.kill().unwrap();
    program.wait().unwrap();
    assert_eq!(small(&scratch), COMMIT);
    assert_whole(&hub, &scratch, COMMIT);
    hub.take_requests();
    exits_with(oneactor(&hub, &scratch, "fetch org/small"), 0);
    assert_eq!(hub.take_requests().len(), 0);

    hub.fail(UNET, &[]);
    exits_with(oneactor(&hub, &scratch, REFRESH), 0);
    assert_eq!(hub.take_downloads()[0].range_start(), Some(100_000));
    assert_whole(&hub, &scratch, &newer());
}

#[test]
fn a_removed_file_is_reported_and_a_removed_needed_file_keeps_the_old_state() {
    let (hub, scratch) = moved_hub();
    hub.change(MODEL, |repository| {
        repository.files.remove("LICENSE.md");
    });
    let renewed = exits_with(oneactor(&hub, &scratch, REFRESH), 0);
    assert_says(
        &told(&renewed),
        &["main of org/small no longer has LICENSE.md"],
    );
    assert_whole(&hub, &scratch, &newer());

    hub.change(MODEL, |repository| {
        repository.commit = "c".repeat(40);
        repository.files.remove(UNET);
    });
    let refused = exits_with(oneactor(&hub, &scratch, REFRESH), 3);
    assert_says(&told(&refused), &["unet"]);
    assert_eq!(small(&scratch), newer());
    assert_whole(&hub, &scratch, &newer());
}

#[test]
fn all_cached_files_of_a_branch_are_renewed_even_if_one_file_is_named() {
    let (hub, scratch) = (hub(), Scratch::new());
    others(&hub);
    for name in ["a", "b"] {
        let line = format!("fetch org/lora --file {name}.safetensors");
        exits_with(oneactor(&hub, &scratch, &line), 0);
    }
    push(&hub, "org/lora", "b.safetensors", b"new");
    let line = "fetch org/lora --file a.safetensors --refresh";
    let renewed = exits_with(oneactor(&hub, &scratch, line), 0);
    assert_eq!(lines(&renewed).len(), 1);
    assert_says(
        &told(&renewed),
        &["the cache has 1 other file of this branch, renewed too: 3 B fetched"],
    );
    assert_eq!(main_of(&scratch, "models--org--lora"), newer());
    for (name, content) in [("a", "a"), ("b", "new")] {
        let line = format!("fetch org/lora --offline --file {name}.safetensors");
        let found = lines(&exits_with(oneactor(&hub, &scratch, &line), 0));
        assert_eq!(std::fs::read_to_string(&found[0]).unwrap(), content);
    }
}

#[test]
fn a_refresh_with_offline_is_refused_and_without_a_network_fails() {
    let (hub, scratch) = moved_hub();
    let flag = exits_with(oneactor(&hub, &scratch, &format!("{REFRESH} --offline")), 2);
    assert_says(
        &told(&flag),
        &[
            "refreshing",
            "the option offline",
            "leave one of the two out",
        ],
    );
    for variable in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
        let refused = exits_with(run(&hub, &scratch, REFRESH, &[(variable, "1")]), 2);
        assert_says(&told(&refused), &["refreshing", variable]);
    }
    assert_eq!(hub.take_requests().len(), 0);
    hub.go_down();
    let cut = exits_with(oneactor(&hub, &scratch, REFRESH), 3);
    assert_says(&told(&cut), &["cannot reach", MODEL]);
    assert_eq!(small(&scratch), COMMIT);
    assert_whole(&hub, &scratch, COMMIT);
    exits_with(oneactor(&hub, &scratch, "fetch org/small"), 0);
}

#[test]
fn a_commit_cannot_be_refreshed_and_a_tag_can() {
    let (hub, scratch) = moved_hub();
    let line = format!("{REFRESH} --revision {COMMIT}");
    let refused = exits_with(oneactor(&hub, &scratch, &line), 2);
    assert_says(&told(&refused), &[COMMIT, "never changes"]);
    hub.change(MODEL, |repository| {
        repository.branches.push("v1/fp32".to_owned())
    });
    let line = format!("{REFRESH} --revision v1/fp32");
    let fetched = exits_with(oneactor(&hub, &scratch, &line), 0);
    assert_says(
        &told(&fetched),
        &["v1/fp32 of org/small was not in the cache before"],
    );
    // The other branch stays where it was.
    assert_eq!(small(&scratch), COMMIT);
    exits_with(
        oneactor(
            &hub,
            &scratch,
            "fetch org/small --offline --revision v1/fp32",
        ),
        0,
    );
}

#[test]
fn python_sees_the_renewed_branch() {
    let (hub, scratch) = moved_hub();
    exits_with(oneactor(&hub, &scratch, REFRESH), 0);
    let mut settings = HubSettings::new(scratch.path().join("home/hub"));
    settings.endpoint = hub.endpoint.clone().into();
    hub.go_down();
    let said = super::cache::python(
        r#"
import sys
from huggingface_hub import hf_hub_download, scan_cache_dir
path = hf_hub_download("org/small", "unet/diffusion_pytorch_model.safetensors", cache_dir=sys.argv[1], local_files_only=True)
print(path.split("/snapshots/")[1][:2], len(open(path, "rb").read()), len(scan_cache_dir(sys.argv[1]).warnings))
"#,
        &settings,
    );
    assert_eq!(said, "bb 200000 0\n");
}

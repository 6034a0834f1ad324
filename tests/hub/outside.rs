//! Names that a hostile repository may give to its files: nothing is ever written outside the
//! cache, nor read from outside a folder.

use super::server::COMMIT;
use super::*;

/// Everything below a folder with its content; links are not followed.
fn everything(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_folder = path.is_dir() && !path.is_symlink();
            let content = std::fs::read(&path).unwrap_or_default();
            found.push((path.display().to_string(), content));
            if is_folder {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Names that lead out of their folder, or to no file.
const NAMES: [&str; 8] = [
    "../../../../outside.json",
    "unet/../../../../../outside.json",
    "/tmp/oneactor-outside.json",
    "//outside.json",
    "unet//config.json",
    "./unet/config.json",
    "",
    "..",
];

#[test]
fn a_listing_with_a_name_that_leads_outside_is_refused_whole() {
    for name in NAMES {
        let (hub, scratch) = (FakeHub::start(), Scratch::new());
        hub.add(
            ID,
            &[
                ("model_index.json", b"{}"),
                ("unet/config.json", b"{}"),
                (name, b"evil"),
            ],
        );
        // The places that these names would lead to.
        std::fs::create_dir_all(scratch.path().join("hub/models--org--tiny-sdxl")).unwrap();
        let before = everything(scratch.path());
        let settings = settings(&hub, &scratch);
        let said = message(locate(&options(ID), &settings));
        assert_says(&said, &["strange answer", "outside of its folder"]);
        assert_eq!(everything(scratch.path()), before, "{name:?}");
        assert!(!Path::new("/tmp/oneactor-outside.json").exists());
    }
}

#[test]
fn a_name_that_fits_no_address_is_refused_before_any_request_and_other_files_still_load() {
    for name in [
        "..\\..\\..\\other\\name\\resolve\\main\\a.json",
        "unet\\config.json",
        "unet/\u{1b}[2Jconfig.json",
        "a\u{0}.json",
    ] {
        let (hub, scratch) = (FakeHub::start(), Scratch::new());
        hub.add(ID, &[("unet/config.json", b"{}"), (name, b"evil")]);
        let files = locate(&options(ID), &settings(&hub, &scratch)).unwrap();
        assert_eq!(files.text("unet/config.json").unwrap(), "{}");
        hub.take_requests();
        let before = everything(scratch.path());
        let error = files.file(name).unwrap_err();
        assert_eq!(kind_of(&error), ErrorKind::Usage);
        assert_says(&error.to_string(), &["cannot be a file of a repository"]);
        assert_eq!(hub.take_requests().len(), 0);
        assert_eq!(everything(scratch.path()), before);
    }
}

#[test]
fn a_name_that_leads_out_of_the_cache_reads_and_writes_nothing_there() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    std::fs::write(scratch.path().join("mine.json"), "mine").unwrap();
    let files = locate(&options(ID), &settings).unwrap();
    files.text("unet/config.json").unwrap();
    hub.take_requests();
    let before = everything(scratch.path());
    // The name climbs four folders up from hub/models--org--tiny-sdxl/snapshots/COMMIT.
    let absolute = scratch.path().join("mine.json").display().to_string();
    for name in [
        NAMES[0],
        "../../../../mine.json",
        "unet/./config.json",
        "unet/",
        &absolute,
    ] {
        let error = files.optional_text(name).unwrap_err();
        assert_eq!(kind_of(&error), ErrorKind::Usage, "{error}");
        assert_says(
            &error.to_string(),
            &[name, "cannot be a file of a repository"],
        );
    }
    assert_eq!(hub.take_requests().len(), 0);
    assert_eq!(everything(scratch.path()), before);
}

#[test]
fn a_commit_that_is_a_path_is_refused() {
    for commit in ["../../../../tmp/outside", "/tmp/outside", "main", ""] {
        let (hub, _) = pipeline();
        let scratch = Scratch::new();
        hub.change(ID, |repository| repository.commit = commit.to_owned());
        let said = message(locate(&options(ID), &settings(&hub, &scratch)));
        assert_says(&said, &["strange answer", "commit"]);
        assert!(everything(scratch.path()).is_empty());
    }
}

#[test]
fn an_etag_that_is_a_path_is_refused_and_nothing_is_written() {
    for etag in [
        "../../../../outside",
        "/tmp/oneactor-outside",
        "..",
        "a\\b",
        "a.part",
    ] {
        let hub = FakeHub::start();
        let scratch = Scratch::new();
        hub.add(ID, &[("unet/config.json", b"{}")]);
        hub.change(ID, |repository| repository.etag = Some(etag.to_owned()));
        let settings = settings(&hub, &scratch);
        let files = locate(&options(ID), &settings).unwrap();
        let said = message(files.text("unet/config.json"));
        assert_says(&said, &["strange answer"]);
        let there = everything(scratch.path());
        let inside = settings.cache.display().to_string();
        assert!(
            there.iter().all(|(path, _)| path.starts_with(&inside)),
            "{there:?}"
        );
        assert!(
            !there.iter().any(|(_, content)| content == b"{}"),
            "{there:?}"
        );
        assert!(!Path::new("/tmp/oneactor-outside").exists());
    }
}

#[test]
fn shards_whose_names_are_not_plain_file_names_are_refused_here_and_on_the_hub() {
    let index = "unet/diffusion_pytorch_model.safetensors.index.json";
    for name in [
        "../shard.safetensors",
        "/tmp/shard.safetensors",
        "..\\\\shard.safetensors",
        "C:shard.safetensors",
        "C:\\\\shard.safetensors",
        "a\\u0000.safetensors",
        "..",
        "shard.bin",
        "shard.ckpt",
    ] {
        let map = format!(r#"{{"weight_map": {{"a": "{name}"}}}}"#);
        let files: &[(&str, &[u8])] = &[("model_index.json", b"{}"), (index, map.as_bytes())];
        let (hub, scratch) = (FakeHub::start(), Scratch::new());
        hub.add(ID, files);
        let remote = locate(&options(ID), &settings(&hub, &scratch)).unwrap();
        let local = scratch.path().join("local");
        for (path, content) in files {
            std::fs::create_dir_all(local.join(path).parent().unwrap()).unwrap();
            std::fs::write(local.join(path), content).unwrap();
        }
        let local = locate(&options(local.to_str().unwrap()), &settings(&hub, &scratch)).unwrap();
        for files in [remote, local] {
            let said = message(files.weights("unet"));
            assert_says(&said, &[index, "expected a safetensors file beside it"]);
        }
    }
}

#[test]
fn a_link_in_the_cache_is_replaced_and_its_target_is_untouched() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    let precious = scratch.path().join("precious");
    std::fs::write(&precious, "mine").unwrap();
    let snapshot = settings
        .cache
        .join("models--org--tiny-sdxl/snapshots")
        .join(COMMIT);
    std::fs::create_dir_all(snapshot.join("unet")).unwrap();
    // The link leads to a file that does not exist, through a folder beside the cache, so the
    // cached file counts as missing.
    let link = snapshot.join("unet/config.json");
    std::os::unix::fs::symlink(scratch.path().join("created-by-link"), &link).unwrap();
    let files = locate(&options(ID), &settings).unwrap();
    assert_eq!(
        files.text("unet/config.json").unwrap(),
        "{\"sample_size\": 8}"
    );
    assert!(!scratch.path().join("created-by-link").exists());
    assert_eq!(std::fs::read(&precious).unwrap(), b"mine");
}

#[test]
fn an_endless_answer_is_cut_at_the_announced_length() {
    let hub = FakeHub::start();
    let scratch = Scratch::new();
    hub.add(ID, &[("unet/config.json", &content(100_000, 1))]);
    hub.fail("unet/config.json", &[server::Fault::Endless; 9]);
    let settings = settings(&hub, &scratch);
    let files = locate(&options(ID), &settings).unwrap();
    message(files.text("unet/config.json"));
    let there = everything(&settings.cache);
    let most = there.iter().map(|(_, content)| content.len()).max();
    assert!(most.unwrap_or(0) <= 100_000, "{most:?}");
}

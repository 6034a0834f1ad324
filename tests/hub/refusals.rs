//! Messages for files that the hub does not have or does not give out.

use super::server::{COMMIT, FakeHub, Fault};
use super::*;

#[test]
fn a_gated_repository_without_a_token_says_where_to_accept_and_what_to_set() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    hub.change(ID, |repository| repository.gated = true);
    let files = locate(&options(ID), &settings(&hub, &scratch)).unwrap();
    let page = format!("accept its licence at {}/{ID}", hub.endpoint);
    assert_says(
        &message(files.text("unet/config.json")),
        &["gated", &page, "HF_TOKEN"],
    );
}

#[test]
fn a_refused_token_is_named_by_its_origin_and_never_shown() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    let settings = with_token(settings(&hub, &scratch), "hf_worn_out");
    let said = message(locate(&options(ID), &settings));
    assert_says(
        &said,
        &["the token from HF_TOKEN is refused", "status 401", ID],
    );
    assert!(!said.contains("worn_out") && !format!("{settings:?}").contains("worn_out"));
}

#[test]
fn a_missing_repository_is_named_with_and_without_a_token() {
    let hub = FakeHub::start();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    let said = message(locate(&options("org/nothing"), &settings));
    assert_says(
        &said,
        &[
            "org/nothing",
            "no repository of this name, or it is private or gated",
        ],
    );
    let said = message(locate(
        &options("org/nothing"),
        &with_token(settings, server::GOOD_TOKEN),
    ));
    assert_says(
        &said,
        &[
            "no folder org/nothing here and no repository org/nothing",
            "check the spelling",
        ],
    );
}

#[test]
fn a_missing_revision_is_named() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    let options = ModelOptions {
        revision: Some("v9".to_owned()),
        ..options(ID)
    };
    let said = message(locate(&options, &settings(&hub, &scratch)));
    assert_says(&said, &[ID, "no revision `v9`", "leave the revision out"]);
}

#[test]
fn a_missing_file_is_named_with_the_nearest_name() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    let files = locate(&options(ID), &settings(&hub, &scratch)).unwrap();
    let said = message(files.text("unet/confg.json"));
    assert_says(
        &said,
        &["no file unet/confg.json", ID, "main", "unet/config.json"],
    );
}

#[test]
fn weights_that_exist_only_as_a_variant_are_named() {
    let hub = FakeHub::start();
    let scratch = Scratch::new();
    hub.add(
        ID,
        &[("unet/diffusion_pytorch_model.fp16.safetensors", b"weights")],
    );
    let files = locate(&options(ID), &settings(&hub, &scratch)).unwrap();
    let said = message(files.weights("unet"));
    assert_says(&said, &[ID, "unet", "set the option variant to fp16"]);
    assert_eq!(hub.take_downloads().len(), 0);
}

#[test]
fn a_variant_that_no_file_has_is_refused_before_anything_is_fetched() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    let options = ModelOptions {
        variant: Some("f16".to_owned()),
        ..options(ID)
    };
    let said = message(locate(&options, &settings(&hub, &scratch)));
    assert_says(&said, &["variant `f16`", "found fp16"]);
}

#[test]
fn pickled_weights_are_refused() {
    let hub = FakeHub::start();
    let scratch = Scratch::new();
    hub.add(ID, &[("unet/diffusion_pytorch_model.bin", b"\x80\x02")]);
    let files = locate(&options(ID), &settings(&hub, &scratch)).unwrap();
    let said = message(files.weights("unet"));
    assert_says(
        &said,
        &["unet", "diffusion_pytorch_model.bin", "pickle is refused"],
    );
    assert_eq!(hub.take_downloads().len(), 0);
}

#[test]
fn an_index_that_names_a_file_elsewhere_or_a_missing_one_is_refused() {
    let hub = FakeHub::start();
    let scratch = Scratch::new();
    let index = "unet/diffusion_pytorch_model.safetensors.index.json";
    for (map, piece) in [
        (
            r#"{"weight_map": {"a": "../../../etc/passwd"}}"#,
            "../../../etc/passwd",
        ),
        (
            r#"{"weight_map": {"a": "gone.safetensors"}}"#,
            "unet/gone.safetensors",
        ),
        (r#"{"weight_map": 3}"#, "expected"),
        (r#"{"weight_map": {}}"#, "names no file"),
    ] {
        hub.add(ID, &[(index, map.as_bytes())]);
        let scratch = Scratch::new();
        let files = locate(&options(ID), &settings(&hub, &scratch)).unwrap();
        assert_says(&message(files.weights("unet")), &[index, piece]);
    }
    drop(scratch);
}

#[test]
fn without_network_and_cache_the_message_says_what_to_do() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    hub.go_down();
    let said = message(locate(&options(ID), &settings(&hub, &scratch)));
    assert_says(
        &said,
        &[
            "cannot reach",
            &hub.endpoint,
            ID,
            "folder",
            "the option offline",
        ],
    );

    let mut unreachable = settings(&hub, &scratch);
    unreachable.endpoint = "http://127.0.0.1:1".to_owned().into();
    let said = message(locate(&options(ID), &unreachable));
    assert_says(&said, &["cannot reach http://127.0.0.1:1", "refused"]);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    // First before any request to the hub …
    std::fs::write(&settings.cache, "a file where the folder should be").unwrap();
    let said = format!("{:#}", locate(&options(ID), &settings).unwrap_err());
    assert_says(&said, &["the cache of the hub, see HF_HOME", "is a file"]);
    // … then with only the folder of this repository blocked.
    std::fs::remove_file(&settings.cache).unwrap();
    std::fs::create_dir(&settings.cache).unwrap();
    let repository = format!("models--{}", ID.replace('/', "--"));
    std::fs::write(settings.cache.join(repository), "a file").unwrap();
    let files = locate(&options(ID), &settings).unwrap();
    let said = message(files.text("unet/config.json"));
    assert_says(&said, &["cannot write unet/config.json to the cache"]);
}

#[test]
fn the_signed_part_of_an_address_is_not_shown() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    hub.fail(
        "unet/diffusion_pytorch_model.fp16.safetensors",
        &[Fault::Cut(0); 9],
    );
    let files = locate(&fp16(ID), &settings(&hub, &scratch)).unwrap();
    let said = message(files.weights("unet"));
    assert!(!said.contains("Signature"), "{said}");
}

#[test]
fn an_invalid_revision_is_refused_as_a_wrong_flag() {
    let (hub, _) = pipeline();
    let scratch = Scratch::new();
    for revision in [
        "", "../../x", "a b", "-x", "a:b", "a\\b", "a//b", "a.lock", "a@{1}", "@",
    ] {
        let options = ModelOptions {
            revision: Some(revision.to_owned()),
            ..options(ID)
        };
        let error = locate(&options, &settings(&hub, &scratch)).unwrap_err();
        assert_eq!(kind_of(&error), ErrorKind::Usage, "{error}");
    }
    let full = ModelOptions {
        revision: Some(COMMIT.to_uppercase()),
        ..options(ID)
    };
    assert!(locate(&full, &settings(&hub, &scratch)).is_ok());
}

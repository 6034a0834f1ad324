//! Models that are not repositories: folders, single files, the toy, and names that are none of
//! these.

use super::*;

/// Locates a model without settings of the hub: a model that is not on the hub must not ask for
/// them.
fn local(options: &ModelOptions) -> anyhow::Result<ModelFiles> {
    ModelFiles::locate_with(options, &|| panic!("the hub was asked for"))
}

fn folder(files: &[(&str, &[u8])]) -> (Scratch, ModelOptions) {
    let scratch = Scratch::new();
    for (name, bytes) in files {
        let path = scratch.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let options = options(scratch.path().to_str().unwrap());
    (scratch, options)
}

#[test]
fn a_folder_gives_its_texts_and_weights() {
    let (_scratch, options) = folder(&[
        ("model_index.json", b"{}"),
        ("unet/config.json", b"{\"a\": 1}"),
        ("unet/diffusion_pytorch_model.safetensors", b"plain"),
        ("unet/diffusion_pytorch_model.fp16.safetensors", b"half"),
        ("vae/diffusion_pytorch_model.safetensors", b"vae"),
    ]);
    let files = local(&options).unwrap();
    assert_eq!(files.name(), options.model);
    assert_eq!(files.revision(), None);
    assert_eq!(files.text("unet/config.json").unwrap(), "{\"a\": 1}");
    assert_eq!(files.optional_text("tokenizer/merges.txt").unwrap(), None);
    assert_eq!(bytes(&files.weights("unet").unwrap()), b"plain");
    let half = ModelOptions {
        variant: Some("fp16".to_owned()),
        ..options.clone()
    };
    let files = local(&half).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), b"half");
    assert_eq!(bytes(&files.weights("vae").unwrap()), b"vae");
}

#[test]
fn files_that_a_folder_lacks_are_named_with_what_was_found_and_expected() {
    let (_scratch, options) = folder(&[
        ("model_index.json", b"{}"),
        ("unet/config.json", b"{}"),
        ("vae/diffusion_pytorch_model.bin", b"\x80"),
        ("text_encoder/model.fp16.safetensors", b"half"),
    ]);
    let files = local(&options).unwrap();
    let said = message(files.weights("unet"));
    assert_says(
        &said,
        &[
            &options.model,
            "found config.json",
            "expected unet/diffusion_pytorch_model.safetensors",
        ],
    );
    assert_says(&message(files.weights("vae")), &["pickle is refused"]);
    assert_says(
        &message(files.weights("text_encoder")),
        &["set the option variant to fp16"],
    );
    assert_says(
        &message(files.text("vae/config.json")),
        &["no file vae/config.json", &options.model],
    );
    assert_says(
        &message(files.weights("text_encoder_2")),
        &["found nothing"],
    );
}

#[test]
fn a_text_that_is_not_utf_8_is_named() {
    let (_scratch, options) = folder(&[("model_index.json", b"{}"), ("unet/config.json", b"\xff")]);
    let files = local(&options).unwrap();
    assert_says(
        &message(files.text("unet/config.json")),
        &["unet/config.json", "UTF-8"],
    );
}

#[test]
fn a_pointer_of_git_lfs_is_not_taken_as_weights() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    let (_scratch, options) = folder(&[
        ("model_index.json", b"{}"),
        ("unet/diffusion_pytorch_model.safetensors", pointer),
    ]);
    let files = local(&options).unwrap();
    assert_says(
        &message(files.weights("unet")),
        &["git-lfs", "git lfs pull"],
    );
}

#[test]
fn a_folder_that_is_not_a_model_is_refused() {
    let (_scratch, options) = folder(&[("notes.txt", b"x")]);
    assert_says(
        &message(local(&options)),
        &[&options.model, "model_index.json"],
    );
    let (_scratch, options) = folder(&[("sd_xl_base_1.0.safetensors", b"x")]);
    assert_says(
        &message(local(&options)),
        &["sd_xl_base_1.0.safetensors", "give the file itself"],
    );
    let (_scratch, options) = folder(&[("snapshots/abc/model_index.json", b"{}")]);
    assert_says(&message(local(&options)), &["hub's cache", "snapshots"]);
}

#[test]
fn a_file_that_is_not_a_checkpoint_is_refused_with_what_to_do() {
    let (scratch, _) = folder(&[("m.safetensors", b"x"), ("m.ckpt", b"x"), ("m.txt", b"x")]);
    let path = |name: &str| options(scratch.path().join(name).to_str().unwrap());
    assert_says(
        &message(local(&path("m.safetensors"))),
        &["m.safetensors", "not a whole safetensors file"],
    );
    assert_says(&message(local(&path("m.ckpt"))), &["pickled", "refused"]);
    assert_says(&message(local(&path("m.txt"))), &["is a file", "expected"]);
}

#[test]
fn a_missing_path_is_reported_as_missing_and_not_searched_on_the_hub() {
    for name in [
        "./models/sdxl",
        "/nowhere/sdxl",
        "~/sdxl",
        "a/b/c",
        "models/",
        "org/m.safetensors",
        "x.ckpt",
    ] {
        assert_says(
            &message(local(&options(name))),
            &["no file or folder", name],
        );
    }
    for name in ["sdxl", "", "a b/c", "org/na--me", "Toy"] {
        assert_says(&message(local(&options(name))), &["owner/name", "`toy`"]);
    }
}

#[test]
fn the_toy_model_is_in_the_binary() {
    let files = local(&options("toy")).unwrap();
    assert_eq!(files.name(), "toy");
    assert_eq!(files.revision(), None);
    assert!(
        files
            .text("model_index.json")
            .unwrap()
            .contains("StableDiffusionXLPipeline")
    );
    for component in ["unet", "vae", "text_encoder", "text_encoder_2"] {
        let blobs = files.weights(component).unwrap();
        assert!(matches!(&blobs[..], [Blob::Embedded { bytes, .. }] if bytes.len() > 1000));
        files.text(&format!("{component}/config.json")).unwrap();
    }
    assert_eq!(
        files
            .optional_text("feature_extractor/config.json")
            .unwrap(),
        None
    );
    assert_says(
        &message(files.text("unet/confi.json")),
        &["toy", "unet/config.json"],
    );
}

#[test]
fn a_revision_of_a_model_that_is_not_a_repository_is_refused_as_a_wrong_flag() {
    let options = ModelOptions {
        revision: Some("main".to_owned()),
        ..options("toy")
    };
    let error = local(&options).unwrap_err();
    assert_eq!(kind_of(&error), ErrorKind::Usage);
    assert_says(&error.to_string(), &["revision `main`", "toy"]);
}

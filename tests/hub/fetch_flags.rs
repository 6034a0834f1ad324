//! Combinations of flags of `oneactor fetch`, and environment variables that are for other
//! commands.

use super::fetch::{UNET, exits_with, hub, lines, oneactor, others, run, told};
use super::server::FakeHub;
use super::*;
use oneactor::io::ip_adapter::REPOSITORY;

const ADAPTER: &str = "sdxl_models/ip-adapter_sdxl.safetensors";

fn hub_with_others() -> (FakeHub, Scratch) {
    let hub = hub();
    others(&hub);
    (hub, Scratch::new())
}

#[test]
fn flags_without_effect_are_refused_and_variables_without_effect_are_not() {
    let (hub, scratch) = hub_with_others();
    let file = "fetch org/lora --file b.safetensors";
    for (line, message) in [
        (
            "fetch org/lora --file b.safetensors --variant fp16",
            "cannot be used with",
        ),
        (
            "fetch org/small --image-encoder org/clip",
            "--image-encoder has no effect without --ip-adapter",
        ),
    ] {
        let refused = exits_with(oneactor(&hub, &scratch, line), 2);
        assert_says(&told(&refused), &[message]);
    }
    let everything = [
        ("ONEACTOR_VARIANT", "fp16"),
        ("ONEACTOR_VAE", "org/vae"),
        ("ONEACTOR_CONTROLNET", "org/control:0.8"),
        ("ONEACTOR_IP_ADAPTER", "org/adapter"),
        ("ONEACTOR_IMAGE_ENCODER", "org/clip"),
    ];
    let fetched = exits_with(run(&hub, &scratch, file, &everything), 0);
    assert_eq!(lines(&fetched).len(), 1, "{:?}", lines(&fetched));
    let encoder = [("ONEACTOR_IMAGE_ENCODER", "org/clip")];
    exits_with(run(&hub, &scratch, "fetch org/small", &encoder), 0);
    // A typed flag may refer to the adapter that a variable names.
    let typed = "fetch org/small --image-encoder org/clip";
    let adapter = [("ONEACTOR_IP_ADAPTER", "org/adapter")];
    let fetched = lines(&exits_with(run(&hub, &scratch, typed, &adapter), 0));
    assert!(fetched.iter().any(|path| path.ends_with(ADAPTER)));
    // A typed flag replaces the variable that it conflicts with: --variant replaces ONEACTOR_FILE.
    let variant = "fetch org/control --variant fp16";
    let variable = [("ONEACTOR_FILE", "a.safetensors")];
    exits_with(run(&hub, &scratch, variant, &variable), 0);
}

#[test]
fn switches_and_scales_of_the_environment_are_read() {
    let (hub, scratch) = hub_with_others();
    let variables = [
        ("ONEACTOR_DRY_RUN", "1"),
        ("ONEACTOR_VERBOSE", "1"),
        ("ONEACTOR_CONTROLNET", "org/control:0.8"),
    ];
    let planned = exits_with(run(&hub, &scratch, "fetch org/small", &variables), 0);
    assert_says(&told(&planned), &["settings: {\"org/small\":"]);
    let control = "org--control";
    assert!(lines(&planned).iter().any(|path| path.contains(control)));
    let weights = hub.take_downloads();
    assert!(!weights.iter().any(|asked| asked.path.contains(UNET)));
}

#[test]
fn an_adapter_is_fetched_for_models_that_draw_and_its_files_are_listed_once() {
    let (hub, scratch) = hub_with_others();
    let line = "fetch org/small org/control toy --ip-adapter org/adapter";
    let fetched = lines(&exits_with(oneactor(&hub, &scratch, line), 0));
    for (name, times) in [(ADAPTER, 1), (UNET, 1)] {
        let found = fetched.iter().filter(|path| path.ends_with(name)).count();
        assert_eq!(found, times, "{name}: {fetched:?}");
    }
    // A model that is missing does not prevent the adapter of the others.
    let line = "fetch org/nothing org/small --ip-adapter org/adapter";
    let fetched = lines(&exits_with(oneactor(&hub, &scratch, line), 5));
    assert!(fetched.iter().any(|path| path.ends_with(ADAPTER)));
}

#[test]
fn an_adapter_that_no_model_can_use_is_refused_before_anything_is_fetched() {
    let (hub, scratch) = hub_with_others();
    let authors: [(&str, &[u8]); 1] = [(ADAPTER, b"adapter")];
    hub.add(REPOSITORY, &authors);
    let line = "fetch org/control org/vae --ip-adapter org/adapter";
    let refused = exits_with(oneactor(&hub, &scratch, line), 2);
    assert_says(
        &told(&refused),
        &[
            "--ip-adapter org/adapter: found org/control, org/vae",
            "that draws",
        ],
    );
    // Like SD 2.1, whose text has another width than that of SD 1.5.
    let line = format!("fetch org/small --ip-adapter {REPOSITORY}");
    let refused = exits_with(oneactor(&hub, &scratch, &line), 3);
    assert_says(
        &told(&refused),
        &["the text of org/small is 192 wide", "made for it"],
    );
    let asked = hub.take_downloads();
    let is_small = |path: &str| path.ends_with(".json");
    assert!(asked.iter().all(|asked| is_small(&asked.path)), "{asked:?}");
    // The adapter in a variable may be meant for other models.
    for adapter in ["org/adapter", REPOSITORY] {
        let variable = [("ONEACTOR_IP_ADAPTER", adapter)];
        exits_with(run(&hub, &scratch, "fetch org/control", &variable), 0);
    }
    let variable = [("ONEACTOR_IP_ADAPTER", REPOSITORY)];
    let fetched = lines(&exits_with(
        run(&hub, &scratch, "fetch org/small", &variable),
        0,
    ));
    assert!(!fetched.iter().any(|path| path.ends_with(ADAPTER)));
}

#[test]
fn a_file_of_a_model_that_is_not_a_repository_is_refused() {
    let (hub, scratch) = hub_with_others();
    std::fs::create_dir(scratch.path().join("model")).unwrap();
    std::fs::write(scratch.path().join("model/model_index.json"), "{}").unwrap();
    for model in ["toy", "model"] {
        let line = format!("fetch {model} --file a.safetensors");
        let refused = exits_with(oneactor(&hub, &scratch, &line), 2);
        let found = format!("--file: found {model}, expected a repository");
        assert_says(&told(&refused), &[&found]);
    }
}

//! SD 1.5 and 2.1, on the tiny checkpoints of the parity fixtures.

use serde_json::Value;

use super::common::fixture;
use super::*;

/// The folder of a fixture as an argument.
fn model(shape: &str) -> String {
    fixture(shape).display().to_string()
}

#[test]
fn sd_15_and_21_do_the_whole_job() {
    for (shape, word, scheduler, side) in [
        ("sd15", "hobbit", "pndm", 128),
        ("sd21", "wizard", "ddim", 96),
    ] {
        let folder = folder(shape);
        let base = format!(
            "generate-base --model {} -p 'a {word}' --subject {word} -o a --num-images 3 --steps 4",
            model(shape)
        );
        // PNDM's fifth pass of the network is not a step of its own.
        oneactor(&folder, &base).exits_with(0).says("12 of 12");
        let text = fs::read_to_string(folder.join("a/base.json")).expect("written");
        let base: Value = serde_json::from_str(&text).expect("it is JSON");
        let drawn = &base["parameters"];
        assert_eq!(drawn["scheduler"], scheduler);
        assert_eq!(
            (&drawn["width"], &drawn["height"]),
            (&side.into(), &side.into())
        );

        oneactor(&folder, "tune a --target 1 --max-steps 3").exits_with(0);
        let sample = "sample a -p '[b] at the beach' --steps 4 --guided-steps 1-3";
        oneactor(&folder, &format!("{sample} -o b --compare")).exits_with(0);
        let read = |path: &str| fs::read(folder.join(path)).expect("it was drawn");
        assert_ne!(read("b/0000-0.png"), read("b/plain/0000-0.png"));
        oneactor(&folder, "sample --from b/0000-0.png -o again").exits_with(0);
        assert_eq!(read("again/0000-0.png"), read("b/0000-0.png"));
        let other = if scheduler == "pndm" { "euler" } else { "pndm" };
        oneactor(&folder, &format!("{sample} -o {other} --scheduler {other}")).exits_with(0);
        // Another model is refused before it is loaded, and by a dry run too.
        for (line, what) in [
            (
                format!("{sample} -o c --model toy"),
                "the actor a/actor.safetensors",
            ),
            (format!("{sample} -o c --model toy --dry-run"), "the actor"),
            ("tune a --model toy --overwrite".to_owned(), "the base set"),
        ] {
            let refused = oneactor(&folder, &line).exits_with(2).writes_nothing();
            assert!(!refused.stderr.contains("loading"), "{}", refused.stderr);
            refused
                .says(&format!("error: {what}"))
                .says("was made with the model");
        }
        // The authors' adapters have another text width. This is known before anything is loaded or
        // searched.
        let refused = oneactor(&folder, "sample a --method ip-adapter -p '[b]' -o d").exits_with(3);
        assert!(!refused.stderr.contains("loading"), "{}", refused.stderr);
        refused
            .says("adapters for texts that are 768 or 2048 wide")
            .writes_nothing();
    }
}

/// The tiny SD 1.5 in `folder/model`, with one text in one file replaced.
fn changed(folder: &Path, (file, from, to): (&str, &str, &str)) {
    let (source, model) = (fixture("sd15"), folder.join("model"));
    let _ = fs::remove_dir_all(&model);
    for component in ["tokenizer", "text_encoder", "unet", "vae"] {
        copy(&source.join(component), &model.join(component));
    }
    for name in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "vae/config.json",
    ] {
        let text = fs::read_to_string(source.join(name)).expect("fixtures are whole");
        let replaced = if name == file {
            text.replace(from, to)
        } else {
            text.clone()
        };
        assert!(
            name != file || from == to || replaced != text,
            "{from} is not in {file}"
        );
        let path = model.join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("writable");
        fs::write(path, replaced).expect("writable");
    }
}

/// If a version of diffusers before 0.9 wrote a size below 64 latents, diffusers' pipeline draws at
/// 64 latents a side, and so does the program.
#[test]
fn a_size_that_the_first_versions_of_diffusers_wrote_is_not_taken() {
    let folder = folder("sd15-old-size");
    for (version, side) in [("0.6.0", 512), ("0.9.0", 128)] {
        changed(&folder, ("unet/config.json", "0.42.1", version));
        let line = "sample --no-actor --model model -p hobbit --steps 1 --overwrite -o out";
        oneactor(&folder, line).exits_with(0);
        let size = image::image_dimensions(folder.join("out/0000-0.png")).expect("it was drawn");
        assert_eq!(size, (side, side), "{version}");
    }
}

#[test]
fn other_models_are_refused_with_what_was_found_and_expected() {
    let folder = folder("other-models");
    let run = || {
        oneactor(
            &folder,
            "generate-base --model model -p 'a hobbit' --subject hobbit -o out --dry-run",
        )
    };
    changed(&folder, ("model_index.json", "", ""));
    run().exits_with(0);
    let (index, unet) = ("model_index.json", "unet/config.json");
    let scheduler = "scheduler/scheduler_config.json";
    let name = "\"StableDiffusionPipeline\"";
    for (change, said) in [
        (
            (index, name, "\"StableDiffusionInpaintPipeline\""),
            "a model for inpainting has other inputs; give the model that it was made from",
        ),
        (
            (index, name, "\"StableDiffusionXLImg2ImgPipeline\""),
            "SDXL's refiner has this class and cannot draw alone",
        ),
        (
            (index, name, "\"StableDiffusionXLControlNetPipeline\""),
            "if the model is one for text-to-image that was saved in another pipeline, write that class here",
        ),
        (
            (index, name, "\"FluxPipeline\""),
            "found \"FluxPipeline\", expected \"StableDiffusionXLPipeline\"",
        ),
        (
            (index, name, "\"StableDiffusionXLPipeline\""),
            "text_encoder_2: found no value",
        ),
        (
            (unet, "\"in_channels\": 4", "\"in_channels\": 9"),
            "in_channels: found 9, expected 4",
        ),
        (
            (
                unet,
                "\"act_fn\"",
                "\"addition_embed_type\": \"text_time\", \"act_fn\"",
            ),
            "addition_embed_type: found \"text_time\", expected null",
        ),
        (
            (
                unet,
                "\"attention_head_dim\": 8",
                "\"attention_head_dim\": 7",
            ),
            "not divisible by 7 heads",
        ),
        (
            (
                scheduler,
                "\"skip_prk_steps\": true",
                "\"skip_prk_steps\": false",
            ),
            "skip_prk_steps: found false",
        ),
        (
            (index, "PNDMScheduler", "HeunDiscreteScheduler"),
            "found \"HeunDiscreteScheduler\"",
        ),
    ] {
        changed(&folder, change);
        run().exits_with(3).says(said).writes_nothing();
    }
}

#[test]
fn an_sd_15_in_one_file_does_the_whole_job() {
    let folder = folder("sd15-file");
    let file = fixture("single/sd15.safetensors");
    let small = "-W 64 -H 64 --steps 3";
    let base = format!(
        "generate-base --model {} -p 'a hobbit' --subject hobbit -o a --num-images 3 {small}",
        file.display()
    );
    oneactor(&folder, &base).exits_with(0);
    let base = json(&folder.join("a/base.json"));
    assert_eq!(base["parameters"]["scheduler"], "pndm");
    oneactor(&folder, "tune a --target 1 --max-steps 2").exits_with(0);
    let sample = format!("sample a -p '[b] at the beach' {small} --compare");
    oneactor(&folder, &format!("{sample} -o b")).exits_with(0);
    let picture = |path: &str| pixels(&folder.join(path));
    assert_ne!(picture("b/0000-0.png"), picture("b/plain/0000-0.png"));

    // An actor accepts the same weights in a folder as the same model.
    let model = fixture("single/folder_sd15");
    let line = format!("{sample} -o c --model {}", model.display());
    oneactor(&folder, &line).exits_with(0);
    let gap = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max();
    // The last bits of a float may differ, see tests/parity/single_file.rs.
    let gap = gap(&picture("b/0000-0.png"), &picture("c/0000-0.png"));
    assert!(gap.is_some_and(|gap| gap <= 1), "{gap:?}");
}

//! Names in foreign stories, actors, pictures and manifests: nothing is written outside the output
//! folder.

use std::fs;
use std::path::Path;

use image::RgbImage;
use oneactor::io::tensors::TensorFile;
use oneactor::pictures::png::save_png;
use serde_json::json;

use crate::{folder, folder_with_actor, names, oneactor};

#[test]
fn names_of_characters_are_not_used_as_paths() {
    let folder = folder("outside-story");
    fs::create_dir(folder.join("inner")).expect("the folder is writable");
    for name in [
        "../cat", "..", ".", "", "/tmp/cat", "a/b", "a\\b", "C:cat", "CON\u{0}", "cat\n", "~",
    ] {
        let story = json!({
            "title": "t", "model": "toy",
            "characters": {name: {"prompt": "a cat", "subject": "cat"}},
            "scenes": [{"prompt": format!("a [{name}]")}],
        });
        fs::write(folder.join("inner/story.json"), story.to_string()).expect("it is writable");
        oneactor(&folder.join("inner"), "story story.json -o out")
            .exits_with(2)
            .says("`characters`: found the name")
            .writes_nothing();
        assert_eq!(names(&folder), ["inner"]);
        assert_eq!(names(&folder.join("inner")), ["story.json"]);
    }
}

#[test]
fn settings_of_files_and_folders_are_not_taken_from_a_picture() {
    let folder = folder("outside-from");
    fs::create_dir(folder.join("inner")).expect("the folder is writable");
    for (key, value) in [
        ("output_dir", json!("../elsewhere")),
        ("output_dir", json!("/tmp/oneactor-elsewhere")),
        ("overwrite", json!(true)),
        ("prompts_file", json!("/etc/hostname")),
        ("from", json!("other.png")),
        ("num_images", json!(99999)),
        ("compare", json!(true)),
        ("save_latents", json!(true)),
        ("save_masks", json!(true)),
        ("batch_size", json!(1024)),
        ("preview_every", json!(1)),
        ("subject_as", json!("phrase")),
        ("preset", json!("release")),
        ("device", json!("cuda")),
        ("attention", json!("math")),
        ("cpu_offload", json!(true)),
        ("offline", json!(false)),
    ] {
        let mut parameters = json!({
            "prompt": "a robot", "seed": 1, "steps": 1, "model": "toy", "no_actor": true,
        });
        parameters[key] = value;
        let record = json!({"schema": "oneactor.image/v1", "parameters": parameters, "facts": {}});
        let picture = folder.join("inner/evil.png");
        save_png(
            &picture,
            &RgbImage::new(2, 2),
            &[("oneactor", &record.to_string())],
        )
        .expect("the folder is writable");
        for line in ["sample --from evil.png", "sample --from evil.png -o out"] {
            oneactor(&folder.join("inner"), line)
                .exits_with(2)
                .says(&format!(
                    "--from evil.png: the picture records the setting `{key}`"
                ))
                .writes_nothing();
        }
        assert_eq!(names(&folder), ["inner"]);
        assert_eq!(names(&folder.join("inner")), ["evil.png"]);
    }
    assert!(!Path::new("/tmp/oneactor-elsewhere").exists());
}

#[test]
fn settings_from_a_picture_are_checked_like_flags() {
    let folder = folder("outside-values");
    for (key, value, message) in [
        ("prompt", json!(["a", "b"]), "key `prompt`: found a list"),
        ("prompt", json!(""), "--prompt: prompt 1 is empty"),
        ("steps", json!(1_000_000_000), "--steps: found 1000000000"),
        ("width", json!(80_000), "--width: found 80000"),
        ("height", json!(-8), "--height: found -8"),
        ("seed", json!(-1), "--seed: found -1"),
        ("guidance_scale", json!(1e300), "--guidance-scale: found"),
        ("scheduler", json!("x"), "--scheduler: found \"x\""),
        ("dtype", json!("int8"), "key `dtype`"),
        ("feature_reuse", json!(0), "--feature-reuse: found 0"),
        (
            "semantic_interpolation",
            json!(1e9),
            "--semantic-interpolation: found",
        ),
        (
            "vae_tile_size",
            json!(1i64 << 40),
            "--vae-tile-size has no effect without --vae-tiling",
        ),
        ("lora", json!(["/etc/hostname:9"]), "hostname"),
        (
            "lora",
            json!(["none.safetensors"]),
            "there is no file none.safetensors",
        ),
        ("controlnet", json!(["x:99"]), "--controlnet"),
        ("model", json!("../../etc"), "../../etc"),
        (
            "model",
            json!("https://example.com/x"),
            "https://example.com/x",
        ),
        ("vae", json!("/etc"), "/etc"),
    ] {
        let mut parameters = json!({
            "prompt": "a robot", "seed": 1, "steps": 1, "model": "toy", "no_actor": true,
        });
        parameters[key] = value;
        let record = json!({"schema": "oneactor.image/v1", "parameters": parameters, "facts": {}});
        let record = record.to_string();
        let picture = folder.join("evil.png");
        save_png(&picture, &RgbImage::new(2, 2), &[("oneactor", &record)])
            .expect("the folder is writable");
        let run = oneactor(&folder, "sample --from evil.png -o out").writes_nothing();
        assert!(
            matches!(run.code, Some(2 | 3)),
            "{key}: {:?} {}",
            run.code,
            run.stderr
        );
        assert!(run.stderr.contains(message), "{key}: {}", run.stderr);
        assert_eq!(names(&folder), ["evil.png"]);
    }
}

#[test]
fn words_of_an_actor_are_not_paths_and_print_no_control_codes() {
    let folder = folder_with_actor("outside-actor");
    let path = folder.join("robot/actor.safetensors");
    let mut actor = TensorFile::read(&path).expect("the actor is good");
    let word = "../../robot\u{1b}[2J";
    for (key, value) in [
        ("base_word", word),
        ("prompt", word),
        ("target_image", "../../x.png"),
    ] {
        actor.metadata.insert(key.to_owned(), value.to_owned());
    }
    let crc32 = ("target_image_crc32".to_owned(), "../../y".to_owned());
    actor.metadata.extend([crc32]);
    fs::write(&path, actor.to_bytes().expect("it can be written")).expect("it is writable");
    let before = names(&folder);
    let run = oneactor(&folder, "inspect robot").exits_with(0);
    assert!(run.stdout.contains("\\u{1b}[2J"), "{}", run.stdout);
    assert!(!run.stdout.contains('\u{1b}'), "{}", run.stdout);
    let run = oneactor(
        &folder,
        "sample robot -p 'a [b]' -o out --subject-masks on --save-masks --steps 2",
    );
    assert!(!run.stderr.contains('\u{1b}'), "{}", run.stderr);
    // Drawing such words may fail. If it does not, the files lie in the output folder.
    let after: Vec<String> = names(&folder)
        .into_iter()
        .filter(|name| name != "out")
        .collect();
    assert_eq!(after, before);
}

#[test]
fn a_manifest_with_a_path_is_not_merged() {
    for name in [
        "../secret.png",
        "/etc/hostname",
        "..",
        "",
        "a/../../secret.png",
    ] {
        let folder = folder("outside-merge");
        fs::create_dir_all(folder.join("out/a")).expect("the folder is writable");
        RgbImage::new(8, 8)
            .save(folder.join("secret.png"))
            .expect("it is writable");
        let row = json!({"path": name, "prompt": "a", "seed": 0});
        fs::write(folder.join("out/manifest-1-of-1.jsonl"), format!("{row}\n"))
            .expect("it is writable");
        oneactor(&folder, "merge out")
            .exits_with(2)
            .says("expected the name of a picture below out")
            .writes_nothing();
        assert_eq!(names(&folder.join("out")), ["a", "manifest-1-of-1.jsonl"]);
    }
}

#[test]
fn a_link_at_the_place_of_a_result_is_replaced_and_its_target_is_untouched() {
    let folder = folder_with_actor("outside-links");
    fs::write(folder.join("precious"), "mine").expect("the folder is writable");
    fs::create_dir(folder.join("out")).expect("the folder is writable");
    let links = ["grid.png", "manifest.jsonl", "sample.json"];
    for name in links {
        std::os::unix::fs::symlink(folder.join("precious"), folder.join("out").join(name))
            .expect("links can be made here");
    }
    oneactor(&folder, "sample robot -p 'a [b]' -o out --steps 1").exits_with(0);
    assert_eq!(crate::text(&folder.join("precious")), "mine");
    assert!(!folder.join("out/grid.png").is_symlink());
    assert!(!folder.join("out/manifest.jsonl").is_symlink());
}

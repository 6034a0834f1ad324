//! Several subjects: actors that were tuned apart, and an actor that was tuned on several subjects.

use std::fs;
use std::path::Path;

use oneactor::io::tensors::TensorFile;
use oneactor::pictures::png::read_png_text;
use serde_json::{Value, json};

use crate::common::toy_files::disguised;
use crate::{folder_with_actor, json as json_file, names, oneactor, pixels, text};

fn rows(folder: &Path) -> Vec<Value> {
    text(&folder.join("manifest.jsonl"))
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row is JSON"))
        .collect()
}

#[test]
fn redrawing_a_picture_replaces_its_masks() {
    let folder = folder_with_actor("old-masks");
    disguised(&folder, "cat", &[("base_word", "cat")]);
    let masks = || {
        let names = names(&folder.join("out")).into_iter();
        names
            .filter(|name| name.contains("-mask-"))
            .collect::<Vec<_>>()
    };
    let both = "sample robot cat -p 'a robot and a cat' --steps 2 --save-masks -o out";
    oneactor(&folder, both).exits_with(0);
    let own = ["0000-0-mask-cat.png", "0000-0-mask-robot.png"];
    assert_eq!(masks(), own);
    fs::write(folder.join("out/0000-0-mask-frog.png"), "old").expect("the folder is writable");
    oneactor(&folder, &format!("{both} --overwrite")).exits_with(0);
    assert_eq!(masks(), own);
    let alone = "sample robot -p 'a robot' --steps 2 -o out --overwrite";
    oneactor(&folder, alone).exits_with(0);
    assert!(masks().is_empty(), "{:?}", masks());
}

#[test]
fn two_actors_are_drawn_in_one_picture_and_each_prompt_uses_the_actors_it_names() {
    let folder = folder_with_actor("two-actors");
    disguised(&folder, "cat", &[("base_word", "cat")]);
    let line = "sample robot cat -p 'a robot and a cat' -p 'a robot in the snow' --steps 3 \
                --save-masks --batch-size 2 -o out";
    oneactor(&folder, line)
        .exits_with(0)
        .says("1 of 2 prompts name fewer than two actors that have a place in the picture");
    let out = folder.join("out");
    let expected = [
        "0000-0-mask-cat.png",
        "0000-0-mask-robot.png",
        "0000-0.png",
        "0001-1.png",
        "grid.png",
        "manifest.jsonl",
    ];
    assert_eq!(names(&out), expected);
    check_masks(&out);
    check_metadata(&out);

    // A prompt that names one actor gives the same picture as that actor alone: another actor does
    // not change a picture that does not name it.
    oneactor(
        &folder,
        "sample robot -p 'a robot in the snow' --seed 1 --steps 3 -o alone",
    )
    .exits_with(0);
    assert_eq!(
        pixels(&folder.join("alone/0000-1.png")),
        pixels(&out.join("0001-1.png"))
    );
    oneactor(
        &folder,
        "sample robot cat -p 'a robot in the snow' --seed 1 --steps 3 -o alone",
    )
    .exits_with(0)
    .writes_nothing()
    .says("1 of 1 images are there already");
}

fn check_masks(out: &Path) {
    let mask = |word: &str| pixels(&out.join(format!("0000-0-mask-{word}.png")));
    let (robot, cat) = (mask("robot"), mask("cat"));
    assert_eq!(robot.len(), 64 * 64 * 3, "as large as the picture");
    assert!(
        robot.contains(&255) && cat.contains(&255),
        "neither is empty"
    );
    let both = robot
        .iter()
        .zip(&cat)
        .filter(|&(a, b)| (*a, *b) == (255, 255));
    assert_eq!(both.count(), 0, "the masks do not overlap");
}

fn check_metadata(out: &Path) {
    let manifest = rows(out);
    let actor = |name: &str| format!("{name}/actor.safetensors");
    assert_eq!(manifest[0]["actors"], json!([actor("robot"), actor("cat")]));
    assert_eq!(manifest[0]["actor_crc32"].as_array().map(Vec::len), Some(2));
    assert_eq!(manifest[1]["actors"], json!([actor("robot")]));
    assert!(manifest[1]["actor_crc32"].is_string());
    let texts = read_png_text(&out.join("0000-0.png")).expect("it is a PNG");
    let of = |keyword: &str| {
        &texts
            .iter()
            .find(|(name, _)| name == keyword)
            .expect("it is there")
            .1
    };
    assert!(
        of("parameters").contains("OneActor subject: \"robot, cat\""),
        "{}",
        of("parameters")
    );
    let record: Value = serde_json::from_str(of("oneactor")).expect("the chunk is JSON");
    assert_eq!(record["facts"]["actor_crc32"], manifest[0]["actor_crc32"]);
}

#[test]
fn a_picture_of_two_actors_is_drawn_again_from_its_metadata_or_where_something_changed() {
    let folder = folder_with_actor("two-again");
    disguised(&folder, "cat", &[("base_word", "cat")]);
    let line = "sample robot cat -p 'a robot and a cat' --steps 2 --save-masks -o out";
    oneactor(&folder, line).exits_with(0);
    let out = folder.join("out");
    oneactor(&folder, "sample --from out/0000-0.png -o again").exits_with(0);
    assert_eq!(
        pixels(&folder.join("again/0000-0.png")),
        pixels(&out.join("0000-0.png"))
    );
    oneactor(&folder, line).exits_with(0).writes_nothing();
    fs::remove_file(out.join("0000-0-mask-cat.png")).expect("it is there");
    let run = oneactor(&folder, line).exits_with(0);
    assert!(
        run.paths().contains(&"out/0000-0-mask-cat.png"),
        "{:?}",
        run.paths()
    );
    disguised(&folder, "cat", &[("base_word", "cat"), ("kind", "object")]);
    oneactor(&folder, line)
        .exits_with(2)
        .says("0000-0.png was drawn with other settings (actor has changed since)");
}

#[test]
fn several_actors_are_compared_with_the_plain_model_and_change_the_picture() {
    let folder = folder_with_actor("two-compared");
    disguised(&folder, "cat", &[("base_word", "cat")]);
    let line =
        "sample robot cat -p 'a robot and a cat' --steps 3 --semantic-scale 8 --compare -o out";
    oneactor(&folder, line).exits_with(0);
    assert_ne!(
        pixels(&folder.join("out/0000-0.png")),
        pixels(&folder.join("out/plain/0000-0.png"))
    );
    assert!(folder.join("out/comparison.png").is_file());
    let plain = &rows(&folder.join("out"))[1];
    assert_eq!(
        (&plain["path"], &plain["actors"]),
        (&json!("plain/0000-0.png"), &Value::Null)
    );
    oneactor(&folder, line).exits_with(0).writes_nothing();
    oneactor(
        &folder,
        "sample robot cat -p 'a house' --no-actor --steps 1 -o plain",
    )
    .exits_with(0);
}

#[test]
fn actors_that_cannot_be_combined_are_refused_by_name() {
    let folder = folder_with_actor("not-together");
    disguised(&folder, "cat", &[("base_word", "cat")]);
    disguised(&folder, "box", &[("base_word", "robot cat")]);
    let other = [
        ("base_word", "dog"),
        ("model", "somebody/other"),
        ("model_fingerprint", "00000000"),
    ];
    disguised(&folder, "dog", &other);
    let cases = [
        (
            "robot cat -p 'a dog'",
            "names none of the subjects: write at least one of the base words \"robot\", \"cat\"",
        ),
        (
            "robot cat -p 'a [b]'",
            "has [b], which stands for one base word, but the actors have 2",
        ),
        (
            "robot box -p 'a robot cat'",
            "robot/actor.safetensors and box/actor.safetensors have base words that cannot be told apart in a prompt, \"robot\" and \"robot cat\"",
        ),
        ("robot dog -p 'a robot'", "somebody/other"),
        ("robot dog -p 'a robot'", "but this run uses toy"),
        (
            "robot cat -p 'a cat' --offsets robot/actor.safetensors",
            "--offsets replaces the projector of one actor, but there are 2",
        ),
        (
            "robot cat -p 'a cat' --no-actor --save-masks",
            "--save-masks has no effect with --no-actor",
        ),
    ];
    for (line, message) in cases {
        oneactor(&folder, &format!("sample {line} -o x"))
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    assert!(!folder.join("x").exists());
}

#[test]
fn a_fifth_subject_gives_a_warning_with_the_limit_of_the_paper() {
    let folder = folder_with_actor("five");
    for word in ["cat", "dog", "owl", "frog"] {
        disguised(&folder, word, &[("base_word", word)]);
    }
    let four = "a robot, a cat, a dog and an owl";
    let line = format!("sample robot cat dog owl frog --dry-run -o x -p '{four}'");
    let run = oneactor(&folder, &line).exits_with(0);
    assert!(!run.stderr.contains("App. D"), "{}", run.stderr);
    oneactor(&folder, &format!("{line} -p '{four}, a frog'"))
        .exits_with(0)
        .says("has 5 subjects; the paper says that the method is limited to 4 (App. D)");
}

#[test]
fn subjects_are_drawn_and_tuned_together_and_named_alone() {
    let folder = folder_with_actor("joint");
    let base =
        "generate-base --model toy --num-images 3 --steps 3 -o pair --subject cat --subject frog";
    oneactor(&folder, &format!("{base} -p 'a photo of a cat and a frog'")).exits_with(0);
    assert_eq!(
        json_file(&folder.join("pair/base.json"))["parameters"]["subject"],
        json!(["cat", "frog"])
    );
    // A batch file with the same settings finds the job finished.
    let job = json!({"jobs": [{
        "prompt": "a photo of a cat and a frog", "subject": ["cat", "frog"], "model": "toy",
        "num_images": 3, "steps": 3, "output_dir": "pair",
    }]});
    fs::write(folder.join("pair.json"), job.to_string()).expect("the folder is writable");
    oneactor(&folder, "generate-base --config pair.json")
        .exits_with(0)
        .writes_nothing();

    oneactor(&folder, "tune pair --target 1 --max-steps 2").exits_with(0);
    assert_eq!(
        json_file(&folder.join("pair/tune.json"))["subject"],
        json!(["cat", "frog"])
    );
    let actor = TensorFile::read(&folder.join("pair/actor.safetensors")).expect("it is readable");
    assert_eq!(actor.metadata["base_words"], "[\"cat\",\"frog\"]");
    assert_eq!(actor.metadata["tokens_of_words"], "[1,1]");
    let line = "sample pair -p 'a frog' -p 'a frog and a cat at the beach' --steps 2 -o out";
    oneactor(&folder, line).exits_with(0);
    oneactor(&folder, line).exits_with(0).writes_nothing();
    assert_eq!(rows(&folder.join("out")).len(), 2);
    oneactor(&folder, "sample pair -p 'a dog' -o x")
        .exits_with(2)
        .says("names none of the subjects");
    check_masks_by_choice(&folder);
    // Together with another actor, each of its subjects has its own mask.
    oneactor(
        &folder,
        "sample pair robot -p 'a robot, a cat and a frog' --steps 2 --save-masks -o all",
    )
    .exits_with(0);
    for word in ["cat", "frog", "robot"] {
        assert!(
            folder.join(format!("all/0000-0-mask-{word}.png")).is_file(),
            "{word}"
        );
    }
}

/// Subjects that were tuned together have masks only if asked; those of several actors can be
/// switched off.
fn check_masks_by_choice(folder: &Path) {
    let drawn = |actors: &str, name: &str, flags: &str| {
        let prompt = "a frog and a cat at the beach";
        let line = format!("sample {actors} -p '{prompt}' --steps 3 --seed 1 -o {name} {flags}");
        oneactor(folder, &line).exits_with(0);
        pixels(&folder.join(name).join("0000-1.png"))
    };
    let everywhere = drawn("pair", "everywhere", "");
    assert_eq!(drawn("pair", "off", "--subject-masks off"), everywhere);
    let masked = drawn("pair", "on", "--subject-masks on --save-masks");
    assert_ne!(masked, everywhere);
    let masks = ["cat", "frog"].map(|word| format!("0000-1-mask-{word}.png"));
    assert!(
        masks
            .iter()
            .all(|name| folder.join("on").join(name).is_file())
    );
    assert_eq!(rows(&folder.join("on"))[0]["subject_masks"], "on");
    // Redrawn from the picture alone.
    oneactor(folder, "sample --from on/0000-1.png -o again").exits_with(0);
    assert_eq!(pixels(&folder.join("again/0000-1.png")), masked);

    disguised(folder, "cat", &[("base_word", "cat")]);
    disguised(folder, "frog", &[("base_word", "frog")]);
    let apart = drawn("cat frog", "apart", "");
    assert_ne!(drawn("cat frog", "apart-off", "--subject-masks off"), apart);
    let refused = "sample pair -p 'a frog' -o x --subject-masks off --save-masks";
    oneactor(folder, refused)
        .exits_with(2)
        .says("add --subject-masks on");
    oneactor(
        folder,
        "sample pair -p 'a frog' -o x --subject-masks on --no-actor",
    )
    .exits_with(2)
    .says("--subject-masks has no effect with --no-actor");
}

#[test]
fn subjects_of_a_base_set_are_checked_together() {
    let folder = folder_with_actor("joint-refused");
    let cases = [
        (
            "-p 'a cat' --subject cat --subject frog",
            "\"frog\" is missing from the prompt",
        ),
        (
            "-p 'a pencil box' --subject box --subject 'pencil box'",
            "found \"box\" and \"pencil box\", expected words that do not contain each other",
        ),
        (
            "-p 'a cat' --subject cat --subject CAT",
            "found \"cat\" and \"CAT\"",
        ),
        (
            "-p 'a [b]' --subject cat --subject frog",
            "[b] stands for one base word, but there are 2",
        ),
        (
            "-p 'a cat' --subject cat --subject ''",
            "found an empty text",
        ),
    ];
    for (line, message) in cases {
        oneactor(&folder, &format!("generate-base --model toy {line} -o x"))
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    let five = "-p 'cat, dog, owl, frog, lion' --subject cat --subject dog --subject owl \
                --subject frog --subject lion";
    oneactor(
        &folder,
        &format!("generate-base --model toy {five} -o x --dry-run"),
    )
    .exits_with(0)
    .says("has 5 subjects; the paper says that the method is limited to 4");
}

#[test]
fn an_actor_file_without_the_newer_metadata_is_read() {
    let folder = folder_with_actor("older-file");
    let path = folder.join("robot/actor.safetensors");
    let mut actor = TensorFile::read(&path).expect("it is readable");
    assert_eq!(
        actor.metadata["base_word"], "robot",
        "one word is written as it always was"
    );
    actor
        .metadata
        .remove("tokens_of_words")
        .expect("it is there");
    fs::write(&path, actor.to_bytes().expect("it can be written")).expect("the folder is writable");
    oneactor(&folder, "sample robot -p [b] --steps 1 -o out").exits_with(0);
    actor
        .metadata
        .insert("tokens_of_words".into(), "[1,1]".into());
    fs::write(&path, actor.to_bytes().expect("it can be written")).expect("the folder is writable");
    oneactor(&folder, "sample robot -p [b] --steps 1 -o out")
        .exits_with(2)
        .says("metadata \"tokens_of_words\": found [1, 1], expected 1 numbers with the sum 1");
}

#[test]
fn a_sweep_takes_several_actors_and_an_ablation_one_that_was_tuned_on_several() {
    let folder = folder_with_actor("several-experiments");
    disguised(&folder, "cat", &[("base_word", "cat")]);
    let sweep = "sweep robot cat -p 'a robot and a cat' --semantic-scale 0,0.8 --steps 2";
    oneactor(&folder, sweep)
        .exits_with(2)
        .says("--output-dir is missing: with several actors the folder");
    oneactor(&folder, &format!("{sweep} -o sweep")).exits_with(0);
    oneactor(
        &folder,
        "sample robot cat -p 'a robot and a cat' --steps 2 -o one",
    )
    .exits_with(0);
    let cell = |v: &str| pixels(&folder.join(format!("sweep/semantic-scale={v}_0000-0.png")));
    assert_eq!(cell("0.8"), pixels(&folder.join("one/0000-0.png")));
    assert_ne!(cell("0.8"), cell("0"));

    let base =
        "generate-base --model toy --num-images 3 --steps 3 -o pair --subject cat --subject frog";
    oneactor(&folder, &format!("{base} -p 'a photo of a cat and a frog'")).exits_with(0);
    oneactor(&folder, "tune pair --target 1 --max-steps 2").exits_with(0);
    oneactor(&folder, "ablate pair -p 'a [b]' --steps 2")
        .exits_with(2)
        .says("write the words themselves");
    oneactor(&folder, "ablate pair -p 'a frog and a cat' --steps 2").exits_with(0);
    let ablated = json_file(&folder.join("pair/ablation/without-aver/tune.json"));
    assert_eq!(ablated["subject"], json!(["cat", "frog"]));
    assert_eq!(ablated["parameters"]["lambda_2"], 0.0);
    oneactor(
        &folder,
        "sample pair -p 'a frog and a cat' --steps 2 -o full",
    )
    .exits_with(0);
    assert_eq!(
        pixels(&folder.join("pair/ablation/full_0000-0.png")),
        pixels(&folder.join("full/0000-0.png"))
    );
}

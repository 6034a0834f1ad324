//! Long and weighted prompts. The toy reads 30 tokens of a prompt.

use std::fs;

use oneactor::io::tensors::TensorFile;
use serde_json::Value;

use crate::{folder, folder_with_actor, json, oneactor, pixels, text};

/// More than 30 tokens.
const LONG: &str = "a dog, a cat and a frog, in the red kitchen and in the snow at night, in the \
                    rain, at the beach and on a green hat, in the dark and ";

#[test]
fn text_that_looks_like_syntax_gets_a_warning() {
    let folder = folder_with_actor("looks-like");
    for (flags, message) in [
        ("-p 'a [robot]'", "has [robot], which is read as plain text"),
        (
            "-p 'a robot in (snow)1.2' --prompt-weights",
            "has 1.2 after a bracket",
        ),
    ] {
        oneactor(
            &folder,
            &format!("sample robot {flags} --steps 1 -o out --overwrite"),
        )
        .exits_with(0)
        .says(message);
    }
    for flags in ["-p 'a [b]'", "-p 'a [robot]' --prompt-weights"] {
        let run = oneactor(
            &folder,
            &format!("sample robot {flags} --steps 1 -o out --overwrite"),
        );
        let run = run.exits_with(0);
        assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    }
}

#[test]
fn a_long_prompt_is_cut_with_a_warning_or_read_in_chunks() {
    let folder = folder_with_actor("long");
    let line = format!("sample robot -p '{LONG} [b]' --steps 3 -o out");
    oneactor(&folder, &line)
        .exits_with(2)
        .says("comes after the limit of 32 tokens")
        .says("or read the prompt in chunks with --long-prompts")
        .writes_nothing();
    oneactor(&folder, &format!("{line} --long-prompts --verbose"))
        .exits_with(0)
        .says("chunks of a long prompt: [\"a dog, a cat and a frog,")
        .says("\"long_prompts\":true");
    let row: Value = serde_json::from_str(text(&folder.join("out/manifest.jsonl")).trim())
        .expect("one row of JSON");
    assert_eq!(row["long_prompts"], true);
    assert!(row["prompt_weights"].is_null(), "the flag was not given");

    oneactor(&folder, "sample --from out/0000-0.png -o again").exits_with(0);
    let drawn = pixels(&folder.join("out/0000-0.png"));
    assert_eq!(pixels(&folder.join("again/0000-0.png")), drawn);

    // With the base word first, both ways can draw the same text, and the cut end makes a
    // difference.
    let line = format!("sample robot -p '[b], {LONG} a bag' --steps 3");
    oneactor(&folder, &format!("{line} -o cut"))
        .exits_with(0)
        .says("will not see the end of this one")
        .says("shorten it, or have it read in chunks with --long-prompts");
    let run = oneactor(
        &folder,
        &format!("{line} -o whole --long-prompts --compare"),
    );
    assert!(!run.exits_with(0).stderr.contains("will not see the end"));
    let [cut, whole] = ["cut", "whole"].map(|out| pixels(&folder.join(out).join("0000-0.png")));
    assert_ne!(cut, whole);
    assert_ne!(whole, pixels(&folder.join("whole/plain/0000-0.png")));
}

#[test]
fn a_negative_prompt_may_be_longer_than_the_prompt() {
    let folder = folder_with_actor("long-negative");
    let line = format!("sample robot -p [b] -n '{LONG}' --steps 3");
    oneactor(&folder, &format!("{line} -o cut"))
        .exits_with(0)
        .says("will not see the end of this one: \"beach and on a green hat, in the dark and\"");
    oneactor(&folder, &format!("{line} -o long --long-prompts")).exits_with(0);
    let [cut, long] = ["cut", "long"].map(|out| pixels(&folder.join(out).join("0000-0.png")));
    assert_ne!(cut, long);
}

#[test]
fn weights_are_read_where_the_flag_says_so() {
    let folder = folder_with_actor("weights");
    let line = "sample robot -p 'a ([b]:1.4) in the [snow]' -n '(dark:1.2)' --steps 3";
    oneactor(&folder, &format!("{line} -o text")).exits_with(0);
    oneactor(&folder, &format!("{line} -o weights --prompt-weights")).exits_with(0);
    let picture = folder.join("weights/0000-0.png");
    assert_ne!(pixels(&folder.join("text/0000-0.png")), pixels(&picture));
    let row: Value = serde_json::from_str(text(&folder.join("weights/manifest.jsonl")).trim())
        .expect("one row of JSON");
    assert_eq!(row["prompt"], "a (robot:1.4) in the [snow]");
    assert_eq!(row["prompt_weights"], true);
    oneactor(&folder, "sample --from weights/0000-0.png -o again").exits_with(0);
    assert_eq!(pixels(&folder.join("again/0000-0.png")), pixels(&picture));

    // A weight of 1 changes nothing.
    oneactor(
        &folder,
        "sample robot -p 'a [b], at night' --steps 3 -o plain",
    )
    .exits_with(0);
    let line = "sample robot -p 'a ([b]:1), (at night:1.0)' --steps 3 -o one --prompt-weights";
    oneactor(&folder, line).exits_with(0);
    let [plain, one] = ["plain", "one"].map(|out| pixels(&folder.join(out).join("0000-0.png")));
    assert_eq!(plain, one);
}

#[test]
fn weights_that_cannot_be_read_are_refused_before_anything_is_loaded() {
    let folder = folder_with_actor("wrong-weights");
    let cases = [
        (
            "-p 'a (robot'",
            "prompt \"a (robot\": \"(\" at character 3 is not closed",
        ),
        (
            "-p 'a robot]'",
            "prompt \"a robot]\": \"]\" at character 8 closes no bracket",
        ),
        (
            "-p 'a ([b]:0)'",
            "prompt \"a (robot:0)\": the brackets at character 3: found \"0\", expected a number \
             from 0.01 to 10",
        ),
        ("-p 'a ([b]:nan)'", "found \"nan\""),
        ("-p 'a ([b]:-2)'", "found \"-2\""),
        ("-p 'a ([b]:99)'", "found \"99\""),
        (
            "-p 'a (ro:1.2)bot'",
            "prompt \"a (ro:1.2)bot\": the base word \"robot\" is split by a weight",
        ),
        (
            "-p '(a cat:1.2)'",
            "the base word \"robot\" is missing from the prompt \"a cat\"",
        ),
        (
            "-p [b] -n '(dark'",
            "prompt \"(dark\": \"(\" at character 1",
        ),
        ("-p [b] --no-actor -n 'dark)'", "\")\" at character 5"),
    ];
    for (flags, message) in cases {
        let run = oneactor(
            &folder,
            &format!("sample robot {flags} --prompt-weights -o x"),
        );
        let run = run.exits_with(2).says(message).writes_nothing();
        assert!(!run.stderr.contains("loading"), "{}", run.stderr);
    }
    let endless = "red ".repeat(64 * 30);
    let line = format!("sample robot -p '[b] {endless}' --long-prompts -o x");
    oneactor(&folder, &line)
        .exits_with(2)
        .says("makes 65 chunks of 30 tokens, expected at most 64");
}

#[test]
fn the_phrase_of_the_subject_is_its_text_without_weights() {
    let folder = folder("weights-base");
    let line = "generate-base --model toy --num-images 2 --steps 2 --prompt-weights";
    oneactor(
        &folder,
        &format!("{line} -p 'a (red:1.3) [b], at night' --subject robot -o robot"),
    )
    .exits_with(0);
    let base = TensorFile::read(&folder.join("robot/base.safetensors")).expect("it is readable");
    assert_eq!(base.metadata["prompt"], "a red robot, at night");
    let config = json(&folder.join("robot/base.json"));
    let drawn = &config["parameters"]["prompt"];
    assert_eq!(drawn, "a (red:1.3) robot, at night");
    assert_eq!(config["parameters"]["prompt_weights"], true);
    oneactor(&folder, "sample --from robot/base/01.png -o again").exits_with(0);
    assert_eq!(
        pixels(&folder.join("again/0000-1.png")),
        pixels(&folder.join("robot/base/01.png"))
    );

    // The phrase of the subject has no weights, whether or not --prompt-weights is given.
    oneactor(&folder, "tune robot --max-steps 1").exits_with(0);
    let line = "sample robot --subject-as phrase --steps 1";
    oneactor(
        &folder,
        &format!("{line} -p '([b]:1.2)!' -o x --prompt-weights"),
    )
    .exits_with(0);
    oneactor(&folder, &format!("{line} -p '[b]!' -o y")).exits_with(0);
    let row = |out: &str| -> Value {
        let rows = text(&folder.join(out).join("manifest.jsonl"));
        serde_json::from_str(rows.trim()).expect("one row of JSON")
    };
    assert_eq!(row("x")["prompt"], "(a red robot:1.2)!");
    assert_eq!(row("y")["prompt"], "a red robot!");

    // Brackets in a base word are part of the word.
    let line = "generate-base --model toy -p 'an ([b]:1.1)' --subject 'robot (r2)' -o r2 --dry-run";
    oneactor(&folder, &format!("{line} --prompt-weights --verbose"))
        .exits_with(0)
        .says(r#""prompt":"an (robot \\(r2\\):1.1)""#);
}

#[test]
fn a_base_word_on_the_border_of_two_chunks_is_kept_whole_in_a_redraw() {
    let folder = folder("border");
    // 29 tokens before "robot cat": the word would be split between two chunks.
    let front = "red ".repeat(29);
    let line = format!(
        "generate-base --model toy --num-images 2 --steps 2 --long-prompts --verbose \
         -p '{front} robot cat at night' --subject 'robot cat' -o base"
    );
    oneactor(&folder, &line)
        .exits_with(0)
        .says("\", \"robot cat at night\"]");
    oneactor(&folder, "sample --from base/base/00.png -o again").exits_with(0);
    assert_eq!(
        pixels(&folder.join("again/0000-0.png")),
        pixels(&folder.join("base/base/00.png"))
    );
}

#[test]
fn long_prompts_and_prompt_weights_are_keys_of_a_batch() {
    let folder = folder_with_actor("prompt-keys");
    let job = format!(
        r#"{{"actors": "robot", "prompt": "{LONG} ([b]:1.2)", "steps": 2, "output_dir": "x",
            "long_prompts": true, "prompt_weights": true}}"#
    );
    fs::write(folder.join("jobs.json"), format!(r#"{{"jobs": [{job}]}}"#))
        .expect("the folder is writable");
    oneactor(&folder, "sample --config jobs.json").exits_with(0);
    assert!(folder.join("x/0000-0.png").is_file());
    oneactor(
        &folder,
        "sample --config jobs.json --long-prompts=false --overwrite",
    )
    .exits_with(2)
    .says("comes after the limit");
}

#[test]
fn words_that_the_toy_does_not_know_are_named() {
    let folder = folder_with_actor("toy-words");
    let copy = concat!(env!("CARGO_MANIFEST_DIR"), "/src/io/toy");
    let base =
        "generate-base -p 'a photo of a gizmo' --subject gizmo --num-images 2 --steps 1 -o gizmo";
    let warning = "warning: the toy model does not know";
    oneactor(&folder, &format!("{base} --model toy")).exits_with(0).says(
        "warning: the toy model does not know this word of the prompt \"a photo of a gizmo\": \"gizmo\"; \
         configs/GUIDE.md lists the words",
    );
    let run = oneactor(&folder, &format!("{base}-2 --model '{copy}' --dry-run")).exits_with(0);
    assert!(!run.stderr.contains(warning), "{}", run.stderr);

    // The actor gives the base word its meaning; the plain model has none for it.
    oneactor(&folder, "tune gizmo --max-steps 1").exits_with(0);
    let sample = |actor: &str, flags: &str| {
        let line = format!("sample {actor} {flags} -o out --dry-run");
        oneactor(&folder, &line).exits_with(0)
    };
    for prompt in ["'a [b] in the snow'", "'a Gizmo, at night'"] {
        let run = sample("gizmo", &format!("-p {prompt}"));
        assert!(!run.stderr.contains(warning), "{}", run.stderr);
    }
    sample("gizmo", "-p 'a gizmo' --no-actor").says("of the prompt \"a gizmo\": \"gizmo\"");
    sample("robot", "-p 'a robot with a flag on its ship, at the beach' -n blurry")
        .says("these words of the prompt \"a robot with a flag on its ship, at the beach\": \"flag\", \"ship\";")
        .says("this word of the prompt \"blurry\": \"blurry\"");
}

//! A style as the subject, from base images to pictures, and in a story.

use std::fs;

use serde_json::{Value, json};

use crate::{folder, folder_with_actor, json as json_file, names, oneactor, pixels, text};

const STYLE: &str = "generate-base --model toy -p 'a cat in the park, ink drawing style' --subject style \
                     --num-images 3 --steps 4 -o ink";

#[test]
fn a_style_is_tuned_with_its_own_prompts_and_combines_with_a_character() {
    let folder = folder_with_actor("style");
    oneactor(&folder, STYLE).exits_with(0);
    oneactor(
        &folder,
        "tune ink --kind style --target 1 --max-steps 3 --crop subject",
    )
    .exits_with(2)
    .says("--crop subject cannot be used with --kind style")
    .writes_nothing();
    oneactor(&folder, "tune ink --kind style --target 1 --max-steps 3").exits_with(0);
    let tuned = json_file(&folder.join("ink/tune.json"));
    assert_eq!(tuned["parameters"]["kind"], "style");
    let draw = |prompt: &str, actors: &str, out: &str| {
        let rest = if actors.contains(' ') {
            "--seed 4 --steps 3 --guided-steps 1-2 --save-masks"
        } else {
            "--seed 4 --steps 3 --guided-steps 1-2"
        };
        oneactor(
            &folder,
            &format!("sample {actors} -p '{prompt}' {rest} -o {out}"),
        )
    };
    let beside = "a robot at the beach, in the style";
    draw(beside, "ink", "alone").exits_with(0);
    // One character and a style need no masks: both act everywhere.
    draw(beside, "robot ink", "both")
        .exits_with(0)
        .says("their pictures have no masks to save");
    draw(beside, "robot", "robot-alone").exits_with(0);
    let picture = |out: &str| pixels(&folder.join(out).join("0000-4.png"));
    assert_ne!(picture("both"), picture("alone"));
    assert_ne!(picture("both"), picture("robot-alone"));

    // Two characters have masks; the style has none.
    oneactor(
        &folder,
        "generate-base --model toy -p 'a cat' --subject cat --num-images 3 --steps 4 -o cat",
    )
    .exits_with(0);
    oneactor(&folder, "tune cat --target 0 --max-steps 3").exits_with(0);
    draw("a robot and a cat in the style", "ink robot cat", "three").exits_with(0);
    let masks = ["0000-4-mask-cat.png", "0000-4-mask-robot.png", "0000-4.png"];
    let pictures: Vec<String> = names(&folder.join("three"))
        .into_iter()
        .filter(|name| name.starts_with("0000"))
        .collect();
    assert_eq!(pictures, masks);
    draw("a robot and a cat in the style", "robot cat", "two").exits_with(0);
    assert_ne!(picture("three"), picture("two"));
}

#[test]
fn the_style_of_a_story_is_in_every_scene() {
    let folder = folder("story-style");
    let described = |prompt: &str, subject: &str| json!({"prompt": prompt, "subject": subject, "num_images": 2, "max_steps": 1});
    let mut story = json!({
        "title": "Ink",
        "language": "de-AT",
        "model": "toy",
        "characters": {
            "tom": described("a cat", "cat"),
            "bolt": described("a robot", "robot"),
        },
        "style": described("a cat in the park, ink drawing style", "style"),
        "drawing": {"steps": 2, "seed": 3},
        "scenes": [
            {"prompt": "a [tom] at the beach"},
            {"prompt": "the [style] of a [tom] and a [bolt]"},
            {"prompt": "a mountain", "caption": "Nobody."},
        ],
    });
    let write = |story: &Value| {
        fs::write(folder.join("a.json"), story.to_string()).expect("the folder is writable");
    };
    write(&story);
    let line = "story a.json -o out";
    oneactor(&folder, line).exits_with(0).says("the style:");
    let out = folder.join("out");
    assert_eq!(names(&out.join("characters")), ["bolt", "tom"]);
    let tuned = json_file(&out.join("style/tune.json"));
    assert_eq!(tuned["parameters"]["kind"], "style");
    let manifest = text(&out.join("manifest.jsonl"));
    let rows: Vec<Value> = manifest
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row is JSON"))
        .collect();
    let prompts = [
        "a cat at the beach, in the style",
        "the style of a cat and a robot",
    ];
    let actors = |names: &[&str]| {
        let path = |name: &&str| json!(format!("out/{name}/actor.safetensors"));
        names.iter().map(path).collect::<Value>()
    };
    assert_eq!(rows[0]["prompt"], prompts[0]);
    assert_eq!(rows[0]["actors"], actors(&["characters/tom", "style"]));
    assert_eq!(rows[1]["prompt"], prompts[1]);
    let all = actors(&["characters/tom", "characters/bolt", "style"]);
    assert_eq!(rows[1]["actors"], all);
    assert_eq!(rows[2]["prompt"], "a mountain, in the style");
    assert_eq!(rows[2]["actors"], actors(&["style"]));
    let page = text(&out.join("index.html"));
    assert!(page.contains("<html lang=\"de-AT\">"));
    assert!(page.contains("<h2>Style</h2>"));
    assert!(page.contains("a mountain, in the style\u{a0}· seed\u{a0}5\u{a0}· no character</p>"));
    oneactor(&folder, line).exits_with(0).writes_nothing();

    // A style that was tuned before, and descriptions that are not a style.
    story["style"] = json!({"actor": "out/style", "phrase": "[style]"});
    write(&story);
    oneactor(&folder, "story a.json -o given").exits_with(0);
    let first = text(&folder.join("given/manifest.jsonl"));
    assert!(first.contains("a cat at the beach, style"), "{first}");
    let refused = [
        (
            json!({"actor": "out/characters/tom"}),
            "was tuned with another --kind, expected an actor that was tuned with --kind style",
        ),
        (
            json!({"prompt": "a style", "subject": "style", "kind": "object"}),
            "key `style`: key `kind`: found \"object\"",
        ),
        (
            json!({"actor": "out/style", "phrase": "in ink"}),
            "key `phrase`: found \"in ink\", expected a text with [style] in it once",
        ),
        (
            json!({"actor": "out/style", "phrase": "[style] of [tom]"}),
            "expected a text with [style] in it once and no other name",
        ),
        (json!("ink"), "key `style`: found the string \"ink\""),
        (
            json!({"prompt": "a style", "subject": "style", "crop": "face"}),
            "--crop face cannot be used with --kind style",
        ),
    ];
    for (style, message) in refused {
        story["style"] = style;
        write(&story);
        oneactor(&folder, "story a.json -o x")
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    story["style"] = json!({"actor": "out/style"});
    story["characters"]["Style"] = described("a dog", "dog");
    write(&story);
    oneactor(&folder, "story a.json -o x")
        .exits_with(2)
        .says("`characters`: found the name \"Style\", expected another name");
    assert!(!folder.join("x").exists());
}

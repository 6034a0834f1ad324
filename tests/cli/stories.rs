//! Stories: characters, scenes and the page, from one file.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::{folder, folder_with_actor, json as json_file, names, oneactor, pixels, text};

/// Checks that a page is well-formed and needs no other file. Returns the addresses of its
/// pictures.
fn pictures_on(page: &str) -> Vec<String> {
    let body = page.strip_prefix("<!DOCTYPE html>").expect("it is a page");
    let mut open: Vec<&str> = Vec::new();
    let mut pictures = Vec::new();
    for part in body.split('<').skip(1) {
        let (tag, _) = part.split_once('>').expect("every tag is closed");
        let name = tag.split([' ', '\n']).next().unwrap_or_default();
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "tags close in order");
        } else if !matches!(name, "meta" | "img") {
            open.push(name);
        }
        assert!(name != "script" && name != "link", "{name}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if name == "img" {
            let of = |key: &str| {
                tag.split_once(key)
                    .and_then(|(_, rest)| rest.split('"').next())
            };
            assert!(of(" alt=\"").is_some_and(|alt| !alt.is_empty()), "{tag}");
            pictures.push(of(" src=\"").expect("it has an address").to_owned());
        }
    }
    assert!(open.is_empty(), "{open:?}");
    for outside in ["href", "url(", "@import", "http", "srcset"] {
        assert!(!page.contains(outside), "{outside}");
    }
    pictures
}

/// The bytes in a `data:` address of a PNG.
fn decoded(address: &str) -> Vec<u8> {
    let text = address
        .strip_prefix("data:image/png;base64,")
        .expect("the picture is on the page itself");
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("{c} is no digit"),
    };
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        (bits, held) = (bits << 6 | u32::from(digit(c)), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

fn rows(folder: &Path) -> Vec<Value> {
    text(&folder.join("manifest.jsonl"))
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row is JSON"))
        .collect()
}

fn write(folder: &Path, name: &str, value: &Value) {
    fs::write(folder.join(name), value.to_string()).expect("the folder is writable");
}

#[test]
fn the_story_that_ships_becomes_a_book() {
    let folder = folder("story-toy");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/story-toy.json");
    let mut story = json_file(&shipped);
    fs::copy(&shipped, folder.join("toy.json")).expect("it is readable");
    let line = "story toy.json -o book --num-images 2 --steps 1 --max-steps 1";
    let run = oneactor(&folder, line).exits_with(0).says("loading toy");
    let told =
        "the most typical of 2 images; choose another with the key `target` in the story file";
    assert_eq!(run.stderr.matches(told).count(), 3);
    assert_eq!(
        run.stderr.matches("loading toy").count(),
        1,
        "{}",
        run.stderr
    );
    let book = folder.join("book");
    assert_eq!(
        names(&book),
        [
            "characters",
            "grid.png",
            "index.html",
            "manifest.jsonl",
            "pictures"
        ]
    );
    assert_eq!(names(&book.join("characters")), ["cat", "robot", "wizard"]);
    let pictures = names(&book.join("pictures"));
    assert_eq!(pictures.len(), 12);
    assert_eq!(
        (&*pictures[0], &*pictures[11]),
        ("0000-100.png", "0011-7.png")
    );
    let actor = |name: &str| format!("book/characters/{name}/actor.safetensors");
    let manifest = rows(&book);
    assert_eq!(manifest.len(), 12);
    assert_eq!(manifest[0]["actors"], json!([actor("robot")]));
    assert_eq!(
        manifest[10]["actors"],
        json!([actor("robot"), actor("wizard")])
    );
    assert_eq!(
        manifest[3]["prompt"],
        "a photo of a robot and a cat at the beach"
    );

    let page = text(&book.join("index.html"));
    let shown = pictures_on(&page);
    assert_eq!(shown.len(), 12 + 3);
    let bytes = |path: &str| fs::read(book.join(path)).expect("it is readable");
    for (address, name) in shown.iter().zip(&pictures) {
        assert_eq!(decoded(address), bytes(&format!("pictures/{name}")));
    }
    for (address, name) in shown[12..].iter().zip(["robot", "cat", "wizard"]) {
        let tuned = json_file(&book.join(format!("characters/{name}/tune.json")));
        let target = tuned["parameters"]["target"].as_u64().expect("a number");
        let picture = bytes(&format!("characters/{name}/base/{target:02}.png"));
        assert_eq!(decoded(address), picture, "{name}");
    }
    assert!(page.contains("<html lang=\"en\">"));
    assert!(page.contains("<p class=\"caption\" dir=\"auto\">It was white, and it crunched."));
    assert!(
        page.contains("a photo of a robot in the street\u{a0}· seed\u{a0}101\u{a0}· robot</p>")
    );

    // A scene equals the picture that `sample` draws. A second run changes nothing.
    let sample = format!(
        "sample {} {} -p 'a photo of a robot and a cat at the beach' --seed 103 --steps 1 \
         --guidance-scale 4 -o one",
        actor("robot"),
        actor("cat")
    );
    oneactor(&folder, &sample).exits_with(0);
    assert_eq!(
        pixels(&folder.join("one/0000-103.png")),
        pixels(&book.join("pictures/0003-103.png"))
    );
    let run = oneactor(&folder, line).exits_with(0).writes_nothing();
    assert!(!run.stderr.contains("most typical"), "{}", run.stderr);

    // A changed caption changes only the page.
    story["scenes"][0]["caption"] = json!("Otherwise.");
    write(&folder, "toy.json", &story);
    let run = oneactor(&folder, line).exits_with(0);
    assert_eq!(run.paths(), ["book/index.html"]);
    // Files that an interrupted run did not write are made.
    fs::remove_file(book.join("pictures/0004-104.png")).expect("it is there");
    let run = oneactor(&folder, line).exits_with(0);
    let made = ["pictures/0004-104.png", "manifest.jsonl", "grid.png"];
    assert_eq!(run.paths(), made.map(|name| format!("book/{name}")));
    fs::remove_dir_all(book.join("pictures")).expect("it is there");
    fs::remove_file(book.join("characters/cat/actor.safetensors")).expect("it is there");
    let run = oneactor(&folder, line).exits_with(0);
    let made = ["tune.jsonl", "actor.safetensors", "tune.json"];
    assert_eq!(
        run.paths()[..3],
        made.map(|name| format!("book/characters/cat/{name}"))
    );
    assert_eq!(names(&book.join("pictures")), pictures);
    // Changed descriptions and changed scenes are reported before anything is done.
    story["characters"]["cat"]["prompt"] = json!("a drawing of a cat");
    write(&folder, "toy.json", &story);
    oneactor(&folder, line)
        .exits_with(2)
        .says("character `cat`: book/characters/cat has base images drawn with other settings")
        .writes_nothing();
}

#[test]
fn a_given_actor_is_used_where_it_is_named_and_text_is_never_read_as_a_tag() {
    let folder = folder_with_actor("story-actor");
    let script = "<script>alert('&')</script>";
    let story = json!({
        "title": format!("\"Title\" {script}"),
        "characters": {"bolt": {"actor": "robot"}, "minka": {"actor": "robot/actor.safetensors"}},
        "drawing": {"steps": 2, "seed": 5, "eta_2": 0},
        "scenes": [
            {"prompt": "a [bolt] in the snow", "caption": script},
            {"prompt": "a robot in the snow", "seed": 5},
            {"prompt": format!("a [bolt] {script}"), "caption": ""},
        ],
    });
    write(&folder, "a.json", &story);
    let line = "story a.json -o out";
    let run = oneactor(&folder, "story a.json -o out --dry-run").exits_with(0);
    let planned = [
        "out/pictures/0000-5.png",
        "out/pictures/0001-5.png",
        "out/pictures/0002-7.png",
        "out/manifest.jsonl",
        "out/grid.png",
        "out/index.html",
    ];
    assert_eq!(run.paths(), planned);
    assert!(!folder.join("out").exists());
    oneactor(&folder, line)
        .exits_with(0)
        .says("warning: no scene names the character [minka], which is left out");
    let out = folder.join("out");
    let page = text(&out.join("index.html"));
    assert_eq!(pictures_on(&page).len(), 3 + 1);
    assert!(
        page.contains("<h1>&quot;Title&quot; &lt;script&gt;"),
        "{page}"
    );
    assert_eq!(
        page.matches("&lt;script&gt;alert('&amp;')").count(),
        2 + 1 + 2
    );
    assert!(page.contains("a robot in the snow\u{a0}· seed\u{a0}5\u{a0}· no character"));
    let manifest = rows(&out);
    assert_eq!(manifest[0]["eta_2"], json!(0.0));
    assert_eq!(manifest[1]["no_actor"], json!(true));
    assert_eq!(manifest[1]["actors"], Value::Null);
    oneactor(
        &folder,
        "sample -p 'a robot in the snow' --no-actor --seed 5 --steps 2 --model toy -o plain",
    )
    .exits_with(0);
    assert_eq!(
        pixels(&folder.join("plain/0000-5.png")),
        pixels(&out.join("pictures/0001-5.png"))
    );
    assert_ne!(
        pixels(&out.join("pictures/0000-5.png")),
        pixels(&out.join("pictures/0001-5.png"))
    );
    // Flags have priority over the file.
    oneactor(&folder, "story a.json -o out --steps 1")
        .exits_with(2)
        .says("out/pictures/0000-5.png was drawn with other settings (")
        .says("steps: was 2, is now 1");
}

#[test]
fn an_invalid_story_is_refused_before_anything_is_loaded() {
    let folder = folder_with_actor("story-refused");
    let cat = json!({"prompt": "a cat", "subject": "cat", "num_images": 3});
    let with = |key: &str, value: Value| {
        let mut cat = cat.clone();
        cat[key] = value;
        json!({"cat": cat})
    };
    let scene = json!([{"prompt": "a [cat]"}]);
    let cases = [
        (
            json!({}),
            json!([]),
            "key `scenes`: found 0, expected a list of 1 to 10000 scenes",
        ),
        (
            json!({}),
            json!({}),
            "key `scenes`: found an object, expected a list",
        ),
        (
            json!([]),
            scene.clone(),
            "key `characters`: found a list, expected an object",
        ),
        (
            json!({"cat": cat}),
            json!([{"prompt": "a [catt]"}]),
            "scene 1: key `prompt`: unknown character [catt], did you mean [cat]?",
        ),
        (
            json!({}),
            scene.clone(),
            "scene 1: key `prompt`: unknown character [cat], expected no name, because the story has no `characters`",
        ),
        (
            json!({}),
            json!([{"prompt": "a"}, {"prompt": " "}]),
            "scene 2: key `prompt`: found an empty text, expected some text",
        ),
        (
            json!({}),
            json!([{"caption": "a"}]),
            "scene 1: key `prompt`: found nothing",
        ),
        (
            json!({}),
            json!([{"prompt": "a", "captoin": "a"}]),
            "scene 1: unknown key `captoin`, did you mean `caption`?",
        ),
        (
            json!({}),
            json!([{"prompt": "a", "seed": -1}]),
            "scene 1: key `seed`: found -1",
        ),
        (
            json!({}),
            json!([{"prompt": 7}]),
            "scene 1: key `prompt`: found the number 7, expected a string",
        ),
        (
            json!({}),
            json!(["a"]),
            "scene 1: found the string \"a\", expected an object",
        ),
        (
            json!({"cat": 3}),
            scene.clone(),
            "character `cat`: found the number 3, expected an object",
        ),
        (
            json!({"cat": {}}),
            scene.clone(),
            "character `cat`: key `prompt` is missing: expected `actor`, or `prompt` and `subject`",
        ),
        (
            json!({"cat": {"actor": "nowhere"}}),
            scene.clone(),
            "character `cat`: there is no folder or file nowhere, expected an actor",
        ),
        (
            with("actor", json!("robot")),
            scene.clone(),
            "character `cat`: found `actor` and `num_images`",
        ),
        (
            with("max_step", json!(3)),
            scene.clone(),
            "character `cat`: unknown key `max_step`, did you mean `max_steps`?",
        ),
        (
            with("max_steps", json!("3")),
            scene.clone(),
            "character `cat`: key `max_steps`: found the string \"3\", expected a whole number",
        ),
        (
            with("subject", json!("dog")),
            scene.clone(),
            "character `cat`: the base word \"dog\" is missing from the prompt",
        ),
        (
            with("subject", json!(["cat", "a"])),
            scene.clone(),
            "key `subject`: found 2 base words, expected one",
        ),
        (
            with("target", json!(3)),
            scene.clone(),
            "--target: found 3, expected a whole number from 0 to 2",
        ),
        (
            with("num_auxiliary", json!(3)),
            scene.clone(),
            "--num-auxiliary: found 3, expected at most 2",
        ),
        (
            json!({"../cat": cat}),
            scene.clone(),
            "found the name \"../cat\", expected 1 to 60 letters",
        ),
        (
            json!({"cat": cat, "Cat": cat}),
            scene.clone(),
            "found \"Cat\" and \"cat\", expected names that differ",
        ),
        (
            json!({"cat": cat, "tom": cat}),
            json!([{"prompt": "a [cat], a [tom]"}]),
            "scene 1: found [cat] and [tom], whose base words \"cat\" and \"cat\"",
        ),
    ];
    for (characters, scenes, message) in cases {
        let story =
            json!({"title": "x", "model": "toy", "characters": characters, "scenes": scenes});
        write(&folder, "a.json", &story);
        oneactor(&folder, "story a.json -o x")
            .exits_with(2)
            .says("story file a.json: ")
            .says(message)
            .writes_nothing();
    }
    let cases = [
        (
            json!([1]),
            "story file a.json: found a list, expected {\"title\"",
        ),
        (
            json!({"titel": "x"}),
            "unknown key `titel`, did you mean `title`?",
        ),
        (
            json!({"scenes": [{"prompt": "a"}]}),
            "key `title`: found nothing",
        ),
        (
            json!({"title": "x", "language": "en_GB"}),
            "key `language`: found \"en_GB\", expected a language tag",
        ),
        (
            json!({"title": "x", "drawing": {"step": 1}}),
            "`drawing`: unknown key `step`, did you mean `steps`?",
        ),
        (
            json!({"title": "x", "drawing": {"eta_1": "x"}}),
            "`drawing`: key `eta_1`: found the string \"x\", expected a number",
        ),
        (
            json!({"title": "x", "dtype": "int8"}),
            "key `dtype`: found the string \"int8\"",
        ),
    ];
    for (story, message) in cases {
        write(&folder, "a.json", &story);
        oneactor(&folder, "story a.json -o x")
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    fs::write(folder.join("a.json"), "{\"title\": }").expect("the folder is writable");
    for (line, message) in [
        (
            "story a.json -o x",
            "story file a.json: line 1, column 11: ",
        ),
        (
            "story none.json -o x",
            "there is no file none.json, expected a story file: check the path",
        ),
        ("story a.json", "--output-dir is missing"),
        ("story -o x", "STORY.json is missing"),
        ("story a.json -o x --steps 0", "error: --steps: found 0"),
    ] {
        oneactor(&folder, line)
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    assert!(!folder.join("x").exists());
}

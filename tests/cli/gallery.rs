//! `gallery`: the page is read with a strict parser, which fails on broken markup.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use image::{Rgb, RgbImage};
use serde_json::{Value, json};

use crate::{BASE, folder, folder_with_actor, oneactor, pixels, program, text};

/// An element of the page, with all text inside.
#[derive(Debug)]
struct Element {
    name: String,
    attributes: BTreeMap<String, String>,
    text: String,
    /// Names of the elements around this one, the outermost first.
    inside: Vec<String>,
}

impl Element {
    fn class(&self) -> &str {
        self.attributes.get("class").map_or("", String::as_str)
    }
}

/// The elements of a page in their order. Every element must be closed unless HTML forbids it (`meta`, `img`, `input`),
/// every attribute quoted.
fn parse(page: &str) -> Vec<Element> {
    let mut rest = page
        .strip_prefix("<!DOCTYPE html>")
        .expect("a page begins with its kind");
    let mut found: Vec<Element> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    while let Some(start) = rest.find('<') {
        let text = unescaped(&rest[..start]);
        open.iter().for_each(|&i| found[i].text += &text);
        rest = &rest[start + 1..];
        if let Some(closing) = rest.strip_prefix('/') {
            let (name, behind) = closing.split_once('>').expect("a tag ends");
            let i = open.pop().expect("something is open");
            assert_eq!(found[i].name, name, "closed in the order of opening");
            rest = behind;
            continue;
        }
        let (tag, behind) = tag(rest);
        rest = behind;
        let mut element = element(tag);
        element.inside = open.iter().map(|&i| found[i].name.clone()).collect();
        if element.name == "style" {
            let (style, behind) = rest.split_once("</style>").expect("it is closed");
            (element.text, rest) = (style.to_owned(), behind);
        } else if !matches!(&*element.name, "meta" | "img" | "input") {
            open.push(found.len());
        }
        found.push(element);
    }
    assert!(open.is_empty(), "every element is closed");
    found
}

/// Splits off one tag. A `>` inside a quoted value does not end the tag.
fn tag(text: &str) -> (&str, &str) {
    let mut is_quoted = false;
    let end = text.find(|c| {
        is_quoted ^= c == '"';
        c == '>' && !is_quoted
    });
    let end = end.expect("a tag ends");
    (&text[..end], &text[end + 1..])
}

fn element(tag: &str) -> Element {
    let tag = tag.trim_end();
    let (name, mut rest) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
    let mut attributes = BTreeMap::new();
    while let Some((key, behind)) = rest.trim_start().split_once("=\"") {
        let (value, behind) = behind.split_once('"').expect("a value ends");
        assert!(
            key.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
            "{key}"
        );
        attributes.insert(key.to_owned(), unescaped(value));
        rest = behind;
    }
    assert_eq!(rest.trim(), "", "in {tag}");
    Element {
        name: name.to_owned(),
        attributes,
        text: String::new(),
        inside: Vec::new(),
    }
}

/// Replaces the five entities that HTML and XML share; any other entity fails the test.
fn unescaped(text: &str) -> String {
    assert!(!text.contains('>'), "{text}");
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        let (name, behind) = behind.split_once(';').expect("an entity ends");
        plain += before;
        plain.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "#39" => '\'',
            other => panic!("unknown entity {other}"),
        });
        rest = behind;
    }
    plain + rest
}

/// Checks that the page loads nothing from elsewhere and runs no script.
fn needs_nothing_else(elements: &[Element]) {
    for element in elements {
        assert!(
            ![
                "script", "link", "iframe", "object", "embed", "base", "form"
            ]
            .contains(&&*element.name),
            "{element:?}"
        );
        for (key, value) in &element.attributes {
            let is_address = ["src", "href", "srcset", "action", "data", "style"].contains(&&**key);
            let is_inside = value.starts_with("data:image/") || value.starts_with("#folder-");
            assert!(!is_address || is_inside, "{key}={value}");
            assert!(!key.starts_with("on"), "{key}");
        }
        if element.name == "style" {
            assert!(!element.text.contains("url(") && !element.text.contains("@import"));
            assert!(element.text.contains("prefers-color-scheme: dark"));
            assert!(element.text.contains("@media print"));
        }
    }
}

fn named<'a>(elements: &'a [Element], name: &str) -> Vec<&'a Element> {
    elements
        .iter()
        .filter(|element| element.name == name)
        .collect()
}

fn rows(folder: &Path) -> Vec<Value> {
    let text = text(&folder.join("manifest.jsonl"));
    let rows = text
        .lines()
        .map(|row| serde_json::from_str(row).expect("a row is JSON"));
    rows.collect()
}

#[test]
fn a_page_shows_what_was_drawn_and_how_to_draw_it_again() {
    let folder = folder_with_actor("gallery");
    let prompts = [
        "a robot </script></p><img src=x onerror=alert(1)> &amp; \"b\"",
        "\u{645}\u{631}\u{62d}\u{628}\u{627} a robot \u{202e}gnp",
    ];
    let words = ["sample", "robot", "-p", prompts[0], "-p", prompts[1]];
    let more = ["--steps", "2", "--compare", "-o", "robot/my scenes"];
    let run = program(&folder, words.iter().chain(&more)).output();
    assert!(run.expect("the program starts").status.success());

    let run = oneactor(&folder, "gallery robot --format json").exits_with(0);
    let line: Value = serde_json::from_str(run.stdout.trim()).expect("a line is JSON");
    assert_eq!(
        (&line["path"], &line["kind"], &line["pictures"]),
        (&json!("robot/gallery.html"), &json!("page"), &json!(7))
    );
    let page = text(&folder.join("robot/gallery.html"));
    let elements = parse(&page);
    needs_nothing_else(&elements);
    assert_eq!(named(&elements, "title")[0].text, "2 folders: 7 pictures");
    let headings: Vec<&str> = named(&elements, "h2").iter().map(|h| &*h.text).collect();
    assert_eq!(headings, ["robot", "robot/my scenes"]);
    let links = named(&elements, "a");
    assert_eq!(links[1].attributes["href"], "#folder-2");

    // Three base images, the actor's target and four pictures; each has an alternative text.
    let images = named(&elements, "img");
    assert_eq!(images.len(), 8);
    assert!(
        images
            .iter()
            .all(|image| image.attributes["src"].starts_with("data:image/png;base64,"))
    );
    assert!(images.iter().all(|image| image.attributes["width"] == "64"));
    assert_eq!(images[3].attributes["alt"], "the target of robot");
    let of_class = |class: &str| -> Vec<&Element> {
        let found = elements.iter().filter(|element| element.class() == class);
        found.collect()
    };
    let small: Vec<&str> = of_class("small")
        .iter()
        .map(|element| &*element.text)
        .collect();
    let target = "base image 1, the target of oneactor\u{a0}· seed\u{a0}1\u{a0}· base/01.png";
    assert!(small.contains(&target), "{small:?}");
    let shown: Vec<&Element> = of_class("prompt");
    let rows = rows(&folder.join("robot/my scenes"));
    // The rows of the pictures come after those of the base images and the actor.
    for (row, shown) in rows.iter().zip(&shown[4..]) {
        assert_eq!(shown.text, row["prompt"].as_str().expect("a prompt"));
        assert_eq!(shown.attributes["dir"], "auto");
    }
    assert!(images[4].attributes["alt"].starts_with(prompts[0]));
    assert!(small.contains(&"the plain model\u{a0}· seed\u{a0}0\u{a0}· plain/0000-0.png"));
    assert!(
        named(&elements, "dd")
            .iter()
            .any(|value| value.text == "robot/actor.safetensors")
    );
    assert!(
        named(&elements, "td")
            .iter()
            .any(|cell| cell.text == "image 1")
    );

    // A command is one line that can be reached by keyboard, and a shell runs it.
    let commands = named(&elements, "input");
    assert_eq!(commands.len(), 7);
    assert!(
        commands
            .iter()
            .all(|input| input.inside.contains(&"details".to_owned()))
    );
    assert!(
        commands
            .iter()
            .all(|input| input.attributes.contains_key("aria-label"))
    );
    let command = &commands[3].attributes["value"];
    assert_eq!(
        command,
        "oneactor sample --from 'robot/my scenes/0000-0.png' -o 'robot/my scenes/redrawn/0000-0'"
    );
    let again = command.strip_prefix("oneactor ").expect("it is ours");
    oneactor(&folder, again).exits_with(0);
    let [first, again] = [
        "robot/my scenes/0000-0.png",
        "robot/my scenes/redrawn/0000-0/0000-0.png",
    ];
    assert_eq!(pixels(&folder.join(first)), pixels(&folder.join(again)));

    // Both pages show the same pictures, and also the one that was just redrawn.
    oneactor(&folder, "gallery robot -o a.html").exits_with(0);
    oneactor(&folder, "gallery robot 'robot/my scenes' -o b.html").exits_with(0);
    let [a, b] = ["a.html", "b.html"].map(|name| text(&folder.join(name)));
    assert!(a.contains("3 folders: 8 pictures"));
    assert_eq!(a, b, "a folder that is named twice is there once");

    // A picture with the same seed was drawn above, in another folder: this command is not refused.
    let command = &commands[5].attributes["value"];
    assert!(
        command.ends_with("-o 'robot/my scenes/redrawn/plain/0000-0'"),
        "{command}"
    );
    let again = command.strip_prefix("oneactor ").expect("it is ours");
    oneactor(&folder, again).exits_with(0);
    let again = folder.join("robot/my scenes/redrawn/plain/0000-0/0000-0.png");
    let first = folder.join("robot/my scenes/plain/0000-0.png");
    assert_eq!(pixels(&first), pixels(&again));
}

/// Writes a folder in the form of `sample`, without drawing.
fn write_folder(folder: &Path, rows: &[Value]) {
    fs::create_dir_all(folder).expect("the folder is writable");
    let lines: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(folder.join("manifest.jsonl"), lines.concat()).expect("the folder is writable");
}

#[test]
fn large_pictures_are_scaled_down_and_differing_values_stand_below_them() {
    let folder = folder("gallery-sweep");
    let row = |scale: f64| {
        json!({"path": format!("semantic-scale={scale}_0000-3.png"), "prompt": "a cat", "seed": 3, "steps": 4,
               "semantic_scale": scale, "actors": ["runs/cat/actor.safetensors"], "seconds": scale})
    };
    let rows = [row(0.0), row(0.4), row(12.0)];
    write_folder(&folder.join("sweep"), &rows);
    let picture = RgbImage::from_fn(600, 300, |x, y| Rgb([x as u8, y as u8, 7]));
    for row in &rows[..2] {
        let name = row["path"].as_str().expect("a name");
        picture
            .save(folder.join("sweep").join(name))
            .expect("the folder is writable");
    }
    let run = oneactor(&folder, "gallery sweep")
        .exits_with(0)
        .says("sweep: 1 of 3 pictures do not exist");
    assert_eq!(run.paths(), ["sweep/gallery.html"]);
    let elements = parse(&text(&folder.join("sweep/gallery.html")));
    needs_nothing_else(&elements);
    let images = named(&elements, "img");
    assert_eq!(images.len(), 2, "the actor's base images are not here");
    for image in images {
        assert!(image.attributes["src"].starts_with("data:image/jpeg;base64,"));
        let size = ["width", "height"].map(|side| &*image.attributes[side]);
        assert_eq!(size, ["256", "128"]);
    }
    let small = elements.iter().filter(|element| element.class() == "small");
    let small: Vec<&str> = small.map(|element| &*element.text).collect();
    let expected = "cat\u{a0}· seed\u{a0}3\u{a0}· semantic_scale\u{a0}0.4\u{a0}· semantic-scale=0.4_0000-3.png";
    assert!(small.contains(&expected), "{small:?}");
    // Values that all pictures share stand once; the seconds of each picture are not shown.
    let keys: Vec<&str> = named(&elements, "dt")
        .iter()
        .map(|key| &*key.text)
        .collect();
    assert_eq!(keys, ["actors", "steps"]);
}

#[test]
fn a_dry_run_reads_everything_and_writes_nothing() {
    let folder = folder("gallery-dry-run");
    oneactor(&folder, &format!("{BASE} -o cat")).exits_with(0);
    let told = oneactor(&folder, "gallery cat --dry-run --verbose")
        .exits_with(0)
        .says("the page would have 3 pictures");
    assert_eq!(told.stdout, "cat/gallery.html\n");
    assert!(!folder.join("cat/gallery.html").exists());
    fs::write(folder.join("cat/base/00.png"), b"no picture").expect("the folder is writable");
    oneactor(&folder, "gallery cat --dry-run")
        .exits_with(0)
        .says("warning: left out");
}

#[test]
fn unmerged_parts_are_shown_as_far_as_they_are_drawn() {
    let folder = folder_with_actor("gallery-parts");
    let line = "sample robot -p 'a robot' --num-images 3 --steps 1 -o out --shard";
    oneactor(&folder, &format!("{line} 2/2")).exits_with(0);
    let run = oneactor(&folder, "gallery out")
        .exits_with(0)
        .says("out: its parts are not merged: run `oneactor merge out`");
    assert_eq!(run.paths(), ["out/gallery.html"]);
    assert!(text(&folder.join("out/gallery.html")).contains("<title>out: 1 picture</title>"));
    oneactor(&folder, &format!("{line} 1/2")).exits_with(0);
    oneactor(&folder, "merge out").exits_with(0);
    let run = oneactor(&folder, "gallery out").exits_with(0);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    assert!(text(&folder.join("out/gallery.html")).contains("<title>out: 3 pictures</title>"));
}

#[test]
fn files_that_cannot_be_read_are_reported_and_left_out() {
    let folder = folder("gallery-left-out");
    let row = |path: &str| json!({"path": path, "prompt": path, "actors": ["runs/cat/actor.safetensors"]});
    let rows = ["a.png", "b.png", "../c.png", "../d.png"].map(row);
    write_folder(&folder.join("runs"), &rows);
    let picture = RgbImage::new(8, 8);
    picture
        .save(folder.join("runs/a.png"))
        .expect("the folder is writable");
    let whole = fs::read(folder.join("runs/a.png")).expect("it is there");
    let half = &whole[..whole.len() / 2];
    fs::write(folder.join("runs/b.png"), half).expect("the folder is writable");
    write_folder(&folder.join("runs/foreign"), &[json!({"audio": 1})]);
    write_folder(&folder.join("runs/half"), &[row("b.png")]);
    fs::write(folder.join("runs/half/b.png"), half).expect("the folder is writable");
    fs::create_dir(folder.join("runs/cat")).expect("the folder is writable");
    for name in ["base.json", "tune.json"] {
        fs::write(folder.join("runs/cat").join(name), "{").expect("the folder is writable");
    }
    // The file is valid JSON, but not the object that is expected.
    fs::write(folder.join("runs/dreambooth-lora.json"), "[]").expect("the folder is writable");
    let locked = folder.join("runs/locked");
    fs::create_dir(&locked).expect("the folder is writable");
    let permit = |mode| {
        fs::set_permissions(&locked, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    permit(0);
    let run = oneactor(&folder, "gallery runs");
    permit(0o755);
    let run = run
        .exits_with(0)
        .says("warning: left out: runs/manifest.jsonl, line 3: `path`: found \"../c.png\"")
        .says("; and 1 more in the same file")
        .says("runs/b.png")
        .says("warning: left out: runs/foreign/manifest.jsonl, line 1")
        .says("runs/half/b.png")
        .says("warning: left out: reading runs/cat/base.json")
        .says("warning: left out: reading runs/cat/tune.json");
    assert_eq!(run.paths(), ["runs/gallery.html"]);
    let page = text(&folder.join("runs/gallery.html"));
    assert!(page.contains("<title>runs: 1 picture</title>"));
    assert_eq!(named(&parse(&page), "img").len(), 1);
}

#[test]
fn a_page_shows_only_the_name_of_an_actor_from_another_folder() {
    let folder = folder_with_actor("gallery-elsewhere");
    let row = json!({"path": "a.png", "prompt": "it", "actors": ["robot/actor.safetensors"]});
    write_folder(&folder.join("scenes"), &[row]);
    RgbImage::new(8, 8)
        .save(folder.join("scenes/a.png"))
        .expect("the folder is writable");
    let shown = |line: &str| {
        oneactor(&folder, &format!("gallery {line} -o page.html")).exits_with(0);
        let elements = parse(&text(&folder.join("page.html")));
        let of_class = |class: &str| -> Vec<String> {
            let found = elements.iter().filter(|element| element.class() == class);
            found.map(|element| element.text.clone()).collect()
        };
        assert_eq!(of_class("name"), ["robot"]);
        (named(&elements, "img").len(), of_class("prompt"))
    };
    assert_eq!(shown("scenes"), (1, vec!["it".to_owned()]));
    // The picture, the actor's target and three base images.
    let (images, prompts) = shown("scenes robot");
    assert_eq!((images, &*prompts[0]), (5, "a robot"));
}

#[test]
fn folders_without_pictures_and_manifests_that_point_elsewhere_are_refused() {
    let folder = folder("gallery-bad");
    fs::create_dir(folder.join("empty")).expect("the folder is writable");
    fs::write(folder.join("file"), "").expect("the folder is writable");
    let secret = RgbImage::new(8, 8);
    secret
        .save(folder.join("secret.png"))
        .expect("the folder is writable");
    write_folder(&folder.join("hostile"), &[json!({"path": "../secret.png"})]);
    write_folder(&folder.join("damaged"), &[json!({"path": "a.png"})]);
    fs::write(folder.join("damaged/a.png"), "hello").expect("the folder is writable");
    fs::create_dir(folder.join("broken")).expect("the folder is writable");
    fs::write(folder.join("broken/manifest.jsonl"), "{}\n{").expect("the folder is writable");
    for (line, message) in [
        (
            "gallery nowhere",
            "nowhere does not exist, expected a folder",
        ),
        ("gallery file", "file is not a folder"),
        (
            "gallery empty",
            "empty holds no picture of this program: expected manifest.jsonl or base.json",
        ),
        ("gallery empty file -o a.html", "file is not a folder"),
        (
            "gallery empty hostile",
            "--output is missing: it is needed with 2 folders",
        ),
        (
            "gallery empty -o a.png",
            "--output: found a.png, expected the name of a file that ends in .html",
        ),
        (
            "gallery hostile",
            "manifest.jsonl, line 1: `path`: found \"../secret.png\"",
        ),
        (
            "gallery broken",
            "manifest.jsonl, line 1: found no `path`, expected the name of a picture in the folder",
        ),
        ("gallery damaged", "damaged/a.png"),
    ] {
        oneactor(&folder, line)
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    assert!(!folder.join("hostile/gallery.html").exists());
}

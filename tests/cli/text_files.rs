//! Text files with a byte order mark, `~` at the start of paths, and seeds of more than 32 bits.

use std::fs;
use std::path::Path;

use oneactor::io::tensors::TensorFile;
use oneactor::pictures::png::read_png_text;

use crate::{BASE, Run, common, folder, folder_with_actor, names, oneactor, pixels, program, text};

const MARK: &str = "\u{feff}";

/// Writes the file with a byte order mark before its text.
fn mark(path: &Path) {
    let there = text(path);
    fs::write(path, format!("{MARK}{there}")).expect("the folder is writable");
}

fn utf_16(text: &str) -> Vec<u8> {
    let units = text.encode_utf16();
    let bytes = units.flat_map(u16::to_le_bytes);
    [0xff, 0xfe].into_iter().chain(bytes).collect()
}

#[test]
fn a_byte_order_mark_is_ignored_in_every_text_file() {
    let folder = folder_with_actor("marks");
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), format!("{MARK}{text}")).expect("the folder is writable");
    };
    write(
        "batch.json",
        r#"{"jobs": [{"actors": "robot", "prompts_file": "prompts.txt", "steps": 2}]}"#,
    );
    write("prompts.txt", "a [b] in the snow\r\na [b] at night\r\n");
    oneactor(&folder, "sample --config batch.json -o out").exits_with(0);
    assert!(names(&folder.join("out")).contains(&"0001-1.png".to_owned()));
    write(
        "story.json",
        r#"{"title": "A", "characters": {"Rob": {"actor": "robot"}}, "drawing": {"steps": 2}, "model": "toy",
            "scenes": [{"prompt": "[Rob] at night", "caption": "Night."}]}"#,
    );
    oneactor(&folder, "story story.json -o tale").exits_with(0);

    // Files of the program that an editor has saved again.
    for name in [
        "out/manifest.jsonl",
        "robot/base.json",
        "robot/tune.json",
        "robot/tune.jsonl",
    ] {
        mark(&folder.join(name));
    }
    let rows = |out: &str| {
        text(&folder.join(out).join("manifest.jsonl"))
            .lines()
            .count()
    };
    oneactor(
        &folder,
        "sample robot -p 'a [b] at sea' --seed 7 --steps 2 -o out",
    )
    .exits_with(0);
    assert_eq!(rows("out"), 3, "no row is lost");
    mark(&folder.join("out/manifest.jsonl"));
    oneactor(&folder, "evaluate out --metrics clip_t --model toy").exits_with(0);
    oneactor(&folder, "gallery out robot -o page.html").exits_with(0);
    oneactor(&folder, "tune robot --target 1 --max-steps 3")
        .exits_with(0)
        .says("is there already");
    oneactor(&folder, &format!("{BASE} -o robot"))
        .exits_with(0)
        .says("3 of 3 images are there already");
}

#[test]
fn utf_16_is_refused_by_name() {
    let folder = folder("utf-16");
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), utf_16(text)).expect("the folder is writable");
    };
    write("batch.json", r#"{"jobs": [{}]}"#);
    write("prompts.txt", "a cat");
    write("story.json", "{}");
    for (line, name) in [
        ("generate-base --config batch.json", "batch file batch.json"),
        (
            "sample --no-actor --model toy --prompts-file prompts.txt -o out",
            "prompts file prompts.txt",
        ),
        ("story story.json -o out", "story file story.json"),
    ] {
        oneactor(&folder, line)
            .exits_with(2)
            .says(&format!(
                "{name}: found UTF-16 text, expected UTF-8: save the file as UTF-8"
            ))
            .writes_nothing();
    }
}

/// The program with a home folder below `folder`.
fn at_home(folder: &Path, line: &str) -> Run {
    let mut command = program(folder, line.split_whitespace());
    let command = command.env("HOME", folder.join("home"));
    Run::of(command.output().expect("the program starts"))
}

#[test]
fn a_tilde_at_the_start_of_a_path_means_the_home_folder() {
    let folder = folder_with_actor("tilde");
    fs::create_dir(folder.join("home")).expect("the folder is writable");
    fs::rename(folder.join("robot"), folder.join("home/robot")).expect("it is there");
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).expect("the folder is writable");
    };
    write("home/prompts.txt", "a [b] at night");
    write(
        "batch.json",
        r#"{"defaults": {"actors": ["~/robot"], "steps": 2}, "jobs": [{"prompts_file": "~/prompts.txt", "output_dir": "~/out"}]}"#,
    );
    at_home(&folder, "sample --config batch.json").exits_with(0);
    assert!(folder.join("home/out/0000-0.png").is_file());
    write(
        "story.json",
        r#"{"title": "~", "characters": {"Rob": {"actor": "~/robot"}}, "drawing": {"steps": 2}, "model": "toy",
            "scenes": [{"prompt": "[Rob] at night", "caption": "Night."}]}"#,
    );
    at_home(&folder, "story story.json --output-dir=~/tale").exits_with(0);
    assert!(folder.join("home/tale/pictures/0000-0.png").is_file());
    assert!(!folder.join("~").exists());

    write(
        "other.json",
        r#"{"jobs": [{"actors": "robot"}, {"output_dir": "~bob/out"}]}"#,
    );
    at_home(&folder, "sample --config other.json")
        .exits_with(2)
        .says("batch file other.json: key `output_dir`: found \"~bob/out\", but only ~/ stands for a home folder")
        .writes_nothing();
    write(
        "lora.json",
        r#"{"jobs": [{"actors": "~/robot", "prompt": "[b]", "lora": ["~/no.safetensors:0.5"]}]}"#,
    );
    at_home(&folder, "sample --config lora.json")
        .exits_with(2)
        .says("home/no.safetensors");
    at_home(&folder, "sample ~bob/robot -p [b]")
        .exits_with(2)
        .says("found \"~bob/robot\", but only ~/ stands for a home folder");
}

#[test]
fn seeds_beyond_32_bits_give_a_warning() {
    let folder = folder("seeds");
    let draw = |seed: i64| {
        let line =
            format!("sample --no-actor --model toy -p 'a cat' --steps 2 --seed {seed} -o out");
        let run = oneactor(&folder, &line).exits_with(0);
        (
            run.stderr,
            pixels(&folder.join(format!("out/0000-{seed}.png"))),
        )
    };
    let (known, largest) = draw(4_294_967_295);
    assert!(!known.contains("32 bits"), "{known}");
    let (told, large) = draw(4_294_967_301);
    assert!(
        told.contains("seed 4294967301 gives the same random numbers as seed 5"),
        "{told}"
    );
    assert_eq!(large, draw(5).1);
    assert_ne!(large, largest);
    let line = "generate-base --model toy -p 'a cat' --subject cat --num-images 2 --steps 2";
    oneactor(
        &folder,
        &format!("{line} --seed 4294967295 --dry-run -o cat"),
    )
    .exits_with(0)
    .says("seed 4294967296 gives the same random numbers as seed 0");
}

#[test]
fn the_text_for_other_programs_describes_the_picture() {
    let folder = folder("web-ui");
    let sample = |arguments: &str, out: &str| {
        let line = format!("sample --no-actor --model toy --steps 2 {arguments} -o {out}");
        oneactor(&folder, &line).exits_with(0);
        let texts = read_png_text(&folder.join(out).join("0000-0.png")).expect("it is a PNG");
        let found = texts
            .into_iter()
            .find(|(keyword, _)| keyword == "parameters");
        found.expect("it is there").1
    };
    let plain = sample("-p 'a (cat:1.2) AND [a dog]' -n ''", "plain");
    assert!(
        plain.starts_with("a \\(cat:1.2\\) and \\[a dog\\]\nSteps: 2, Sampler: Euler, "),
        "{plain}"
    );
    let weighted = sample(
        "-p 'a (cat:1.2) \\(now\\)' -n [dog] --prompt-weights",
        "weighted",
    );
    assert!(
        weighted.starts_with("a (cat:1.2) \\(now\\)\nNegative prompt: (dog:0.909091)\nSteps: 2, "),
        "{weighted}"
    );
    oneactor(&folder, "sample --from weighted/0000-0.png -o again").exits_with(0);
    let [drawn, again] =
        ["weighted", "again"].map(|out| pixels(&folder.join(out).join("0000-0.png")));
    assert_eq!(drawn, again);
}

#[test]
fn pictures_of_a_batch_start_from_the_same_noise_for_sizes_that_16_does_not_divide() {
    let folder = folder("odd-sizes");
    let model = common::fixture("narrow");
    // 3 x 5 latents of 4 channels: 60 values.
    let line = format!(
        "generate-base --model {} -p 'a robot' --subject robot --num-images 3 --steps 2 -W 40 -H 24",
        model.display()
    );
    oneactor(&folder, &format!("{line} --batch-size 3 -o three")).exits_with(0);
    oneactor(&folder, &format!("{line} -o one")).exits_with(0);
    let latents = |out: &str| {
        let path = folder.join(out).join("base.safetensors");
        TensorFile::read(&path).expect("it is readable").tensors["latents"].shallow_clone()
    };
    let (three, one) = (latents("three"), latents("one"));
    assert_eq!(three.size(), [3, 4, 3, 5]);
    let gap = (three - one).abs().max().double_value(&[]);
    // Only rounding differs; other noise would differ by as much as the latents themselves.
    assert!(gap < 1e-4, "{gap}");
}

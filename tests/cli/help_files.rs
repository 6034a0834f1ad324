//! What the program prints about files and about itself: `inspect`, `schema`, `completions`, `man`.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::{folder_with_actor, names, oneactor, text};

#[test]
fn inspect_shows_how_actors_base_sets_and_pictures_were_made() {
    let folder = folder_with_actor("inspect");
    oneactor(
        &folder,
        "sample robot -p 'a robot' --steps 2 --seed 5 -o out",
    )
    .exits_with(0);
    let line = "inspect robot robot/base.safetensors out/0000-5.png --format json";
    let run = oneactor(&folder, line).exits_with(0);
    let facts: Vec<Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    assert_eq!(facts[0]["base_word"], "robot");
    assert_eq!(facts[0]["path"], "robot/actor.safetensors");
    assert!(facts[0]["tensors"].as_u64() > Some(10));
    assert_eq!(facts[1]["tensors"], 3, "latents, encoder_features, seeds");
    assert_eq!(
        (&facts[2]["seed"], &facts[2]["steps"]),
        (&5.into(), &2.into())
    );
    let run = oneactor(&folder, "inspect robot/base.safetensors --tensors").exits_with(0);
    let latents = run.stdout.lines().find(|line| line.contains("latents "));
    assert!(
        latents.is_some_and(|line| line.contains("F32 [")),
        "{}",
        run.stdout
    );
}

#[test]
fn files_that_inspect_does_not_know_are_refused() {
    let folder = folder_with_actor("inspect-refused");
    fs::write(folder.join("notes.txt"), "hello").expect("the folder is writable");
    let whole = fs::read(folder.join("robot/actor.safetensors")).expect("it is there");
    fs::write(folder.join("cut.safetensors"), &whole[..whole.len() / 2]).expect("writable");
    for (line, message) in [
        (
            "nothing.png",
            "there is no file nothing.png, expected a picture or a .safetensors file",
        ),
        ("robot/base", "there is no actor.safetensors in robot/base"),
        ("notes.txt", "not a whole safetensors file"),
        ("cut.safetensors", "not a whole safetensors file"),
        ("robot/grid.png", "does not record how it was drawn"),
    ] {
        oneactor(&folder, &format!("inspect {line}"))
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
}

#[test]
fn editors_shells_and_man_get_their_files() {
    let folder = folder_with_actor("help-files");
    let run = oneactor(&folder, "schema tune").exits_with(0);
    let schema: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(
        schema["$defs"]["job"]["properties"]["lambda_1"]["anyOf"][0]["type"],
        "number"
    );
    oneactor(&folder, "schema doctor")
        .exits_with(2)
        .says("expected a command with batch files: generate-base, tune, sample");

    let run = oneactor(&folder, "completions bash").exits_with(0);
    fs::write(folder.join("completions.bash"), &run.stdout).expect("the folder is writable");
    let script = "source completions.bash; COMP_WORDS=(oneactor tune --lam); COMP_CWORD=2; \
                  _oneactor oneactor --lam tune; echo ${COMPREPLY[@]}";
    let bash = Command::new("bash")
        .args(["-c", script])
        .current_dir(&folder)
        .output()
        .expect("bash runs");
    assert_eq!(
        String::from_utf8_lossy(&bash.stdout).trim(),
        "--lambda-1 --lambda-2"
    );

    oneactor(&folder, "man pages").exits_with(0);
    let pages = names(&folder.join("pages"));
    assert!(pages.contains(&"oneactor-sample.1".to_owned()), "{pages:?}");
    let page = text(&folder.join("pages/oneactor-tune.1"));
    assert!(
        page.contains(".TH") && page.contains("lambda\\-1"),
        "{page}"
    );
}

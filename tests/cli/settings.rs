//! Every setting of `sample`, each drawn with another value than its default. If the picture
//! changes, the record names the setting, and the picture is not taken for one without it.

use std::fs;
use std::path::Path;

use oneactor::cli::setting::Acts;
use oneactor::cli::{Declared, SampleFlags, Setting};
use oneactor::io::tensors::TensorFile;
use oneactor::records::PictureRecord;
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};

use crate::common::toy_files::{lora, write_controlnet, write_picture};
use crate::{copy, folder_with_actor, names, oneactor, pixels};

type Job = Map<String, Value>;

/// This prompt has brackets, which can be weights, and is longer than the toy reads at once.
const PROMPT: &str = "a [b] in the (snow:1.3) and a robot at the beach and a robot in the city and a robot in the \
                      forest and a robot on the road and a robot at the lake";

/// Settings that this test does not change: the test chooses the folders, TF32 needs a GPU, and the
/// toy has no variants and is in no repository.
const LEFT_OUT: [&str; 4] = ["output_dir", "tf32", "variant", "revision"];

/// Writes the files that values of settings name.
fn write_files(folder: &Path) {
    copy(&folder.join("robot"), &folder.join("other"));
    oneactor(folder, "tune other --target 2 --max-steps 1 --overwrite").exits_with(0);
    lora(&folder.join("lora.safetensors"), 0.5);
    write_controlnet(folder, "controlnet", 0.1);
    write_picture(&folder.join("control.png"), 64, 64, 10);
    write_picture(&folder.join("other.png"), 64, 64, 40);
    let mut offsets = TensorFile::default();
    for (name, value) in [("target_offset", 0.3), ("average_offset", -0.2)] {
        offsets.insert(
            name,
            &Tensor::full([1, 192], value, (Kind::Float, Device::Cpu)),
        );
    }
    let bytes = offsets.to_bytes().expect("floats");
    fs::write(folder.join("offsets.safetensors"), bytes).expect("the folder is writable");
    fs::write(folder.join("prompts.txt"), "a robot\n").expect("the folder is writable");
    oneactor(folder, "sample robot -p robot --steps 3 -o from").exits_with(0);
    fs::rename(folder.join("from/0000-0.png"), folder.join("from.png")).expect("it was drawn");
}

fn other(setting: &Setting) -> Value {
    serde_json::from_str(setting.other)
        .unwrap_or_else(|error| panic!("`{}` has no other value: {error}", setting.key))
}

/// Other settings that this one needs to have an effect.
fn context(setting: &Setting, all: &[Setting]) -> Job {
    let (key, value) = match setting.acts {
        Acts::Always | Acts::WithActor | Acts::WithoutBaseline => (None, None),
        Acts::WithMethod(methods) => (Some("method"), Some(json!(methods[0]))),
        Acts::With(key) => (Some(key), None),
        Acts::WithValue(key, value) => (Some(key), Some(json!(value))),
    };
    let mut job = Job::new();
    if let Some(key) = key {
        let outer = all.iter().find(|outer| outer.key == key);
        let outer = outer.expect("it acts with a setting");
        job = context(outer, all);
        job.insert(key.to_owned(), value.unwrap_or_else(|| other(outer)));
    }
    // Dependencies that no declaration states: one setting needs the other, or one of two has no
    // effect alone.
    match setting.key {
        "save_masks" => job.insert("subject_masks".to_owned(), json!("on")),
        _ if job.contains_key("controlnet") => {
            job.insert("control_image".to_owned(), json!("control.png"))
        }
        _ => None,
    };
    job
}

/// The same job with the setting's other value.
fn changed(setting: &Setting, all: &[Setting]) -> Job {
    let mut job = context(setting, all);
    job.insert(setting.key.to_owned(), other(setting));
    if setting.key == "controlnet" {
        job.insert("control_image".to_owned(), json!("control.png"));
    }
    job
}

fn into(folder: &str, mut job: Job) -> Job {
    job.insert("output_dir".to_owned(), json!(folder));
    job
}

/// Draws the jobs in one run, and returns the run's messages about failed jobs.
fn draw(folder: &Path, jobs: &[Job]) -> String {
    let defaults = json!({"actors": "robot", "prompt": PROMPT, "steps": 3});
    let batch = json!({"defaults": defaults, "jobs": jobs}).to_string();
    fs::write(folder.join("batch.json"), batch).expect("the folder is writable");
    oneactor(folder, "sample --config batch.json").stderr
}

/// The first picture in a folder.
fn picture(folder: &Path) -> Option<std::path::PathBuf> {
    let is_first = |name: &String| {
        name.starts_with("0000-") && name.ends_with(".png") && !name.contains("mask")
    };
    let name = folder
        .is_dir()
        .then(|| names(folder))
        .into_iter()
        .flatten()
        .find(is_first)?;
    Some(folder.join(name))
}

/// The largest difference of two pictures in levels of 255; pictures of two sizes differ by the
/// maximum.
fn largest_difference(one: &[u8], other: &[u8]) -> u8 {
    let levels = one.iter().zip(other).map(|(a, b)| a.abs_diff(*b)).max();
    if one.len() == other.len() {
        levels.unwrap_or(0)
    } else {
        u8::MAX
    }
}

#[test]
fn a_setting_that_changes_a_picture_is_recorded_and_a_reason_to_draw_again() {
    let folder = folder_with_actor("settings");
    write_files(&folder);
    let all = SampleFlags::settings();
    let mut settings = all.clone();
    settings.retain(|setting| !LEFT_OUT.contains(&setting.key));
    let mut contexts: Vec<Job> = Vec::new();
    let mut jobs = Vec::new();
    let mut places = Vec::new();
    for setting in &settings {
        let context = context(setting, &all);
        let known = contexts.iter().position(|known| *known == context);
        let place = known.unwrap_or(contexts.len());
        let plain = format!("out/default-{place}");
        if known.is_none() {
            jobs.push(into(&plain, context.clone()));
            contexts.push(context.clone());
        }
        let other = format!("out/{}", setting.key);
        jobs.push(into(&other, changed(setting, &all)));
        places.push((setting, plain, other, context));
    }
    let said = draw(&folder, &jobs);
    let mut wrong = Vec::new();
    places.retain(|(setting, plain, other, _)| {
        let key = setting.key;
        let of = |place: &str| picture(&folder.join(place));
        let (Some(plain), Some(drawn)) = (of(plain), of(other)) else {
            wrong.push(format!("`{key}`: {} is not drawn", setting.other));
            return false;
        };
        let levels = largest_difference(&pixels(&plain), &pixels(&drawn));
        // A setting that only chooses the computation may change the last digits.
        if levels == 0 || levels == 1 && !setting.is_recorded() {
            return false;
        }
        let parameters = |path: &Path| PictureRecord::read(path).expect("a record").parameters;
        if parameters(&plain) == parameters(&drawn) {
            wrong.push(format!("`{key}` changes the picture and is not recorded"));
        }
        // The seed is in the name of a picture.
        key != "seed"
    });
    assert!(wrong.is_empty(), "{}\n{said}", wrong.join("\n"));
    let changing: Vec<&str> = places.iter().map(|(setting, ..)| setting.key).collect();
    assert!(
        changing.len() > 35,
        "only these change a picture: {changing:?}"
    );

    let again = places
        .iter()
        .map(|(_, _, other, context)| into(other, context.clone()));
    let said = draw(&folder, &again.collect::<Vec<_>>());
    for (number, key) in (1..).zip(changing) {
        let told = format!("job {number} of batch.json: ");
        let line = said.lines().find(|line| line.contains(&told));
        assert!(
            line.is_some_and(|line| line.contains("was drawn with other settings")),
            "drawn with another `{key}`, it counts as done: {line:?}\n{said}",
        );
    }
}

//! Shared by the tests: reading the fixtures of `scripts/parity/make_fixtures.py`, and comparing
//! with the tensors that Python made.
#![allow(dead_code, reason = "every test file uses another part")]

pub mod program;
pub mod toy_files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oneactor::backbone::denoise::denoise;
use oneactor::backbone::guidance::Guidance;
use oneactor::backbone::{Backbone, LoadOptions, MemoryOptions};
use oneactor::io::config_file::{ConfigFile, Notes};
use oneactor::io::model_files::{ModelFiles, ModelOptions};
use oneactor::schedulers::new_scheduler;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};

/// The five checkpoints, see `scripts/parity/checkpoints.py`: first three SDXL models, then two SD
/// models.
pub const SHAPES: [&str; 5] = ["narrow", "words", "convproj", "sd15", "sd21"];

/// A file or folder of the fixtures: below `ONEACTOR_PARITY`, by default `target/parity`.
pub fn fixture(path: &str) -> PathBuf {
    let root = std::env::var_os("ONEACTOR_PARITY").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/parity"),
        PathBuf::from,
    );
    let path = root.join(path);
    assert!(
        path.exists(),
        "{} is missing: run scripts/test.sh",
        path.display()
    );
    tch::set_num_threads(1);
    path
}

/// A JSON file of the fixtures.
pub fn json<T: DeserializeOwned>(path: &str) -> T {
    let path = fixture(path);
    let text = std::fs::read_to_string(&path).expect("fixtures are readable");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A config file of the fixtures.
pub fn config_file(path: &str) -> ConfigFile {
    let text = std::fs::read_to_string(fixture(path)).expect("fixtures are readable");
    ConfigFile::parse(path, &text, Notes::default()).expect("fixtures are right")
}

/// Final latents of an image of this seed, height and width, by the checkpoint's own sampler.
pub fn latents(
    backbone: &Backbone,
    guidance: &dyn Guidance,
    steps: usize,
    (seed, [height, width]): (i64, [i64; 2]),
) -> Tensor {
    let kind = backbone.scheduler_file.own_kind().expect("a known class");
    let mut scheduler = new_scheduler(kind, &backbone.scheduler_file, steps)
        .expect("a number of steps that all have");
    let initial = backbone.initial_latents(seed, height, width);
    denoise(
        backbone,
        scheduler.as_mut(),
        &initial,
        guidance,
        None,
        &mut |_| Ok(()),
    )
    .expect("finite latents")
    .latents
}

/// One of the checkpoints, loaded like a user's folder.
pub fn backbone(shape: &str) -> Backbone {
    backbone_as(shape, Kind::Float)
}

/// One of the checkpoints with changed fields in a JSON file, in a folder of this name.
pub fn changed(shape: &str, name: &str, file: &str, fields: &serde_json::Value) -> Backbone {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    copy(&fixture(shape), &folder);
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).expect("fixtures are readable");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("fixtures are right");
    for (key, value) in fields.as_object().expect("an object of fields") {
        json[key] = value.clone();
    }
    std::fs::write(&path, json.to_string()).expect("the folder is ours");
    load(folder.to_str().expect("a plain name"), Kind::Float)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the target folder is writable");
    for entry in std::fs::read_dir(from).expect("fixtures are readable") {
        let path = entry.expect("fixtures are readable").path();
        let target = to.join(path.file_name().expect("a file has a name"));
        if path.is_dir() {
            copy(&path, &target)
        } else {
            std::fs::copy(&path, target).expect("it can be copied");
        }
    }
}

/// The same in another precision.
pub fn backbone_as(shape: &str, kind: Kind) -> Backbone {
    let folder = fixture(shape);
    load(folder.to_str().expect("fixtures have plain names"), kind)
}

/// The model inside the program.
pub fn toy() -> Backbone {
    toy_on(Device::Cpu, Kind::Float)
}

/// The same on this device, in this format.
pub fn toy_on(device: Device, kind: Kind) -> Backbone {
    load_on("toy", device, kind)
}

fn load(model: &str, kind: Kind) -> Backbone {
    load_on(model, Device::Cpu, kind)
}

fn load_on(model: &str, device: Device, kind: Kind) -> Backbone {
    tch::set_num_threads(1);
    let files = ModelFiles::locate(&ModelOptions {
        model: model.to_owned(),
        ..ModelOptions::default()
    })
    .expect("a whole model");
    let options = LoadOptions {
        device,
        kind,
        vae: None,
        memory: MemoryOptions::default(),
    };
    Backbone::load(&files, &options, &mut |_| ()).expect("diffusers loads this checkpoint")
}

/// The tensors of one file of the fixtures.
pub struct Expected {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

impl Expected {
    /// Reads all tensors of a file.
    pub fn read(path: &str) -> Expected {
        let path = fixture(path);
        let tensors = Tensor::read_safetensors(&path)
            .expect("fixtures are whole")
            .into_iter()
            .collect();
        Expected { path, tensors }
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Tensor {
        let found = self.tensors.get(name);
        found
            .unwrap_or_else(|| {
                panic!(
                    "{}: no tensor {name}: run scripts/test.sh",
                    self.path.display()
                )
            })
            .shallow_clone()
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Tensors whose name begins with `prefix`, by the rest of the name.
    pub fn below(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        let rest = |name: &String| name.strip_prefix(prefix).map(str::to_string);
        self.tensors
            .iter()
            .filter_map(|(name, tensor)| Some((rest(name)?, tensor.shallow_clone())))
            .collect()
    }
}

/// The difference of a tensor from the expected one.
pub struct Difference {
    /// Largest difference over the largest expected magnitude.
    pub max: f64,
    /// Norm of the difference over the norm of the expected tensor.
    pub l2: f64,
    /// The text to print: both figures, and where the largest difference is.
    pub text: String,
}

/// Compares in f64. Shapes must be equal; if the expected tensor is zero, the differences are
/// absolute.
pub fn difference(found: &Tensor, expected: &Tensor) -> Difference {
    assert_eq!(found.size(), expected.size(), "shapes differ");
    let (found, expected) = (
        found.detach().to_kind(Kind::Double),
        expected.detach().to_kind(Kind::Double),
    );
    let gap = (&found - &expected).abs();
    let scale = |value: f64| if value == 0.0 { 1.0 } else { value };
    let max = gap.max().double_value(&[]) / scale(expected.abs().max().double_value(&[]));
    let l2 = gap.norm().double_value(&[]) / scale(expected.norm().double_value(&[]));
    let flat = gap.argmax(None, false).int64_value(&[]);
    let mut place = Vec::new();
    let mut rest = flat;
    for size in expected.size().iter().rev() {
        place.insert(0, rest % size);
        rest /= size;
    }
    let at = |tensor: &Tensor| tensor.flatten(0, -1).double_value(&[flat]);
    let text = format!(
        "max {max:.1e}, l2 {l2:.1e}; largest at {place:?}: found {:.9e}, expected {:.9e}",
        at(&found.reshape([-1])),
        at(&expected.reshape([-1])),
    );
    Difference { max, l2, text }
}

/// Comparisons under one heading. All are made before any fails, and the worst one is printed (with
/// `--nocapture` also if the test passes).
pub struct Report {
    heading: String,
    failures: Vec<String>,
    compared: usize,
    worst: (f64, f64),
}

impl Report {
    /// Starts without comparisons.
    pub fn new(heading: &str) -> Report {
        Report {
            heading: heading.to_string(),
            failures: Vec::new(),
            compared: 0,
            worst: (0.0, 0.0),
        }
    }

    /// Both relative differences must stay within `bar`; NaN never does.
    pub fn close(&mut self, name: &str, found: &Tensor, expected: &Tensor, bar: f64) {
        self.compare(name, found, expected, (bar, bar));
    }

    /// Compares only the norm of the difference: for tensors whose smallest values are rounding
    /// noise.
    pub fn close_in_norm(&mut self, name: &str, found: &Tensor, expected: &Tensor, bar: f64) {
        self.compare(name, found, expected, (f64::INFINITY, bar));
    }

    fn compare(&mut self, name: &str, found: &Tensor, expected: &Tensor, bars: (f64, f64)) {
        self.compared += 1;
        if found.size() != expected.size() {
            self.failures.push(format!(
                "{name}: found {:?}, expected {:?}",
                found.size(),
                expected.size()
            ));
            return;
        }
        let Difference { max, l2, text } = difference(found, expected);
        self.worst = (self.worst.0.max(max), self.worst.1.max(l2));
        if !(max <= bars.0 && l2 <= bars.1) {
            self.failures.push(format!(
                "{name}: {text}; bars {:.0e} and {:.0e}",
                bars.0, bars.1
            ));
        }
    }

    /// `holds` must be true.
    pub fn check(&mut self, holds: bool, message: impl FnOnce() -> String) {
        self.compared += 1;
        if !holds {
            self.failures.push(message());
        }
    }

    /// Compares the pixel values of picture `i` with those resized widths first, as here, and with
    /// those resized by one call of Pillow; `wanted` returns both by these names. `level` is 1 /
    /// 255 in pixel values.
    pub fn prepared(
        &mut self,
        i: usize,
        level: f64,
        found: &Tensor,
        wanted: impl Fn(&str) -> Tensor,
    ) {
        let mut gap = |key: &str| {
            let wanted = wanted(key);
            let (found_size, size) = (found.size(), wanted.size());
            self.check(found_size == size, || {
                format!("{key} of picture {i}: found {found_size:?}, expected {size:?}")
            });
            (found - wanted).abs().max().double_value(&[]) / level
        };
        let (widths_first, at_once) = (gap("pixel_values"), gap("at_once"));
        // Equal levels, up to the rounding of f32.
        self.check(widths_first < 0.01, || {
            format!("picture {i}: {widths_first:.2} levels")
        });
        // Pillow may resize heights first, see the scripts.
        self.check(at_once < 1.01, || {
            format!("picture {i} at once: {at_once:.2} levels")
        });
    }

    /// Prints the figures, and fails if a comparison failed.
    pub fn finish(self) {
        let Report {
            heading,
            failures,
            compared,
            worst,
        } = self;
        println!(
            "parity {heading}: {compared} comparisons, worst max {:.1e}, worst l2 {:.1e}",
            worst.0, worst.1
        );
        let shown: Vec<&str> = failures.iter().take(20).map(String::as_str).collect();
        assert!(compared > 0, "{heading}: nothing was compared");
        assert!(
            failures.is_empty(),
            "{heading}: {} of {compared} fail\n  {}",
            failures.len(),
            shown.join("\n  ")
        );
    }
}

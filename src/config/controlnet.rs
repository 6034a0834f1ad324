//! The checked ControlNets with their control images.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::batch::Settings;
use super::{check, effect};
use crate::cli::controlnet::{ControlFlags, Preprocess};
use crate::error::usage;
use crate::wording::no_file;

/// How a drawing is controlled. Whether the ControlNets fit the model is checked when both are loaded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ControlJob {
    /// The ControlNets, at least one.
    pub nets: Vec<ControlNetJob>,
    /// Canny's thresholds, low and high.
    pub canny: (f64, f64),
    /// Whether only the prompt's rows are controlled, and the outer layers less than the inner ones.
    pub guess_mode: bool,
    /// Start and end of the control, as fractions of the steps.
    pub window: (f64, f64),
}

/// One ControlNet with its control image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ControlNetJob {
    /// Repository or folder.
    pub name: String,
    /// Weight of its residuals.
    pub scale: f64,
    /// Its control image.
    pub image: PathBuf,
    /// How the image is prepared.
    pub preprocess: Preprocess,
}

impl ControlJob {
    /// Checks the flags and fills in the defaults; `None` if they name no ControlNet.
    ///
    /// # Errors
    /// Names the flag, the value found and the value expected.
    pub fn check(flags: &ControlFlags) -> Result<Option<Self>> {
        effect::check(flags)?;
        let names = flags.controlnet.as_deref().unwrap_or_default();
        let images = flags.control_image.as_deref().unwrap_or_default();
        if names.is_empty() {
            return Ok(None);
        }
        if images.len() != names.len() {
            return Err(usage(format!(
                "found {} --control-image for {} --controlnet, expected one for each, in the same order",
                images.len(),
                names.len()
            )));
        }
        let preprocess = each_preprocess(flags, names.len())?;
        let nets = names.iter().zip(images).zip(preprocess);
        let nets = nets.map(|((name, image), preprocess)| net(name, image, preprocess));
        let (low, high) = (
            check::declared_number(ControlFlags::canny_low(), flags.canny_low)?,
            check::declared_number(ControlFlags::canny_high(), flags.canny_high)?,
        );
        if low > high {
            return Err(usage(format!(
                "--canny-low: found {low}, expected at most --canny-high, which is {high}"
            )));
        }
        Ok(Some(Self {
            nets: nets.collect::<Result<_>>()?,
            canny: (low, high),
            guess_mode: flags.guess_mode.unwrap_or(false),
            window: window(flags)?,
        }))
    }

    /// The settings of `sample` that give this job again.
    pub fn settings(&self) -> Settings {
        let each = |of: &dyn Fn(&ControlNetJob) -> serde_json::Value| -> serde_json::Value {
            self.nets.iter().map(of).collect()
        };
        let mut settings = Settings::new();
        let mut set = |key: &str, value| settings.insert(key.to_owned(), value);
        set(
            "controlnet",
            each(&|net| json!(format!("{}:{}", net.name, net.scale))),
        );
        set("control_image", each(&|net| json!(net.image)));
        set("control_preprocess", each(&|net| json!(net.preprocess)));
        if self
            .nets
            .iter()
            .any(|net| net.preprocess == Preprocess::Canny)
        {
            set("canny_low", json!(self.canny.0));
            set("canny_high", json!(self.canny.1));
        }
        set("guess_mode", json!(self.guess_mode));
        set("control_start", json!(self.window.0));
        set("control_end", json!(self.window.1));
        settings
    }
}

/// The preprocessing of each ControlNet. The flags give none, one for all, or one for each.
fn each_preprocess(flags: &ControlFlags, nets: usize) -> Result<Vec<Preprocess>> {
    match flags.control_preprocess.as_deref().unwrap_or_default() {
        [] => Ok(vec![Preprocess::None; nets]),
        [one] => Ok(vec![*one; nets]),
        each if each.len() == nets => Ok(each.to_vec()),
        other => Err(usage(format!(
            "found {} --control-preprocess for {nets} --controlnet, expected one for all or one for each",
            other.len()
        ))),
    }
}

fn net(text: &str, image: &Path, preprocess: Preprocess) -> Result<ControlNetJob> {
    let (name, scale) = name_and_scale(text);
    if name.trim().is_empty() {
        return Err(usage(format!(
            "--controlnet: found \"{text}\", expected a repository or folder, optionally with a colon and a scale"
        )));
    }
    if !image.is_file() {
        return Err(usage(format!(
            "--control-image: {}",
            no_file(image, "a PNG or JPEG")
        )));
    }
    Ok(ControlNetJob {
        name: name.to_owned(),
        scale: check::number(
            &format!("--controlnet {name}: the scale"),
            scale,
            0.0..=10.0,
        )?,
        image: image.to_owned(),
        preprocess,
    })
}

/// `name:0.5` is a name and a scale, unless a folder has exactly this name.
pub fn name_and_scale(text: &str) -> (&str, f64) {
    if Path::new(text).is_dir() {
        return (text, 1.0);
    }
    let split = text.rsplit_once(':');
    let split = split.and_then(|(name, scale)| Some((name, scale.trim().parse().ok()?)));
    split.unwrap_or((text, 1.0))
}

fn window(flags: &ControlFlags) -> Result<(f64, f64)> {
    let start = check::declared_number(ControlFlags::control_start(), flags.control_start)?;
    let end = check::declared_number(ControlFlags::control_end(), flags.control_end)?;
    if start < end {
        return Ok((start, end));
    }
    Err(usage(format!(
        "--control-start: found {start}, expected less than --control-end, which is {end}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flags that name nets and images; the images are this source file, which is there.
    fn flags(nets: &[&str]) -> ControlFlags {
        ControlFlags {
            controlnet: Some(nets.iter().map(|net| (*net).to_owned()).collect()),
            control_image: Some(vec![file!().into(); nets.len()]),
            ..ControlFlags::default()
        }
    }

    #[test]
    fn a_scale_stands_behind_the_last_colon() -> Result<()> {
        let job = ControlJob::check(&flags(&["a/b:0.5", "a/b", "C:/nets/x:2", "a:b"]))?;
        let nets = job.map(|job| job.nets).unwrap_or_default();
        let found: Vec<(&str, f64)> = nets.iter().map(|n| (n.name.as_str(), n.scale)).collect();
        let expected = [("a/b", 0.5), ("a/b", 1.0), ("C:/nets/x", 2.0), ("a:b", 1.0)];
        assert_eq!(found, expected);
        assert_eq!(ControlJob::check(&ControlFlags::default())?, None);
        Ok(())
    }

    #[test]
    fn the_recorded_settings_are_read_as_the_same_job() -> Result<()> {
        let given = ControlFlags {
            control_preprocess: Some(vec![Preprocess::Canny, Preprocess::None]),
            canny_low: Some(50.0),
            guess_mode: Some(true),
            control_end: Some(0.7),
            ..flags(&["a/b:0.5", "src"])
        };
        let job = ControlJob::check(&given)?.expect("ControlNets are named");
        let again = serde_json::from_value(serde_json::Value::Object(job.settings()))?;
        assert_eq!(ControlJob::check(&again)?, Some(job));
        Ok(())
    }

    #[test]
    fn what_does_not_fit_together_is_refused_by_flag() {
        let one = || flags(&["a/b"]);
        let cases = [
            (
                ControlFlags {
                    controlnet: None,
                    ..one()
                },
                "--control-image has no effect without --controlnet",
            ),
            (
                ControlFlags {
                    control_image: None,
                    ..one()
                },
                "found 0 --control-image for 1 --controlnet",
            ),
            (
                ControlFlags {
                    guess_mode: Some(true),
                    ..ControlFlags::default()
                },
                "--guess-mode has no effect without --controlnet",
            ),
            (
                ControlFlags {
                    canny_high: Some(9.0),
                    ..one()
                },
                "--canny-high has no effect without --control-preprocess canny",
            ),
            (
                ControlFlags {
                    canny_low: Some(300.0),
                    control_preprocess: Some(vec![Preprocess::Canny]),
                    ..one()
                },
                "--canny-low: found 300, expected at most --canny-high, which is 200",
            ),
            (
                ControlFlags {
                    control_preprocess: Some(vec![Preprocess::Canny; 2]),
                    ..one()
                },
                "found 2 --control-preprocess for 1 --controlnet",
            ),
            (
                ControlFlags {
                    control_start: Some(0.5),
                    control_end: Some(0.5),
                    ..one()
                },
                "--control-start: found 0.5, expected less than --control-end",
            ),
            (
                ControlFlags {
                    control_end: Some(1.5),
                    ..one()
                },
                "--control-end: found 1.5, expected a number from 0 to 1",
            ),
            (
                ControlFlags {
                    control_image: Some(vec!["none.png".into()]),
                    ..one()
                },
                "--control-image: there is no file none.png",
            ),
            (flags(&["a/b:-1"]), "--controlnet a/b: the scale: found -1"),
            (flags(&["a/b:nan"]), "the scale: found NaN"),
            (
                flags(&[":1"]),
                "--controlnet: found \":1\", expected a repository",
            ),
        ];
        for (flags, message) in cases {
            let error = ControlJob::check(&flags).expect_err(message).to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}

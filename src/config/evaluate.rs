//! A checked job of `evaluate`: the pictures and the measures.

mod gate;
mod report;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::check;
use super::model::device;
use super::shell::quoted;
use crate::cli::EvaluateFlags;
use crate::device::DeviceName;
use crate::error::usage;
use crate::io::model_files::TOY;
use crate::measures::quantity::Quantity;
use crate::measures::region::Region;
use crate::measures::{Measure, Network};
use crate::wording::no_file;
pub use gate::{Bound, Gate};
pub use report::Report;

/// The default networks. The last two have no default, because no repository has them as safetensors.
const DEFAULT_MODELS: [(Network, Option<&str>); 5] = [
    (Network::Clip, Some("openai/clip-vit-large-patch14")),
    (Network::Dino, Some("facebook/dino-vitb16")),
    (Network::Dinov2, Some("facebook/dinov2-base")),
    (Network::Lpips, None),
    (Network::Dreamsim, None),
];

/// The default Segment Anything model.
const DEFAULT_SAM: &str = "facebook/sam-vit-base";

/// A checked job of `evaluate`.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluateJob {
    /// Folders and pictures, in the order of the flags; all of them exist.
    pub pictures: Vec<PathBuf>,
    /// The picture to compare with.
    pub target: Option<PathBuf>,
    /// The measures, without repetition.
    pub measures: Vec<Measure>,
    /// The source of the masks.
    pub masks: Option<Masks>,
    /// Mask of the target.
    pub target_mask: Option<PathBuf>,
    /// Prompt of pictures without a record.
    pub prompt: Option<String>,
    /// Bounds for the overall means of columns.
    pub gates: Vec<Gate>,
    /// Name of the Segment Anything model, if it finds the masks.
    pub sam_model: Option<String>,
    /// Folder for the masks that this model finds.
    pub save_masks: Option<PathBuf>,
    /// The page to write.
    pub report: Option<Report>,
    /// The networks that the measures need, with their names.
    pub models: Vec<(Network, String)>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: DeviceName,
    /// Whether the network must not be used.
    pub offline: bool,
}

/// The source of the masks of pictures.
#[derive(Clone, Debug, PartialEq)]
pub enum Masks {
    /// Beside each picture, as `sample --save-masks` writes them.
    Attention,
    /// Segment Anything finds the subjects of pictures and target.
    Sam,
    /// `NAME.png` in a folder for each picture `NAME`.
    Folder(PathBuf),
}

impl EvaluateJob {
    /// Checks the flags and fills in the defaults.
    ///
    /// # Errors
    /// Names the flag, the value found and the value expected.
    pub fn check(flags: &EvaluateFlags) -> Result<Self> {
        let what = "a folder that sample wrote, or pictures";
        let pictures = check::required("OUT", what, &flags.pictures)?;
        for path in &pictures {
            if !path.exists() {
                return Err(usage(format!(
                    "{} does not exist, expected {what}",
                    path.display()
                )));
            }
        }
        let job = Self {
            pictures,
            target: existing("--target", &flags.target)?,
            measures: measures(flags.metrics.as_deref())?,
            masks: flags.masks.as_deref().map(masks).transpose()?,
            target_mask: existing("--target-mask", &flags.target_mask)?,
            prompt: prompt(&flags.prompt)?,
            sam_model: None,
            save_masks: flags.save_masks.clone(),
            gates: Vec::new(),
            report: Report::check(flags)?,
            models: Vec::new(),
            device: device(flags.device.as_deref())?,
            offline: flags.offline.unwrap_or(false),
        };
        if let Some(folder) = &job.save_masks {
            check::folder("--save-masks", folder)?;
        }
        if job.target_mask.is_some() && (job.target.is_none() || job.masks.is_none()) {
            return Err(usage(
                "--target-mask needs --target and --masks too: the target's parts are compared with the parts \
                that the masks show",
            ));
        }
        if job.measures.iter().all(|measure| measure.is_of_text()) {
            let metrics = job.metrics();
            for (flag, is_given, what) in [
                ("--target", job.target.is_some(), "pictures"),
                ("--masks", job.masks.is_some(), "regions"),
            ] {
                if is_given {
                    return Err(usage(format!(
                        "{flag} has no effect with --metrics {metrics}: remove it, or add a metric that compares {what}"
                    )));
                }
            }
        }
        let below = flags.fail_below.iter().flatten();
        let below = below.map(|text| Gate::parse(text, &job, Bound::AtLeast));
        let above = flags.fail_above.iter().flatten();
        let above = above.map(|text| Gate::parse(text, &job, Bound::AtMost));
        Ok(Self {
            gates: below.chain(above).collect::<Result<_>>()?,
            models: job.models(flags)?,
            sam_model: job.sam_model(flags)?,
            ..job
        })
    }

    /// The value of `--metrics` for these measures.
    fn metrics(&self) -> String {
        let names: Vec<&str> = self.measures.iter().map(|measure| measure.name()).collect();
        names.join(",")
    }

    /// Whether the target has a mask, from the user or from Segment Anything.
    fn has_target_mask(&self) -> bool {
        self.target_mask.is_some() || (self.target.is_some() && self.masks == Some(Masks::Sam))
    }

    /// The columns of the table.
    pub fn columns(&self) -> Vec<Quantity> {
        let regions: &[Region] = match self.masks {
            None => &[Region::Whole],
            Some(_) => &[Region::Whole, Region::Foreground, Region::Background],
        };
        let mut columns = Vec::new();
        for &measure in &self.measures {
            let mut add = |region, is_pairwise| {
                columns.push(Quantity {
                    measure,
                    region,
                    is_pairwise,
                });
            };
            if measure.is_of_text() {
                add(Region::Whole, false);
                continue;
            }
            for &region in regions {
                let has_target = match region {
                    Region::Whole => self.target.is_some(),
                    Region::Foreground | Region::Background => self.has_target_mask(),
                };
                if has_target {
                    add(region, false);
                }
                add(region, true);
            }
        }
        columns
    }

    /// All settings that affect the measured values, for `--dry-run` and `--verbose`.
    pub fn settings(&self) -> Value {
        let names: Vec<String> = self.columns().into_iter().map(Quantity::name).collect();
        // The paths need not be UTF-8 if they are not recorded, see `config::paths`.
        let shown = |path: &PathBuf| path.to_string_lossy().into_owned();
        let models = self.models.iter().map(|(_, name)| name);
        let gates = |flag: &str| {
            let of_it = self.gates.iter().filter(|gate| gate.bound.flag() == flag);
            of_it.map(Gate::to_string).collect::<Vec<_>>()
        };
        json!({
            "pictures": self.pictures.iter().map(shown).collect::<Vec<_>>(),
            "target": self.target.as_ref().map(shown),
            "masks": match &self.masks {
                None => Value::Null,
                Some(Masks::Attention) => json!("attention"),
                Some(Masks::Sam) => json!("sam"),
                Some(Masks::Folder(folder)) => json!(shown(folder)),
            },
            "target_mask": self.target_mask.as_ref().map(shown),
            "sam_model": self.sam_model,
            "save_masks": self.save_masks.as_ref().map(shown),
            "prompt": self.prompt,
            "fail_below": gates("--fail-below"),
            "fail_above": gates("--fail-above"),
            "report": self.report.as_ref().map(|report| shown(&report.path)),
            "columns": names,
            "models": models.collect::<Vec<_>>(),
            "device": self.device,
        })
    }

    /// The name of the Segment Anything model, if one is needed.
    fn sam_model(&self, flags: &EvaluateFlags) -> Result<Option<String>> {
        if self.masks != Some(Masks::Sam) {
            for (flag, is_given) in [
                ("--sam-model", flags.sam_model.is_some()),
                ("--save-masks", flags.save_masks.is_some()),
            ] {
                if is_given {
                    return Err(usage(format!(
                        "{flag} has no effect without --masks sam: add --masks sam, or leave out {flag}"
                    )));
                }
            }
            return Ok(None);
        }
        match flags.sam_model.as_deref().unwrap_or(DEFAULT_SAM) {
            TOY => Err(usage(format!(
                "--sam-model: found {TOY}, which contains only a CLIP model, expected a repository or folder"
            ))),
            name if name.trim().is_empty() => {
                Err(usage("--sam-model: found an empty text, expected a name"))
            }
            name => Ok(Some(name.to_owned())),
        }
    }

    /// The networks that the measures need, with their names.
    fn models(&self, flags: &EvaluateFlags) -> Result<Vec<(Network, String)>> {
        let mut models = Vec::new();
        for (network, default) in DEFAULT_MODELS {
            let (flag, given) = match network {
                Network::Clip => ("--clip-model", &flags.clip_model),
                Network::Dino => ("--dino-model", &flags.dino_model),
                Network::Dinov2 => ("--dinov2-model", &flags.dinov2_model),
                Network::Lpips => ("--lpips-model", &flags.lpips_model),
                Network::Dreamsim => ("--dreamsim-model", &flags.dreamsim_model),
            };
            let of_it = self
                .measures
                .iter()
                .find(|measure| measure.network() == network);
            match (of_it, given) {
                (None, Some(_)) => {
                    let metrics = self.metrics();
                    return Err(usage(format!(
                        "{flag} has no effect with --metrics {metrics}: leave out {flag}, or add a metric that \
                        uses the model"
                    )));
                }
                (None, None) => {}
                (Some(measure), Some(name)) if name == TOY && network != Network::Clip => {
                    return Err(usage(format!(
                        "{flag}: found {TOY}, which contains only a CLIP model, expected a repository or \
                        folder; or leave {} out of --metrics",
                        measure.name()
                    )));
                }
                (Some(_), Some(name)) if name.trim().is_empty() => {
                    return Err(usage(format!(
                        "{flag}: found an empty text, expected a name"
                    )));
                }
                (Some(measure), Some(name)) if default.is_none() && !Path::new(name).exists() => {
                    return Err(no_folder(flag, name, *measure));
                }
                (Some(measure), name) => match name.as_deref().or(default) {
                    Some(name) => models.push((network, name.to_owned())),
                    None => return Err(needs_folder(flag, *measure)),
                },
            }
        }
        Ok(models)
    }
}

/// The error about a measure whose weights are published only in pickled form.
fn needs_folder(flag: &str, measure: Measure) -> anyhow::Error {
    usage(format!(
        "--metrics {} needs {flag} with a folder. Its weights are published only in pickled form; make the folder \
        with {}",
        measure.name(),
        converter(measure, &format!("models/{}", measure.name()))
    ))
}

/// The error about the folder of such weights, if there is none of that name.
fn no_folder(flag: &str, folder: &str, measure: Measure) -> anyhow::Error {
    usage(format!(
        "{flag}: there is no folder {folder}, expected a folder with converted weights: make it with {}",
        converter(measure, &quoted(folder))
    ))
}

/// The command that makes a folder of weights from those that are published.
fn converter(measure: Measure, folder: &str) -> String {
    let source = match measure {
        Measure::Lpips => "alexnet-owt-7be5be79.pth",
        _ => "CACHE_OF_THE_DREAMSIM_PACKAGE",
    };
    format!(
        "`python scripts/convert_encoder.py {source} --as {} --out {folder}`, see configs/README.md#evaluate",
        measure.name()
    )
}

fn existing(flag: &str, path: &Option<PathBuf>) -> Result<Option<PathBuf>> {
    match path {
        Some(path) if !path.is_file() => {
            Err(usage(format!("{flag}: {}", no_file(path, "a PNG or JPEG"))))
        }
        path => Ok(path.clone()),
    }
}

fn masks(path: &Path) -> Result<Masks> {
    match path {
        _ if path == Path::new("attention") => Ok(Masks::Attention),
        _ if path == Path::new("sam") => Ok(Masks::Sam),
        _ if path.is_dir() => Ok(Masks::Folder(path.to_owned())),
        _ => Err(usage(format!(
            "--masks: there is no folder {}, expected a folder with masks, attention or sam",
            path.display()
        ))),
    }
}

fn prompt(prompt: &Option<String>) -> Result<Option<String>> {
    match prompt {
        Some(text) if text.trim().is_empty() => {
            Err(usage("--prompt: found an empty text, expected a prompt"))
        }
        prompt => Ok(prompt.clone()),
    }
}

/// The measures with these names, without repetition.
fn measures(names: Option<&[String]>) -> Result<Vec<Measure>> {
    let Some(names) = names else {
        return Ok(vec![Measure::ClipI, Measure::ClipT]);
    };
    let mut found = Vec::new();
    for name in names {
        let name = name.trim().to_lowercase().replace('-', "_");
        let Some(measure) = Measure::ALL
            .into_iter()
            .find(|measure| measure.name() == name)
        else {
            let known = Measure::ALL.map(Measure::name);
            return Err(usage(format!(
                "--metrics: found \"{name}\", expected some of {}",
                known.join(", ")
            )));
        };
        if !found.contains(&measure) {
            found.push(measure);
        }
    }
    if found.is_empty() {
        return Err(usage(
            "--metrics: found an empty list, expected at least one name",
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> EvaluateFlags {
        EvaluateFlags {
            pictures: Some(vec![PathBuf::from(env!("CARGO_MANIFEST_DIR"))]),
            target: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")),
            ..EvaluateFlags::default()
        }
    }

    #[test]
    fn the_columns_follow_from_measures_target_and_masks() -> Result<()> {
        let names = |flags: &EvaluateFlags| -> Result<Vec<String>> {
            let columns = EvaluateJob::check(flags)?.columns();
            Ok(columns.into_iter().map(Quantity::name).collect())
        };
        assert_eq!(names(&flags())?, ["clip_i", "clip_i_pairwise", "clip_t"]);
        let masked = EvaluateFlags {
            masks: Some(PathBuf::from("attention")),
            metrics: Some(vec!["dino".to_owned(), "DINO".to_owned()]),
            ..flags()
        };
        let expected = [
            "dino",
            "dino_pairwise",
            "dino_foreground_pairwise",
            "dino_background_pairwise",
        ];
        assert_eq!(names(&masked)?, expected);
        // Segment Anything also finds the target's subject.
        let found = EvaluateFlags {
            masks: Some(PathBuf::from("sam")),
            metrics: Some(vec!["dino".to_owned()]),
            ..flags()
        };
        let expected = [
            "dino",
            "dino_pairwise",
            "dino_foreground",
            "dino_foreground_pairwise",
            "dino_background",
            "dino_background_pairwise",
        ];
        assert_eq!(names(&found)?, expected);
        Ok(())
    }

    #[test]
    fn wrong_flags_are_refused_with_what_was_expected() {
        let cases: [(&str, EvaluateFlags); 10] = [
            ("OUT is missing", EvaluateFlags::default()),
            (
                "found \"clip_x\", expected some of clip_i",
                EvaluateFlags {
                    metrics: Some(vec!["clip_x".to_owned()]),
                    ..flags()
                },
            ),
            (
                "there is no column clip_i (it needs --target)",
                EvaluateFlags {
                    target: None,
                    fail_below: Some(vec!["clip_i=0.8".to_owned()]),
                    ..flags()
                },
            ),
            (
                "expected COLUMN=VALUE",
                EvaluateFlags {
                    fail_below: Some(vec!["clip_i".to_owned()]),
                    ..flags()
                },
            ),
            (
                "found \"high\", expected a number",
                EvaluateFlags {
                    fail_below: Some(vec!["clip_i=high".to_owned()]),
                    ..flags()
                },
            ),
            (
                "which contains only a CLIP model",
                EvaluateFlags {
                    metrics: Some(vec!["dino".to_owned()]),
                    dino_model: Some(TOY.to_owned()),
                    ..flags()
                },
            ),
            (
                "--fail-below: found lpips_pairwise, a distance, which is better when it is lower: \
                 use --fail-above lpips_pairwise=0.3",
                EvaluateFlags {
                    metrics: Some(vec!["lpips".to_owned()]),
                    fail_below: Some(vec!["lpips_pairwise=0.3".to_owned()]),
                    ..flags()
                },
            ),
            (
                "--metrics lpips needs --lpips-model with a folder",
                EvaluateFlags {
                    metrics: Some(vec!["lpips".to_owned()]),
                    ..flags()
                },
            ),
            (
                "--metrics dreamsim needs --dreamsim-model with a folder",
                EvaluateFlags {
                    metrics: Some(vec!["dreamsim".to_owned()]),
                    ..flags()
                },
            ),
            (
                "--dinov2-model has no effect with --metrics clip_i,clip_t",
                EvaluateFlags {
                    dinov2_model: Some("some/dinov2".to_owned()),
                    ..flags()
                },
            ),
        ];
        for (expected, flags) in cases {
            let error = EvaluateJob::check(&flags).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

//! A checked job of `evaluate`: what is measured on which pictures.

mod gate;
mod report;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::check;
use super::model::device;
use crate::cli::EvaluateFlags;
use crate::device::DeviceName;
use crate::error::usage;
use crate::io::model_files::TOY;
use crate::measures::quantity::Quantity;
use crate::measures::region::Region;
use crate::measures::{Measure, Network};
pub use gate::{Bound, Gate};
pub use report::Report;

/// The networks where none are named; no repository has the last two as safetensors.
const DEFAULT_MODELS: [(Network, Option<&str>); 5] = [
    (Network::Clip, Some("openai/clip-vit-large-patch14")),
    (Network::Dino, Some("facebook/dino-vitb16")),
    (Network::Dinov2, Some("facebook/dinov2-base")),
    (Network::Lpips, None),
    (Network::Dreamsim, None),
];

/// Segment Anything where no other is named.
const DEFAULT_SAM: &str = "facebook/sam-vit-base";

/// A checked job of `evaluate`.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluateJob {
    /// Folders and pictures, in the order given; each exists.
    pub pictures: Vec<PathBuf>,
    /// What to compare with.
    pub target: Option<PathBuf>,
    /// What is measured, each once.
    pub measures: Vec<Measure>,
    /// Where the masks are.
    pub masks: Option<Masks>,
    /// Mask of the target.
    pub target_mask: Option<PathBuf>,
    /// Prompt of pictures without a record.
    pub prompt: Option<String>,
    /// Bounds of overall means.
    pub gates: Vec<Gate>,
    /// Name of the network that finds the subjects, where masks come from it.
    pub sam_model: Option<String>,
    /// Folder for the masks that it finds.
    pub save_masks: Option<PathBuf>,
    /// The page to write.
    pub report: Option<Report>,
    /// The networks that are needed, with their names.
    pub models: Vec<(Network, String)>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: DeviceName,
    /// Whether the network must not be used.
    pub offline: bool,
}

/// Where the masks of pictures are.
#[derive(Clone, Debug, PartialEq)]
pub enum Masks {
    /// Beside each picture, as `sample --save-masks` writes them.
    Attention,
    /// Nowhere: Segment Anything finds the subjects of pictures and target.
    Sam,
    /// `NAME.png` in a folder for each picture `NAME`.
    Folder(PathBuf),
}

impl EvaluateJob {
    /// Checks the flags and fills in the defaults.
    ///
    /// # Errors
    /// With the flag, what was found and what was expected.
    pub fn check(flags: &EvaluateFlags) -> Result<Self> {
        let what = "a folder that sample wrote, or pictures";
        let pictures = check::required("OUT", what, &flags.pictures)?;
        for path in &pictures {
            if !path.exists() {
                return Err(usage(format!(
                    "there is no {}: expected {what}",
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
                "--target-mask: found it without --target and --masks, expected all three: it is \
                 compared with the parts that the masks show",
            ));
        }
        if job.measures.iter().all(|measure| measure.is_of_text()) {
            for (flag, is_given) in [
                ("--target", job.target.is_some()),
                ("--masks", job.masks.is_some()),
            ] {
                if is_given {
                    return Err(usage(format!(
                        "{flag}: found it, which nothing in --metrics uses, expected no such flag"
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

    /// Whether the target has a mask, given or found.
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

    /// All that decides the figures, for `--dry-run` and `--verbose`.
    pub fn settings(&self) -> Value {
        let names: Vec<String> = self.columns().into_iter().map(Quantity::name).collect();
        // They may be none of UTF-8 where nothing is recorded, see `config::paths`.
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

    /// The network that finds the subjects.
    fn sam_model(&self, flags: &EvaluateFlags) -> Result<Option<String>> {
        if self.masks != Some(Masks::Sam) {
            for (flag, is_given) in [
                ("--sam-model", flags.sam_model.is_some()),
                ("--save-masks", flags.save_masks.is_some()),
            ] {
                if is_given {
                    return Err(usage(format!(
                        "{flag}: found it without --masks sam, expected both or neither"
                    )));
                }
            }
            return Ok(None);
        }
        match flags.sam_model.as_deref().unwrap_or(DEFAULT_SAM) {
            TOY => Err(usage(format!(
                "--sam-model: found {TOY}, which has a CLIP only, expected a repository or folder"
            ))),
            name if name.trim().is_empty() => {
                Err(usage("--sam-model: found an empty text, expected a name"))
            }
            name => Ok(Some(name.to_owned())),
        }
    }

    /// The networks that the measures need.
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
                (None, Some(name)) => {
                    return Err(usage(format!(
                        "{flag}: found {name}, which nothing in --metrics uses, expected no such flag"
                    )));
                }
                (None, None) => {}
                (Some(measure), Some(name)) if name == TOY && network != Network::Clip => {
                    return Err(usage(format!(
                        "{flag}: found {TOY}, which has a CLIP only, expected a repository or folder, or no {} in --metrics",
                        measure.name()
                    )));
                }
                (Some(_), Some(name)) if name.trim().is_empty() => {
                    return Err(usage(format!(
                        "{flag}: found an empty text, expected a name"
                    )));
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

/// What to do for a measure whose weights are published pickled only.
fn needs_folder(flag: &str, measure: Measure) -> anyhow::Error {
    let (name, source) = match measure {
        Measure::Lpips => ("lpips", "alexnet-owt-7be5be79.pth"),
        _ => ("dreamsim", "CACHE_OF_THE_DREAMSIM_PACKAGE"),
    };
    usage(format!(
        "--metrics {name}: found no {flag}, expected a folder: its weights are published pickled only, and \
         `python scripts/convert_encoder.py {source} --as {name} --out models/{name}` makes safetensors of \
         them, see configs/README.md#evaluate"
    ))
}

fn existing(flag: &str, path: &Option<PathBuf>) -> Result<Option<PathBuf>> {
    match path {
        Some(path) if !path.is_file() => Err(usage(format!(
            "{flag}: there is no file {}",
            path.display()
        ))),
        path => Ok(path.clone()),
    }
}

fn masks(path: &Path) -> Result<Masks> {
    match path {
        _ if path == Path::new("attention") => Ok(Masks::Attention),
        _ if path == Path::new("sam") => Ok(Masks::Sam),
        _ if path.is_dir() => Ok(Masks::Folder(path.to_owned())),
        _ => Err(usage(format!(
            "--masks: there is no folder {}: expected a folder with masks, attention or sam",
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

/// The measures by name, each once.
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
                "which has a CLIP only",
                EvaluateFlags {
                    metrics: Some(vec!["dino".to_owned()]),
                    dino_model: Some(TOY.to_owned()),
                    ..flags()
                },
            ),
            (
                "--fail-below: found lpips_pairwise, which is a distance and better the lower it is, \
                 expected --fail-above lpips_pairwise=0.3",
                EvaluateFlags {
                    metrics: Some(vec!["lpips".to_owned()]),
                    fail_below: Some(vec!["lpips_pairwise=0.3".to_owned()]),
                    ..flags()
                },
            ),
            (
                "--metrics lpips: found no --lpips-model, expected a folder",
                EvaluateFlags {
                    metrics: Some(vec!["lpips".to_owned()]),
                    ..flags()
                },
            ),
            (
                "--metrics dreamsim: found no --dreamsim-model, expected a folder",
                EvaluateFlags {
                    metrics: Some(vec!["dreamsim".to_owned()]),
                    ..flags()
                },
            ),
            (
                "found some/dinov2, which nothing in --metrics uses",
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

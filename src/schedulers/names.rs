//! The samplers' names in other programs.

use super::SchedulerKind;

/// A sampler with its names.
pub struct SamplerNames {
    /// The sampler here.
    pub kind: SchedulerKind,
    /// Its class in diffusers.
    pub diffusers: &'static str,
    /// Its name in stable-diffusion-webui (AUTOMATIC1111).
    pub webui: &'static str,
    /// Its name in ComfyUI; empty if ComfyUI has no such sampler.
    pub comfyui: &'static str,
}

/// All samplers.
pub const SAMPLERS: [SamplerNames; 4] = [
    SamplerNames {
        kind: SchedulerKind::Euler,
        diffusers: "EulerDiscreteScheduler",
        webui: "Euler",
        comfyui: "euler",
    },
    SamplerNames {
        kind: SchedulerKind::DpmSolverMultistep,
        diffusers: "DPMSolverMultistepScheduler",
        webui: "DPM++ 2M",
        comfyui: "dpmpp_2m",
    },
    SamplerNames {
        kind: SchedulerKind::Ddim,
        diffusers: "DDIMScheduler",
        webui: "DDIM",
        comfyui: "ddim",
    },
    SamplerNames {
        kind: SchedulerKind::Pndm,
        diffusers: "PNDMScheduler",
        webui: "PLMS",
        comfyui: "",
    },
];

impl SchedulerKind {
    /// The sampler with this name, here or in another program. Case, spaces, hyphens and
    /// underscores are ignored, and the name of a diffusers class may omit `Scheduler`.
    pub fn from_name(name: &str) -> Option<SchedulerKind> {
        let plain = |name: &str| -> String {
            let name = name.to_lowercase();
            let kept: String = name.chars().filter(|c| !" _-".contains(*c)).collect();
            kept.trim_end_matches("scheduler").to_owned()
        };
        let name = plain(name);
        let is_called = |sampler: &&SamplerNames| {
            let names = [sampler.diffusers, sampler.webui, sampler.comfyui];
            name == plain(sampler.kind.name())
                || names.iter().any(|of| !of.is_empty() && name == plain(of))
        };
        SAMPLERS.iter().find(is_called).map(|sampler| sampler.kind)
    }
}

/// The names as a table for `--help`.
pub fn table() -> String {
    let row = |cells: [&str; 4]| {
        let [here, diffusers, webui, comfyui] = cells;
        let line = format!("  {here:<9}{diffusers:<29}{webui:<24}{comfyui}");
        format!("{}\n", line.trim_end())
    };
    let heading = row(["here", "diffusers", "stable-diffusion-webui", "ComfyUI"]);
    let rows = SAMPLERS.iter().map(|sampler| {
        let SamplerNames {
            kind,
            diffusers,
            webui,
            comfyui,
        } = sampler;
        row([kind.name(), diffusers, webui, comfyui])
    });
    std::iter::once(heading).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sampler_is_found_by_each_of_its_names() {
        assert_eq!(SAMPLERS.len(), SchedulerKind::ALL.len());
        for sampler in &SAMPLERS {
            let SamplerNames {
                kind,
                diffusers,
                webui,
                comfyui,
            } = *sampler;
            for name in [kind.name(), diffusers, webui, comfyui] {
                let expected = (!name.is_empty()).then_some(kind);
                assert_eq!(SchedulerKind::from_name(name), expected, "{name}");
            }
        }
        for (name, kind) in [
            ("DPM++ 2M", SchedulerKind::DpmSolverMultistep),
            ("DPMSolverMultistep", SchedulerKind::DpmSolverMultistep),
            ("euler_discrete", SchedulerKind::Euler),
        ] {
            assert_eq!(SchedulerKind::from_name(name), Some(kind), "{name}");
        }
        assert_eq!(SchedulerKind::from_name("euler a"), None);
    }
}

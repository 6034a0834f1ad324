//! ControlNets (arXiv 2302.05543): networks that make the denoising loop follow control images.
//!
//! A row of a ControlNet gets the text, pooled text and sizes of the U-Net row to which it is added, as in
//! diffusers' pipelines. With an actor, the text includes the row's offset of the base word, because a
//! ControlNet is a copy of the U-Net's encoder and reads the same text.

use std::rc::Rc;

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

use super::Backbone;
use super::unet_pass::UnetPass;
use crate::error::usage;
use crate::io::finite_scan::FiniteScan;
use crate::io::model_files::ModelFiles;
use crate::io::weights::Weights;
use crate::models::config::PerBlock;
use crate::models::unet::controlnet::{ControlNetConfig, ControlNetModel};
use crate::models::unet::cross_attention::Text;
use crate::models::unet::unet_2d_condition::{Encoded, UNet2DConditionConfig};

/// The config of the ControlNet among these files.
///
/// # Errors
/// When there is no config, or the architecture is not supported.
pub fn controlnet_config(files: &ModelFiles) -> Result<ControlNetConfig> {
    ControlNetConfig::read(&files.config("config.json")?).with_context(|| files.name().to_string())
}

/// The properties of a model that a ControlNet must fit.
pub struct ModelSide<'a> {
    /// The model's name, for messages.
    pub name: &'a str,
    /// The config of the model's U-Net.
    pub unet: &'a UNet2DConditionConfig,
    /// Width of a latent in pixels.
    pub scale_factor: i64,
}

/// Refuses a ControlNet that was made for another kind of model.
///
/// # Errors
/// Names the ControlNet, the model and the field in which they differ.
pub fn check_fit(name: &str, config: &ControlNetConfig, model: &ModelSide) -> Result<()> {
    let unet = model.unet;
    let blocks = unet.block_out_channels.len();
    let layers = |layers: &PerBlock| {
        layers
            .expand(blocks, "layers_per_block")
            .unwrap_or_default()
    };
    let kind = |kind: &Option<String>| kind.clone().unwrap_or_else(|| "none".to_owned());
    let width = |width: Option<i64>| width.map_or("none".to_owned(), |width| width.to_string());
    let facts = [
        (
            "in_channels",
            config.in_channels.to_string(),
            unet.in_channels.to_string(),
        ),
        (
            "block_out_channels",
            format!("{:?}", config.block_out_channels),
            format!("{:?}", unet.block_out_channels),
        ),
        (
            "layers_per_block",
            format!("{:?}", layers(&config.layers_per_block)),
            format!("{:?}", layers(&unet.layers_per_block)),
        ),
        (
            "cross_attention_dim",
            config.cross_attention_dim.to_string(),
            unet.cross_attention_dim.to_string(),
        ),
        (
            "addition_embed_type",
            kind(&config.addition_embed_type),
            kind(&unet.addition_embed_type),
        ),
        (
            "projection_class_embeddings_input_dim",
            width(config.projection_class_embeddings_input_dim),
            width(unet.projection_class_embeddings_input_dim),
        ),
        (
            "pixels to a latent",
            config.scale_factor().to_string(),
            model.scale_factor.to_string(),
        ),
    ];
    match facts.iter().find(|(_, there, here)| there != here) {
        None => Ok(()),
        Some((key, there, here)) => Err(usage(format!(
            "the ControlNet {name} does not fit the model {}: {key} is {there} in the ControlNet and {here} in \
            the model. Use a ControlNet for this kind of model",
            model.name
        ))),
    }
}

/// A loaded ControlNet.
pub struct ControlNet {
    model: ControlNetModel,
    device: Device,
    kind: Kind,
}

impl ControlNet {
    /// Loads a ControlNet from a diffusers folder or the hub, to the device and in the precision of the backbone.
    ///
    /// # Errors
    /// When a file is missing or does not fit. The message names file and tensor.
    pub fn load(files: &ModelFiles, backbone: &Backbone) -> Result<Self> {
        let _frozen = tch::no_grad_guard();
        let (device, kind) = (backbone.device(), backbone.kind());
        let load = || -> Result<ControlNetModel> {
            let weights = Weights::open(&files.weights("")?, device, kind)?;
            let model = ControlNetModel::new(&weights.root(), &controlnet_config(files)?)?;
            let read = weights.finish()?;
            FiniteScan::start(read.values).wait()?;
            files.note_unused(&read.unused);
            Ok(model)
        };
        let model = load().with_context(|| format!("loading the ControlNet {}", files.name()))?;
        Ok(ControlNet {
            model,
            device,
            kind,
        })
    }
}

/// A ControlNet with its control image and scale.
struct SteeringNet {
    net: Rc<ControlNet>,
    /// The embedding of the control image `[1, C, H, W]`, the same at every step.
    cond: Tensor,
    /// diffusers' `controlnet_conditioning_scale`.
    scale: f64,
}

/// How ControlNets act in a run, the same for all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ControlSettings {
    /// Whether only rows with the prompt are controlled, and the outer skips less than the inner ones.
    pub guess_mode: bool,
    /// Start of the control as a fraction of the steps (diffusers' `control_guidance_start`).
    pub start: f64,
    /// End of the control as a fraction of the steps (diffusers' `control_guidance_end`).
    pub end: f64,
}

/// One or several ControlNets with their control images. The residuals of several are added.
pub struct Control {
    parts: Vec<SteeringNet>,
    settings: ControlSettings,
}

impl Control {
    /// Starts without a ControlNet.
    pub fn new(settings: ControlSettings) -> Self {
        Control {
            parts: Vec::new(),
            settings,
        }
    }

    /// Adds a ControlNet with its control image `[1, 3, F H, F W]` in [0, 1] and its scale.
    pub fn add(&mut self, net: Rc<ControlNet>, picture: &Tensor, scale: f64) {
        let picture = picture.to_device(net.device).to_kind(net.kind);
        let cond = tch::no_grad(|| net.model.embed(&picture));
        self.parts.push(SteeringNet { net, cond, scale });
    }

    /// Whether the ControlNets act in `step`, counted from 1, of `steps`: the whole step must lie between start
    /// and end.
    pub fn is_active(&self, step: usize, steps: usize) -> bool {
        let fraction = |step: usize| step as f64 / steps as f64;
        fraction(step - 1) >= self.settings.start && fraction(step) <= self.settings.end
    }

    /// Adds the residuals of all ControlNets to the U-Net's pass. In guess mode they are added only to the rows
    /// from `conditional` on, which have the prompt.
    pub(super) fn steer(
        &self,
        backbone: &Backbone,
        encoded: &mut Encoded,
        pass: &UnetPass,
        conditional: i64,
    ) {
        let rows = pass.rows();
        let skipped = if self.settings.guess_mode {
            conditional
        } else {
            0
        };
        let of = |tensor: &Tensor| tensor.narrow(0, skipped, rows - skipped);
        let (embeds, mask) = (
            of(pass.text.encoder_hidden_states),
            pass.text
                .mask
                .map(|mask| mask.narrow(skipped, rows - skipped)),
        );
        let text = match skipped {
            0 => pass.text,
            _ => Text {
                mask: mask.as_ref(),
                ..Text::from(&embeds)
            },
        };
        let added = pass.added.map(|added| added.map(of));
        let model_input = of(pass.model_input).to_kind(backbone.kind());
        for part in &self.parts {
            let residuals = part
                .net
                .model
                .forward(
                    &model_input,
                    &of(pass.timesteps),
                    text,
                    added.as_ref(),
                    &part.cond,
                )
                .scaled(part.scale, self.settings.guess_mode);
            encoded.add(&match skipped {
                0 => residuals,
                rows => residuals.below_zeros(rows),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_part_where_all_of_it_lies_between_start_and_end() {
        let active = |start: f64, end: f64| -> Vec<usize> {
            let control = Control::new(ControlSettings {
                guess_mode: false,
                start,
                end,
            });
            (1..=10)
                .filter(|step| control.is_active(*step, 10))
                .collect()
        };
        assert_eq!(active(0.0, 1.0), (1..=10).collect::<Vec<_>>());
        assert_eq!(active(0.2, 0.5), [3, 4, 5]);
        assert_eq!(active(0.25, 0.55), [4, 5]);
        assert_eq!(active(0.0, 0.05), [0; 0]);
    }
}

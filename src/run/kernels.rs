//! Whether the kernel of `--attention` computes a model's attention, found out before any weights are read.

use std::collections::BTreeSet;

use anyhow::Result;
use tch::Kind;

use super::located::LocatedModel;
use crate::error::usage;
use crate::libtorch::{Asked, AttentionImplementation, Refusal};

impl LocatedModel {
    /// Refuses a kernel of attention that cannot compute this model's attention, or not under masks where something
    /// needs them, which `masks` names.
    ///
    /// # Errors
    /// Names kernel, reason and the kernels that can.
    pub fn check_attention(&self, masks: Option<&str>) -> Result<()> {
        let Some(kernel) = self.job.attention else {
            return Ok(());
        };
        for (kind, head_dim) in self.heads()? {
            let asked = Asked {
                device: self.device,
                kind,
                head_dim,
                is_masked: masks.is_some(),
            };
            if let Some(refusal) =
                AttentionImplementation::refusal(asked, |asked| kernel.computes(asked))?
            {
                let why = self.why(refusal, asked, masks.unwrap_or_default());
                let mut others = Vec::new();
                for other in AttentionImplementation::ALL {
                    if other.computes(asked)? {
                        others.push(other.name());
                    }
                }
                return Err(usage(format!(
                    "--attention {}: {why}, expected auto or {}",
                    kernel.name(),
                    others.join(" or ")
                )));
            }
        }
        Ok(())
    }

    /// The number format and the width of each kind of head.
    fn heads(&self) -> Result<Vec<(Kind, i64)>> {
        let of_unet = match self.unet.upcast_attention {
            Some(true) => Kind::Float,
            _ => self.kind,
        };
        let mut of_text = BTreeSet::new();
        for component in self.pipeline.text_encoders() {
            let config = self.pipeline.text_config(&self.files, component)?;
            of_text.insert(config.hidden_size / config.num_attention_heads.max(1));
        }
        let of_unet = self.unet.head_dims()?.into_iter().map(|d| (of_unet, d));
        let of_text = of_text.into_iter().map(|d| (self.kind, d));
        Ok(of_unet.chain(of_text).collect())
    }

    fn why(&self, refusal: Refusal, asked: Asked, masks: &str) -> String {
        match refusal {
            Refusal::Device => "this GPU, or this libtorch, has no such kernel".to_owned(),
            Refusal::Kind if asked.kind == self.kind => format!(
                "it computes no {} on this GPU, perhaps another --dtype",
                self.dtype()
            ),
            Refusal::Kind => format!(
                "it computes no fp32 on this GPU, in which {} has its attention (upcast_attention)",
                self.files.name()
            ),
            Refusal::HeadDim => format!(
                "it computes no heads of {} values, which {} has",
                asked.head_dim,
                self.files.name()
            ),
            Refusal::Mask => format!("it computes no masks, which {masks} needs"),
        }
    }
}

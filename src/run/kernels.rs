//! Checks, before any weights are read, whether the kernel of `--attention` can compute a model's attention.

use std::collections::BTreeSet;

use anyhow::Result;
use tch::Kind;

use super::located::LocatedModel;
use crate::error::usage;
use crate::libtorch::{Asked, AttentionImplementation, Refusal};

impl LocatedModel {
    /// Refuses the kernel of `--attention` if it cannot compute this model's attention. `masks` names what needs masked
    /// attention, if anything does; then the kernel must support masks too.
    ///
    /// # Errors
    /// With the kernel, the reason and the kernels that can.
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

    /// The number format and the head width (values per head) of every kind of attention in the model.
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
                "this kernel does not support {} on this GPU (perhaps it does support another --dtype)",
                self.dtype()
            ),
            Refusal::Kind => format!(
                "this kernel does not support fp32 on this GPU, and {} computes its attention in fp32 \
                 (upcast_attention)",
                self.files.name()
            ),
            Refusal::HeadDim => format!(
                "this kernel does not support heads of {} values, which {} has",
                asked.head_dim,
                self.files.name()
            ),
            Refusal::Mask => format!("this kernel does not support masks, which {masks} needs"),
        }
    }
}

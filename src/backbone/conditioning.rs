//! What the rows of a U-Net pass are conditioned on: prompt, pooled prompt and sizes, image prompt.

use tch::Tensor;

use crate::models::unet::ip_adapter::ImagePrompt;
use crate::models::unet::unet_2d_condition::AddedConditions;

/// A U-Net row's conditions, all in the network's precision.
#[derive(Debug)]
pub struct Conditioning {
    /// The prompt `[R, S, D]`.
    pub prompt_embeds: Tensor,
    /// Pooled prompt and sizes, for a model that is told them: SDXL, not SD 1.5 and 2.1.
    pub added: Option<AddedConditions>,
    /// A picture that is read beside the prompt; `None`: none.
    pub image: Option<ImagePrompt>,
}

impl Conditioning {
    /// The rows of all parts, one below the other. The parts are of one model.
    pub fn cat(parts: &[&Conditioning]) -> Conditioning {
        let join = |tensors: Vec<&Tensor>| Tensor::cat(&tensors, 0);
        let added: Option<Vec<&AddedConditions>> =
            parts.iter().map(|part| part.added.as_ref()).collect();
        let images: Option<Vec<&ImagePrompt>> =
            parts.iter().map(|part| part.image.as_ref()).collect();
        assert!(
            images.is_some() || parts.iter().all(|part| part.image.is_none()),
            "all rows of a pass have an image prompt, or none has"
        );
        Conditioning {
            prompt_embeds: join(parts.iter().map(|part| &part.prompt_embeds).collect()),
            added: added.map(|added| AddedConditions {
                text_embeds: join(added.iter().map(|one| &one.text_embeds).collect()),
                time_ids: join(added.iter().map(|one| &one.time_ids).collect()),
            }),
            image: images.map(|images| {
                images[0].map(|_| join(images.iter().map(|image| &image.tokens).collect()))
            }),
        }
    }

    /// Every row `n` times, copies side by side: rows of one branch for `n` images.
    pub fn repeat(&self, n: i64) -> Conditioning {
        let each = |t: &Tensor| t.repeat_interleave_self_int(n, 0, None);
        Conditioning {
            prompt_embeds: each(&self.prompt_embeds),
            added: self.added.as_ref().map(|added| added.map(each)),
            image: self.image.as_ref().map(|image| image.map(each)),
        }
    }

    /// For `n` images of these rows and, behind them in each row, `m` images of `others`, which are as
    /// many rows.
    pub fn beside(&self, n: i64, others: &Conditioning, m: i64) -> Conditioning {
        let rows = self.rows();
        assert_eq!(rows, others.rows(), "rows of both");
        let both = |row| [(self, n), (others, m)].map(|(of, n)| of.narrow(row, 1).repeat(n));
        let parts: Vec<Conditioning> = (0..rows).flat_map(both).collect();
        Conditioning::cat(&parts.iter().collect::<Vec<_>>())
    }

    /// The number of rows R.
    pub fn rows(&self) -> i64 {
        self.prompt_embeds.size()[0]
    }

    /// For each row, the first row with the same conditions but for the text.
    pub fn first_rows_alike(&self) -> Vec<usize> {
        let alike = |i: usize, j: usize| {
            self.added.as_ref().is_none_or(|added| {
                [&added.text_embeds, &added.time_ids]
                    .iter()
                    .all(|rows| rows.get(i as i64) == rows.get(j as i64))
            })
        };
        let first = |i| (0..i).find(|&j| alike(i, j)).unwrap_or(i);
        (0..self.rows() as usize).map(first).collect()
    }

    /// `count` rows from `first` on.
    pub fn narrow(&self, first: i64, count: i64) -> Conditioning {
        let part = |t: &Tensor| t.narrow(0, first, count);
        Conditioning {
            prompt_embeds: part(&self.prompt_embeds),
            added: self.added.as_ref().map(|added| added.map(part)),
            image: self.image.as_ref().map(|image| image.map(part)),
        }
    }

    /// The same with a picture beside the prompt.
    pub fn with_image(&self, image: ImagePrompt) -> Conditioning {
        Conditioning {
            image: Some(image),
            ..self.with_prompt_embeds(self.prompt_embeds.shallow_clone())
        }
    }

    /// The same with other prompt embeddings; what is added stays, and so does a picture.
    pub fn with_prompt_embeds(&self, prompt_embeds: Tensor) -> Conditioning {
        let added = self.added.as_ref();
        Conditioning {
            prompt_embeds,
            added: added.map(|added| added.map(Tensor::shallow_clone)),
            image: self
                .image
                .as_ref()
                .map(|image| image.map(Tensor::shallow_clone)),
        }
    }
}

//! The conditions of the rows of a U-Net pass: prompt, pooled prompt and sizes, image prompt.

use tch::Tensor;

use crate::models::unet::ip_adapter::ImagePrompt;
use crate::models::unet::unet_2d_condition::AddedConditions;

/// A U-Net row's conditions, all in the network's precision.
#[derive(Debug)]
pub struct Conditioning {
    /// The prompt `[R, S, D]`.
    pub prompt_embeds: Tensor,
    /// Pooled prompt and sizes, for a model that uses them: SDXL, but not SD 1.5 and 2.1.
    pub added: Option<AddedConditions>,
    /// An image prompt in addition to the prompt, if there is one.
    pub image: Option<ImagePrompt>,
}

impl Conditioning {
    /// The rows of all parts, one after the other. All parts belong to one model.
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

    /// Every row `n` times, with the copies next to each other: the rows of one branch for `n` images.
    pub fn repeat(&self, n: i64) -> Conditioning {
        let each = |t: &Tensor| t.repeat_interleave_self_int(n, 0, None);
        Conditioning {
            prompt_embeds: each(&self.prompt_embeds),
            added: self.added.as_ref().map(|added| added.map(each)),
            image: self.image.as_ref().map(|image| image.map(each)),
        }
    }

    /// These rows for `n` images, followed in each row by `m` images of `others`, which has the same number of rows.
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

    /// For each row, the first row whose conditions are the same except for the text.
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

    /// The `count` rows that begin with row `first`.
    pub fn narrow(&self, first: i64, count: i64) -> Conditioning {
        let part = |t: &Tensor| t.narrow(0, first, count);
        Conditioning {
            prompt_embeds: part(&self.prompt_embeds),
            added: self.added.as_ref().map(|added| added.map(part)),
            image: self.image.as_ref().map(|image| image.map(part)),
        }
    }

    /// The same rows with an image prompt.
    pub fn with_image(&self, image: ImagePrompt) -> Conditioning {
        Conditioning {
            image: Some(image),
            ..self.with_prompt_embeds(self.prompt_embeds.shallow_clone())
        }
    }

    /// The same rows with other prompt embeddings; pooled prompt, sizes and image prompt stay.
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

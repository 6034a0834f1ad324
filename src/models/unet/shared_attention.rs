//! Self-attention in the decoder that is shared between images (ConsiStory, arXiv 2402.03286, Sec.
//! 3). All images of a pass attend to positions of some of the images, the sources. Queries may be
//! mixed with those of another pass. Sharing is optional and costs nothing if it is absent.

use std::cell::RefCell;
use std::collections::HashMap;

use tch::{Kind, Tensor};

use super::text_memory::LayerId;

/// The queries of every self-attention layer of the decoder in one pass, `[R n, HW, D]` each.
pub type Queries = HashMap<LayerId, Tensor>;

/// What self-attention in the decoder does in one pass besides attending to the image's own
/// positions.
#[derive(Debug)]
pub enum AttentionSharing {
    /// Nothing is shared; the pass records its queries and returns them.
    Vanilla(RefCell<Queries>),
    /// All images attend to positions of the source images.
    Shared {
        /// The positions that are shared.
        positions: SharedPositions,
        /// The queries of a vanilla pass over the same rows, and ν: the layers use `(1 - ν) Q + ν
        /// Q_vanilla`. `None`: the layers use Q.
        vanilla: Option<(Queries, f64)>,
    },
}

impl AttentionSharing {
    /// A vanilla pass, which records its queries.
    pub fn vanilla() -> AttentionSharing {
        AttentionSharing::Vanilla(RefCell::default())
    }

    /// The recorded queries; empty unless this was a vanilla pass.
    pub fn into_queries(self) -> Queries {
        match self {
            AttentionSharing::Vanilla(kept) => kept.into_inner(),
            AttentionSharing::Shared { .. } => Queries::new(),
        }
    }

    /// The sharing for layers with feature maps of this height and width.
    pub(super) fn at(&self, height: i64, width: i64) -> LayerSharing<'_> {
        LayerSharing {
            sharing: self,
            mask: match self {
                AttentionSharing::Vanilla(_) => None,
                AttentionSharing::Shared { positions, .. } => Some(positions.at(height, width)),
            },
        }
    }
}

/// A pass's sharing as the layers of one resolution use it.
pub struct LayerSharing<'a> {
    sharing: &'a AttentionSharing,
    /// Which positions, an image's own and the sources', it attends to `[R n, 1, 1, (1 + A) HW]`;
    /// `None`: its own positions alone.
    pub mask: Option<Tensor>,
}

impl LayerSharing<'_> {
    /// The queries that a layer uses, from its own queries `[R n, HW, D]`.
    pub fn queries(&self, layer: LayerId, own: Tensor) -> Tensor {
        match self.sharing {
            AttentionSharing::Vanilla(kept) => {
                kept.borrow_mut().insert(layer, own.shallow_clone());
                own
            }
            AttentionSharing::Shared { vanilla: None, .. } => own,
            AttentionSharing::Shared {
                vanilla: Some((vanilla, nu)),
                ..
            } => own * (1.0 - nu) + &vanilla[&layer] * *nu,
        }
    }

    /// K⁺ or V⁺ from a layer's keys or values `[R n, heads, HW, d]`: each image's own, followed by
    /// those of the sources in the same row, `[R n, heads, (1 + A) HW, d]`.
    pub fn with_sources(&self, own: Tensor) -> Tensor {
        match self.sharing {
            AttentionSharing::Vanilla(_) => own,
            AttentionSharing::Shared { positions, .. } => positions.with_sources(&own),
        }
    }
}

/// Positions of A source images that all n images of each of R rows attend to, the same for all
/// layers. The sources are the last A images.
#[derive(Debug)]
pub struct SharedPositions {
    /// 1 for each position of a source that may be shared, at any resolution `[A, H, W]` f32.
    subjects: Tensor,
    /// 1 for each source position that an image attends to `[n, A, H, W]` f32.
    kept: Tensor,
    rows: i64,
    /// Masks that were computed before, by height and width.
    at_sizes: RefCell<Vec<((i64, i64), Tensor)>>,
}

impl SharedPositions {
    /// Shares the positions inside the sources' `subjects [A, H, W]`. Each of n images sees those
    /// that are 1 in `kept [n, A, H, W]`, in all of `rows` rows. Both tensors hold ones and zeros.
    ///
    /// # Panics
    /// When the two shapes do not match.
    pub fn new(subjects: &Tensor, kept: &Tensor, rows: i64) -> SharedPositions {
        assert_eq!(subjects.size(), kept.size()[1..], "of the same sources");
        SharedPositions {
            subjects: subjects.to_kind(Kind::Float),
            kept: kept.to_kind(Kind::Float),
            rows,
            at_sizes: RefCell::default(),
        }
    }

    fn images_and_sources(&self) -> (i64, i64) {
        (self.kept.size()[0], self.kept.size()[1])
    }

    /// M⁺ for layers of this height and width `[R n, 1, 1, (1 + A) HW]`. A position of a coarser
    /// layer belongs to the subject if at least half of its area does. Whether it is kept is read
    /// from the position at its upper left corner, so that every position of every layer is kept
    /// with the same probability.
    fn at(&self, height: i64, width: i64) -> Tensor {
        let size = (height, width);
        if let Some((_, mask)) = self.at_sizes.borrow().iter().find(|(at, _)| *at == size) {
            return mask.shallow_clone();
        }
        let (n, _) = self.images_and_sources();
        let subjects = self.subjects.unsqueeze(0);
        let subjects = subjects.adaptive_avg_pool2d([height, width]).ge(0.5);
        let kept = self.kept.upsample_nearest2d([height, width], None, None);
        let others = kept.gt(0.5).logical_and(&subjects).flatten(1, 3); // [n, A HW]
        let own = Tensor::ones([n, height * width], (Kind::Bool, others.device()));
        let mask = Tensor::cat(&[own, others], 1) // [n, (1 + A) HW]
            .repeat([self.rows, 1])
            .unsqueeze(1)
            .unsqueeze(1);
        self.at_sizes
            .borrow_mut()
            .push((size, mask.shallow_clone()));
        mask
    }

    fn with_sources(&self, own: &Tensor) -> Tensor {
        let (n, a) = self.images_and_sources();
        let (_, heads, s, d) = own.size4().expect("heads have four axes");
        let sources = own
            .view([self.rows, n, heads, s, d])
            .narrow(1, n - a, a)
            .transpose(1, 2) // [R, heads, A, HW, d]
            .reshape([self.rows, 1, heads, a * s, d])
            .expand([self.rows, n, heads, a * s, d], false)
            .flatten(0, 1); // [R n, heads, A HW, d]
        Tensor::cat(&[own, &sources], 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn an_image_sees_itself_and_what_is_kept_of_the_sources_subjects() {
        // One picture and two sources of 1 x 4 positions; half of the first source is the subject.
        let subjects = Tensor::from_slice(&[1f32, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
        let subjects = subjects.view([2, 1, 4]);
        let kept = Tensor::from_slice(&[
            1f32, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, // the picture
            0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, // the first source
            1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, // the second
        ]);
        let shared = SharedPositions::new(&subjects, &kept.view([3, 2, 1, 4]), 2);
        let mask = |height, width| {
            let mask = shared.at(height, width).squeeze_dim(1).squeeze_dim(1); // [R n, ..]
            let row = |i| Vec::<bool>::try_from(mask.get(i)).expect("a row of truth");
            assert_eq!(mask.size()[0], 6);
            (0..3).for_each(|i| assert_eq!(row(i), row(i + 3)));
            [0, 1, 2].map(|i| row(i).iter().map(|&x| u8::from(x)).collect::<Vec<_>>())
        };
        assert_eq!(
            mask(1, 4),
            [
                [1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1],
                [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1],
                [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0],
            ]
        );
        // At half the width the left position decides: 1 and 1 are kept, then 0 and 1 for the
        // picture.
        assert_eq!(
            mask(1, 2),
            [[1, 1, 1, 0, 0, 1], [1, 1, 0, 0, 1, 1], [1, 1, 1, 0, 0, 0]]
        );
    }

    #[test]
    fn keys_of_the_sources_stand_behind_an_images_own_in_each_row() {
        let kept = Tensor::ones([3, 2, 1, 1], (Kind::Float, Device::Cpu));
        let shared = SharedPositions::new(&kept.get(0), &kept, 2);
        // Two rows of three images with one position each; the last two images are sources.
        let own = Tensor::from_slice(&[0i64, 1, 2, 10, 11, 12]).view([6, 1, 1, 1]);
        let keys = shared.with_sources(&own).view([6, 3]);
        let row = |i| Vec::<i64>::try_from(keys.get(i)).expect("a row of numbers");
        assert_eq!([row(0), row(1), row(2)], [[0, 1, 2], [1, 1, 2], [2, 1, 2]]);
        assert_eq!(row(3), [10, 11, 12]);
    }
}

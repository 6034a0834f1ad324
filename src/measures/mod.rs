//! Measures of the similarity of pictures to each other and to their texts (Sec. 4.3 and App. A.5 of the paper).
//!
//! Let e(x) be the embedding of a picture x, e(p) that of its prompt p, and cos(a, b) = a · b / (|a| |b|).
//!
//! | measure | formula | embedding, or source |
//! | --- | --- | --- |
//! | `clip_i` | cos(e(x), e(y)) | projected class token of CLIP's vision half (arXiv 2103.00020) |
//! | `clip_t` | cos(e(x), e(p)) | the same, and the projected end-of-text state of the text half |
//! | `clip_score` | 100 max(cos(e(x), e(p)), 0) | arXiv 2104.08718, with torchmetrics' weight 100 for its 2.5 |
//! | `dino` | cos(e(x), e(y)) | class token of DINO after the last norm (arXiv 2104.14294) |
//! | `dinov2` | cos(e(x), e(y)) | class token of DINOv2 after the last norm (arXiv 2304.07193) |
//! | `lpips` | Σ_l mean_p Σ_c w_lc (f_lcp(x) - f_lcp(y))² | f: AlexNet's five maps l, of unit length over the channels c at each place p; w: heads 0.1 (arXiv 1801.03924) |
//! | `dreamsim` | 1 - cos(e(x), e(y)) | class token of a tuned DINO ViT-B/16 before the last norm, less its own mean (arXiv 2306.09344, the single branch, not the ensemble) |
//!
//! `lpips` and `dreamsim` are distances: 0 means equal, and lower means more similar. y is the target for all
//! but `clip_t` and `clip_score`; with the ending `_pairwise` it is another picture of the same actor.
//! `_foreground` and `_background` measure a part of both pictures, see [`region`]. A picture is resized,
//! cropped and normalised as the encoder's `preprocessor_config.json` or `processor_config.json` says, see
//! [`crate::models::vision::image_processor`]; LPIPS takes it at its own size, with the levels from -1 to 1
//! shifted and scaled as in its authors' package, and pictures of several sizes at the least width and height
//! among them. Products are taken in f64 on the CPU.

pub(crate) mod column;
pub(crate) mod directions;
pub(crate) mod distances;
pub mod encoder;
pub mod foreground;
pub(crate) mod picture;
pub(crate) mod quantity;
pub mod region;
pub mod similarity;
pub(crate) mod table;

use anyhow::Result;

use picture::{Picture, Target};

/// The inputs of a comparison.
#[derive(Clone, Copy)]
pub(crate) struct Comparison<'a> {
    /// The pictures, which are compared with each other and with their prompts.
    pub pictures: &'a [Picture],
    /// The target with which they are compared too.
    pub target: Option<&'a Target>,
    /// Receives the progress.
    pub observer: &'a dyn Observer,
}

/// Receives the progress of a comparison.
pub(crate) trait Observer {
    /// A pass over this many pictures begins.
    fn begin(&self, pictures: usize);
    /// One picture has been measured.
    fn advance(&self);
    /// The pass has ended.
    fn finish(&self);
    /// # Errors
    /// When the work should stop.
    fn check(&self) -> Result<()>;
    /// A note for the user.
    fn warn(&self, warning: &str);
}

/// The measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Similarity of pictures by CLIP.
    ClipI,
    /// Similarity of picture and prompt by CLIP.
    ClipT,
    /// The same as a score from 0 to 100.
    ClipScore,
    /// Similarity of pictures by DINO.
    Dino,
    /// Similarity of pictures by DINOv2.
    Dinov2,
    /// Distance of pictures by LPIPS.
    Lpips,
    /// Distance of pictures by DreamSim.
    Dreamsim,
}

/// The networks of the measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// Both encoders of CLIP.
    Clip,
    /// DINO.
    Dino,
    /// DINOv2.
    Dinov2,
    /// AlexNet with the heads of LPIPS.
    Lpips,
    /// DreamSim's single branch.
    Dreamsim,
}

impl Measure {
    /// All measures.
    pub const ALL: [Measure; 7] = [
        Measure::ClipI,
        Measure::ClipT,
        Measure::ClipScore,
        Measure::Dino,
        Measure::Dinov2,
        Measure::Lpips,
        Measure::Dreamsim,
    ];

    /// The name in flags and results.
    pub fn name(self) -> &'static str {
        match self {
            Measure::ClipI => "clip_i",
            Measure::ClipT => "clip_t",
            Measure::ClipScore => "clip_score",
            Measure::Dino => "dino",
            Measure::Dinov2 => "dinov2",
            Measure::Lpips => "lpips",
            Measure::Dreamsim => "dreamsim",
        }
    }

    /// The network that the measure needs.
    pub fn network(self) -> Network {
        match self {
            Measure::ClipI | Measure::ClipT | Measure::ClipScore => Network::Clip,
            Measure::Dino => Network::Dino,
            Measure::Dinov2 => Network::Dinov2,
            Measure::Lpips => Network::Lpips,
            Measure::Dreamsim => Network::Dreamsim,
        }
    }

    /// Whether the measure compares a picture with its prompt instead of another picture.
    pub fn is_of_text(self) -> bool {
        matches!(self, Measure::ClipT | Measure::ClipScore)
    }

    /// Whether lower values mean more similar pictures, and 0 equal ones.
    pub fn is_distance(self) -> bool {
        matches!(self, Measure::Lpips | Measure::Dreamsim)
    }
}

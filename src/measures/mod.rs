//! Measures of how alike pictures are to each other and to their texts (Sec. 4.3 and App. A.5 of the paper).
//!
//! Let e(x) be the embedding of a picture x, e(p) that of its prompt p, and cos(a, b) = a · b / (|a| |b|).
//!
//! | measure | formula | embedding, or source |
//! | --- | --- | --- |
//! | `clip_i` | cos(e(x), e(y)) | projected class token of CLIP's vision half (arXiv 2103.00020) |
//! | `clip_t` | cos(e(x), e(p)) | the same, and the projected end-of-text state of the text half |
//! | `clip_score` | 100 max(cos(e(x), e(p)), 0) | arXiv 2104.08718, with torchmetrics' weight 100 for its 2.5 |
//! | `dino` | cos(e(x), e(y)) | class token of DINO behind the last norm (arXiv 2104.14294) |
//! | `dinov2` | cos(e(x), e(y)) | class token of DINOv2 behind the last norm (arXiv 2304.07193) |
//!
//! y is the target for `clip_i`, `dino` and `dinov2`; with the ending `_pairwise` it is another picture of the
//! same actor. `_foreground` and `_background` measure a part of both pictures, see [`region`]. A picture is
//! resized, cropped and normalised as the encoder's `preprocessor_config.json` says, see
//! [`crate::models::image_processor`]. Products are taken in f64 on the CPU.

pub mod column;
pub mod encoder;
pub mod foreground;
pub mod region;
pub mod similarity;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Likeness of pictures by CLIP.
    ClipI,
    /// Likeness of picture and prompt by CLIP.
    ClipT,
    /// The same as a score from 0 to 100.
    ClipScore,
    /// Likeness of pictures by DINO.
    Dino,
    /// Likeness of pictures by DINOv2.
    Dinov2,
}

/// The networks that measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// CLIP, both halves.
    Clip,
    /// DINO.
    Dino,
    /// DINOv2.
    Dinov2,
}

impl Measure {
    /// All of them.
    pub const ALL: [Measure; 5] = [
        Measure::ClipI,
        Measure::ClipT,
        Measure::ClipScore,
        Measure::Dino,
        Measure::Dinov2,
    ];

    /// As flags and results spell it.
    pub fn name(self) -> &'static str {
        match self {
            Measure::ClipI => "clip_i",
            Measure::ClipT => "clip_t",
            Measure::ClipScore => "clip_score",
            Measure::Dino => "dino",
            Measure::Dinov2 => "dinov2",
        }
    }

    /// What it needs.
    pub fn network(self) -> Network {
        match self {
            Measure::ClipI | Measure::ClipT | Measure::ClipScore => Network::Clip,
            Measure::Dino => Network::Dino,
            Measure::Dinov2 => Network::Dinov2,
        }
    }

    /// Whether it compares a picture with its prompt, not with another picture.
    pub fn is_of_text(self) -> bool {
        matches!(self, Measure::ClipT | Measure::ClipScore)
    }
}

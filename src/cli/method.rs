//! Which method keeps the subject the same.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The paper's method, or a baseline to compare it with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The paper's method: cluster-conditioned guidance with a tuned actor
    #[default]
    Oneactor,
    /// A learnt embedding in place of the base word (arXiv 2208.01618)
    TextualInversion,
    /// A U-Net tuned by low-rank updates with prior preservation (arXiv 2208.12242, 2106.09685)
    DreamboothLora,
    /// Attention to an image prompt (arXiv 2308.06721)
    IpAdapter,
    /// ConsiStory (arXiv 2402.03286): self-attention shared with two pictures of the subject that are drawn at
    /// the same time. One picture takes 3.3 times as long. The paper's feature injection is left out
    Consistory,
}

impl Method {
    /// All methods.
    pub const ALL: [Method; 5] = [
        Method::Oneactor,
        Method::TextualInversion,
        Method::DreamboothLora,
        Method::IpAdapter,
        Method::Consistory,
    ];

    /// The method's name in flags and settings.
    pub fn name(self) -> &'static str {
        match self {
            Method::Oneactor => "oneactor",
            Method::TextualInversion => "textual-inversion",
            Method::DreamboothLora => "dreambooth-lora",
            Method::IpAdapter => "ip-adapter",
            Method::Consistory => "consistory",
        }
    }

    /// Whether the method is tuned on the base images.
    pub fn is_tuned(self) -> bool {
        !matches!(self, Method::IpAdapter | Method::Consistory)
    }
}

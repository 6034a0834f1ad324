//! The kernels of scaled dot-product attention: which ones libtorch may choose from, and whether a
//! kernel can compute a given attention.

use anyhow::Result;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::{prepare_allocator, shim};

/// The kernels that scaled dot-product attention may choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionImplementation {
    /// FlashAttention.
    Flash = 1,
    /// The memory-efficient kernel.
    Efficient = 2,
    /// cuDNN's kernel.
    Cudnn = 4,
    /// Separate operations: product, softmax, product.
    Math = 8,
}

impl AttentionImplementation {
    /// All kernels.
    pub const ALL: [AttentionImplementation; 4] = [
        AttentionImplementation::Flash,
        AttentionImplementation::Efficient,
        AttentionImplementation::Cudnn,
        AttentionImplementation::Math,
    ];

    /// The kernel's name as a value of `--attention`.
    pub fn name(self) -> &'static str {
        match self {
            AttentionImplementation::Flash => "flash",
            AttentionImplementation::Efficient => "efficient",
            AttentionImplementation::Cudnn => "cudnn",
            AttentionImplementation::Math => "math",
        }
    }

    /// Whether libtorch can compute `asked` with this kernel. libtorch itself is asked, with
    /// tensors of a few values on the device, because the answer depends on the device, on cuDNN
    /// and on how libtorch was built.
    ///
    /// # Errors
    /// When the device cannot be used, or in a build without the shim.
    pub fn computes(self, asked: Asked) -> Result<bool> {
        prepare_allocator(asked.device)?;
        let _chosen = Chosen::only(self)?;
        let size = [1, 2, 16, asked.head_dim];
        let query = Tensor::f_zeros(size, (asked.kind, asked.device))?;
        let mask = if asked.is_masked {
            Some(Tensor::f_ones([1, 1, 16, 16], (Kind::Bool, asked.device))?)
        } else {
            None
        };
        shim::finds_attention(&query, mask.as_ref())
    }

    /// Why the kernel cannot compute this; `None` where it can. `computes` is [`AttentionImplementation::computes`].
    ///
    /// # Errors
    /// As `computes`.
    pub fn refusal(
        asked: Asked,
        computes: impl Fn(Asked) -> Result<bool>,
    ) -> Result<Option<Refusal>> {
        if computes(asked)? {
            return Ok(None);
        }
        // Every kernel that exists on this GPU can compute this.
        let easy = Asked {
            kind: Kind::Half,
            head_dim: 64,
            is_masked: false,
            ..asked
        };
        let of_kind = Asked {
            kind: asked.kind,
            ..easy
        };
        let of_width = Asked {
            is_masked: false,
            ..asked
        };
        for (less, reason) in [
            (easy, Refusal::Device),
            (of_kind, Refusal::Kind),
            (of_width, Refusal::HeadDim),
        ] {
            if !computes(less)? {
                return Ok(Some(reason));
            }
        }
        Ok(Some(Refusal::Mask))
    }
}

/// The attention to be computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// The device of the tensors.
    pub device: Device,
    /// Number format of queries, keys and values.
    pub kind: Kind,
    /// Width of a head.
    pub head_dim: i64,
    /// Whether a mask says which tokens may attend to each other.
    pub is_masked: bool,
}

/// Why a kernel cannot compute something: the first property that it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The device, or the build, has no such kernel.
    Device,
    /// The number format.
    Kind,
    /// The width of a head.
    HeadDim,
    /// A mask.
    Mask,
}

/// Restricts attention to one kernel; `None` allows all kernels. Attention that no allowed kernel
/// can compute fails.
///
/// # Errors
/// When libtorch refuses, or in a build without the shim.
pub fn set_attention(only: Option<AttentionImplementation>) -> Result<()> {
    let all = AttentionImplementation::ALL
        .iter()
        .fold(0, |bits, &one| bits | one as u32);
    shim::set_attention(only.map_or(all, |one| one as u32))
}

/// The kernels that attention may choose from now.
///
/// # Errors
/// In a build without the shim.
pub fn attention() -> Result<Vec<AttentionImplementation>> {
    let bits = shim::attention()?;
    let is_left = |one: &AttentionImplementation| bits & *one as u32 != 0;
    Ok(AttentionImplementation::ALL
        .into_iter()
        .filter(is_left)
        .collect())
}

/// Allows other kernels while it lives; dropping it restores the previous choice.
pub struct Chosen(Option<u32>);

impl Chosen {
    /// Allows this kernel alone.
    fn only(kernel: AttentionImplementation) -> Result<Chosen> {
        let before = shim::attention()?;
        set_attention(Some(kernel))?;
        Ok(Chosen(Some(before)))
    }
}

/// Lifts the choice of [`set_attention`] for a network that some kernels cannot compute.
pub fn any_attention() -> Chosen {
    let chosen = shim::attention().ok();
    if chosen.is_some() {
        let _ = set_attention(None);
    }
    Chosen(chosen)
}

impl Drop for Chosen {
    fn drop(&mut self) {
        if let Some(chosen) = self.0 {
            let _ = shim::set_attention(chosen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules of libtorch 2.11 for dense tensors without dropout on a GPU of this compute
    /// capability, taken from `aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`; cuDNN for
    /// heads of at most 128 values.
    fn on_gpu(kernel: AttentionImplementation, major: i64, asked: Asked) -> bool {
        let is_half = asked.kind == Kind::Half || asked.kind == Kind::BFloat16 && major >= 8;
        let d = asked.head_dim;
        match kernel {
            AttentionImplementation::Math => true,
            AttentionImplementation::Flash => major >= 8 && is_half && d <= 256 && !asked.is_masked,
            AttentionImplementation::Cudnn => major >= 8 && is_half && d <= 128 && d % 8 == 0,
            AttentionImplementation::Efficient => {
                let is_aligned = match asked.kind {
                    Kind::Float if major >= 8 => d % 4 == 0,
                    Kind::Float => true,
                    _ => d % 8 == 0,
                };
                major >= 5 && (is_half || asked.kind == Kind::Float) && is_aligned
            }
        }
    }

    #[test]
    fn the_reason_is_the_first_thing_that_a_kernel_refuses() -> Result<()> {
        use AttentionImplementation::{Cudnn, Efficient, Flash, Math};
        let cases = [
            (Flash, 9, Kind::Half, 64, false, None),
            (Flash, 9, Kind::BFloat16, 160, false, None),
            (Flash, 9, Kind::Float, 64, false, Some(Refusal::Kind)),
            (Flash, 9, Kind::Float, 64, true, Some(Refusal::Kind)),
            (Flash, 9, Kind::Half, 64, true, Some(Refusal::Mask)),
            (Flash, 9, Kind::Half, 512, true, Some(Refusal::HeadDim)),
            (Flash, 7, Kind::Half, 64, false, Some(Refusal::Device)),
            (Cudnn, 8, Kind::Half, 64, true, None),
            (Cudnn, 8, Kind::Float, 64, false, Some(Refusal::Kind)),
            (Cudnn, 8, Kind::Half, 160, false, Some(Refusal::HeadDim)),
            (Cudnn, 7, Kind::Float, 64, false, Some(Refusal::Device)),
            (Efficient, 8, Kind::Float, 40, true, None),
            (Efficient, 7, Kind::BFloat16, 40, false, Some(Refusal::Kind)),
            (Efficient, 8, Kind::Half, 12, false, Some(Refusal::HeadDim)),
            (Math, 5, Kind::Float, 13, true, None),
        ];
        for (kernel, major, kind, head_dim, is_masked, expected) in cases {
            let asked = Asked {
                device: Device::Cuda(0),
                kind,
                head_dim,
                is_masked,
            };
            let found =
                AttentionImplementation::refusal(asked, |asked| Ok(on_gpu(kernel, major, asked)))?;
            assert_eq!(found, expected, "{kernel:?} on {major}: {asked:?}");
        }
        Ok(())
    }
}

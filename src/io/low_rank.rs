//! Low-rank updates of linear layers that are being learnt (arXiv 2106.09685): `y = W x + b + B A
//! x`; W and b do not change. The learnt update is saved as a file that [`super::lora`] merges.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

/// Layers of a U-Net that get an update, by the ends of their names: those of every attention, as
/// in diffusers' `examples/dreambooth/train_dreambooth_lora_sdxl.py`.
const LAYERS: [&str; 4] = [".to_q", ".to_k", ".to_v", ".to_out.0"];

/// The update of one layer. Alpha equals the rank, as in that script, so the factor alpha / rank is
/// 1.
#[derive(Debug)]
pub struct LowRank {
    /// A `[R, D_in]` f32.
    down: Tensor,
    /// B `[D_out, R]` f32.
    up: Tensor,
}

impl LowRank {
    /// `[.., D_in]` to `[.., D_out]` in the precision of `xs`; differentiable in A and B.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        let [down, up] = [&self.down, &self.up].map(|t| t.to_kind(xs.kind()));
        xs.linear(&down, None::<&Tensor>)
            .linear(&up, None::<&Tensor>)
    }
}

/// The updates of one network, which are created when the network reads its layers.
#[derive(Debug)]
pub struct LowRankSet {
    rank: i64,
    seed: i64,
    tensors: RefCell<BTreeMap<String, Tensor>>,
}

impl LowRankSet {
    /// Updates of this rank that have no effect yet: A is drawn from a normal distribution with
    /// deviation 1 / rank, in the order in which layers are read, and B is zero, as in PEFT's
    /// `gaussian`.
    pub fn new(rank: i64, seed: i64) -> Self {
        LowRankSet {
            rank,
            seed,
            tensors: RefCell::default(),
        }
    }

    /// A and B of all layers that were read, as `<layer>.lora_A.weight` and
    /// `<layer>.lora_B.weight`, with gradients.
    pub fn parameters(&self) -> BTreeMap<String, Tensor> {
        let tensors = self.tensors.borrow();
        let shared = |(name, t): (&String, &Tensor)| (name.clone(), t.shallow_clone());
        tensors.iter().map(shared).collect()
    }

    /// The update of a layer, created when it is first read; `None` for a layer without an update.
    pub(super) fn of(&self, layer: &str, sizes: (i64, i64), device: Device) -> Option<LowRank> {
        LAYERS.iter().find(|end| layer.ends_with(*end))?;
        let (d_in, d_out) = sizes;
        let mut tensors = self.tensors.borrow_mut();
        if tensors.is_empty() {
            tch::manual_seed(self.seed);
        }
        let mut parameter = |name: &str, draw: &dyn Fn() -> Tensor| {
            let known = tensors.entry(format!("{layer}.{name}.weight"));
            let new = || draw().to_device(device).set_requires_grad(true);
            known.or_insert_with(new).shallow_clone()
        };
        let options = (Kind::Float, Device::Cpu);
        let deviation = 1.0 / self.rank as f64;
        Some(LowRank {
            down: parameter("lora_A", &|| {
                Tensor::randn([self.rank, d_in], options) * deviation
            }),
            up: parameter("lora_B", &|| Tensor::zeros([d_out, self.rank], options)),
        })
    }
}

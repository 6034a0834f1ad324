//! Low-rank updates of linear layers that are being learnt (arXiv 2106.09685): `y = W x + b + B A x`, where W and b
//! stay what they are. What was learnt is a file that [`super::lora`] merges.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

/// Layers of a U-Net that get an update, by the end of their names: those of every attention, as in diffusers'
/// `examples/dreambooth/train_dreambooth_lora_sdxl.py`.
const LAYERS: [&str; 4] = [".to_q", ".to_k", ".to_v", ".to_out.0"];

/// The update of one layer. Alpha is the rank, as in that script, so that the factor alpha / rank is 1.
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

/// The updates of one network. They come into being when the network reads the layers.
#[derive(Debug)]
pub struct LowRankSet {
    rank: i64,
    seed: i64,
    tensors: RefCell<BTreeMap<String, Tensor>>,
}

impl LowRankSet {
    /// Updates of this rank that do nothing yet: A is drawn from a normal distribution with deviation 1 / rank, in
    /// the order in which layers are read, and B is zero, as PEFT's `gaussian` has it.
    pub fn new(rank: i64, seed: i64) -> Self {
        LowRankSet {
            rank,
            seed,
            tensors: RefCell::default(),
        }
    }

    /// A and B of all layers that were read, `<layer>.lora_A.weight` and `<layer>.lora_B.weight`, with gradients.
    pub fn parameters(&self) -> BTreeMap<String, Tensor> {
        let tensors = self.tensors.borrow();
        let shared = |(name, t): (&String, &Tensor)| (name.clone(), t.shallow_clone());
        tensors.iter().map(shared).collect()
    }

    /// The update of a layer, made at the first reading; `None` for a layer that gets none.
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

//! Attention among the patches of a picture or window, with relative positions (arXiv 2112.01526).

use tch::{Device, Kind, Tensor};

use crate::io::weights::WeightPath;
use crate::models::attention::merge_heads;
use crate::models::layers::Linear;

/// `softmax(q kᵀ / √d + q · r_h + q · r_w) v`: r_h and r_w are embeddings of the number of rows and
/// of columns between two patches.
pub struct SamVisionAttention {
    qkv: Linear,
    proj: Linear,
    /// r_h and r_w for all pairs of rows or columns, `[side, side, d]`.
    relative: [Tensor; 2],
    heads: i64,
}

impl SamVisionAttention {
    /// Reads `qkv`, `proj`, `rel_pos_h` and `rel_pos_w`; `side` is the side of a window or of the
    /// whole picture, in patches.
    pub fn new(path: &WeightPath, dim: i64, heads: i64, side: i64) -> Self {
        let relative = |name: &str| {
            let table = path.tensor(name, &[2 * side - 1, dim / heads]);
            let places = Tensor::arange(side, (Kind::Int64, Device::Cpu));
            let between = places.unsqueeze(1) - places.unsqueeze(0) + (side - 1); // [query, key]
            let rows = between.view([-1]).to_device(table.device());
            table.index_select(0, &rows).view([side, side, -1])
        };
        SamVisionAttention {
            qkv: Linear::new(&(path / "qkv"), dim, 3 * dim),
            proj: Linear::new(&(path / "proj"), dim, dim),
            relative: ["rel_pos_h", "rel_pos_w"].map(relative),
            heads,
        }
    }

    /// `[B, side, side, D]` to the same shape.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        let (b, height, width, dim) = xs.size4().expect("patches have four axes");
        let (heads, tokens) = (self.heads, height * width);
        let qkv = self.qkv.forward(xs);
        let qkv = qkv
            .view([b, tokens, 3, heads, dim / heads])
            .permute([2, 0, 3, 1, 4]);
        let [query, key, value] = [0, 1, 2].map(|i| qkv.get(i)); // [B, heads, S, d]
        let places = query.reshape([b, heads, height, width, dim / heads]);
        let [rows, columns] = &self.relative;
        let by_row = places.matmul(&rows.transpose(1, 2)); // [B, heads, H, W, H]
        let by_column = places.transpose(2, 3).matmul(&columns.transpose(1, 2));
        let by_column = by_column.transpose(2, 3).contiguous(); // [B, heads, H, W, W]
        let bias = by_row.unsqueeze(-1) + by_column.unsqueeze(-2); // [B, heads, H, W, H, W]
        let bias = bias.reshape([b, heads, tokens, tokens]);
        let attended = Tensor::scaled_dot_product_attention(
            &query,
            &key,
            &value,
            Some(&bias),
            0.0,
            false,
            None,
            false,
        );
        let merged = merge_heads(&attended).view([b, height, width, dim]);
        self.proj.forward(&merged)
    }
}

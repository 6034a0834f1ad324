//! Turns pictures into tokens, the first step of every vision transformer (arXiv 2010.11929).

use tch::Tensor;

use crate::io::weights::WeightPath;

/// Cuts a picture into squares and maps each square to a token: a convolution whose stride is its
/// kernel.
pub struct PatchEmbedding {
    weight: Tensor,
    bias: Option<Tensor>,
    patch_size: i64,
}

impl PatchEmbedding {
    /// Reads `weight [D, 3, P, P]` and, where the network has it, `bias [D]`.
    pub fn new(path: &WeightPath, dim: i64, patch_size: i64, has_bias: bool) -> Self {
        PatchEmbedding {
            weight: path.tensor("weight", &[dim, 3, patch_size, patch_size]),
            bias: has_bias.then(|| path.tensor("bias", &[dim])),
            patch_size,
        }
    }

    /// `[B, 3, H, W]` to `[B, (H / P) (W / P), D]`, row by row; incomplete patches at the edges are
    /// cut off.
    pub fn forward(&self, pixel_values: &Tensor) -> Tensor {
        let stride = [self.patch_size; 2];
        let patches =
            pixel_values.conv2d(&self.weight, self.bias.as_ref(), stride, [0, 0], [1, 1], 1);
        patches.flatten(2, 3).transpose(1, 2)
    }
}

/// Position embeddings `[1, 1 + n², D]` of a class token and an n x n grid, for a grid of another
/// shape. The embeddings of the grid are resized with torch's bicubic filter, as in
/// `interpolate_pos_encoding` of transformers. For an n x n grid they are unchanged.
pub fn interpolated_positions(positions: &Tensor, rows: i64, columns: i64) -> Tensor {
    let (count, dim) = (positions.size()[1] - 1, positions.size()[2]);
    let side = (count as f64).sqrt().round() as i64;
    if (rows, columns) == (side, side) {
        return positions.shallow_clone();
    }
    let class = positions.narrow(1, 0, 1);
    let grid = positions.narrow(1, 1, count).view([1, side, side, dim]);
    let grid = grid.permute([0, 3, 1, 2]); // [1, D, n, n]
    let grid = grid.upsample_bicubic2d([rows, columns], false, None, None);
    let grid = grid.permute([0, 2, 3, 1]).reshape([1, rows * columns, dim]);
    Tensor::cat(&[class, grid], 1)
}

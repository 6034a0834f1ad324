//! Overlapping tiles for maps that are too large to pass through a network whole, blended linearly
//! where they overlap, as in `AutoencoderKL.enable_vae_tiling` of diffusers.

use tch::Tensor;

/// Fraction of a tile that the next tile also covers.
const OVERLAP: f64 = 0.25;

/// How a map is cut into tiles. `size` and `step` are in units of the input map, `blend` and `keep`
/// in units of the network's output map, which may be larger or smaller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tiling {
    /// Side of a tile.
    size: i64,
    /// Distance from one tile to the next.
    step: i64,
    /// Number of rows and columns of the output over which two neighbouring tiles are blended.
    blend: i64,
    /// Rows and columns of a tile's output that are kept; the rest comes from its neighbours.
    keep: i64,
}

impl Tiling {
    /// Tiles of `size`, for a network that maps each tile to one of size `result`.
    pub fn new(size: i64, result: i64) -> Self {
        let part = |side: i64, factor: f64| (side as f64 * factor) as i64;
        let blend = part(result, OVERLAP);
        Tiling {
            size,
            step: part(size, 1.0 - OVERLAP),
            blend,
            keep: result - blend,
        }
    }

    /// Whether a map `[B, C, H, W]` is larger than one tile.
    pub fn is_needed(&self, map: &Tensor) -> bool {
        map.size()[2..].iter().any(|&side| side > self.size)
    }

    /// Applies `network` to all tiles of `map [B, C, H, W]`, row by row. Each tile is blended first
    /// with the result above it, then with the result to its left.
    pub fn apply(&self, map: &Tensor, network: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let (_, _, height, width) = map.size4().expect("maps have four axes");
        let starts = |side: i64| (0..side).step_by(self.step as usize);
        let cut = |axis: i64, map: &Tensor, start: i64| {
            map.narrow(
                axis,
                start,
                self.size.min(map.size()[axis as usize] - start),
            )
        };
        let kept = |tile: &Tensor| {
            let (_, _, h, w) = tile.size4().expect("maps have four axes");
            tile.narrow(2, 0, h.min(self.keep))
                .narrow(3, 0, w.min(self.keep))
        };
        let mut above: Vec<Tensor> = Vec::new();
        let mut rows = Vec::new();
        for top in starts(height) {
            let band = cut(2, map, top);
            let mut row: Vec<Tensor> = Vec::new();
            for left in starts(width) {
                let mut tile = network(&cut(3, &band, left));
                if let Some(upper) = above.get(row.len()) {
                    tile = self.blended(2, upper, tile);
                }
                if let Some(before) = row.last() {
                    tile = self.blended(3, before, tile);
                }
                row.push(tile);
            }
            rows.push(Tensor::cat(&row.iter().map(kept).collect::<Vec<_>>(), 3));
            above = row;
        }
        Tensor::cat(&rows, 2)
    }

    /// `tile` with its first rows (axis 2) or columns (axis 3) blended from the last rows or
    /// columns of `before`: `before (1 - i/n) + tile i/n`.
    fn blended(&self, axis: i64, before: &Tensor, tile: Tensor) -> Tensor {
        let side = |t: &Tensor| t.size()[axis as usize];
        let (of_before, of_tile) = (side(before), side(&tile));
        let n = self.blend.min(of_before).min(of_tile);
        let mut shape = [1, 1, 1, 1];
        shape[axis as usize] = n;
        let share = Tensor::arange(n, (tile.kind(), tile.device())).view(shape) / n;
        let old = before.narrow(axis, of_before - n, n);
        let new = tile.narrow(axis, 0, n);
        let seam = &old + (&new - &old) * share;
        Tensor::cat(&[seam, tile.narrow(axis, n, of_tile - n)], axis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn a_network_that_looks_at_single_points_sees_no_tiles() {
        let map = Tensor::arange(2 * 21 * 13, (Kind::Float, Device::Cpu)).view([1, 2, 21, 13]);
        let tiling = Tiling::new(8, 8);
        assert!(tiling.is_needed(&map));
        assert!(!tiling.is_needed(&map.narrow(2, 0, 8).narrow(3, 0, 8)));
        let found = tiling.apply(&map, |tile| tile * 2.0);
        let gap = (found - &map * 2.0).abs().max().double_value(&[]);
        // Blending equal values rounds once.
        assert!(gap < 1e-3, "{gap} of values up to 1090");
    }

    #[test]
    fn the_seam_goes_over_from_one_tile_to_the_next() {
        let map = Tensor::zeros([1, 1, 8, 14], (Kind::Float, Device::Cpu));
        let calls = std::cell::Cell::new(0.0);
        let found = Tiling::new(8, 8).apply(&map, |tile| {
            calls.set(calls.get() + 1.0);
            tile + calls.get()
        });
        // Three tiles in each row, from columns 0, 6 and 12, and the same from row 6.
        assert_eq!(calls.get(), 6.0);
        let row = Vec::<f32>::try_from(found.get(0).get(0).get(0)).expect("a row of numbers");
        let expected = [
            1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0, 2.5f32,
        ];
        assert_eq!(row, expected);
    }
}

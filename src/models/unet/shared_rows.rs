//! Rows of a pass that differ only in their text.

use tch::{Device, Tensor};

/// Rows with the same latents, timestep and added conditions, such as target and average of Eq.
/// (19). They are equal until a layer reads their text, so they are computed as one row until then.
#[derive(Debug)]
pub struct SharedRows {
    /// The first row of each group of equal rows `[R']`.
    firsts: Tensor,
    /// The group of each row `[R]`.
    sorts: Tensor,
}

impl SharedRows {
    /// Row `i` equals row `like[i]`, the first row of its group; each row stands for `images`
    /// adjacent rows. `None` if no two rows are equal.
    pub fn new(like: &[usize], images: i64, device: Device) -> Option<SharedRows> {
        let firsts: Vec<usize> = (0..like.len()).filter(|&row| like[row] == row).collect();
        let sort = |row: &usize| firsts.iter().position(|first| first == row);
        let sorts: Vec<usize> = like.iter().filter_map(sort).collect();
        let of_images = |rows: &[usize]| {
            let row = |row: usize| (0..images).map(move |image| row as i64 * images + image);
            let rows: Vec<i64> = rows.iter().copied().flat_map(row).collect();
            Tensor::from_slice(&rows).to_device(device)
        };
        (firsts.len() < like.len()).then(|| SharedRows {
            firsts: of_images(&firsts),
            sorts: of_images(&sorts),
        })
    }

    /// One row of each group `[R', ..]`, from all rows `[R, ..]`.
    pub fn one_of_each(&self, rows: &Tensor) -> Tensor {
        rows.index_select(0, &self.firsts)
    }

    /// All rows `[R, ..]`, from one row of each group. A tensor that has all rows already is
    /// returned unchanged.
    pub fn all(&self, rows: &Tensor) -> Tensor {
        if rows.size()[0] == self.sorts.size()[0] {
            rows.shallow_clone()
        } else {
            rows.index_select(0, &self.sorts)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_sort_pass_once_for_each_image() {
        assert!(SharedRows::new(&[0, 1], 2, Device::Cpu).is_none());
        let shared = SharedRows::new(&[0, 1, 1], 2, Device::Cpu).expect("two are alike");
        let rows = Tensor::from_slice(&[10i64, 11, 20, 21, 20, 21]);
        let few = shared.one_of_each(&rows);
        assert_eq!(few, Tensor::from_slice(&[10i64, 11, 20, 21]));
        assert_eq!(shared.all(&few), rows);
        assert_eq!(shared.all(&rows), rows);
    }
}

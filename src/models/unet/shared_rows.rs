//! Rows of a pass that differ in nothing but their text.

use tch::{Device, Tensor};

/// Rows with the same latents, timestep and added conditions, such as target and average of Eq. (19).
/// They are the same until a layer reads their text, and pass as one row until then.
#[derive(Debug)]
pub struct SharedRows {
    /// The first row of each sort `[R']`.
    firsts: Tensor,
    /// The sort of each row `[R]`.
    sorts: Tensor,
}

impl SharedRows {
    /// For rows that are each like row `like[i]`, the first of their sort, and `images` of each, side
    /// by side; `None` where no two are alike.
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

    /// One row of each sort `[R', ..]`, of all rows `[R, ..]`.
    pub fn one_of_each(&self, rows: &Tensor) -> Tensor {
        rows.index_select(0, &self.firsts)
    }

    /// All rows `[R, ..]`, of one row of each sort; what has all rows stays as it is.
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

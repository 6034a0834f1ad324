//! Which tokens of the text each position of the picture attends to.

use std::cell::RefCell;

use tch::{Kind, Tensor};

/// Where positions attend to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// At every position.
    Everywhere,
    /// At the positions of one region.
    Inside(usize),
    /// At positions outside all of these regions (bit g for region g).
    OutsideOf(u32),
    /// Nowhere.
    Nowhere,
}

/// Which tokens each position of the picture attends to, the same for all layers. Cross-attention
/// ignores the order of tokens. A token can therefore be given twice, with one state for the inside
/// of a region and another for its outside.
#[derive(Debug)]
pub struct TokenMask {
    /// 1 inside a region and 0 outside `[B, G, H, W]` f32, at any resolution.
    regions: Tensor,
    /// What forbids token s of row b: `always [B, 1, S]`, plus `within [B, G, S]` for each region
    /// that the position is in. A position attends to a token if the sum is below one half.
    always: Tensor,
    within: Tensor,
    /// Masks that were computed before, by height and width.
    at_sizes: RefCell<Vec<((i64, i64), Tensor)>>,
}

impl TokenMask {
    /// A mask for rows with these regions `[B, G, H, W]` (ones and zeros) and a list of S rules for
    /// each row.
    ///
    /// # Panics
    /// When a row's rules are missing or rows have different numbers of rules.
    pub fn new(regions: &Tensor, rules: &[Vec<Answers>]) -> TokenMask {
        let (b, g, _, _) = regions.size4().expect("regions have four axes");
        let s = rules[0].len();
        assert!(
            rules.len() as i64 == b && rules.iter().all(|row| row.len() == s),
            "one list of rules for each row"
        );
        let mut always = Vec::new();
        let mut within = Vec::new();
        for row in rules {
            always.extend(row.iter().map(|rule| match rule {
                Answers::Nowhere | Answers::Inside(_) => 1f32,
                Answers::Everywhere | Answers::OutsideOf(_) => 0.0,
            }));
            for region in 0..g as usize {
                within.extend(row.iter().map(|rule| match rule {
                    Answers::Inside(own) if *own == region => -1f32,
                    Answers::OutsideOf(regions) if regions >> region & 1 == 1 => 1.0,
                    _ => 0.0,
                }));
            }
        }
        let device = regions.device();
        TokenMask {
            regions: regions.to_kind(Kind::Float),
            always: Tensor::from_slice(&always)
                .view([b, 1, s as i64])
                .to_device(device),
            within: Tensor::from_slice(&within)
                .view([b, g, s as i64])
                .to_device(device),
            at_sizes: RefCell::default(),
        }
    }

    /// The mask for `count` rows from `first` on.
    pub fn narrow(&self, first: i64, count: i64) -> TokenMask {
        let rows = |t: &Tensor| t.narrow(0, first, count);
        TokenMask {
            regions: rows(&self.regions),
            always: rows(&self.always),
            within: rows(&self.within),
            at_sizes: RefCell::default(),
        }
    }

    /// Whether a position attends to token s, `[B, 1, HW, S]`, for a layer of this height and
    /// width. A position of a coarser layer is in a region if at least half of its area is.
    pub(super) fn at(&self, height: i64, width: i64) -> Tensor {
        let size = (height, width);
        if let Some((_, mask)) = self
            .at_sizes
            .borrow()
            .iter()
            .find(|(known, _)| *known == size)
        {
            return mask.shallow_clone();
        }
        let inside = self
            .regions
            .adaptive_avg_pool2d([height, width])
            .ge(0.5)
            .to_kind(Kind::Float)
            .flatten(2, 3)
            .transpose(1, 2); // [B, HW, G]
        let forbidden = inside.matmul(&self.within) + &self.always; // [B, HW, S]
        let mask = forbidden.lt(0.5).unsqueeze(1);
        self.at_sizes
            .borrow_mut()
            .push((size, mask.shallow_clone()));
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn answers(mask: &TokenMask, height: i64, width: i64) -> Vec<Vec<bool>> {
        let mask = mask.at(height, width).squeeze_dim(1).get(0); // [HW, S]
        (0..mask.size()[0])
            .map(|i| Vec::<bool>::try_from(mask.get(i)).expect("one row of truth"))
            .collect()
    }

    #[test]
    fn tokens_answer_where_their_rule_says() {
        // Two regions on two positions: the first position is in region 0, the second is in both.
        let regions = Tensor::from_slice(&[1f32, 1.0, 0.0, 1.0]).view([1, 2, 1, 2]);
        let rules = vec![vec![
            Answers::Everywhere,
            Answers::Nowhere,
            Answers::Inside(0),
            Answers::Inside(1),
            Answers::OutsideOf(0b10),
            Answers::OutsideOf(0b11),
        ]];
        let mask = TokenMask::new(&regions, &rules);
        let expected = [
            [true, false, true, false, true, false],
            [true, false, true, true, false, false],
        ];
        assert_eq!(answers(&mask, 1, 2), expected);
    }

    #[test]
    fn half_of_a_coarse_position_is_enough() {
        let regions =
            Tensor::from_slice(&[1f32, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]).view([1, 1, 2, 4]);
        let rules = vec![vec![Answers::Inside(0), Answers::OutsideOf(1)]];
        let mask = TokenMask::new(&regions, &rules);
        // Left half: three of four positions; right half: one of four.
        let columns = answers(&mask, 1, 2);
        assert_eq!(columns, [[true, false], [false, true]]);
        let regions = Tensor::ones([1, 1, 5, 7], (Kind::Float, Device::Cpu));
        let mask = TokenMask::new(&regions, &rules);
        assert!(answers(&mask, 3, 2).iter().all(|row| row[0] && !row[1]));
    }
}

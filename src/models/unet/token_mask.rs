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

/// The rules of every token, for each row of a pass.
#[derive(Debug)]
pub struct TokenRules {
    /// What is added to the logit of token s of row b: `always [B, 1, S']`, plus `within [B, G, S']` for each
    /// region that the position is in. The sum is 0 for a token that the position attends to, and otherwise at
    /// most the lowest number of this format. Columns behind the S tokens are zeros.
    always: Tensor,
    within: Tensor,
    /// S
    tokens: i64,
}

/// Fused kernels read a mask whose rows begin at multiples of this many numbers, and copy any other mask first.
const ALIGNMENT: usize = 8;

/// The lowest number of a format.
fn lowest(kind: Kind) -> f64 {
    match kind {
        Kind::Half => -65504.0,
        // The largest number of f32 overflows in bf16; half of it forbids as well.
        _ => f64::from(f32::MIN) / 2.0,
    }
}

impl TokenRules {
    /// A list of S rules for each row, for G regions, on the device and in the format of `like`.
    ///
    /// # Panics
    /// When rows have different numbers of rules.
    pub fn new(rules: &[Vec<Answers>], regions: usize, like: &Tensor) -> TokenRules {
        let tokens = rules[0].len();
        assert!(
            rules.iter().all(|row| row.len() == tokens),
            "one rule for each token in every row"
        );
        let lowest = lowest(like.kind()) as f32;
        let padding = || vec![0f32; tokens.next_multiple_of(ALIGNMENT) - tokens];
        let mut always = Vec::new();
        let mut within = Vec::new();
        for row in rules {
            always.extend(row.iter().map(|rule| match rule {
                Answers::Nowhere | Answers::Inside(_) => lowest,
                Answers::Everywhere | Answers::OutsideOf(_) => 0.0,
            }));
            always.extend(padding());
            for region in 0..regions {
                within.extend(row.iter().map(|rule| match rule {
                    Answers::Inside(own) if *own == region => -lowest,
                    Answers::OutsideOf(regions) if regions >> region & 1 == 1 => lowest,
                    _ => 0.0,
                }));
                within.extend(padding());
            }
        }
        let table = |values: &[f32], lists: usize| {
            Tensor::from_slice(values)
                .view([rules.len() as i64, lists as i64, -1])
                .to_kind(like.kind())
                .to_device(like.device())
        };
        TokenRules {
            always: table(&always, 1),
            within: table(&within, regions),
            tokens: tokens as i64,
        }
    }

    fn narrow(&self, first: i64, count: i64) -> TokenRules {
        TokenRules {
            always: self.always.narrow(0, first, count),
            within: self.within.narrow(0, first, count),
            tokens: self.tokens,
        }
    }
}

/// Which tokens each position of the picture attends to, the same for all layers. Cross-attention
/// ignores the order of tokens. A token can therefore be given twice, with one state for the inside
/// of a region and another for its outside.
#[derive(Debug)]
pub struct TokenMask {
    /// 1 inside a region and 0 outside `[B, G, H, W]` f32, at any resolution.
    regions: Tensor,
    rules: TokenRules,
    /// Masks that were computed before, by height and width.
    at_sizes: RefCell<Vec<((i64, i64), Tensor)>>,
}

impl TokenMask {
    /// A mask for rows with these regions `[B, G, H, W]` (ones and zeros), and with the rules of B rows.
    ///
    /// # Panics
    /// When there are rules for another number of rows or regions.
    pub fn new(regions: &Tensor, rules: &TokenRules) -> TokenMask {
        let (b, g, _, _) = regions.size4().expect("regions have four axes");
        assert_eq!(
            rules.within.size()[..2],
            [b, g],
            "rules of each row and region"
        );
        TokenMask {
            regions: regions.to_kind(Kind::Float),
            rules: rules.narrow(0, b),
            at_sizes: RefCell::default(),
        }
    }

    /// The mask for `count` rows from `first` on.
    pub fn narrow(&self, first: i64, count: i64) -> TokenMask {
        TokenMask {
            regions: self.regions.narrow(0, first, count),
            rules: self.rules.narrow(first, count),
            at_sizes: RefCell::default(),
        }
    }

    /// What is added to the logits of attention, `[B, 1, HW, S]`, for a layer of this height and width: 0 for a
    /// token that the position attends to, and otherwise at most the lowest number of the format. A position of
    /// a coarser layer is in a region if at least half of its area is.
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
        let TokenRules {
            always,
            within,
            tokens,
        } = &self.rules;
        let inside = self
            .regions
            .adaptive_avg_pool2d([height, width])
            .ge(0.5)
            .to_kind(within.kind())
            .flatten(2, 3)
            .transpose(1, 2); // [B, HW, G]
        let mask = always.baddbmm(&inside, within, 1.0, 1.0); // [B, HW, S']
        let mask = mask.narrow(-1, 0, *tokens).unsqueeze(1);
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
        let mask = mask.at(height, width).squeeze_dim(1).get(0).ge(-1.0); // [HW, S]
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
        let mask = TokenMask::new(&regions, &TokenRules::new(&rules, 2, &regions));
        let expected = [
            [true, false, true, false, true, false],
            [true, false, true, true, false, false],
        ];
        assert_eq!(answers(&mask, 1, 2), expected);
    }

    #[test]
    fn a_token_is_forbidden_in_every_format_and_rows_are_aligned() {
        for kind in [Kind::Float, Kind::Half, Kind::BFloat16] {
            let like = Tensor::zeros([1], (kind, Device::Cpu));
            // The position is in both regions, which forbid the second token twice.
            let regions = Tensor::ones([1, 2, 1, 1], (Kind::Float, Device::Cpu));
            let rules = vec![vec![Answers::Inside(1), Answers::OutsideOf(0b11)]];
            let mask = TokenMask::new(&regions, &TokenRules::new(&rules, 2, &like)).at(1, 1);
            assert_eq!((mask.kind(), mask.size()), (kind, vec![1, 1, 1, 2]));
            assert_eq!(mask.stride()[2], 8);
            let logits = mask.to_kind(Kind::Float) + Tensor::from_slice(&[-50f32, 50.0]);
            let seen = Vec::<f32>::try_from(logits.softmax(-1, Kind::Float).view([-1]));
            assert_eq!(seen.expect("two numbers"), [1.0, 0.0], "{kind:?}");
        }
    }

    #[test]
    fn half_of_a_coarse_position_is_enough() {
        let regions =
            Tensor::from_slice(&[1f32, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]).view([1, 1, 2, 4]);
        let rules = vec![vec![Answers::Inside(0), Answers::OutsideOf(1)]];
        let rules = TokenRules::new(&rules, 1, &regions);
        let mask = TokenMask::new(&regions, &rules);
        // Left half: three of four positions; right half: one of four.
        let columns = answers(&mask, 1, 2);
        assert_eq!(columns, [[true, false], [false, true]]);
        let regions = Tensor::ones([1, 1, 5, 7], (Kind::Float, Device::Cpu));
        let mask = TokenMask::new(&regions, &rules);
        assert!(answers(&mask, 3, 2).iter().all(|row| row[0] && !row[1]));
    }
}

//! A measured quantity over many pictures: one value for each picture or each pair, and what they come to.

use std::collections::HashSet;

/// Mean and spread of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Their mean.
    pub mean: f64,
    /// Sample standard deviation (divisor n - 1); `None` for a single value.
    pub sd: Option<f64>,
    /// How many there are.
    pub count: usize,
}

impl Summary {
    /// `None` without any value.
    pub fn of(values: &[f64]) -> Option<Summary> {
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Summary {
            mean,
            sd: (count > 1).then(|| (squares / (count - 1) as f64).sqrt()),
            count,
        })
    }
}

/// The values of a column.
#[derive(Clone, Debug)]
pub enum Values {
    /// One for each picture, `None` where it has none.
    Pictures(Vec<Option<f64>>),
    /// One for each pair of pictures, with their numbers.
    Pairs(Vec<(usize, usize, f64)>),
}

/// One measured quantity.
#[derive(Clone, Debug)]
pub struct Column {
    /// As results spell it, such as `clip_i_pairwise`.
    pub name: String,
    /// What was measured.
    pub values: Values,
}

impl Column {
    /// The value of one picture; of pairs, the mean over all that it is in. `None` where there is none.
    pub fn of_picture(&self, picture: usize) -> Option<f64> {
        match &self.values {
            Values::Pictures(values) => values.get(picture).copied().flatten(),
            Values::Pairs(pairs) => {
                let of_it = pairs.iter().filter(|(i, j, _)| [*i, *j].contains(&picture));
                let values: Vec<f64> = of_it.map(|(_, _, value)| *value).collect();
                Summary::of(&values).map(|summary| summary.mean)
            }
        }
    }

    /// Over those of a group of pictures that have a value; of pairs, over those with both in it.
    pub fn over(&self, group: &[usize]) -> Option<Summary> {
        let values: Vec<f64> = match &self.values {
            Values::Pictures(values) => group.iter().filter_map(|&i| values[i]).collect(),
            Values::Pairs(pairs) => {
                let members: HashSet<usize> = group.iter().copied().collect();
                let inside = pairs
                    .iter()
                    .filter(|(i, j, _)| members.contains(i) && members.contains(j));
                inside.map(|(_, _, value)| *value).collect()
            }
        };
        Summary::of(&values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_are_those_of_the_formula() {
        let summary = Summary::of(&[1.0, 2.0, 6.0]).expect("three values");
        assert_eq!((summary.mean, summary.count), (3.0, 3));
        // (4 + 1 + 9) / 2 = 7.
        assert!((summary.sd.expect("more than one") - 7f64.sqrt()).abs() < 1e-12);
        assert_eq!(Summary::of(&[5.0]).and_then(|summary| summary.sd), None);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn pairs_count_where_both_pictures_are_in_the_group() {
        let pairs = vec![(0, 1, 0.5), (0, 2, 0.7), (1, 2, 0.9)];
        let column = Column {
            name: "clip_i_pairwise".to_owned(),
            values: Values::Pairs(pairs),
        };
        assert_eq!(column.over(&[0, 1]).map(|summary| summary.mean), Some(0.5));
        assert_eq!(column.over(&[2]), None);
        let of_two = column.of_picture(2).expect("it is in two pairs");
        assert!((of_two - 0.8).abs() < 1e-12);
        assert_eq!(column.of_picture(3), None);
    }
}

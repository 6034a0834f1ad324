//! A measured quantity over many pictures: one value for each picture or each pair, and their mean and spread.

use std::collections::HashSet;

/// Mean and spread of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Their mean.
    pub mean: f64,
    /// Sample standard deviation (divisor n - 1); `None` for a single value.
    pub sd: Option<f64>,
    /// Number of values.
    pub count: usize,
}

impl Summary {
    /// The summary of the values; `None` if there are none.
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
pub enum ColumnValues {
    /// One value for each picture; `None` for a picture without a value.
    Pictures(Vec<Option<f64>>),
    /// One value for each pair of pictures, with the numbers of both.
    Pairs(Vec<(usize, usize, f64)>),
}

/// One measured quantity.
#[derive(Clone, Debug)]
pub struct Column {
    /// The name in results, such as `clip_i_pairwise`.
    pub name: String,
    values: ColumnValues,
    /// The value of each picture. The means of pairs are computed once, because the number of pairs grows with
    /// the square of the pictures.
    of_pictures: Vec<Option<f64>>,
}

impl Column {
    /// The column of these values.
    pub fn new(name: String, values: ColumnValues) -> Self {
        let of_pictures = match &values {
            ColumnValues::Pictures(values) => values.clone(),
            ColumnValues::Pairs(pairs) => means_of_pairs(pairs),
        };
        Self {
            name,
            values,
            of_pictures,
        }
    }

    /// The value of one picture; for pairs, the mean over all pairs with this picture. `None` if there is no value.
    pub fn of_picture(&self, picture: usize) -> Option<f64> {
        self.of_pictures.get(picture).copied().flatten()
    }

    /// The summary over the pictures of a group that have a value; for pairs, over the pairs with both pictures
    /// in the group.
    pub fn over(&self, group: &[usize]) -> Option<Summary> {
        let values: Vec<f64> = match &self.values {
            ColumnValues::Pictures(values) => group.iter().filter_map(|&i| values[i]).collect(),
            ColumnValues::Pairs(pairs) => {
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

/// For each picture, the mean over all pairs that contain it.
fn means_of_pairs(pairs: &[(usize, usize, f64)]) -> Vec<Option<f64>> {
    let last = pairs.iter().map(|(i, j, _)| *i.max(j)).max();
    let mut sums = vec![(0.0, 0usize); last.map_or(0, |last| last + 1)];
    for (i, j, value) in pairs {
        for picture in [i, j] {
            let (sum, count) = &mut sums[*picture];
            *sum += value;
            *count += 1;
        }
    }
    let mean = |(sum, count): (f64, usize)| (count > 0).then(|| sum / count as f64);
    sums.into_iter().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn two_thousand_pictures_of_one_actor_are_no_matter_of_minutes() {
        let n = 2000;
        let pairs = (0..n).flat_map(|i| (0..i).map(move |j| (j, i, (i + j) as f64)));
        let column = Column::new(
            "clip_i_pairwise".to_owned(),
            ColumnValues::Pairs(pairs.collect()),
        );
        let started = Instant::now();
        for i in 0..n {
            // The numbers of the others add up to n (n - 1) / 2 - i, and its own number counts n - 1 times.
            let sum = (n * (n - 1) / 2 - i + (n - 1) * i) as f64;
            let mean = column.of_picture(i).expect("it is in pairs");
            assert!((mean - sum / (n - 1) as f64).abs() < 1e-9, "{i}");
        }
        // Searching all two million pairs for each picture would take a thousand times as long.
        assert!(started.elapsed().as_secs_f64() < 1.0);
    }

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
        let column = Column::new("clip_i_pairwise".to_owned(), ColumnValues::Pairs(pairs));
        assert_eq!(column.over(&[0, 1]).map(|summary| summary.mean), Some(0.5));
        assert_eq!(column.over(&[2]), None);
        let of_two = column.of_picture(2).expect("it is in two pairs");
        assert!((of_two - 0.8).abs() < 1e-12);
        assert_eq!(column.of_picture(3), None);
    }
}

//! The order of the jobs of a batch: jobs that load the same models and actors follow each other. The order changes no
//! picture, because each picture depends only on its own job and seed.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::claims::Claim;
use super::prepared::{Loads, Prepared};
use super::session::Session;
use crate::io::real_path::real_path;

/// A prepared job that waits for its turn.
pub(crate) struct Ready<P> {
    pub job: P,
    /// Its place in the batch file.
    pub place: Option<String>,
    /// The locks on its folders.
    pub claim: Claim,
}

/// Sorts the jobs so that as little as possible is loaded twice; jobs that load the same keep their order. If any job
/// reads a file that another job writes, all jobs keep their order.
pub(crate) fn ordered<P: Prepared>(session: &Session, ready: Vec<Ready<P>>) -> Vec<Ready<P>> {
    let loads: Vec<Loads> = ready.iter().map(|ready| ready.job.loads()).collect();
    let ranks = ranks(&loads);
    if ranks.is_sorted() {
        return ready;
    }
    let written: HashSet<PathBuf> = ready
        .iter()
        .flat_map(|ready| ready.job.files())
        .map(|path| real_path(&path))
        .collect();
    let mut reads = loads.iter().flat_map(|loads| &loads.reads);
    if reads.any(|path| written.contains(&real_path(path))) {
        session
            .reporter
            .detail("jobs keep their order, because some read files that others write");
        return ready;
    }
    let mut ranked: Vec<_> = ranks.into_iter().zip(ready).collect();
    ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
    session
        .reporter
        .note("jobs are not done in the order of the file: those with the same model and actors follow each other");
    ranked.into_iter().map(|(_, job)| job).collect()
}

/// For each job a list of indices: for each prefix of what the job loads, the first job with the same prefix. Sorting
/// by these lists puts jobs with the same model together, and among them jobs with the same actors.
fn ranks(loads: &[Loads]) -> Vec<Vec<usize>> {
    let mut first: HashMap<&[String], usize> = HashMap::new();
    let mut ranks = Vec::new();
    for (index, Loads { shared, .. }) in loads.iter().enumerate() {
        let ends = 1..=shared.len();
        let rank = ends.map(|end| *first.entry(&shared[..end]).or_insert(index));
        ranks.push(rank.collect());
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_with_the_same_model_and_then_the_same_actor_follow_each_other() {
        let loads = |shared: [&str; 2]| Loads {
            shared: shared.map(str::to_owned).to_vec(),
            reads: Vec::new(),
        };
        let jobs = [
            ["a", "x"],
            ["b", "x"],
            ["a", "y"],
            ["b", "y"],
            ["a", "x"],
            ["b", "x"],
        ];
        let mut order: Vec<(Vec<usize>, usize)> =
            ranks(&jobs.map(loads)).into_iter().zip(0..).collect();
        order.sort_by(|(a, _), (b, _)| a.cmp(b));
        let order: Vec<usize> = order.into_iter().map(|(_, job)| job).collect();
        assert_eq!(order, [0, 4, 2, 1, 5, 3]);
    }
}

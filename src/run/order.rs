//! In which order the jobs of a batch are done: those that share what is loaded follow each other. No
//! picture depends on it, for each follows from its own job and seed.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::claims::Claim;
use super::prepared::{Loads, Prepared};
use super::session::Session;
use crate::io::real_path::real_path;

/// A job that is ready.
pub(crate) struct Ready<P> {
    pub job: P,
    /// Its place in the batch file.
    pub place: Option<String>,
    /// The folders that are kept for it.
    pub claim: Claim,
}

/// The jobs in the order in which the least is loaded; those that are alike in this stay as they were. Where one
/// reads what another will write, all stay as they were.
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
            .detail("jobs are done in their order, for some read what others write");
        return ready;
    }
    let mut ranked: Vec<_> = ranks.into_iter().zip(ready).collect();
    ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
    session
        .reporter
        .note("jobs that share models and actors are done one after the other, not in the order of the file");
    ranked.into_iter().map(|(_, job)| job).collect()
}

/// For each job, of each thing that it loads, the first job that has loaded the same up to there.
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

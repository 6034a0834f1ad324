//! The tensors of a model that no network reads, and the note about them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// The number of tensors that the note names.
const SHOWN: usize = 3;

/// Keys that no network has read; `None` until a network was read.
#[derive(Clone, Debug, Default)]
pub(super) struct UnusedKeys(Rc<RefCell<Option<BTreeSet<String>>>>);

impl UnusedKeys {
    /// Adds the keys that one network did not read. `strangers` belong to no network at all.
    pub(super) fn add(&self, keys: &[String], strangers: &[String]) {
        let mut unused = self.0.borrow_mut();
        let unused = unused.get_or_insert_with(|| strangers.iter().cloned().collect());
        unused.extend(keys.iter().cloned());
    }

    /// Takes the note about unused tensors of the model `name`, if there are any.
    pub(super) fn take_note(&self, name: &str) -> Option<String> {
        let unused: Vec<String> = self.0.take()?.into_iter().collect();
        note(name, &unused)
    }
}

/// A note about unused tensors of `name`; `None` if there are none.
pub(super) fn note(name: &str, unused: &[String]) -> Option<String> {
    let (shown, more) = unused.split_at(unused.len().min(SHOWN));
    let shown = shown.join(", ");
    let rest = match more.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match unused.len() {
        0 => None,
        1 => Some(format!(
            "{name}: 1 tensor is not used, because no network reads it: {shown}"
        )),
        count => Some(format!(
            "{name}: {count} tensors are not used, because no network reads them: {shown}{rest}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note_of(networks: &[&[&str]], strangers: &[&str]) -> Option<String> {
        let owned = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect::<Vec<_>>();
        let unused = UnusedKeys::default();
        for keys in networks {
            unused.add(&owned(keys), &owned(strangers));
        }
        unused.take_note("m")
    }

    #[test]
    fn there_is_one_note_of_all_networks() {
        assert_eq!(note_of(&[], &["global_step"]), None, "nothing was read yet");
        assert_eq!(note_of(&[&[], &[]], &[]), None);
        let one = "m: 1 tensor is not used, because no network reads it: a";
        assert_eq!(note_of(&[&["a"], &[]], &[]).as_deref(), Some(one));
        let many = "m: 5 tensors are not used, because no network reads them: a, b, c and 2 more";
        let found = note_of(&[&["a", "c"], &["b", "e"]], &["d"]);
        assert_eq!(found.as_deref(), Some(many));
    }
}

//! From key to key at the end of an epoch.

use std::ops::Range;

use millstream_runtime::state::keyed::KeyedState;
use millstream_runtime::state::{OperatorState, PackedKey};

/// What an operator wants at the end of an epoch.
pub(crate) enum Walk {
    /// Nothing.
    Nothing,
    /// A visit to each of these keys.
    Keys(Vec<PackedKey>),
    /// A visit to each key that there is.
    All,
}

/// What is known of the epoch that ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EpochEnd {
    /// Whether any record came in it, here or at the operator's other subtasks.
    pub(crate) had_data: bool,
    /// Whether none follows.
    pub(crate) last: bool,
}

/// What a visit to a key came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// There is more to send for this key.
    More,
    /// The key is done with.
    Done,
}

/// Where a walk stands.
#[derive(Debug, Default)]
pub(super) struct Walker {
    /// The key that is visited.
    at: Option<PackedKey>,
    keys: std::vec::IntoIter<PackedKey>,
    /// Key groups whose turn comes afterwards.
    groups: Range<u16>,
}

/// What the next step of a walk is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Visit the current key.
    Visit,
    /// Rows have to be read first.
    Missing,
    /// The walk is over.
    Over,
}

impl Walker {
    pub(super) fn new(walk: Walk, keyed: &KeyedState) -> Self {
        let (keys, groups) = match walk {
            Walk::Nothing => (Vec::new(), 0..0),
            Walk::Keys(keys) => (keys, 0..0),
            Walk::All => (Vec::new(), keyed.groups().clone()),
        };
        Self { at: None, keys: keys.into_iter(), groups }
    }

    /// Goes to the key that is to be visited, and makes it the current one.
    pub(super) fn step(&mut self, keyed: &mut KeyedState) -> Step {
        loop {
            if let Some(key) = self.at.clone().or_else(|| self.keys.next()) {
                keyed.want_packed_key(&key);
                let is_missing = keyed.is_missing();
                keyed.set_packed_key(&key);
                self.at = Some(key);
                return if is_missing { Step::Missing } else { Step::Visit };
            }
            let Some(group) = self.groups.clone().next() else { return Step::Over };
            keyed.want_group(group);
            if keyed.is_missing() {
                return Step::Missing;
            }
            self.groups.next();
            self.keys = Vec::from_iter(keyed.keys_of(group)).into_iter();
        }
    }

    /// The current key is done with.
    pub(super) fn leave(&mut self, keyed: &mut KeyedState) {
        self.at = None;
        // A whole group was sent: what is too much in memory may go before the next one is read.
        if self.keys.len() == 0 && !self.groups.is_empty() {
            keyed.rest();
        }
    }
}

//! Which records are given to user code no more. Pure.
//!
//! A panic is never skipped in place: what it was working on may be half done. The attempt ends, and the record is suspect. When it
//! makes the next attempt panic again, it is the record and not the moment, and the attempt after that keeps it from user code.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::id::Epoch;
use crate::operator::{Origins, Poison, Quarantined};

/// Records that are remembered. One that is forgotten costs another panic, nothing else.
const MOST: usize = 64;

/// Records that user code panicked on.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    once: VecDeque<Poison>,
    twice: VecDeque<Quarantined>,
}

impl Suspects {
    /// Takes note of a panic; says whether the record is in quarantine from now on, and was not before.
    pub(super) fn panicked(&mut self, record: &Poison, origins: &Origins, epoch: Epoch, message: &str) -> bool {
        if self.twice.iter().any(|known| known.record == *record) {
            return false;
        }
        let Some(known) = self.once.iter().position(|known| known == record) else {
            push(&mut self.once, record.clone());
            return false;
        };
        self.once.remove(known);
        let (record, origins, message) = (record.clone(), origins.clone(), message.to_owned());
        push(&mut self.twice, Quarantined { record, origins, epoch, message });
        true
    }

    /// All that are in quarantine.
    pub(super) fn quarantined(&self) -> Arc<[Quarantined]> {
        self.twice.iter().cloned().collect()
    }
}

fn push<T>(list: &mut VecDeque<T>, new: T) {
    if list.len() == MOST {
        list.pop_front();
    }
    list.push_back(new);
}

//! Holds what came out against what went in. Pure.

use serde::{Deserialize, Serialize};

/// A record on its way through a pipeline, as far as the tester needs to know it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// Which output it is to become, from 0 without gaps over all senders.
    pub(crate) seq: u64,
    /// When it was due.
    pub(crate) due: u64,
    /// When it was handed to the pipeline.
    pub(crate) sent: u64,
    /// Its key, from 0.
    pub(crate) key: u32,
    /// Its sender: order is promised within a key of one sender.
    pub(crate) sender: u16,
}

/// What one sink subtask has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Check {
    senders: u16,
    /// A bit for each output.
    seen: Vec<u64>,
    /// The last output of each key and sender, plus one.
    last: Vec<u64>,
    /// The last answer of each key.
    counts: Vec<u64>,
    tally: Tally,
}

/// What is wrong, if anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Outputs that came, doubled ones too.
    pub(crate) completed: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    /// Outputs that overtook an earlier one of their key.
    pub(crate) reordered: u64,
    /// Outputs that nobody sent, and answers that differ from the reference.
    pub(crate) wrong: u64,
}

impl Tally {
    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.wrong == 0
    }
}

fn slot<T: Clone + Default>(all: &mut Vec<T>, index: usize) -> Option<&mut T> {
    if all.len() <= index {
        all.resize(index + 1, T::default());
    }
    all.get_mut(index)
}

impl Check {
    pub(crate) fn new(senders: u16) -> Self {
        Self { senders: senders.max(1), ..Self::default() }
    }

    /// Takes an output, with the count it carries where the workload counts.
    #[inline]
    pub(crate) fn observe(&mut self, stamp: &Stamp, count: Option<u64>) {
        self.tally.completed += 1;
        if let Some(word) = slot(&mut self.seen, (stamp.seq / 64) as usize) {
            let bit = 1 << (stamp.seq % 64);
            self.tally.duplicated += u64::from(*word & bit != 0);
            *word |= bit;
        }
        let place = stamp.key as usize * usize::from(self.senders) + usize::from(stamp.sender);
        if let Some(last) = slot(&mut self.last, place) {
            self.tally.reordered += u64::from(stamp.seq + 1 < *last);
            *last = (*last).max(stamp.seq + 1);
        }
        if let Some((count, last)) = count.zip(slot(&mut self.counts, stamp.key as usize)) {
            *last = count;
        }
    }

    pub(crate) fn completed(&self) -> u64 {
        self.tally.completed
    }

    /// Adds what another subtask has seen. A key belongs to one subtask.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (index, theirs) in other.seen.iter().enumerate() {
            if let Some(ours) = slot(&mut self.seen, index) {
                self.tally.duplicated += u64::from((*ours & theirs).count_ones());
                *ours |= theirs;
            }
        }
        for (index, theirs) in other.counts.iter().enumerate() {
            if let Some(ours) = slot(&mut self.counts, index) {
                *ours = (*ours).max(*theirs);
            }
        }
        self.tally.completed += other.tally.completed;
        self.tally.duplicated += other.tally.duplicated;
        self.tally.reordered += other.tally.reordered;
    }

    /// Judges, given whether an output is expected, how many are, and the counts of a reference; no counts where nothing is counted.
    pub(crate) fn judge(&self, expected: &Expected) -> Tally {
        let mut tally = self.tally;
        let mut found = 0;
        for (index, word) in self.seen.iter().enumerate() {
            for bit in (0..64).filter(|bit| word & (1 << bit) != 0) {
                if expected.contains(index as u64 * 64 + bit) {
                    found += 1;
                } else {
                    tally.wrong += 1;
                }
            }
        }
        tally.lost = expected.total() - found;
        if let Some(reference) = &expected.counts {
            let keys = reference.len().max(self.counts.len());
            let differs = |key: &usize| {
                self.counts.get(*key).copied().unwrap_or_default() != reference.get(*key).copied().unwrap_or_default()
            };
            tally.wrong += (0..keys).filter(differs).count() as u64;
        }
        tally
    }
}

/// What must have come out: of every sender the first so many records, each with the same number of outputs.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// Records that each sender sent.
    pub(crate) sent: Vec<u64>,
    /// Outputs of a record.
    pub(crate) outputs: u64,
    /// The last count of each key.
    pub(crate) counts: Option<Vec<u64>>,
}

impl Expected {
    fn total(&self) -> u64 {
        self.sent.iter().sum::<u64>() * self.outputs
    }

    fn contains(&self, seq: u64) -> bool {
        let (record, senders) = (seq / self.outputs.max(1), self.sent.len().max(1) as u64);
        self.sent.get((record % senders) as usize).is_some_and(|sent| record / senders < *sent)
    }

    /// The numbers of all records that were sent, sender by sender.
    pub(crate) fn records(&self) -> impl Iterator<Item = u64> {
        let senders = self.sent.len() as u64;
        self.sent.iter().zip(0..).flat_map(move |(sent, sender)| (0..*sent).map(move |own| own * senders + sender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 3;

    /// Counts of ten records over three keys, as a right pipeline puts them out.
    fn right() -> Vec<(Stamp, u64)> {
        (0..10).map(|seq| (Stamp { seq, key: (seq % KEYS) as u32, ..Stamp::default() }, seq / KEYS + 1)).collect()
    }

    fn judged(outputs: &[(Stamp, u64)]) -> Tally {
        let mut parts = [Check::new(1), Check::new(1)];
        for (stamp, count) in outputs {
            parts[(stamp.key % 2) as usize].observe(stamp, Some(*count));
        }
        let mut all = Check::new(1);
        parts.iter().for_each(|part| all.merge(part));
        all.judge(&Expected { sent: vec![10], outputs: 1, counts: Some(vec![4, 3, 3]) })
    }

    #[test]
    fn passes_what_is_right() {
        assert_eq!(judged(&right()), Tally { completed: 10, ..Tally::default() });
    }

    #[test]
    fn catches_one_record_lost_doubled_overtaken_foreign_or_miscounted() {
        type Harm = fn(&mut Vec<(Stamp, u64)>);
        let none = Tally { completed: 10, ..Tally::default() };
        let cases: [(Harm, Tally); 5] = [
            (|all| all.retain(|(stamp, _)| stamp.seq != 4), Tally { completed: 9, lost: 1, ..none }),
            (|all| all.push(all[9]), Tally { completed: 11, duplicated: 1, ..none }),
            (|all| all.swap(1, 4), Tally { reordered: 1, ..none }),
            (
                |all| all.push((Stamp { seq: 10, key: 1, ..Stamp::default() }, 3)),
                Tally { completed: 11, wrong: 1, ..none },
            ),
            (|all| all[9].1 += 1, Tally { wrong: 1, ..none }),
        ];
        for (number, (harm, expected)) in cases.into_iter().enumerate() {
            let mut outputs = right();
            harm(&mut outputs);
            assert_eq!(judged(&outputs), expected, "case {number}");
            assert!(!expected.is_clean());
        }
    }

    #[test]
    fn finds_a_record_that_two_subtasks_have_put_out() {
        let mut one = Check::new(1);
        one.observe(&Stamp::default(), None);
        let mut all = one.clone();
        all.merge(&one);
        assert_eq!(all.judge(&Expected { sent: vec![1], outputs: 1, counts: None }).duplicated, 1);
    }

    #[test]
    fn knows_what_several_senders_have_sent() {
        let expected = Expected { sent: vec![2, 1], outputs: 2, counts: None };
        let all: Vec<u64> = (0..10).filter(|seq| expected.contains(*seq)).collect();
        assert_eq!((all, expected.total()), (vec![0, 1, 2, 3, 4, 5], 6));
        assert_eq!(expected.records().collect::<Vec<_>>(), [0, 2, 1]);
        let mut check = Check::new(2);
        // Two senders may overtake each other.
        check.observe(&Stamp { seq: 3, sender: 1, ..Stamp::default() }, None);
        check.observe(&Stamp { seq: 0, ..Stamp::default() }, None);
        assert_eq!(check.judge(&expected).reordered, 0);
    }
}

//! What is put under load. Each workload makes records of stamps, and knows what must come out.

mod keyed_count;
mod passthrough;
mod word_count;

use clap::ValueEnum;
use millstream::prelude::*;
use serde::Serialize;

use crate::check::{Expected, Stamp};
use crate::probe::{Processed, Visible};
use crate::schedule::SplitMix;

/// Words of a line in `word-count`.
const WORDS: u64 = 8;

/// Which pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Source, one map, sink: the floor of the runtime.
    Passthrough,
    /// A running count of each key, put out for every record.
    KeyedCount,
    /// Lines of eight words, split; a running count of each word, put out for every word.
    WordCount,
}

/// A workload with its parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) kind: Kind,
    /// How many keys or words there are; all are equally frequent.
    pub(crate) keys: u32,
    pub(crate) seed: u64,
}

impl Workload {
    /// Builds its pipeline behind the source.
    pub(crate) fn build(self, source: Stream<Stamp>, processed: Processed, visible: Option<Visible>) {
        let outputs = match self.kind {
            Kind::Passthrough => passthrough::build(self, source),
            Kind::KeyedCount => keyed_count::build(self, source),
            Kind::WordCount => word_count::build(self, source),
        };
        if let Some(visible) = visible {
            outputs.clone().sink("visible", visible);
        }
        outputs.sink("processed", processed);
    }

    /// How many outputs a record has.
    pub(crate) fn outputs(self) -> u64 {
        if self.kind == Kind::WordCount { WORDS } else { 1 }
    }

    /// What must come out, computed without the runtime.
    pub(crate) fn expected(self, sent: Vec<u64>) -> Expected {
        let mut expected = Expected { sent, outputs: self.outputs(), counts: None };
        if self.kind != Kind::Passthrough {
            let mut counts = vec![0; self.keys as usize];
            for seq in expected.records().flat_map(|record| (0..WORDS.min(self.outputs())).map(move |n| (record, n))) {
                let key = self.key_of(seq.0 * self.outputs() + seq.1);
                if let Some(count) = counts.get_mut(key as usize) {
                    *count += 1;
                }
            }
            expected.counts = Some(counts);
        }
        expected
    }

    /// The key of an output.
    fn key_of(self, seq: u64) -> u32 {
        let number = SplitMix(self.seed.rotate_left(32) ^ seq.wrapping_mul(0x2545_f491_4f6c_dd1d)).number();
        // Lemire's reduction: no division, and even over a number of keys that is far below 2^32.
        (((number >> 32) * u64::from(self.keys)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_counts_every_output_once() {
        for (kind, outputs) in [(Kind::KeyedCount, 30), (Kind::WordCount, 240)] {
            let expected = Workload { kind, keys: 5, seed: 1 }.expected(vec![20, 10]);
            let counts = expected.counts.unwrap();
            assert_eq!((counts.len(), counts.iter().sum::<u64>()), (5, outputs));
        }
        assert!(Workload { kind: Kind::Passthrough, keys: 5, seed: 1 }.expected(vec![1]).counts.is_none());
    }

    #[test]
    fn keys_are_equally_frequent() {
        let workload = Workload { kind: Kind::KeyedCount, keys: 10, seed: 42 };
        let counts = workload.expected(vec![100_000]).counts.unwrap();
        // Five deviations of a binomial.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 475), "{counts:?}");
    }
}

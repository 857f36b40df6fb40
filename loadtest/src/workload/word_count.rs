//! Lines are split into words, and every word is counted.

use std::fmt::Write as _;

use millstream::prelude::*;

use super::keyed_count::count;
use super::{WORDS, Workload};
use crate::check::Stamp;
use crate::probe::Output;

/// A word with the stamp of its line, numbered on its own.
type Word = (String, Stamp);

pub(super) fn build(workload: Workload, source: Stream<Stamp>) -> Stream<Output> {
    let words = source.map(move |stamp| (line(workload, stamp), stamp)).flat_map_into(
        move |(line, stamp): (String, Stamp), words: &mut Vec<Word>| {
            for (word, number) in line.split_whitespace().zip(0..) {
                let seq = stamp.seq * WORDS + number;
                words.push((word.to_owned(), Stamp { seq, key: workload.key_of(seq), ..stamp }));
            }
        },
    );
    count(words.key_by_ref(|(word, _)| word.as_str()), "count", |(_, stamp)| *stamp)
}

/// The text of a line: `w17 w4 …`.
fn line(workload: Workload, stamp: Stamp) -> String {
    let mut line = String::new();
    for number in 0..WORDS {
        // Writing to a string cannot fail.
        let _ = write!(line, "w{} ", workload.key_of(stamp.seq * WORDS + number));
    }
    line
}

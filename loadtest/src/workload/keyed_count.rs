//! A running count of each key.

use millstream::prelude::*;
use millstream::runtime::state::key_group::StreamKey;

use super::Workload;
use crate::check::Stamp;
use crate::probe::Output;

pub(super) fn build(workload: Workload, source: Stream<Stamp>) -> Stream<Output> {
    let keyed = source.map(move |stamp| Stamp { key: workload.key_of(stamp.seq), ..stamp });
    count(keyed.key_by(|stamp| stamp.key), "count", |stamp| *stamp)
}

/// Counts per key, and lets the stamp of the record that was counted last come out with the count.
pub(super) fn count<K, T>(keyed: KeyedStream<K, T>, name: &str, stamp: fn(&T) -> Stamp) -> Stream<Output>
where
    K: StreamKey,
    T: Send + 'static,
{
    keyed
        .fold(
            name,
            || (0, Stamp::default()),
            move |(count, newest): &mut (u64, Stamp), record| {
                *count += 1;
                *newest = stamp(&record);
            },
        )
        .map(|(_key, (count, newest))| (newest, Some(count)))
        .erase()
}

//! Source, one map, sink.

use millstream::prelude::*;

use super::Workload;
use crate::check::Stamp;
use crate::probe::Output;

pub(super) fn build(workload: Workload, source: Stream<Stamp>) -> Stream<Output> {
    source.map(move |stamp| (Stamp { key: workload.key_of(stamp.seq), ..stamp }, None)).erase()
}

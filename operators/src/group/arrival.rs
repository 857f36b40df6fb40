//! How groups reach their key, and which rows of them come too late.

use millstream_runtime::operator::{Bunch, DropReason, Emitted, SideDecl};
use millstream_runtime::record::Record;
use millstream_runtime::state::key_group::StreamKey;
use millstream_runtime::state::keyed::KeyedState;
use millstream_runtime::time::Timestamp;

use crate::group::rows::Group;
use crate::keyed::{Late, ProcessContext};
use crate::keyed_stream::{KeySelector, LateRecords};

/// What all operators on groups know of their input.
pub(super) struct Arrival<K: StreamKey, T> {
    pub(super) selector: KeySelector<K, T>,
    pub(super) late: LateRecords<T>,
    /// Whether rows can be late at all.
    pub(super) by_event_time: bool,
}

impl<K: StreamKey, T> Clone for Arrival<K, T> {
    fn clone(&self) -> Self {
        Self { selector: self.selector.clone(), late: self.late.clone(), by_event_time: self.by_event_time }
    }
}

/// Rows that are not late: the first and the others.
type InTime<T> = (Option<Record<T>>, Vec<Record<T>>);

impl<K: StreamKey, T: Send + 'static> Arrival<K, T> {
    pub(super) fn sides(&self) -> Vec<SideDecl> {
        self.late.side().into_iter().collect()
    }

    pub(super) fn want<I>(&self, group: &Group<K, T, I>, hash: u32, keyed: &mut KeyedState) {
        match group {
            Group::Rows(rows) => self.selector.want(&rows.first.value, hash, keyed),
            Group::Initial(key, _) => keyed.want(hash, key.borrow()),
        }
    }

    pub(super) fn enter<I>(&self, group: &Group<K, T, I>, hash: u32, keyed: &mut KeyedState) {
        match group {
            Group::Rows(rows) => self.selector.enter(&rows.first.value, hash, keyed),
            Group::Initial(key, _) => keyed.set_key(hash, key.borrow()),
        }
    }

    /// Leaves out the rows that are late.
    pub(super) fn in_time<R>(&self, rows: Bunch<T>, ctx: &mut ProcessContext<'_, R>) -> InTime<T> {
        if !self.by_event_time {
            return (Some(rows.first), rows.rest);
        }
        let mut kept = rows.into_records().filter_map(|record| self.unless_late(record, ctx));
        let first = kept.next();
        (first, kept.collect())
    }

    fn unless_late<R>(&self, record: Record<T>, ctx: &mut ProcessContext<'_, R>) -> Option<Record<T>> {
        let Record { value, time, hash } = record;
        // The watermark begins at 0 here, not absent as for `process`.
        let is_late = time > Timestamp::MIN && (time <= Timestamp::default() || ctx.keyed.is_late(hash, time));
        if !is_late {
            return Some(Record { value, time, hash });
        }
        match self.late.decide(value, ctx.sides) {
            Late::Accept(value) => return Some(Record { value, time, hash }),
            Late::Side(side, value) => ctx.out.push_back(Record { value: Emitted::Side(side, value), time, hash }),
            Late::Drop => ctx.drops.count(DropReason::Late),
        }
        None
    }
}

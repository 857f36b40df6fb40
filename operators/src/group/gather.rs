//! Puts records together into groups of one key, in front of the operator that works on groups.
//!
//! ```text
//! records ──► Gather ──► Group { rows of one key } ──► Engine
//!               └─ the initial state, before anything else
//! ```
//! Where records pass as they come every record is a group of its own; in a micro-batch a group is all rows that a key has in it. The
//! [`GroupBuffer`] knows which.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use millstream_runtime::canary::{Canary, planted};
use millstream_runtime::channel::Mark;
use millstream_runtime::error::BoxError;
use millstream_runtime::graph::OperatorVertex;
use millstream_runtime::operator::{AnyNode, Bunch, Fired, FrameInput, GroupBuffer, OpenContext, Operator};
use millstream_runtime::record::Record;
use millstream_runtime::state::key_group::{KeyGroups, StreamKey, StreamKeyRef};
use millstream_runtime::time::Timestamp;

use crate::group::rows::Group;
use crate::keyed::around::{Around, in_front};
use crate::keyed_stream::KeySelector;

type InitialRows<K, I> = Box<dyn Iterator<Item = (K, I)>>;

/// State that is there before the first record: how to read it, as often as it is needed.
pub(super) struct Initial<K, I>(Arc<dyn Fn() -> InitialRows<K, I> + Send + Sync>);

impl<K: StreamKey, I: 'static> Initial<K, I> {
    pub(super) fn new<R>(rows: R) -> Self
    where
        R: IntoIterator<Item = (K, I), IntoIter: 'static> + Clone + Send + Sync + 'static,
    {
        Self(Arc::new(move || Box::new(rows.clone().into_iter())))
    }

    /// Nothing if there is no row.
    pub(super) fn unless_empty(self) -> Option<Self> {
        (self.0)().next().is_some().then_some(self)
    }

    /// Returns the place of the first row whose key another one before it has.
    pub(super) fn duplicate(&self) -> Option<usize> {
        let mut seen = HashSet::new();
        (self.0)().position(|(key, _)| {
            let mut bytes = Vec::new();
            key.borrow().write_key(&mut bytes);
            !seen.insert(bytes)
        })
    }
}

impl<K, I> Clone for Initial<K, I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// See the module.
struct Gather<K: StreamKey, T, I> {
    /// Initial state that is to be read.
    unread: Option<Initial<K, I>>,
    /// Initial state that is being handed over, of all key groups.
    initial: Option<InitialRows<K, I>>,
    groups: Range<u16>,
    key_groups: KeyGroups,
    scratch: Vec<u8>,
    selector: KeySelector<K, T>,
    buffer: GroupBuffer<T>,
}

impl<K: StreamKey, T, I> Gather<K, T, I> {
    fn new(open: &OpenContext, initial: Option<&Initial<K, I>>, selector: KeySelector<K, T>) -> Self {
        // In the first epoch of the operator only: the epoch that has it says so, see `KeyedState::mark_begun`.
        let begun = || open.keyed().has_begun() && !planted(Canary::InitialStateTwice);
        let unread = initial.filter(|_| !begun()).cloned();
        let (groups, key_groups) = (open.groups.clone(), open.key_groups);
        let buffer = GroupBuffer::of(open);
        Self { unread, initial: None, groups, key_groups, scratch: Vec::new(), selector, buffer }
    }

    /// The next key of this subtask that has an initial state.
    fn next_initial(&mut self) -> Option<Record<Group<K, T, I>>> {
        if let Some(unread) = self.unread.take() {
            self.initial = Some((unread.0)());
        }
        while let Some((key, state)) = self.initial.as_mut()?.next() {
            let hash = key.borrow().key_hash(&mut self.scratch);
            if self.groups.contains(&self.key_groups.group(hash)) {
                return Some(Record { value: Group::Initial(key, state), time: Timestamp::MIN, hash });
            }
        }
        self.initial = None;
        None
    }
}

impl<K: StreamKey, T: 'static, I: 'static> Operator for Gather<K, T, I> {
    type In = T;
    type Out = Group<K, T, I>;

    fn next(&mut self, input: &mut FrameInput<T>) -> Result<Option<Record<Group<K, T, I>>>, BoxError> {
        if let Some(initial) = self.next_initial() {
            return Ok(Some(initial));
        }
        let Self { selector, buffer, .. } = self;
        while let Some(record) = input.pop() {
            if let Some(rows) = buffer.take(record, |value, key| selector.write(value, key)) {
                return Ok(Some(group(rows)));
            }
        }
        Ok(None)
    }

    fn on_mark(&mut self, _mark: Mark) -> Result<(), BoxError> {
        // An epoch without a record has the initial state too; and of a micro-batch nothing more comes in front of the mark.
        Ok(())
    }

    fn fire(&mut self) -> Result<Fired<Group<K, T, I>>, BoxError> {
        let next = self.next_initial().or_else(|| self.buffer.pop().map(group));
        Ok(next.map_or(Fired::Done, Fired::Record))
    }
}

/// Rows have times of their own, a group has none.
fn group<K, T, I>(rows: Bunch<T>) -> Record<Group<K, T, I>> {
    let hash = rows.first.hash;
    Record { value: Group::Rows(rows), time: Timestamp::MIN, hash }
}

/// The vertex of an operator on groups, with what gathers them in front.
pub(super) fn gathered<K: StreamKey, T: 'static, I: 'static>(
    inner: Arc<dyn OperatorVertex>,
    initial: Option<Initial<K, I>>,
    selector: KeySelector<K, T>,
) -> impl OperatorVertex + use<K, T, I> {
    Around::new(inner, move |inner: &dyn OperatorVertex, open: &OpenContext, next: AnyNode| {
        let gather = Gather::new(open, initial.as_ref(), selector.clone());
        in_front(open, gather, inner.build(open, next)?)
    })
}

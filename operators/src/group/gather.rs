//! Puts records together into groups of one key, in front of the operator that works on groups.
//!
//! ```text
//! records ──► Gather ──► Group { rows of one key } ──► Engine
//!               └─ the initial state, before anything else
//! ```
//! Every record is a group of its own here: what continuous mode wants. An adapter that keeps all rows of a key until a watermark or
//! barrier takes its place without a change behind it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use millstream_runtime::canary::{Canary, planted};
use millstream_runtime::channel::Mark;
use millstream_runtime::checkpoint::StateDecl;
use millstream_runtime::error::BoxError;
use millstream_runtime::graph::{OperatorVertex, Shape};
use millstream_runtime::operator::{
    AnyNode, Driver, Fired, FrameInput, Node, OpenContext, Operator, SideDecl, TaskControl, TaskError,
};
use millstream_runtime::record::Record;
use millstream_runtime::state::key_group::{KeyGroups, StreamKey, StreamKeyRef};
use millstream_runtime::time::Timestamp;

use crate::group::rows::{Bunch, Group};

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
struct Gather<K, T, I> {
    /// Initial state that is to be read.
    unread: Option<Initial<K, I>>,
    /// Initial state that is being handed over, of all key groups.
    initial: Option<InitialRows<K, I>>,
    groups: Range<u16>,
    key_groups: KeyGroups,
    scratch: Vec<u8>,
    record: PhantomData<fn(T)>,
}

impl<K: StreamKey, T, I> Gather<K, T, I> {
    fn new(open: &OpenContext, initial: Option<&Initial<K, I>>) -> Self {
        // In the first epoch of the operator only: the epoch that has it says so, see `KeyedState::mark_begun`.
        let begun = || open.keyed().has_begun() && !planted(Canary::InitialStateTwice);
        let unread = initial.filter(|_| !begun()).cloned();
        let (groups, key_groups) = (open.groups.clone(), open.key_groups);
        Self { unread, initial: None, groups, key_groups, scratch: Vec::new(), record: PhantomData }
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
        // Rows have times of their own, a group has none.
        let group = |record: Record<T>| {
            let hash = record.hash;
            Record { value: Group::Rows(Bunch::one(record)), time: Timestamp::MIN, hash }
        };
        Ok(input.pop().map(group))
    }

    fn on_mark(&mut self, _mark: Mark) -> Result<(), BoxError> {
        // An epoch without a record has the initial state too.
        Ok(())
    }

    fn fire(&mut self) -> Result<Fired<Group<K, T, I>>, BoxError> {
        Ok(self.next_initial().map_or(Fired::Done, Fired::Record))
    }
}

/// The vertex of an operator on groups, with what gathers them in front.
pub(super) struct Gathered<K, T, I> {
    inner: Arc<dyn OperatorVertex>,
    initial: Option<Initial<K, I>>,
    record: PhantomData<fn(T)>,
}

impl<K, T, I> Gathered<K, T, I> {
    pub(super) const fn new(inner: Arc<dyn OperatorVertex>, initial: Option<Initial<K, I>>) -> Self {
        Self { inner, initial, record: PhantomData }
    }
}

impl<K, T, I> fmt::Debug for Gathered<K, T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathered").field("inner", &self.inner.label()).finish_non_exhaustive()
    }
}

impl<K: StreamKey, T: 'static, I: 'static> OperatorVertex for Gathered<K, T, I> {
    fn label(&self) -> &str {
        self.inner.label()
    }

    fn states(&self) -> Vec<StateDecl> {
        self.inner.states()
    }

    fn is_stateful(&self) -> bool {
        self.inner.is_stateful()
    }

    fn shape(&self) -> Shape {
        self.inner.shape()
    }

    fn sides(&self) -> Vec<SideDecl> {
        self.inner.sides()
    }

    fn split(&self, main: AnyNode, sides: BTreeMap<u16, AnyNode>, at: (&str, &TaskControl)) -> Option<AnyNode> {
        self.inner.split(main, sides, at)
    }

    fn build(&self, open: &OpenContext, next: AnyNode) -> Result<AnyNode, TaskError> {
        let mismatch = |_| TaskError::Build { operator: open.name.clone() };
        let inner = self.inner.build(open, next)?.downcast::<Box<dyn Node<Group<K, T, I>>>>().map_err(mismatch)?;
        let gather = Gather::new(open, self.initial.as_ref());
        let node: Box<dyn Node<T>> = Box::new(Driver::new(open.name.clone(), gather, *inner));
        Ok(Box::new(node))
    }
}

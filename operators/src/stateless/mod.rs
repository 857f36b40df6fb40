//! Operators that keep no state: each record by itself.
//!
//! A run of them is one static loop: every operator *pulls* from the one before it, and the compiler inlines the whole
//! chain. Pulling makes a huge `flat_map` resumable: nobody asks for more results than there is room for.

mod event_time;
mod filter;
mod flat_map;
mod inspect;
mod map;
mod try_map;

use std::marker::PhantomData;

use millstream_runtime::error::BoxError;
use millstream_runtime::operator::{FrameInput, OpenContext, Operator};
use millstream_runtime::record::Record;

pub use self::filter::Filter;
pub use self::flat_map::{FlatMap, FlatMapInto};
pub use self::inspect::Inspect;
pub use self::map::Map;
pub use self::try_map::TryMap;

/// A run of stateless operators, as configuration: shared by all subtasks, which each make a [`Pull`] of it.
pub trait Chain<T>: Send + Sync + 'static {
    /// Records that go in.
    type In: Send + 'static;
    /// The run in one subtask.
    type Puller: Pull<In = Self::In, Out = T> + 'static;

    /// Makes the run of one subtask.
    fn puller(&self, open: &OpenContext) -> Self::Puller;
}

/// A run of stateless operators in one subtask.
pub trait Pull {
    /// Records that go in.
    type In;
    /// Records that come out.
    type Out;

    /// Returns the next result; nothing when the input is used up.
    ///
    /// # Errors
    /// What user code returns.
    fn pull(&mut self, input: &mut FrameInput<Self::In>) -> Result<Option<Record<Self::Out>>, BoxError>;
}

/// No operator: records pass as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Erased;

/// The end of every chain: the frame itself.
#[derive(Debug)]
pub struct Head<T>(PhantomData<fn() -> T>);

impl<T: Send + 'static> Chain<T> for Erased {
    type In = T;
    type Puller = Head<T>;

    fn puller(&self, _: &OpenContext) -> Head<T> {
        Head(PhantomData)
    }
}

impl<T> Pull for Head<T> {
    type In = T;
    type Out = T;

    #[inline]
    fn pull(&mut self, input: &mut FrameInput<T>) -> Result<Option<Record<T>>, BoxError> {
        Ok(input.pop())
    }
}

/// Runs a chain as one operator.
#[derive(Debug)]
pub(crate) struct ChainOperator<P>(P);

impl<P> ChainOperator<P> {
    pub(crate) fn new<T>(chain: &impl Chain<T, Puller = P>, open: &OpenContext) -> Self {
        Self(chain.puller(open))
    }
}

impl<P: Pull<In: 'static, Out: 'static> + 'static> Operator for ChainOperator<P> {
    type In = P::In;
    type Out = P::Out;

    #[inline]
    fn next(&mut self, input: &mut FrameInput<P::In>) -> Result<Option<Record<P::Out>>, BoxError> {
        self.0.pull(input)
    }
}

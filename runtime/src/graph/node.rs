//! Vertices: sources, operators and sinks behind factories without a type.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use crate::channel::{QueueReceiver, queue};
use crate::checkpoint::StateDecl;
use crate::error::BoxError;
use crate::graph::{AnySend, EventTimeDecl, Shape};
use crate::operator::{
    AnyNode, Driver, Head, Node, OpenContext, Operator, SideDecl, SourceControl, Splitter, TaskControl, TaskError,
};
use crate::position::{Position, SplitId};
use crate::sink::{
    DirectSink, Guarantee, IntoSink, OutboxSink, SinkContext, SinkDeclaration, SinkSpec, TokenSinkFactory,
};
use crate::source::{
    EpochLimits, Fetched, Fetcher, Fetching, IdleWatch, Idleness, Source, SourceDeclaration, SourceHead, SplitStart,
};

/// Joins several branches that read the same vertex.
pub type TeeFn = Arc<dyn Fn(Vec<AnyNode>) -> Option<AnyNode> + Send + Sync>;

/// A vertex of a graph.
pub struct Vertex {
    pub(crate) name: String,
    pub(crate) kind: VertexKind,
    pub(crate) at: &'static Location<'static>,
    /// How several readers of one output, the main one or a side, are joined.
    pub(crate) tees: BTreeMap<Option<u16>, TeeFn>,
    /// Side outputs that were asked for.
    pub(crate) taken: BTreeSet<u16>,
}

impl fmt::Debug for Vertex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.label(), self.name)
    }
}

/// What a vertex does.
#[derive(Clone)]
#[non_exhaustive]
pub enum VertexKind {
    /// Brings records in.
    Source(Arc<dyn SourceVertex>),
    /// Turns records into records.
    Operator(Arc<dyn OperatorVertex>),
    /// Takes records out.
    Sink(Arc<dyn SinkVertex>),
}

impl VertexKind {
    pub(crate) fn label(&self) -> &str {
        match self {
            Self::Source(_) => "source",
            Self::Operator(operator) => operator.label(),
            Self::Sink(_) => "sink",
        }
    }
}

impl fmt::Debug for VertexKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A source without its record type.
pub trait SourceVertex: Send + Sync {
    /// Lists its splits; see [`Source::splits`].
    ///
    /// # Errors
    /// What the source returns.
    fn splits(&self) -> Result<Vec<SplitId>, BoxError>;

    /// Makes the readers of one subtask and the end of the queue that its task reads. `queue`: so many batches fit in
    /// between, of so many records at most.
    fn fetcher(
        &self,
        splits: (Vec<SplitStart>, IdleWatch),
        queue: (usize, usize),
        task: &TaskControl,
    ) -> (Box<dyn Fetching>, AnySend);

    /// Makes the head of one subtask.
    ///
    /// # Errors
    /// [`TaskError::Build`] for a chain of another type.
    fn head(
        &self,
        open: &OpenContext,
        splits: (Vec<SplitStart>, Idleness),
        fetched: AnySend,
        chain: AnyNode,
        control: (TaskControl, SourceControl),
    ) -> Result<Box<dyn Head>, TaskError>;

    /// Tells the source what is durable; see [`Source::committed`].
    fn committed(&self, at: &[(SplitId, Position)]);

    /// What it says about itself; see [`Source::declaration`].
    fn declaration(&self) -> SourceDeclaration;

    /// See [`Source::epoch_limits`].
    fn epoch_limits(&self) -> EpochLimits;
}

/// A source.
#[derive(Debug)]
pub struct SourceOf<S>(Arc<S>);

impl<S: Source> SourceOf<S> {
    /// Wraps a source.
    pub fn new(source: S) -> Self {
        Self(Arc::new(source))
    }
}

impl<S: Source> SourceVertex for SourceOf<S> {
    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        self.0.splits()
    }

    fn fetcher(
        &self,
        (splits, idle): (Vec<SplitStart>, IdleWatch),
        (queued, records): (usize, usize),
        task: &TaskControl,
    ) -> (Box<dyn Fetching>, AnySend) {
        let (sender, receiver) = queue::<Fetched<S::Out>>(queued);
        let source: Arc<dyn Source<Out = S::Out>> = Arc::clone(&self.0) as _;
        let fetcher = Fetcher::new(source, splits, sender, task.bell.clone(), idle).at_most(records);
        (Box::new(fetcher), Box::new(receiver))
    }

    fn head(
        &self,
        open: &OpenContext,
        splits: (Vec<SplitStart>, Idleness),
        fetched: AnySend,
        chain: AnyNode,
        (control, source): (TaskControl, SourceControl),
    ) -> Result<Box<dyn Head>, TaskError> {
        let mismatch = || TaskError::Build { operator: open.name.clone() };
        let fetched = *fetched.downcast::<QueueReceiver<Fetched<S::Out>>>().map_err(|_| mismatch())?;
        let chain = *chain.downcast::<Box<dyn Node<S::Out>>>().map_err(|_| mismatch())?;
        let name = (open.name.clone(), open.operator);
        let head = SourceHead::new(name, splits, fetched, chain, control, source);
        Ok(Box::new(head.metered(open.meter())))
    }

    fn committed(&self, at: &[(SplitId, Position)]) {
        self.0.committed(at);
    }

    fn declaration(&self) -> SourceDeclaration {
        self.0.declaration()
    }

    fn epoch_limits(&self) -> EpochLimits {
        self.0.epoch_limits()
    }
}

/// An operator without its record types.
pub trait OperatorVertex: Send + Sync {
    /// What it is, for names and drawings: `map`, `reduce`.
    fn label(&self) -> &str;

    /// Each named state it keeps.
    fn states(&self) -> Vec<StateDecl>;

    /// Whether the store has to know of it: it keeps named states, timers, or other things per key.
    fn is_stateful(&self) -> bool {
        !self.states().is_empty()
    }

    /// Its side outputs, by number.
    fn sides(&self) -> Vec<SideDecl> {
        Vec::new()
    }

    /// Joins the readers of its main output and of its side outputs, as far as they are read; asked only of an operator with
    /// side outputs. `at` is the operator's name and its subtask's control.
    fn split(&self, main: AnyNode, sides: BTreeMap<u16, AnyNode>, at: (&str, &TaskControl)) -> Option<AnyNode> {
        let _ = (main, sides, at);
        None
    }

    /// What it is to the rules of output modes.
    fn shape(&self) -> Shape {
        Shape::Free
    }

    /// What it declares about event time; nothing if it assigns none.
    fn event_time(&self) -> Option<EventTimeDecl> {
        None
    }

    /// Builds one subtask's operator in front of `next`.
    ///
    /// # Errors
    /// [`TaskError`] when its state cannot be restored or its neighbours do not fit.
    fn build(&self, open: &OpenContext, next: AnyNode) -> Result<AnyNode, TaskError>;
}

type Split = fn(AnyNode, BTreeMap<u16, AnyNode>, &[SideDecl], (&str, &TaskControl)) -> Option<AnyNode>;

/// An operator made by a function, afresh for every subtask and attempt.
pub struct OperatorOf<F> {
    label: String,
    states: Vec<StateDecl>,
    stateful: bool,
    shape: Shape,
    sides: Option<(Vec<SideDecl>, Split)>,
    make: F,
}

impl<F> fmt::Debug for OperatorOf<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorOf").field("label", &self.label).finish_non_exhaustive()
    }
}

impl<F> OperatorOf<F> {
    /// Makes a vertex of an operator that keeps no state.
    pub fn stateless(label: impl Into<String>, make: F) -> Self {
        Self { label: label.into(), states: Vec::new(), stateful: false, shape: Shape::Free, sides: None, make }
    }

    /// Makes a vertex of an operator that keeps state per key.
    pub fn stateful(label: impl Into<String>, states: Vec<StateDecl>, make: F) -> Self {
        Self { label: label.into(), states, stateful: true, shape: Shape::Free, sides: None, make }
    }

    /// Says what it is to the rules of output modes.
    #[must_use]
    pub fn with_shape(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    /// Gives it side outputs beside a main output of `T`: it sends [`Emitted`](crate::operator::Emitted) then.
    #[must_use]
    pub fn with_sides<T: 'static>(mut self, sides: Vec<SideDecl>) -> Self {
        self.sides = Some((sides, Splitter::<T>::join));
        self
    }
}

impl<F, O> OperatorVertex for OperatorOf<F>
where
    F: Fn(&OpenContext) -> Result<O, BoxError> + Send + Sync,
    O: Operator,
{
    fn label(&self) -> &str {
        &self.label
    }

    fn states(&self) -> Vec<StateDecl> {
        self.states.clone()
    }

    fn is_stateful(&self) -> bool {
        self.stateful
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    fn sides(&self) -> Vec<SideDecl> {
        self.sides.as_ref().map_or_else(Vec::new, |(sides, _)| sides.clone())
    }

    fn split(&self, main: AnyNode, sides: BTreeMap<u16, AnyNode>, at: (&str, &TaskControl)) -> Option<AnyNode> {
        let (declared, split) = self.sides.as_ref()?;
        split(main, sides, declared, at)
    }

    fn build(&self, open: &OpenContext, next: AnyNode) -> Result<AnyNode, TaskError> {
        let operator = || open.name.clone();
        let next = next.downcast::<Box<dyn Node<O::Out>>>().map_err(|_| TaskError::Build { operator: operator() })?;
        let made = TaskError::catch(&open.name, open.restored, || (self.make)(open))?;
        let node: Box<dyn Node<O::In>> = Box::new(Driver::new(open.name.clone(), made, *next).metered(open.meter()));
        Ok(Box::new(node))
    }
}

/// A sink without its record type.
pub trait SinkVertex: Send + Sync {
    /// Builds one subtask's end of the chain.
    ///
    /// # Errors
    /// [`TaskError`] when a level-1 sink cannot be opened.
    fn build(&self, open: &OpenContext) -> Result<AnyNode, TaskError>;

    /// Makes connectors of a level-2 sink; nothing for level 1.
    fn connector(&self) -> Option<TokenSinkFactory>;

    /// What it says about itself; see [`IntoSink::declaration`].
    fn declaration(&self) -> &SinkDeclaration;

    /// Its level and guarantee; see [`SinkSpec::level`].
    fn level(&self) -> (u8, Guarantee);
}

/// A sink.
#[derive(Debug)]
pub struct SinkOf<T> {
    declaration: SinkDeclaration,
    spec: SinkSpec<T>,
}

impl<T> SinkOf<T> {
    /// Wraps a sink, with what it says about itself.
    pub fn new(sink: impl IntoSink<T>) -> Self {
        Self { declaration: sink.declaration(), spec: sink.into_sink() }
    }
}

impl<T: 'static> SinkVertex for SinkOf<T> {
    fn build(&self, open: &OpenContext) -> Result<AnyNode, TaskError> {
        let node: Box<dyn Node<T>> = match &self.spec {
            SinkSpec::Outbox { encoder, .. } => Box::new(OutboxSink::new(open, Arc::clone(encoder))),
            SinkSpec::Direct(make) => {
                let opened = || {
                    let mut sink = make()?;
                    sink.open(&SinkContext::of(open))?;
                    Ok(sink)
                };
                Box::new(DirectSink::new(open, TaskError::catch(&open.name, open.restored, opened)?))
            }
        };
        Ok(Box::new(node))
    }

    fn connector(&self) -> Option<TokenSinkFactory> {
        match &self.spec {
            SinkSpec::Outbox { connector, .. } => Some(Arc::clone(connector)),
            SinkSpec::Direct(_) => None,
        }
    }

    fn declaration(&self) -> &SinkDeclaration {
        &self.declaration
    }

    fn level(&self) -> (u8, Guarantee) {
        (self.spec.level(), self.spec.guarantee())
    }
}

//! The handle on a stream of records.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;

use millstream_runtime::graph::{
    BuildError, Exchange, OperatorOf, OperatorVertex, SinkOf, TeeFn, VertexId, VertexKind, WireOf,
};
use millstream_runtime::operator::{AnyNode, Node, OpenContext, OutputTag, Tee};
use millstream_runtime::sink::IntoSink;

use crate::pipeline::Shared;
use crate::stateless::{Chain, ChainOperator, Erased};

/// A stream of records of type `T`, while its pipeline is described.
///
/// `C` is the run of stateless operators since the last erasure: it grows through `map`, `filter`, `flat_map` and `inspect` and is
/// compiled into one loop; every other call erases it. Name the type `Stream<T>` in signatures, after [`Stream::erase`].
#[must_use = "a stream that nothing reads is a mistake that `start` returns; end it in a sink"]
pub struct Stream<T, C = Erased> {
    pub(crate) shared: Shared,
    from: VertexId,
    /// Which side output of the vertex; nothing for the main one.
    side: Option<u16>,
    exchange: Exchange,
    chain: C,
    labels: Vec<&'static str>,
    at: &'static Location<'static>,
    record: PhantomData<fn() -> T>,
}

impl<T, C> fmt::Debug for Stream<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("from", &self.from).field("run", &self.labels).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Stream<T> {
    #[track_caller]
    pub(crate) fn of(shared: Shared, from: VertexId) -> Self {
        Self::of_output(shared, (from, None))
    }

    #[track_caller]
    fn of_output(shared: Shared, (from, side): (VertexId, Option<u16>)) -> Self {
        Self {
            shared,
            from,
            side,
            exchange: Exchange::Forward,
            chain: Erased,
            labels: Vec::new(),
            at: Location::caller(),
            record: PhantomData,
        }
    }

    /// Deals records out to all subtasks of what follows, in turns. For a source whose splits are uneven, or fewer than
    /// the subtasks.
    pub fn rebalance(mut self) -> Self {
        self.exchange = Exchange::Rebalance;
        self
    }

    /// Puts an operator of your own behind this stream, one that is written against the runtime: records go in as `T` and come
    /// out as `U`. What the vertex builds must be of these types, or the job does not start. Its state, if it has any, is kept
    /// under `name`.
    #[track_caller]
    pub fn apply<U: Send + 'static>(self, name: Option<&str>, vertex: impl OperatorVertex + 'static) -> Stream<U> {
        self.then(name, VertexKind::Operator(Arc::new(vertex)), Location::caller())
    }

    /// Connects this stream to a vertex that is there.
    #[track_caller]
    pub(crate) fn connect(self, to: VertexId, wire: WireOf<T>) {
        let Self { shared, from, side, exchange, .. } = self;
        shared.change(|graph| graph.add_edge_of((from, side), to, exchange, Arc::new(wire)));
    }

    /// Goes on as a stream of another type after a mistake, which `start` returns. The vertex that it stands for does not exist.
    #[track_caller]
    pub(crate) fn broken<U: Send + 'static>(self, error: BuildError) -> Stream<U> {
        let Self { shared, from, .. } = self;
        shared.change(|graph| graph.add_error(error));
        Stream::of(shared, from)
    }

    /// Says whether somebody before this assigns event times.
    #[track_caller]
    pub(crate) fn is_timed(&self) -> bool {
        self.shared.change(|graph| graph.is_timed(self.from))
    }

    /// Connects this stream to a vertex that is there, over an exchange by key.
    #[track_caller]
    pub(crate) fn connect_by_key(mut self, to: VertexId, wire: WireOf<T>) {
        self.exchange = Exchange::Hash;
        self.connect(to, wire);
    }

    /// Returns a side output of the operator whose result this is: the records that it sent to `tag`. A tag of another operator is a
    /// mistake that `start` returns. Records of a side output that nobody asks for are dropped and counted.
    #[track_caller]
    pub fn side<U: Send + 'static>(&self, tag: &OutputTag<U>) -> Stream<U> {
        let at = Location::caller();
        let from = self.from;
        let side = self.shared.change(|graph| {
            let side = match self.side {
                None => graph.side(from, tag, at),
                // A side output has none of its own.
                Some(_) => Err(graph.unknown_tag(from, tag, at)),
            };
            let side = side.map_err(|error| graph.add_error(error)).ok()?;
            if graph.take_side((from, side), at) { Some(side) } else { None }
        });
        Stream::of_output(self.shared.clone(), (from, side))
    }

    /// Adds a vertex behind this stream.
    #[track_caller]
    pub(crate) fn then<U: Send + 'static>(
        self,
        name: Option<&str>,
        kind: VertexKind,
        at: &'static Location<'static>,
    ) -> Stream<U> {
        self.then_by(name, kind, at, None)
    }

    /// Adds a vertex behind this stream, over an exchange by key if there is a wire for it.
    #[track_caller]
    pub(crate) fn then_by<U: Send + 'static>(
        mut self,
        name: Option<&str>,
        kind: VertexKind,
        at: &'static Location<'static>,
        by_key: Option<WireOf<T>>,
    ) -> Stream<U> {
        let shared = self.shared.clone();
        let vertex = shared.change(|graph| graph.add_vertex(name, kind, at));
        if by_key.is_some() {
            self.exchange = Exchange::Hash;
        }
        self.connect(vertex, by_key.unwrap_or_else(WireOf::plain));
        Stream::of(shared, vertex)
    }
}

impl<T: Send + 'static, C: Chain<T>> Stream<T, C> {
    /// Ends the run of stateless operators, so that the stream can be named `Stream<T>`.
    #[track_caller]
    pub fn erase(self) -> Stream<T> {
        if self.labels.is_empty() {
            let Self { shared, from, side, exchange, .. } = self;
            return Stream { exchange, ..Stream::of_output(shared, (from, side)) };
        }
        self.erase_into(|label, chain| {
            let make = move |open: &OpenContext| Ok(ChainOperator::new(&chain, open));
            VertexKind::Operator(Arc::new(OperatorOf::stateless(label, make)))
        })
    }

    /// Ends the run of stateless operators in the vertex that `make` makes of its label and of itself.
    #[track_caller]
    pub(crate) fn erase_into(self, make: impl FnOnce(String, C) -> VertexKind) -> Stream<T> {
        let Self { shared, from, side, exchange, chain, labels, at, .. } = self;
        let input = Stream::<C::In> { exchange, ..Stream::of_output(shared, (from, side)) };
        input.then(None, make(labels.join(">"), chain), at)
    }

    pub(crate) const fn chain_mut(&mut self) -> &mut C {
        &mut self.chain
    }

    /// Lets the run grow by one operator.
    #[track_caller]
    pub(crate) fn grow<U, D>(self, label: &'static str, grow: impl FnOnce(C) -> D) -> Stream<U, D> {
        let Self { shared, from, side, exchange, chain, mut labels, at, .. } = self;
        let at = if labels.is_empty() { Location::caller() } else { at };
        labels.push(label);
        Stream { shared, from, side, exchange, chain: grow(chain), labels, at, record: PhantomData }
    }

    /// Ends the stream in a sink. Output that waits for its delivery is kept under `name`.
    #[track_caller]
    pub fn sink(self, name: &str, sink: impl IntoSink<T>) {
        let kind = VertexKind::Sink(Arc::new(SinkOf::new(sink)));
        let at = Location::caller();
        let stream = self.erase();
        let vertex = stream.shared.change(|graph| graph.add_vertex(Some(name), kind, at));
        stream.connect(vertex, WireOf::plain());
    }

    /// Takes the records of both streams. Records of one stream keep their order; between the two there is none.
    #[track_caller]
    pub fn union<D: Chain<T>>(self, other: Stream<T, D>) -> Stream<T> {
        let at = Location::caller();
        let (left, right) = (self.erase(), other.erase());
        let same = left.shared.is(&right.shared);
        let make = |open: &OpenContext| Ok(ChainOperator::new::<T>(&Erased, open));
        let kind = VertexKind::Operator(Arc::new(OperatorOf::stateless("union", make)));
        let shared = left.shared.clone();
        let vertex = shared.change(|graph| graph.add_vertex(None, kind, at));
        left.connect(vertex, WireOf::plain());
        if same {
            right.connect(vertex, WireOf::plain());
        } else {
            shared.change(|graph| graph.add_error(BuildError::TwoPipelines { at: BuildError::place(at) }));
        }
        Stream::of(shared, vertex)
    }
}

impl<T: Clone + Send + 'static> Stream<T> {
    /// Gives every subtask of what follows every record: for rules and small tables that all of them need. What follows sees
    /// each record once per subtask, so a count behind it counts that often.
    #[track_caller]
    pub fn broadcast(mut self) -> Self {
        let at = Location::caller();
        let make = |open: &OpenContext| Ok(ChainOperator::new::<T>(&Erased, open));
        let kind = VertexKind::Operator(Arc::new(OperatorOf::stateless("broadcast", make)));
        let shared = self.shared.clone();
        let vertex = shared.change(|graph| graph.add_vertex(None, kind, at));
        self.exchange = Exchange::Broadcast;
        self.connect(vertex, WireOf::broadcast());
        Self::of(shared, vertex)
    }
}

/// A clone is a branch: both read the same records. Erase a run of stateless operators first, or it runs once per branch.
impl<T: Clone + Send + 'static> Clone for Stream<T> {
    fn clone(&self) -> Self {
        let tee: TeeFn = Arc::new(tee::<T>);
        let output = (self.from, self.side);
        self.shared.change(|graph| graph.set_tee_of(output, tee));
        Self { exchange: self.exchange, ..Self::of_output(self.shared.clone(), output) }
    }
}

fn tee<T: Clone + 'static>(branches: Vec<AnyNode>) -> Option<AnyNode> {
    let branches = branches.into_iter().map(|branch| branch.downcast::<Box<dyn Node<T>>>().ok().map(|branch| *branch));
    let node: Box<dyn Node<T>> = Box::new(Tee::new(branches.collect::<Option<_>>()?));
    Some(Box::new(node))
}

//! What the user asked for: sources, operators and sinks, joined by edges. No thread, no channel yet.
//!
//! Types are erased here: a vertex and an edge each hold a small factory that knows its record type.

mod edge;
mod event_time;
mod node;
mod shape;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::sync::Arc;

pub use self::edge::{Edge, Exchange, Wire, WireOf};
pub use self::event_time::{EventTimeDecl, EventTimeOf};
pub use self::node::{
    OperatorOf, OperatorVertex, SinkOf, SinkVertex, SourceOf, SourceVertex, TeeFn, Vertex, VertexKind,
};
pub use self::shape::Shape;
pub use self::validate::{BuildError, BuildErrors};
use crate::operator::{OutputMode, OutputTag};
use crate::trigger::Trigger;

/// Any value that may go to another thread, without its type.
pub type AnySend = Box<dyn std::any::Any + Send>;

/// Number of a vertex within its graph. Not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(pub(crate) usize);

/// A pipeline as it was described.
#[derive(Debug, Default)]
pub struct Graph {
    pub(crate) name: String,
    pub(crate) vertices: Vec<Vertex>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) errors: Vec<BuildError>,
    pub(crate) parallelism: Option<u16>,
    pub(crate) epoch_interval: Option<std::time::Duration>,
    pub(crate) output_mode: OutputMode,
    pub(crate) trigger: Option<Trigger>,
    pub(crate) no_data_epochs: Option<bool>,
}

impl Graph {
    /// Makes an empty graph. The name names the store as well: `[a-zA-Z0-9_.-]{1,64}`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The pipeline's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets how many subtasks each task has; by default as many as the runtime has workers.
    pub fn set_parallelism(&mut self, parallelism: u16) {
        self.parallelism = Some(parallelism);
    }

    /// Sets the time between barriers; by default 100 ms.
    pub fn set_epoch_interval(&mut self, interval: std::time::Duration) {
        self.epoch_interval = Some(interval);
    }

    /// The time between barriers, if the pipeline says it.
    pub const fn epoch_interval(&self) -> Option<std::time::Duration> {
        self.epoch_interval
    }

    /// Sets what of its result the pipeline sends on; by default `Append`.
    pub fn set_output_mode(&mut self, mode: OutputMode) {
        self.output_mode = mode;
    }

    /// Sets when epochs begin; by default barriers are cut by time.
    pub fn set_trigger(&mut self, trigger: Trigger) {
        self.trigger = Some(trigger);
    }

    /// When epochs begin, if the pipeline says it.
    pub const fn trigger(&self) -> Option<Trigger> {
        self.trigger
    }

    /// Sets whether micro-batches without records are run where event time or a timer asks for them; by default they are.
    pub fn set_no_data_epochs(&mut self, run: bool) {
        self.no_data_epochs = Some(run);
    }

    /// Whether micro-batches without records are run, if the pipeline says it.
    pub const fn no_data_epochs(&self) -> Option<bool> {
        self.no_data_epochs
    }

    /// Adds a vertex. Without a name it gets one from its kind and place, which is not durable.
    pub fn add_vertex(&mut self, name: Option<&str>, kind: VertexKind, at: &'static Location<'static>) -> VertexId {
        let id = VertexId(self.vertices.len());
        let name = name.map_or_else(|| format!("{}-{}", kind.label(), id.0), str::to_owned);
        self.vertices.push(Vertex { name, kind, at, tees: BTreeMap::new(), taken: BTreeSet::new() });
        id
    }

    /// Adds an edge.
    pub fn add_edge(&mut self, from: VertexId, to: VertexId, exchange: Exchange, wire: Arc<dyn Wire>) {
        self.add_edge_of((from, None), to, exchange, wire);
    }

    /// Adds an edge that reads one output of a vertex: a side output by its number, or the main one.
    pub fn add_edge_of(
        &mut self,
        (from, side): (VertexId, Option<u16>),
        to: VertexId,
        exchange: Exchange,
        wire: Arc<dyn Wire>,
    ) {
        self.edges.push(Edge { from, side, to, exchange, wire });
    }

    /// Lets several edges leave a vertex: says how a record of its main output is copied.
    pub fn set_tee(&mut self, vertex: VertexId, tee: TeeFn) {
        self.set_tee_of((vertex, None), tee);
    }

    /// Lets several edges read one output of a vertex.
    pub fn set_tee_of(&mut self, (vertex, side): (VertexId, Option<u16>), tee: TeeFn) {
        if let Some(vertex) = self.vertices.get_mut(vertex.0) {
            vertex.tees.insert(side, tee);
        }
    }

    /// Takes note that a side output of a vertex was asked for; says whether that is so for the first time, and notes a mistake
    /// otherwise.
    pub fn take_side(&mut self, (vertex, side): (VertexId, u16), at: &'static Location<'static>) -> bool {
        let Some(found) = self.vertices.get_mut(vertex.0) else { return false };
        let first = found.taken.insert(side);
        if !first {
            let name = match &found.kind {
                VertexKind::Operator(operator) => {
                    operator.sides().get(usize::from(side)).map(|side| side.name().to_owned())
                }
                _ => None,
            };
            let operator = found.name.clone();
            let (tag, at) = (name.unwrap_or_default(), BuildError::place(at));
            self.add_error(BuildError::TagTaken { tag, operator, at });
        }
        first
    }

    /// Finds a side output of a vertex, for a tag of it: its number.
    ///
    /// # Errors
    /// [`BuildError::UnknownTag`] when the tag is not this vertex's; `at` is where it was asked for.
    pub fn side<T: 'static>(
        &self,
        vertex: VertexId,
        tag: &OutputTag<T>,
        at: &'static Location<'static>,
    ) -> Result<u16, BuildError> {
        let found = self.vertex(vertex);
        let sides = found.map(|vertex| match &vertex.kind {
            VertexKind::Operator(operator) => operator.sides(),
            _ => Vec::new(),
        });
        let position = sides.unwrap_or_default().iter().position(|side| side.is(tag));
        position.and_then(|side| u16::try_from(side).ok()).ok_or_else(|| self.unknown_tag(vertex, tag, at))
    }

    /// The mistake of asking a vertex for a side output that it does not have.
    pub fn unknown_tag<T>(&self, vertex: VertexId, tag: &OutputTag<T>, at: &'static Location<'static>) -> BuildError {
        BuildError::UnknownTag {
            tag: tag.name().to_owned(),
            operator: self.vertex(vertex).map_or_else(String::new, |vertex| vertex.name.clone()),
            at: BuildError::place(at),
        }
    }

    /// Notes a mistake that was found while the graph was described.
    pub fn add_error(&mut self, error: BuildError) {
        self.errors.push(error);
    }

    pub(crate) fn vertex(&self, id: VertexId) -> Option<&Vertex> {
        self.vertices.get(id.0)
    }

    /// What a vertex declares about event time.
    pub(crate) fn event_time(&self, id: VertexId) -> Option<EventTimeDecl> {
        match &self.vertex(id)?.kind {
            VertexKind::Operator(operator) => operator.event_time(),
            VertexKind::Source(_) | VertexKind::Sink(_) => None,
        }
    }

    /// Says whether the records that leave a vertex have event times: somebody assigned them on the way.
    pub fn is_timed(&self, id: VertexId) -> bool {
        self.upstream(id).into_iter().any(|vertex| self.event_time(vertex).is_some())
    }

    /// A vertex, and all that its records come through.
    pub(crate) fn upstream(&self, id: VertexId) -> Vec<VertexId> {
        let mut seen = vec![id];
        let mut next = 0;
        while let Some(vertex) = seen.get(next).copied() {
            for (_, edge) in self.inputs(vertex) {
                if !seen.contains(&edge.from) {
                    seen.push(edge.from);
                }
            }
            next += 1;
        }
        seen
    }

    pub(crate) fn inputs(&self, id: VertexId) -> impl Iterator<Item = (usize, &Edge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.to == id)
    }

    pub(crate) fn outputs(&self, id: VertexId) -> impl Iterator<Item = (usize, &Edge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.from == id)
    }
}

//! What the user asked for: sources, operators and sinks, joined by edges. No thread, no channel yet.
//!
//! Types are erased here: a vertex and an edge each hold a small factory that knows its record type.

mod describe;
mod edge;
mod event_time;
mod node;
mod validate;

use std::panic::Location;
use std::sync::Arc;

pub use self::edge::{Edge, Exchange, Wire, WireOf};
pub use self::event_time::{EventTimeDecl, EventTimeOf};
pub use self::node::{
    OperatorOf, OperatorVertex, SinkOf, SinkVertex, SourceOf, SourceVertex, TeeFn, Vertex, VertexKind,
};
pub use self::validate::{BuildError, BuildErrors};

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

    /// Adds a vertex. Without a name it gets one from its kind and place, which is not durable.
    pub fn add_vertex(&mut self, name: Option<&str>, kind: VertexKind, at: &'static Location<'static>) -> VertexId {
        let id = VertexId(self.vertices.len());
        let name = name.map_or_else(|| format!("{}-{}", kind.label(), id.0), str::to_owned);
        self.vertices.push(Vertex { name, kind, at, tee: None });
        id
    }

    /// Adds an edge.
    pub fn add_edge(&mut self, from: VertexId, to: VertexId, exchange: Exchange, wire: Arc<dyn Wire>) {
        self.edges.push(Edge { from, to, exchange, wire });
    }

    /// Lets several edges leave a vertex: says how a record is copied.
    pub fn set_tee(&mut self, vertex: VertexId, tee: TeeFn) {
        if let Some(vertex) = self.vertices.get_mut(vertex.0) {
            vertex.tee = Some(tee);
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
    pub(crate) fn is_timed(&self, id: VertexId) -> bool {
        let mut seen = vec![id];
        let mut next = 0;
        while let Some(vertex) = seen.get(next).copied() {
            if self.event_time(vertex).is_some() {
                return true;
            }
            let upstream: Vec<_> = self.inputs(vertex).map(|(_, edge)| edge.from).collect();
            seen.extend(upstream.into_iter().filter(|from| !seen.contains(from)).collect::<Vec<_>>());
            next += 1;
        }
        false
    }

    pub(crate) fn inputs(&self, id: VertexId) -> impl Iterator<Item = (usize, &Edge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.to == id)
    }

    pub(crate) fn outputs(&self, id: VertexId) -> impl Iterator<Item = (usize, &Edge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.from == id)
    }
}

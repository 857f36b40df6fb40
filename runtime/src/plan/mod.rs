//! What will run: tasks of fused vertices, their subtasks, and the channels between them.

mod attempt;
mod describe;
mod fuse;
#[cfg(feature = "status")]
mod topology;

use std::sync::Arc;

pub use self::attempt::{AttemptSeed, AttemptSpec, ChannelProbe, SourceSeed, TaskSeed};
pub use self::fuse::TaskPlan;
#[cfg(feature = "status")]
pub(crate) use self::topology::Topology;
use crate::checkpoint::{OperatorDecl, OperatorKind};
use crate::fault::SharedFaults;
use crate::graph::{BuildErrors, Graph, VertexId, VertexKind};
use crate::id::{Attempt, Epoch, OperatorId, ShardId};
use crate::position::{Position, SplitId};
use crate::sink::{Delivery, SinkContext};

/// A validated pipeline, cut into tasks. Cheap to clone; the same for all attempts.
#[derive(Clone, Debug)]
pub struct Plan {
    graph: Arc<Graph>,
    tasks: Arc<[TaskPlan]>,
    parallelism: u16,
    /// Vertices that the store knows, in the order of [`Plan::declarations`].
    durable: Arc<[VertexId]>,
}

impl Plan {
    /// Validates a graph and fuses it. `parallelism` (≥ 1) is used where the graph says nothing.
    ///
    /// # Errors
    /// [`BuildErrors`] has all mistakes of the graph.
    pub fn new(graph: Graph, parallelism: u16) -> Result<Self, BuildErrors> {
        graph.validate()?;
        let parallelism = graph.parallelism.unwrap_or(parallelism).max(1);
        let tasks = fuse::fuse(&graph);
        let durable = graph.vertices.iter().enumerate().filter(|(_, vertex)| match &vertex.kind {
            VertexKind::Source(_) => true,
            VertexKind::Operator(operator) => operator.is_stateful(),
            VertexKind::Sink(sink) => sink.connector().is_some(),
        });
        let durable = durable.map(|(index, _)| VertexId(index)).collect();
        Ok(Self { graph: Arc::new(graph), tasks: tasks.into(), parallelism, durable })
    }

    /// The pipeline's name.
    pub fn name(&self) -> &str {
        &self.graph.name
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The tasks.
    pub fn tasks(&self) -> &[TaskPlan] {
        &self.tasks
    }

    /// What an edge's channels are called: `from>to`, with a side output `from.side>to`.
    pub(crate) fn channel_name(&self, edge: usize) -> Arc<str> {
        let Some(edge) = self.graph.edges.get(edge) else { return Arc::default() };
        let name = |id| self.graph.vertex(id).map_or("", |vertex| vertex.name.as_str());
        let side = self.graph.side_name(edge).map_or_else(String::new, |side| format!(".{side}"));
        format!("{}{side}>{}", name(edge.from), name(edge.to)).into()
    }

    /// How many subtasks each task has.
    pub const fn parallelism(&self) -> u16 {
        self.parallelism
    }

    /// What the store has to know of the pipeline. The order is that of the numbers an attempt is given.
    pub fn declarations(&self) -> Vec<OperatorDecl> {
        let vertices = self.durable.iter().filter_map(|id| self.graph.vertex(*id));
        let declared = vertices.map(|vertex| {
            let (kind, states) = match &vertex.kind {
                VertexKind::Source(_) => (OperatorKind::Source, Vec::new()),
                VertexKind::Operator(operator) => (OperatorKind::Stateful, operator.states()),
                VertexKind::Sink(_) => (OperatorKind::Sink, Vec::new()),
            };
            OperatorDecl { name: vertex.name.clone(), kind, states }
        });
        declared.collect()
    }

    /// Makes the deliveries of all level-2 sinks, closed. `operators` are the numbers of the declarations.
    pub fn deliveries(&self, operators: &[OperatorId], shard: ShardId, faults: &SharedFaults) -> Vec<Delivery> {
        let sinks = self.durable.iter().zip(operators).filter_map(|(id, operator)| {
            let vertex = self.graph.vertex(*id)?;
            let VertexKind::Sink(sink) = &vertex.kind else { return None };
            let context = SinkContext {
                pipeline: self.graph.name.clone(),
                sink: vertex.name.clone(),
                shard,
                attempt: Attempt::default(),
                output_mode: self.graph.output_mode,
                subtask: 0,
                first_epoch: Epoch::GENESIS,
            };
            Some(Delivery::new(*operator, context, sink.connector()?, Arc::clone(faults)))
        });
        sinks.collect()
    }

    /// Tells a source what is durable.
    pub fn committed(&self, operators: &[OperatorId], source: OperatorId, at: &[(SplitId, Position)]) {
        let found = self.durable.iter().zip(operators).find(|(_, operator)| **operator == source);
        if let Some(vertex) = found.and_then(|(id, _)| self.graph.vertex(*id))
            && let VertexKind::Source(source) = &vertex.kind
        {
            source.committed(at);
        }
    }
}

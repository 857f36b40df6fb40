//! Cuts a graph into tasks: forward neighbours run in one chain.

use crate::graph::{Exchange, Graph, VertexId};
use crate::id::TaskId;

/// One task: a vertex that begins a chain and everything fused behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskPlan {
    /// Its number.
    pub id: TaskId,
    /// Where its frames come in.
    pub head: VertexId,
    /// All its vertices, the head first.
    pub vertices: Vec<VertexId>,
}

/// Says whether an edge is inside a task: forward, and its target has no other input.
pub(super) fn is_fused(graph: &Graph, edge: usize) -> bool {
    let Some(edge) = graph.edges.get(edge) else { return false };
    edge.exchange == Exchange::Forward && graph.inputs(edge.to).count() == 1
}

pub(super) fn fuse(graph: &Graph) -> Vec<TaskPlan> {
    let heads = (0..graph.vertices.len()).map(VertexId).filter(|id| {
        // A source has no input at all.
        graph.inputs(*id).all(|(edge, _)| !is_fused(graph, edge))
    });
    let tasks = heads.enumerate().map(|(index, head)| {
        let mut vertices = Vec::new();
        collect(graph, head, &mut vertices);
        TaskPlan { id: TaskId::new(u16::try_from(index).unwrap_or(u16::MAX)), head, vertices }
    });
    tasks.collect()
}

fn collect(graph: &Graph, vertex: VertexId, into: &mut Vec<VertexId>) {
    into.push(vertex);
    for (edge, target) in graph.outputs(vertex) {
        if is_fused(graph, edge) {
            collect(graph, target.to, into);
        }
    }
}

//! A plan as plain data, for those who look at a job from outside: it keeps no connector alive.

use crate::graph::{Graph, VertexId, VertexKind};
use crate::id::TaskId;
use crate::plan::Plan;

/// Tasks with their vertices, and the edges between these.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    pub(crate) parallelism: u16,
    pub(crate) tasks: Vec<TaskShape>,
    pub(crate) edges: Vec<EdgeShape>,
    /// As Graphviz draws it.
    pub(crate) dot: String,
}

/// A task: what runs in it.
#[derive(Clone, Debug)]
pub(crate) struct TaskShape {
    pub(crate) id: TaskId,
    pub(crate) vertices: Vec<VertexShape>,
}

/// A vertex.
#[derive(Clone, Debug)]
pub(crate) struct VertexShape {
    pub(crate) id: VertexId,
    pub(crate) name: String,
    pub(crate) role: &'static str,
    pub(crate) kind: String,
}

/// An edge.
#[derive(Clone, Debug)]
pub(crate) struct EdgeShape {
    pub(crate) from: VertexId,
    pub(crate) to: VertexId,
    /// The names of both ends.
    pub(crate) names: [String; 2],
    pub(crate) side: Option<String>,
    pub(crate) exchange: String,
}

fn name(graph: &Graph, id: VertexId) -> String {
    graph.vertex(id).map_or_else(String::new, |vertex| vertex.name.clone())
}

impl Topology {
    /// Describes a plan.
    pub(crate) fn of(plan: &Plan) -> Self {
        let graph = plan.graph();
        let vertex = |id: &VertexId| {
            let vertex = graph.vertex(*id)?;
            let role = match vertex.kind {
                VertexKind::Source(_) => "source",
                VertexKind::Operator(_) => "operator",
                VertexKind::Sink(_) => "sink",
            };
            Some(VertexShape { id: *id, name: vertex.name.clone(), role, kind: vertex.kind.label().to_owned() })
        };
        let tasks = plan.tasks().iter();
        let tasks =
            tasks.map(|task| TaskShape { id: task.id, vertices: task.vertices.iter().filter_map(vertex).collect() });
        let edges = graph.edges.iter().map(|edge| EdgeShape {
            from: edge.from,
            to: edge.to,
            names: [edge.from, edge.to].map(|id| name(graph, id)),
            side: graph.side_name(edge),
            exchange: edge.exchange.to_string(),
        });
        Self { parallelism: plan.parallelism(), tasks: tasks.collect(), edges: edges.collect(), dot: graph.to_dot() }
    }
}

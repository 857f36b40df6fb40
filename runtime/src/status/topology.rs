//! A pipeline's vertices and edges, as JSON and as a Mermaid drawing; as DOT the graph draws itself.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::actor::JobLink;
use crate::graph::{Edge, Graph, VertexId, VertexKind};

fn name(graph: &Graph, id: VertexId) -> &str {
    graph.vertex(id).map_or("", |vertex| vertex.name.as_str())
}

/// Vertices by task, and edges between them.
pub(super) fn json(job: &JobLink) -> Json {
    let plan = job.plan();
    let graph = plan.graph();
    let vertices = plan.tasks().iter().flat_map(|task| {
        task.vertices.iter().filter_map(|id| {
            let vertex = graph.vertex(*id)?;
            let role = match vertex.kind {
                VertexKind::Source(_) => "source",
                VertexKind::Operator(_) => "operator",
                VertexKind::Sink(_) => "sink",
            };
            let kind = vertex.kind.label();
            Some(json!({ "name": vertex.name, "role": role, "kind": kind, "task": task.id.number() }))
        })
    });
    let edge = |edge: &Edge| {
        json!({
            "from": name(graph, edge.from),
            "to": name(graph, edge.to),
            "side": graph.side_name(edge),
            "exchange": edge.exchange.to_string(),
        })
    };
    json!({
        "parallelism": plan.parallelism(),
        "vertices": vertices.collect::<Json>(),
        "edges": graph.edges.iter().map(edge).collect::<Json>(),
    })
}

/// As [Mermaid](https://mermaid.js.org) draws it: a box around vertices is a task.
pub(super) fn mermaid(job: &JobLink) -> String {
    let plan = job.plan();
    let graph = plan.graph();
    let mut text = String::from("flowchart LR\n");
    for task in plan.tasks() {
        let _ = writeln!(text, "  subgraph task{}", task.id);
        for id in &task.vertices {
            let _ = writeln!(text, "    n{}[\"{}\"]", id.0, quoted(name(graph, *id)));
        }
        text.push_str("  end\n");
    }
    for edge in &graph.edges {
        let side = graph.side_name(edge).map_or_else(String::new, |side| format!("{side}: "));
        let label = quoted(&format!("{side}{}", edge.exchange));
        let _ = writeln!(text, "  n{} -->|\"{label}\"| n{}", edge.from.0, edge.to.0);
    }
    text
}

/// A text between quotation marks: Mermaid has entities where others have backslashes.
fn quoted(text: &str) -> String {
    text.replace('#', "#35;").replace('"', "#quot;").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_no_quotation() {
        assert_eq!(quoted("a\"b\n#c"), "a#quot;b #35;c");
    }
}

//! A pipeline's vertices and edges, as JSON and as a Mermaid drawing; as DOT the graph draws itself.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::actor::JobLink;

/// Vertices by task, and edges between them.
pub(super) fn json(job: &JobLink) -> Json {
    let topology = job.topology();
    let vertices = topology.tasks.iter().flat_map(|task| {
        task.vertices.iter().map(
            |vertex| json!({ "name": vertex.name, "role": vertex.role, "kind": vertex.kind, "task": task.id.number() }),
        )
    });
    let edges = topology.edges.iter().map(|edge| {
        let [from, to] = &edge.names;
        json!({ "from": from, "to": to, "side": edge.side, "exchange": edge.exchange })
    });
    json!({
        "parallelism": topology.parallelism,
        "vertices": vertices.collect::<Json>(),
        "edges": edges.collect::<Json>(),
    })
}

/// As [Mermaid](https://mermaid.js.org) draws it: a box around vertices is a task.
pub(super) fn mermaid(job: &JobLink) -> String {
    let topology = job.topology();
    let mut text = String::from("flowchart LR\n");
    for task in &topology.tasks {
        let _ = writeln!(text, "  subgraph task{}", task.id);
        for vertex in &task.vertices {
            let _ = writeln!(text, "    n{}[\"{}\"]", vertex.id.0, quoted(&vertex.name));
        }
        text.push_str("  end\n");
    }
    for edge in &topology.edges {
        let side = edge.side.as_ref().map_or_else(String::new, |side| format!("{side}: "));
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

//! A graph as text and as a DOT drawing.

use std::fmt::Write as _;

use crate::graph::{Edge, Graph, VertexId, VertexKind};

impl Graph {
    /// Describes the pipeline, one line per vertex, in the order of its description.
    pub fn explain(&self) -> String {
        let mut text = format!("pipeline {}\n", self.name);
        for (index, vertex) in self.vertices.iter().enumerate() {
            let inputs = self.inputs(VertexId(index)).map(|(_, edge)| {
                let from = self.vertex(edge.from).map_or("?", |vertex| vertex.name.as_str());
                let side = self.side_name(edge).map_or_else(String::new, |side| format!("/{side}"));
                format!("{from}{side} ({})", edge.exchange)
            });
            let inputs: Vec<_> = inputs.collect();
            let _ = write!(text, "  {} {}", vertex.kind.label(), vertex.name);
            if !inputs.is_empty() {
                let _ = write!(text, " <- {}", inputs.join(", "));
            }
            if let VertexKind::Operator(operator) = &vertex.kind {
                for state in operator.states() {
                    let _ = write!(text, " [state {} v{}]", state.name, state.version);
                }
            }
            text.push('\n');
        }
        text
    }

    /// Draws the pipeline in the DOT language.
    pub fn to_dot(&self) -> String {
        let mut dot = format!("digraph {} {{\n  rankdir=LR;\n", quote(&self.name));
        for (index, vertex) in self.vertices.iter().enumerate() {
            let shape = match vertex.kind {
                VertexKind::Source(_) => "cds",
                VertexKind::Operator(_) => "box",
                VertexKind::Sink(_) => "house",
            };
            let label = quote(&format!("{}\n{}", vertex.kind.label(), vertex.name));
            let _ = writeln!(dot, "  n{index} [shape={shape}, label={label}];");
        }
        for edge in &self.edges {
            let side = self.side_name(edge).map_or_else(String::new, |side| format!("{side}\n"));
            let label = quote(&format!("{side}{}", edge.exchange));
            let _ = writeln!(dot, "  n{} -> n{} [label={label}];", edge.from.0, edge.to.0);
        }
        dot.push_str("}\n");
        dot
    }

    fn side_name(&self, edge: &Edge) -> Option<String> {
        let VertexKind::Operator(operator) = &self.vertex(edge.from)?.kind else { return None };
        let sides = operator.sides();
        Some(sides.get(usize::from(edge.side?))?.name().to_owned())
    }
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

//! A pipeline as text and as a DOT drawing: its tasks, exchanges and states, and what its sources and sinks guarantee.

use std::fmt::Write as _;

use crate::graph::{Edge, Exchange, Graph, Vertex, VertexId, VertexKind};
use crate::plan::Plan;
use crate::plan::fuse::{TaskPlan, fuse};
use crate::state::key_group::KeyGroups;

impl Graph {
    /// Describes the pipeline: its tasks, each a chain of vertices that run without a channel between them; where records
    /// of a vertex come from, and how they are exchanged; the names of states; what sources and sinks say about themselves.
    pub fn explain(&self) -> String {
        let parallelism = self.parallelism.map_or_else(
            || "as many subtasks as workers".to_owned(),
            |parallelism| format!("{parallelism} subtasks per task"),
        );
        explain(self, &fuse(self), &parallelism, |_| String::new())
    }

    /// Draws the pipeline in the DOT language; a box around vertices is a task.
    pub fn to_dot(&self) -> String {
        let mut dot = format!("digraph {} {{\n  rankdir=LR;\n", quote(&self.name));
        for task in fuse(self) {
            let _ = writeln!(dot, "  subgraph cluster_{} {{\n    label=\"task {}\";", task.id, task.id);
            for (id, vertex) in task.vertices.iter().filter_map(|id| Some((id, self.vertex(*id)?))) {
                let shape = match vertex.kind {
                    VertexKind::Source(_) => "cds",
                    VertexKind::Operator(_) => "box",
                    VertexKind::Sink(_) => "house",
                };
                let mut label = format!("{}\n{}", vertex.kind.label(), vertex.name);
                for fact in facts(vertex) {
                    let _ = write!(label, "\n{fact}");
                }
                let _ = writeln!(dot, "    n{} [shape={shape}, label={}];", id.0, quote(&label));
            }
            dot.push_str("  }\n");
        }
        for edge in &self.edges {
            let side = self.side_name(edge).map_or_else(String::new, |side| format!("{side}\n"));
            let label = quote(&format!("{side}{}", exchange(edge)));
            let _ = writeln!(dot, "  n{} -> n{} [label={label}];", edge.from.0, edge.to.0);
        }
        dot.push_str("}\n");
        dot
    }

    pub(crate) fn side_name(&self, edge: &Edge) -> Option<String> {
        let VertexKind::Operator(operator) = &self.vertex(edge.from)?.kind else { return None };
        let sides = operator.sides();
        Some(sides.get(usize::from(edge.side?))?.name().to_owned())
    }
}

impl Plan {
    /// Describes the pipeline as it will run: as [`Graph::explain`], with the subtasks that own the key groups.
    pub fn explain(&self, key_groups: KeyGroups) -> String {
        let parallelism = format!("{} subtasks per task", self.parallelism);
        explain(&self.graph, &self.tasks, &parallelism, |task| {
            let keyed = self.graph.inputs(task.head).any(|(_, edge)| edge.exchange == Exchange::Hash);
            let ranges = (0..self.parallelism).filter(|_| keyed).map(|subtask| {
                let range = key_groups.range(subtask, self.parallelism);
                if range.is_empty() {
                    return "none".to_owned();
                }
                format!("{} to {}", range.start, range.end.saturating_sub(1))
            });
            let ranges: Vec<_> = ranges.collect();
            if keyed { format!(": key groups {}", ranges.join(" | ")) } else { String::new() }
        })
    }
}

fn explain(graph: &Graph, tasks: &[TaskPlan], parallelism: &str, placed: impl Fn(&TaskPlan) -> String) -> String {
    let name = graph.name.escape_debug();
    let epochs = graph.epoch_interval.map_or_else(String::new, |interval| format!(", epochs of {interval:?}"));
    let mut text = format!("pipeline {name}: {parallelism}{epochs}\n");
    for task in tasks {
        let _ = writeln!(text, "  task {}{}", task.id, placed(task));
        for (id, vertex) in task.vertices.iter().filter_map(|id| Some((id, graph.vertex(*id)?))) {
            let _ = write!(text, "    {} {}", vertex.kind.label(), vertex.name.escape_debug());
            let inputs = inputs(graph, *id);
            if !inputs.is_empty() {
                let _ = write!(text, " <- {}", inputs.join(", "));
            }
            text.push('\n');
            for fact in facts(vertex) {
                let _ = writeln!(text, "      {fact}");
            }
        }
    }
    text
}

fn inputs(graph: &Graph, id: VertexId) -> Vec<String> {
    let inputs = graph.inputs(id).map(|(_, edge)| {
        let from = graph.vertex(edge.from).map_or("?", |vertex| vertex.name.as_str()).escape_debug();
        let side = graph.side_name(edge).map_or_else(String::new, |side| format!("/{}", side.escape_debug()));
        format!("{from}{side} ({})", exchange(edge))
    });
    inputs.collect()
}

fn exchange(edge: &Edge) -> String {
    match edge.exchange {
        Exchange::Hash => "hash, by key group".to_owned(),
        other => other.to_string(),
    }
}

/// What is known of a vertex besides its name: its states, or what it says about itself.
fn facts(vertex: &Vertex) -> Vec<String> {
    match &vertex.kind {
        VertexKind::Operator(operator) => {
            let mut states = operator.states();
            states.retain(|state| !state.removed);
            // Their order in the operator means nothing.
            states.sort_by(|left, right| left.name.cmp(&right.name));
            states.iter().map(|state| format!("state {} v{}", state.name.escape_debug(), state.version)).collect()
        }
        VertexKind::Source(source) => {
            let declared = source.declaration();
            let mut facts = vec![
                declared.connector.to_string()
                    + ": "
                    + &phrase(&[&declared.guarantee.to_string(), &declared.condition]),
            ];
            facts.extend(named("position", &declared.position));
            facts.extend(named("after a restart", &declared.after_restart));
            facts
        }
        VertexKind::Sink(sink) => {
            let declared = sink.declaration();
            let (level, guarantee) = sink.level();
            let guarantee = phrase(&[&guarantee.to_string(), &declared.condition]);
            let out = phrase(&[if level == 1 { "as processed" } else { "as committed" }, &declared.waits]);
            let mut facts = vec![format!("{}, level {level}: {guarantee}, {out}", declared.connector)];
            facts.extend(named("after a restart", &declared.after_restart));
            facts
        }
    }
}

fn named(name: &str, text: &str) -> Option<String> {
    (!text.is_empty()).then(|| format!("{name}: {text}"))
}

/// Joins what is said, leaving out what is not.
fn phrase(parts: &[&str]) -> String {
    let said: Vec<_> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    said.join(" ")
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

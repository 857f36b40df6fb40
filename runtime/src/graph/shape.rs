//! Which operators fit which output mode and one another: the rules of Spark Structured Streaming, with their codes.

use std::collections::BTreeSet;

use crate::graph::{BuildError, Graph, VertexId, VertexKind};
use crate::operator::OutputMode;

/// What an operator is to these rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// It sends records on as they come or keeps state of its own rules: nothing is asked of it. Running aggregates too, whose every
    /// result is a record.
    #[default]
    Free,
    /// Groups records and sends what became of each group.
    Aggregation {
        /// Its groups belong to a piece of event time, so that a watermark makes them final.
        timed: bool,
        /// It may send a group again that it sent before, although the mode is append: its user asked for early results.
        revises: bool,
    },
    /// Groups records by key and session.
    SessionAggregation {
        /// There is a key besides the session.
        keyed: bool,
    },
    /// Sends the first record of each key.
    Deduplication {
        /// It forgets keys by the watermark.
        within_watermark: bool,
    },
    /// `map_groups_with_state`.
    MapGroups {
        /// Its timeouts go by event time.
        event_time: bool,
    },
    /// `flat_map_groups_with_state`.
    FlatMapGroups {
        /// What its function says of its rows.
        mode: OutputMode,
        /// Its timeouts go by event time.
        event_time: bool,
    },
    /// `transform_with_state`.
    TransformWithState {
        /// What its processor says of its rows.
        mode: OutputMode,
        /// Its timers go by event time.
        event_time: bool,
        /// It says which field of its rows is their event time. Otherwise no watermark is passed on.
        timed_output: bool,
    },
}

impl Shape {
    const fn is_stateful(self) -> bool {
        !matches!(self, Self::Free)
    }

    const fn is_aggregation(self) -> bool {
        matches!(self, Self::Aggregation { .. } | Self::SessionAggregation { .. })
    }

    /// Whether it waits for the watermark, or forgets by it.
    const fn needs_watermark(self, mode: OutputMode) -> bool {
        match self {
            Self::Free => false,
            Self::Aggregation { .. } | Self::SessionAggregation { .. } => matches!(mode, OutputMode::Append),
            Self::Deduplication { within_watermark } => within_watermark,
            Self::MapGroups { event_time }
            | Self::FlatMapGroups { event_time, .. }
            | Self::TransformWithState { event_time, .. } => event_time,
        }
    }

    const fn is_group_state(self) -> bool {
        matches!(self, Self::MapGroups { .. } | Self::FlatMapGroups { .. })
    }
}

/// A rule that is broken: its code and what is to be said.
type Broken = (&'static str, String);

impl Graph {
    /// What an operator is to the rules of output modes.
    pub(crate) fn shape(&self, id: VertexId) -> Shape {
        match self.vertex(id).map(|vertex| &vertex.kind) {
            Some(VertexKind::Operator(operator)) => operator.shape(),
            _ => Shape::Free,
        }
    }

    pub(super) fn check_shapes(&self, errors: &mut Vec<BuildError>) {
        let ids = || (0..self.vertices.len()).map(VertexId);
        let aggregates = ids().any(|id| self.shape(id).is_aggregation());
        for id in ids() {
            let Some(vertex) = self.vertex(id) else { continue };
            let broken = match (&vertex.kind, self.shape(id)) {
                (VertexKind::Sink(_), _) if self.output_mode == OutputMode::Complete && !aggregates => {
                    let reason = "complete needs an aggregation: there is no result table that could be sent whole";
                    Some(("E-MODE-02", reason.to_owned()))
                }
                (_, Shape::Free) => None,
                (_, shape) => self.broken(id, shape),
            };
            if let Some((code, reason)) = broken {
                let (operator, at) = (vertex.name.clone(), BuildError::place(vertex.at));
                errors.push(BuildError::Unsupported { code, operator, at, reason });
            }
        }
    }

    /// The first rule that an operator breaks.
    fn broken(&self, id: VertexId, shape: Shape) -> Option<Broken> {
        let before: Vec<_> = self.reach(id, Way::Up).map(|id| self.shape(id)).collect();
        let after: Vec<_> = self.reach(id, Way::Down).map(|id| self.shape(id)).collect();
        let others = || before.iter().chain(&after);
        let mode = self.output_mode;
        // The watermark of what comes in, not one that the operator itself makes.
        let timed = self.inputs(id).any(|(_, edge)| self.is_timed(edge.from));
        let refuse = |code, reason: &str| Some((code, reason.to_owned()));
        let own = match shape {
            Shape::Free => None,
            Shape::Aggregation { timed: by_time, .. } if mode == OutputMode::Append && !(by_time && timed) => {
                let reason = "append sends a group once it is final, and without a watermark on what it is grouped by it never is; \
                              assign event times and group by a window, or use update or complete";
                refuse("E-MODE-01", reason)
            }
            Shape::Aggregation { revises: true, .. } if mode == OutputMode::Append => refuse(
                "E-TRG-05",
                "append never changes a row that it sent, and this trigger sends a window more than once; use update, or let the trigger \
                 be discarding",
            ),
            Shape::SessionAggregation { keyed: false } => {
                refuse("E-WIN-05", "a session window needs another grouping key on a stream; call `key_by` first")
            }
            Shape::SessionAggregation { .. } if mode == OutputMode::Update => refuse(
                "E-MODE-03",
                "update is not available for session windows: merging replaces sessions; use append",
            ),
            Shape::SessionAggregation { .. } if mode == OutputMode::Append && !timed => {
                refuse("E-MODE-01", "append sends a session once it is final; assign event times and a watermark first")
            }
            Shape::Deduplication { within_watermark: true } if !timed => {
                refuse("E-WM-03", "forgetting duplicates by the watermark needs one; assign event times first")
            }
            Shape::MapGroups { .. } if others().any(|other| matches!(other, Shape::MapGroups { .. })) => refuse(
                "E-GS-06",
                "a pipeline may have one map_groups_with_state; use flat_map_groups_with_state in append",
            ),
            Shape::MapGroups { .. } | Shape::FlatMapGroups { .. }
                if others().any(|other| {
                    other.is_group_state()
                        && matches!(other, Shape::MapGroups { .. }) != matches!(shape, Shape::MapGroups { .. })
                }) =>
            {
                refuse(
                    "E-GS-07",
                    "map_groups_with_state and flat_map_groups_with_state cannot be joined in one pipeline",
                )
            }
            Shape::MapGroups { .. } if others().any(|other| other.is_aggregation()) => {
                refuse("E-GS-03", "update-mode group state cannot be combined with an aggregation")
            }
            Shape::MapGroups { .. } if mode != OutputMode::Update => {
                Some(("E-GS-01", format!("map_groups_with_state requires update mode, and the pipeline's is {mode}")))
            }
            Shape::FlatMapGroups { mode: OutputMode::Complete, .. } => {
                refuse("E-GS-04", "the operator's mode must be append or update")
            }
            Shape::FlatMapGroups { mode: own, .. }
                if others().any(|other| matches!(other, Shape::FlatMapGroups { .. }))
                    && (own != OutputMode::Append || mode != OutputMode::Append) =>
            {
                refuse("E-GS-08", "several flat_map_groups_with_state need append, each of them and the pipeline")
            }
            Shape::FlatMapGroups { mode: OutputMode::Update, .. } if others().any(|other| other.is_aggregation()) => {
                refuse("E-GS-03", "update-mode group state cannot be combined with an aggregation")
            }
            Shape::FlatMapGroups { mode: own, .. }
                if own != mode && !(own == OutputMode::Append && after.iter().any(|other| other.is_aggregation())) =>
            {
                Some(("E-GS-02", format!("the operator's mode is {own}, and the pipeline's is {mode}")))
            }
            Shape::MapGroups { event_time: true } | Shape::FlatMapGroups { event_time: true, .. } if !timed => {
                refuse("E-GS-05", "a timeout by event time needs a watermark; assign event times first")
            }
            Shape::TransformWithState { mode: own, .. } if own != mode => {
                Some(("E-TWS-05", format!("the operator's mode is {own}, and the pipeline's is {mode}")))
            }
            Shape::TransformWithState { event_time: true, .. } if !timed => {
                refuse("E-GS-05", "timers by event time need a watermark; assign event times first")
            }
            _ => None,
        };
        let hidden = shape.needs_watermark(mode) && timed && !self.inputs(id).any(|(_, edge)| self.brings(edge.from));
        let hidden = hidden.then(|| {
            let reason = "transform_with_state passes no watermark on, which this operator would need; \
                          use transform_with_state_at, which is told the times of its rows";
            ("E-CHAIN-02", reason.to_owned())
        });
        own.or(hidden).or_else(|| self.chained(shape, &before, mode))
    }

    /// Says whether a vertex passes a watermark on that somebody before it makes.
    fn brings(&self, id: VertexId) -> bool {
        let mut seen = BTreeSet::from([id]);
        let mut next = vec![id];
        while let Some(id) = next.pop() {
            if self.event_time(id).is_some() {
                return true;
            }
            if !matches!(self.shape(id), Shape::TransformWithState { timed_output: false, .. }) {
                next.extend(self.inputs(id).map(|(_, edge)| edge.from).filter(|id| seen.insert(*id)));
            }
        }
        false
    }

    /// What a stateful operator says of the stateful ones before it.
    fn chained(&self, shape: Shape, before: &[Shape], mode: OutputMode) -> Option<Broken> {
        if !shape.is_stateful() {
            return None;
        }
        if mode != OutputMode::Append && before.iter().any(|before| before.is_aggregation()) {
            let reason = format!(
                "a stateful operator behind an aggregation would count changed rows again in {mode}; use append"
            );
            return Some(("E-CHAIN-01", reason));
        }
        let event_time = |before: &Shape| {
            matches!(before, Shape::MapGroups { event_time: true } | Shape::FlatMapGroups { event_time: true, .. })
        };
        before.iter().any(event_time).then(|| {
            let reason =
                "group state with timeouts by event time passes no watermark on, which this operator would need";
            ("E-CHAIN-02", reason.to_owned())
        })
    }

    /// All vertices before or behind one.
    fn reach(&self, id: VertexId, way: Way) -> impl Iterator<Item = VertexId> + use<> {
        let mut seen = BTreeSet::new();
        let mut next = vec![id];
        while let Some(id) = next.pop() {
            let edges: Vec<_> = match way {
                Way::Up => self.inputs(id).map(|(_, edge)| edge.from).collect(),
                Way::Down => self.outputs(id).map(|(_, edge)| edge.to).collect(),
            };
            next.extend(edges.into_iter().filter(|id| seen.insert(*id)));
        }
        seen.into_iter()
    }
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

#[cfg(test)]
mod tests;

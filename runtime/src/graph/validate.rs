//! Mistakes in a graph, all of them at once, each with the line that made it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::Location;

use crate::graph::{Exchange, Graph, VertexId, VertexKind};
use crate::operator::OutputMode;
use crate::trigger::Trigger;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A name has characters that metrics, paths or the store cannot carry.
    #[error("{what} name {name:?} at {at} must be 1 to 64 characters of a-z A-Z 0-9 _ . : > -")]
    BadName {
        /// `pipeline`, `source`, `operator` or `sink`.
        what: &'static str,
        /// The name.
        name: String,
        /// Where it was given.
        at: String,
    },
    /// Two vertices have one name: their state could not be told apart.
    #[error("the name {name:?} at {at} is taken by the one at {first}; give one of them another")]
    DuplicateName {
        /// The name.
        name: String,
        /// Where it was given again.
        at: String,
        /// Where it was given first.
        first: String,
    },
    /// Nothing brings records in.
    #[error("the pipeline has no source")]
    NoSource,
    /// Nothing takes records out.
    #[error("the pipeline has no sink, so nobody would see a result")]
    NoSink,
    /// A stream goes nowhere.
    #[error("nothing reads the result of {name:?} at {at}; end it in a sink (Blackhole drops it) or remove it")]
    Unread {
        /// The vertex.
        name: String,
        /// Where it was made.
        at: String,
    },
    /// A setting is out of its range.
    #[error("{what} is {given}; it must be {range}")]
    OutOfRange {
        /// The setting.
        what: &'static str,
        /// What it was set to.
        given: String,
        /// What it may be.
        range: &'static str,
    },
    /// Streams of two pipelines were joined.
    #[error("the streams joined at {at} belong to two pipelines; build them from one `Pipeline`")]
    TwoPipelines {
        /// Where.
        at: String,
    },
    /// A side output was asked for that the operator does not have: the tag is another operator's, carries another type, or
    /// the stream is no direct result of an operator with side outputs.
    #[error(
        "{operator:?} has no side output {tag:?} of this type, which is asked for at {at}; take it from the stream that the \
         operator with the tag returns"
    )]
    UnknownTag {
        /// The tag's name.
        tag: String,
        /// The operator.
        operator: String,
        /// Where it was asked for.
        at: String,
    },
    /// A side output was asked for twice.
    #[error("side output {tag:?} of {operator:?} is asked for again at {at}; clone the first stream instead")]
    TagTaken {
        /// The tag's name.
        tag: String,
        /// The operator.
        operator: String,
        /// Where it was asked for again.
        at: String,
    },
    /// An operator's `open` failed while its states and side outputs were asked for.
    #[error("operator {operator:?} at {at} cannot say what it keeps: {error}")]
    Open {
        /// The operator.
        operator: String,
        /// Where it was made.
        at: String,
        /// What `open` returned.
        error: String,
    },
    /// Splits are to be left out when they are idle, where nobody knows the splits.
    #[error(
        "the event time at {at} is assigned behind a union or an exchange, where nobody knows which splits are idle; \
         assign it in front of them, or leave out `idle_after`"
    )]
    IdleUnknown {
        /// Where.
        at: String,
    },
    /// An operator does not fit the output mode or its neighbours. A rule keeps its code.
    #[error("{code}: {operator:?} at {at}: {reason}")]
    Unsupported {
        /// Which rule it is.
        code: &'static str,
        /// The operator or sink.
        operator: String,
        /// Where it was made.
        at: String,
        /// What does not fit, and what to do.
        reason: String,
    },
    /// A handle was used after its pipeline had been started.
    #[error("a stream was used at {at} after its pipeline had been started; describe the whole pipeline first")]
    Frozen {
        /// Where.
        at: String,
    },
}

impl BuildError {
    /// Writes a caller's line.
    pub fn place(at: &Location<'_>) -> String {
        format!("{}:{}", at.file(), at.line())
    }
}

/// All mistakes of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildErrors(pub Vec<BuildError>);

impl fmt::Display for BuildErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the pipeline cannot be built:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  - {error}"))
    }
}

impl std::error::Error for BuildErrors {}

impl Graph {
    /// Looks for mistakes. What passes can be planned and built.
    ///
    /// # Errors
    /// [`BuildErrors`] has all of them.
    pub fn validate(&self) -> Result<(), BuildErrors> {
        let mut errors = self.errors.clone();
        if !is_name(&self.name, "_.-") || self.name.starts_with('.') {
            let at = self.vertices.first().map_or_else(String::new, |vertex| BuildError::place(vertex.at));
            errors.push(BuildError::BadName { what: "pipeline", name: self.name.clone(), at });
        }
        if self.parallelism.is_some_and(|parallelism| parallelism == 0 || parallelism > 960) {
            let given = self.parallelism.unwrap_or_default().to_string();
            errors.push(BuildError::OutOfRange { what: "parallelism", given, range: "1 to 960, the key groups" });
        }
        if self.epoch_interval.is_some_and(|interval| interval < std::time::Duration::from_millis(1)) {
            let given = format!("{:?}", self.epoch_interval.unwrap_or_default());
            errors.push(BuildError::OutOfRange { what: "the epoch interval", given, range: "at least 1 ms" });
        }
        self.check_trigger(&mut errors);
        self.check_limits(&mut errors);
        self.check_names(&mut errors);
        self.check_ends(&mut errors);
        self.check_event_times(&mut errors);
        self.check_shapes(&mut errors);
        if errors.is_empty() { Ok(()) } else { Err(BuildErrors(errors)) }
    }

    fn check_trigger(&self, errors: &mut Vec<BuildError>) {
        let Some(trigger) = self.trigger else { return };
        let unsupported = |code, reason| {
            let at = self.vertices.first().map_or_else(String::new, |vertex| BuildError::place(vertex.at));
            BuildError::Unsupported { code, operator: self.name.clone(), at, reason }
        };
        match (trigger, trigger.too_short()) {
            (Trigger::RealTime(_), Some((given, least))) => {
                let reason =
                    format!("a real-time trigger every {given:?}; give at least {least:?}, or use Trigger::Continuous");
                errors.push(unsupported("E-TRG-03", reason));
            }
            (_, Some((given, _))) => {
                let given = format!("{given:?}");
                errors.push(BuildError::OutOfRange {
                    what: "the interval of Trigger::Continuous",
                    given,
                    range: "at least 1 ms",
                });
            }
            _ => {}
        }
        if matches!(trigger, Trigger::RealTime(_)) && self.output_mode != OutputMode::Update {
            let reason =
                "a real-time trigger needs the output mode update; set it, or use Trigger::Continuous".to_owned();
            errors.push(unsupported("E-TRG-04", reason));
        }
    }

    fn check_limits(&self, errors: &mut Vec<BuildError>) {
        for vertex in &self.vertices {
            let VertexKind::Source(source) = &vertex.kind else { continue };
            let limits = source.epoch_limits();
            let each = [
                ("max_records_per_epoch", Some(limits.records)),
                ("max_files_per_epoch", limits.files),
                ("max_bytes_per_epoch", limits.bytes),
            ];
            for (what, _) in each.into_iter().filter(|(_, limit)| *limit == Some(0)) {
                let given = format!("0 for the source {:?} at {}", vertex.name, BuildError::place(vertex.at));
                errors.push(BuildError::OutOfRange { what, given, range: "at least 1" });
            }
            if limits.files.is_some() && limits.bytes.is_some() {
                let reason = "a micro-batch is limited in files and in bytes; give one of max_files_per_epoch and max_bytes_per_epoch";
                errors.push(BuildError::Unsupported {
                    code: "E-SRC-03",
                    operator: vertex.name.clone(),
                    at: BuildError::place(vertex.at),
                    reason: reason.to_owned(),
                });
            }
        }
    }

    fn check_names(&self, errors: &mut Vec<BuildError>) {
        let mut seen = BTreeMap::new();
        for vertex in &self.vertices {
            let at = BuildError::place(vertex.at);
            if !is_name(&vertex.name, "_.:>-") {
                let what = match vertex.kind {
                    VertexKind::Source(_) => "source",
                    VertexKind::Operator(_) => "operator",
                    VertexKind::Sink(_) => "sink",
                };
                errors.push(BuildError::BadName { what, name: vertex.name.clone(), at: at.clone() });
            }
            if let Some(first) = seen.insert(&vertex.name, at.clone()) {
                errors.push(BuildError::DuplicateName { name: vertex.name.clone(), at, first });
            }
        }
    }

    fn check_ends(&self, errors: &mut Vec<BuildError>) {
        if !self.vertices.iter().any(|vertex| matches!(vertex.kind, VertexKind::Source(_))) {
            errors.push(BuildError::NoSource);
        }
        if !self.vertices.iter().any(|vertex| matches!(vertex.kind, VertexKind::Sink(_))) {
            errors.push(BuildError::NoSink);
        }
        let read: BTreeSet<VertexId> =
            self.edges.iter().filter(|edge| edge.side.is_none()).map(|edge| edge.from).collect();
        for (index, vertex) in self.vertices.iter().enumerate() {
            if !matches!(vertex.kind, VertexKind::Sink(_)) && !read.contains(&VertexId(index)) {
                errors.push(BuildError::Unread { name: vertex.name.clone(), at: BuildError::place(vertex.at) });
            }
        }
    }

    fn check_event_times(&self, errors: &mut Vec<BuildError>) {
        for (index, vertex) in self.vertices.iter().enumerate() {
            let id = VertexId(index);
            let idle = self.event_time(id).is_some_and(|declared| declared.idle_after.is_some());
            // A stream that has a watermark already says by itself when it is idle.
            if idle && !self.knows_splits(id) && !self.inputs(id).all(|(_, edge)| self.is_timed(edge.from)) {
                errors.push(BuildError::IdleUnknown { at: BuildError::place(vertex.at) });
            }
        }
    }

    /// Says whether a vertex will run in the task of a source.
    fn knows_splits(&self, mut id: VertexId) -> bool {
        loop {
            let mut inputs = self.inputs(id);
            match (inputs.next(), inputs.next()) {
                (Some((_, edge)), None) if edge.exchange == Exchange::Forward => id = edge.from,
                (None, _) => return true,
                _ => return false,
            }
        }
    }
}

fn is_name(name: &str, also: &str) -> bool {
    (1..=64).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

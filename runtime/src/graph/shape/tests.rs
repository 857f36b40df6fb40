use std::panic::Location;
use std::sync::Arc;

use super::*;
use crate::checkpoint::StateDecl;
use crate::graph::{EventTimeDecl, Exchange, OperatorVertex, SinkVertex, WireOf};
use crate::guarantee::SinkDeclaration;
use crate::operator::{AnyNode, OpenContext, TaskError};
use crate::sink::{Guarantee, TokenSinkFactory};

/// A vertex that is looked at and never built.
struct Drawn {
    shape: Shape,
    event_time: bool,
}

impl OperatorVertex for Drawn {
    fn label(&self) -> &str {
        "drawn"
    }

    fn states(&self) -> Vec<StateDecl> {
        Vec::new()
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    fn event_time(&self) -> Option<EventTimeDecl> {
        self.event_time.then_some(EventTimeDecl { idle_after: None })
    }

    fn build(&self, open: &OpenContext, _: AnyNode) -> Result<AnyNode, TaskError> {
        Err(TaskError::Build { operator: open.name.clone() })
    }
}

struct Out(SinkDeclaration);

impl SinkVertex for Out {
    fn build(&self, open: &OpenContext) -> Result<AnyNode, TaskError> {
        Err(TaskError::Build { operator: open.name.clone() })
    }

    fn connector(&self) -> Option<TokenSinkFactory> {
        None
    }

    fn declaration(&self) -> &SinkDeclaration {
        &self.0
    }

    fn level(&self) -> (u8, Guarantee) {
        (1, Guarantee::AtLeastOnce)
    }
}

/// The codes that a chain of operators gets, with a watermark in front of it or without.
fn codes(mode: OutputMode, timed: bool, shapes: &[Shape]) -> Vec<&'static str> {
    let mut graph = Graph::new("p");
    graph.set_output_mode(mode);
    let at = Location::caller();
    let operator = |shape, event_time| VertexKind::Operator(Arc::new(Drawn { shape, event_time }));
    let mut last = graph.add_vertex(None, operator(Shape::Free, timed), at);
    let sink = VertexKind::Sink(Arc::new(Out(SinkDeclaration::new("out"))));
    let kinds = shapes.iter().map(|shape| operator(*shape, false)).chain([sink]);
    for kind in kinds {
        let next = graph.add_vertex(None, kind, at);
        graph.add_edge(last, next, Exchange::Forward, Arc::new(WireOf::<i64>::plain()));
        last = next;
    }
    let mut errors = Vec::new();
    graph.check_shapes(&mut errors);
    let code = |error| match error {
        BuildError::Unsupported { code, .. } => code,
        other => panic!("{other}"),
    };
    errors.into_iter().map(code).collect()
}

const MODES: [OutputMode; 3] = [OutputMode::Append, OutputMode::Update, OutputMode::Complete];
const OK: &str = "";
const BY_KEY: Shape = Shape::Aggregation { timed: false, revises: false };
const BY_WINDOW: Shape = Shape::Aggregation { timed: true, revises: false };
const EARLY: Shape = Shape::Aggregation { timed: true, revises: true };
const SESSION: Shape = Shape::SessionAggregation { keyed: true };
const DISTINCT: Shape = Shape::Deduplication { within_watermark: false };
const WITHIN: Shape = Shape::Deduplication { within_watermark: true };
const MAP: Shape = Shape::MapGroups { event_time: false };

const fn flat_map(mode: OutputMode, event_time: bool) -> Shape {
    Shape::FlatMapGroups { mode, event_time }
}

const fn transform(mode: OutputMode) -> Shape {
    Shape::TransformWithState { mode, event_time: false, timed_output: false }
}

/// By event time, with rows that say their times or not.
const fn timers(timed_output: bool) -> Shape {
    Shape::TransformWithState { mode: OutputMode::Append, event_time: true, timed_output }
}

/// S-MODE-05, S-MODE-12, S-SESS-05, S-DEDUP-05, S-ET-15, S-GS-01, S-GS-02, S-GS-18, S-GS-21: the matrix of output modes.
#[test]
fn every_shape_says_which_modes_it_knows() {
    use OutputMode::{Append, Update};
    let event_time = flat_map(Append, true);
    // Whether a watermark comes in, the operators, and the first code in append, update and complete.
    let rows: &[(bool, &[Shape], [&str; 3])] = &[
        (true, &[], [OK, OK, "E-MODE-02"]),
        (true, &[Shape::Free], [OK, OK, "E-MODE-02"]),
        (true, &[BY_KEY], ["E-MODE-01", OK, OK]),
        (true, &[BY_WINDOW], [OK, OK, OK]),
        (false, &[BY_WINDOW], ["E-MODE-01", OK, OK]),
        (true, &[EARLY], ["E-TRG-05", OK, OK]),
        (true, &[SESSION], [OK, "E-MODE-03", OK]),
        (false, &[SESSION], ["E-MODE-01", "E-MODE-03", OK]),
        (true, &[Shape::SessionAggregation { keyed: false }], ["E-WIN-05"; 3]),
        (true, &[DISTINCT], [OK, OK, "E-MODE-02"]),
        (false, &[DISTINCT], [OK, OK, "E-MODE-02"]),
        (true, &[WITHIN], [OK, OK, "E-MODE-02"]),
        (false, &[WITHIN], ["E-WM-03"; 3]),
        (true, &[DISTINCT, BY_WINDOW], [OK, OK, OK]),
        (true, &[DISTINCT, BY_KEY], ["E-MODE-01", OK, OK]),
        (true, &[MAP], ["E-GS-01", OK, "E-GS-01"]),
        (true, &[flat_map(Append, false)], [OK, "E-GS-02", "E-GS-02"]),
        (true, &[flat_map(Update, false)], ["E-GS-02", OK, "E-GS-02"]),
        (true, &[flat_map(OutputMode::Complete, false)], ["E-GS-04"; 3]),
        (true, &[flat_map(Append, false), BY_WINDOW], [OK, OK, OK]),
        (true, &[flat_map(Append, false), BY_KEY], ["E-MODE-01", OK, OK]),
        (true, &[flat_map(Update, false), BY_KEY], ["E-GS-03"; 3]),
        (true, &[BY_WINDOW, flat_map(Update, false)], ["E-GS-03"; 3]),
        (true, &[MAP, BY_WINDOW], ["E-GS-03"; 3]),
        (true, &[event_time], [OK, "E-GS-02", "E-GS-02"]),
        (false, &[event_time], ["E-GS-05", "E-GS-02", "E-GS-02"]),
        (true, &[MAP, MAP], ["E-GS-06"; 3]),
        (true, &[MAP, flat_map(Update, false)], ["E-GS-07"; 3]),
        (true, &[flat_map(Append, false), flat_map(Append, false)], [OK, "E-GS-08", "E-GS-08"]),
        (true, &[transform(Append)], [OK, "E-TWS-05", "E-TWS-05"]),
        (true, &[transform(Update)], ["E-TWS-05", OK, "E-TWS-05"]),
        (true, &[timers(false)], [OK, "E-TWS-05", "E-TWS-05"]),
        (false, &[timers(false)], ["E-GS-05", "E-TWS-05", "E-TWS-05"]),
        (true, &[timers(true), BY_WINDOW], [OK, "E-TWS-05", "E-TWS-05"]),
        (true, &[timers(true), Shape::Free, timers(false)], [OK, "E-TWS-05", "E-TWS-05"]),
        (true, &[timers(false), BY_WINDOW], ["E-CHAIN-02", "E-TWS-05", "E-TWS-05"]),
        (true, &[transform(Append), Shape::Free, WITHIN], ["E-CHAIN-02", "E-TWS-05", "E-TWS-05"]),
        (true, &[timers(false), timers(false)], ["E-CHAIN-02", "E-TWS-05", "E-TWS-05"]),
        (true, &[timers(false), flat_map(Append, true)], ["E-CHAIN-02", "E-TWS-05", "E-TWS-05"]),
        (true, &[timers(false), DISTINCT, transform(Append)], [OK, "E-TWS-05", "E-TWS-05"]),
        (true, &[BY_WINDOW, BY_WINDOW], [OK, "E-CHAIN-01", "E-CHAIN-01"]),
        (true, &[BY_WINDOW, Shape::Free, DISTINCT], [OK, "E-CHAIN-01", "E-CHAIN-01"]),
        (true, &[event_time, BY_WINDOW], ["E-CHAIN-02"; 3]),
    ];
    for (timed, shapes, expected) in rows {
        for (mode, expected) in MODES.into_iter().zip(expected) {
            let codes = codes(mode, *timed, shapes);
            let first = codes.first().copied().unwrap_or(OK);
            assert_eq!(first, *expected, "{shapes:?} in {mode}, watermark: {timed}: {codes:?}");
        }
    }
}

//! Runs a script through a piece of a pipeline, cut in every way that must not matter.
//!
//! The same records go through record by record, as one frame, through channels of one frame, over several subtasks, and
//! with the state written to a store and read back by fresh copies of the operators after every record. All must
//! give the same results: an operator that keeps something in a field, or whose state does not survive its encoding, fails here.
//!
//! **Event time.** [`check_at`] gives records a time, and an `event_time` of yours makes watermarks of it. A watermark goes out
//! behind a frame, so which records are *late* depends on how the script is cut, as it does in production. A script that has
//! late records says its watermarks itself: [`check_steps`] cuts only behind them. The harness's clock begins in the year 2100.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::BoxError;
use crate::graph::Graph;
use crate::sink::{Encoder, IntoSink, SinkSpec};
use crate::testing::script::{ScriptSource, Step};
use crate::testing::simulation::{SimConfig, SimFailure, simulate};
use crate::testing::{Outside, SimSink};
use crate::time::Timestamp;

/// The results of a [`check`].
#[derive(Clone, Debug)]
pub struct ScriptSink<T> {
    pub(super) outside: Outside,
    pub(super) record: PhantomData<fn(T)>,
}

struct Packed;

impl<T: Serialize> Encoder<T> for Packed {
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(codec::encode_into(value, out)?)
    }
}

impl<T: Serialize + 'static> IntoSink<T> for ScriptSink<T> {
    fn into_sink(self) -> SinkSpec<T> {
        let spec: SinkSpec<()> = SimSink { outside: self.outside, seed: 0, faults: 0.0 }.into_sink();
        match spec {
            SinkSpec::Outbox { connector, .. } => SinkSpec::Outbox { encoder: Arc::new(Packed), connector },
            SinkSpec::Direct(_) => SinkSpec::Direct(Arc::new(|| Err("the script's sink is a level-2 sink".into()))),
        }
    }
}

/// A piece of a pipeline that does not do what it must.
#[derive(Debug)]
#[non_exhaustive]
pub enum HarnessFailure {
    /// The job failed under this cut.
    Failed {
        /// How the script was cut.
        cut: &'static str,
        /// What happened.
        failure: SimFailure,
    },
    /// The results are not those of the record-by-record run.
    Differs {
        /// How the script was cut.
        cut: &'static str,
        /// Both results.
        text: String,
    },
    /// A result cannot be read back.
    Unreadable {
        /// What the codec says.
        text: String,
    },
}

impl fmt::Display for HarnessFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { cut, failure } => write!(f, "{cut}: {failure}"),
            Self::Differs { cut, text } => {
                write!(f, "{cut}: the results differ; what must survive goes through state, not a field: {text}")
            }
            Self::Unreadable { text } => write!(f, "a result cannot be read back: {text}"),
        }
    }
}

impl std::error::Error for HarnessFailure {}

struct Cut {
    name: &'static str,
    batch: usize,
    per_life: usize,
    channel_frames: usize,
    parallelism: u16,
    ordered: bool,
    warm_up: u32,
}

/// How a script is cut; the first gives the results that the others are compared with.
const CUTS: [Cut; 5] = [
    Cut {
        name: "record by record",
        batch: 1,
        per_life: usize::MAX,
        channel_frames: 16,
        parallelism: 1,
        ordered: true,
        warm_up: 0,
    },
    Cut {
        name: "as one frame",
        batch: 256,
        per_life: usize::MAX,
        channel_frames: 16,
        parallelism: 1,
        ordered: true,
        warm_up: 0,
    },
    Cut {
        name: "an output of one frame",
        batch: 3,
        per_life: usize::MAX,
        channel_frames: 1,
        parallelism: 1,
        ordered: true,
        warm_up: 0,
    },
    Cut {
        name: "restored after every record",
        batch: 1,
        per_life: 1,
        channel_frames: 16,
        parallelism: 1,
        ordered: true,
        warm_up: 0,
    },
    Cut {
        name: "three subtasks",
        batch: 2,
        per_life: 4,
        channel_frames: 2,
        parallelism: 3,
        ordered: false,
        warm_up: 40,
    },
];

/// Runs `script` through the pipeline that `describe` builds between a source and a sink, and returns the results in order.
///
/// ```text
/// let counts = check(["a", "b", "a"].map(String::from), |source, sink| {
///     let pipeline = Pipeline::new("test");
///     pipeline.source("in", source).key_by(|word| word.clone()).count("count").sink("out", sink);
///     pipeline.into()
/// })?;
/// assert_eq!(counts, [("a".into(), 1), ("b".into(), 1), ("a".into(), 2)]);
/// ```
///
/// # Errors
/// [`HarnessFailure`] names the cut under which the job failed or the results differed.
pub fn check<In, Out>(
    script: impl IntoIterator<Item = In>,
    describe: impl Fn(ScriptSource<In>, ScriptSink<Out>) -> Graph,
) -> Result<Vec<Out>, HarnessFailure>
where
    In: Clone + Send + Sync + 'static,
    Out: Serialize + DeserializeOwned + 'static,
{
    check_at(script.into_iter().map(|value| (value, Timestamp::MIN)), describe)
}

/// Like [`check`], with event times.
///
/// # Errors
/// As [`check`].
pub fn check_at<In, Out>(
    script: impl IntoIterator<Item = (In, Timestamp)>,
    describe: impl Fn(ScriptSource<In>, ScriptSink<Out>) -> Graph,
) -> Result<Vec<Out>, HarnessFailure>
where
    In: Clone + Send + Sync + 'static,
    Out: Serialize + DeserializeOwned + 'static,
{
    check_cut(script.into_iter().collect(), BTreeSet::new(), describe)
}

/// Like [`check`], with event times and watermarks: a watermark is in force for every record behind it, in every cut.
///
/// ```text
/// check_steps([Record("a", at(5)), Watermark(at(7)), Record("late", at(6))], |source, sink| {
///     let pipeline = Pipeline::new("test");
///     let steps = pipeline.source("in", source).event_time_by(Step::time, Step::strategy());
///     steps.flat_map(Step::into_record)…
/// })
/// ```
///
/// # Errors
/// As [`check`].
pub fn check_steps<In, Out>(
    script: impl IntoIterator<Item = Step<In>>,
    describe: impl Fn(ScriptSource<Step<In>>, ScriptSink<Out>) -> Graph,
) -> Result<Vec<Out>, HarnessFailure>
where
    In: Clone + Send + Sync + 'static,
    Out: Serialize + DeserializeOwned + 'static,
{
    let script: Vec<_> = script.into_iter().collect();
    let marks = script.iter().enumerate().filter(|(_, step)| matches!(step, Step::Watermark(_)));
    let cuts = marks.map(|(index, _)| index).collect();
    check_cut(script.into_iter().map(|step| (step, Timestamp::MIN)).collect(), cuts, describe)
}

fn check_cut<In, Out>(
    script: Vec<(In, Timestamp)>,
    cuts: BTreeSet<usize>,
    describe: impl Fn(ScriptSource<In>, ScriptSink<Out>) -> Graph,
) -> Result<Vec<Out>, HarnessFailure>
where
    In: Clone + Send + Sync + 'static,
    Out: Serialize + DeserializeOwned + 'static,
{
    let script = ScriptSource { records: Arc::new(script), cuts: Arc::new(cuts), ..ScriptSource::default() };
    let mut expected: Option<Vec<Vec<u8>>> = None;
    for cut in CUTS {
        let mut rows = run(&cut, &script, &describe)?;
        let Some(expected) = &expected else {
            expected = Some(rows);
            continue;
        };
        let mut wanted = expected.clone();
        if !cut.ordered {
            rows.sort();
            wanted.sort();
        }
        if rows != wanted {
            let text = format!("{} results where {} were expected, or others", rows.len(), wanted.len());
            return Err(HarnessFailure::Differs { cut: cut.name, text });
        }
    }
    let decoded = expected.unwrap_or_default().iter().map(|row| codec::decode(row)).collect::<Result<_, _>>();
    decoded.map_err(|error| HarnessFailure::Unreadable { text: error.to_string() })
}

fn run<In, Out>(
    cut: &Cut,
    script: &ScriptSource<In>,
    describe: &impl Fn(ScriptSource<In>, ScriptSink<Out>) -> Graph,
) -> Result<Vec<Vec<u8>>, HarnessFailure> {
    let outside = Outside::default();
    let pipeline = || {
        let (batch, per_life, warm_up) = (cut.batch, cut.per_life, cut.warm_up);
        let source = ScriptSource { batch, per_life, warm_up, ..script.clone() };
        describe(source, ScriptSink { outside: outside.clone(), record: PhantomData })
    };
    let mut config = SimConfig::calm(1);
    config.parallelism = vec![cut.parallelism];
    config.channel_frames = cut.channel_frames;
    config.job.epoch_interval = Duration::from_millis(2);
    config.job.restart = crate::job::RestartPolicy::never();
    let life = if cut.warm_up > 0 { 30 } else { 10 };
    config.stop_after = (cut.per_life < usize::MAX).then_some(Duration::from_millis(life));
    match simulate(&config, &pipeline) {
        Ok(_) => Ok(outside.rows()),
        Err(failure) => Err(HarnessFailure::Failed { cut: cut.name, failure }),
    }
}

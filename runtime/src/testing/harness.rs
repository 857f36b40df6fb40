//! Runs a script through a piece of a pipeline, cut in every way that must not matter.
//!
//! The same records go through record by record, as one frame, through channels of one frame, over several subtasks, and
//! with the state written to a store and read back by fresh copies of the operators after every record. All must
//! give the same results: an operator that keeps something in a field, or whose state does not survive its encoding, fails here.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::BoxError;
use crate::graph::Graph;
use crate::position::{Position, SplitId};
use crate::record::Record;
use crate::sink::{Encoder, IntoSink, SinkSpec};
use crate::source::{Batch, Polled, Reader, Source};
use crate::testing::simulation::{SimConfig, SimFailure, simulate};
use crate::testing::{Outside, SimSink};
use crate::time::Timestamp;

/// The scripted input of a [`check`]: a source of one split.
#[derive(Clone, Debug)]
pub struct ScriptSource<T> {
    records: Arc<Vec<(T, Timestamp)>>,
    /// Records per batch.
    batch: usize,
    /// Records that are read before the job is stopped and started again.
    per_life: usize,
}

impl<T: Clone + Send + Sync + 'static> Source for ScriptSource<T> {
    type Out = T;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(vec![SplitId::new("script")])
    }

    fn reader(&self, _split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<T>>, BoxError> {
        let next = from.and_then(Position::as_u64).unwrap_or(0);
        Ok(Box::new(ScriptReader { source: self.clone(), next: usize::try_from(next)?, left: self.per_life }))
    }
}

struct ScriptReader<T> {
    source: ScriptSource<T>,
    next: usize,
    left: usize,
}

impl<T: Clone + Send + Sync + 'static> Reader<T> for ScriptReader<T> {
    fn poll(&mut self, batch: &mut Batch<T>, limit: usize) -> Result<Polled, BoxError> {
        let records = &self.source.records;
        let count = self.source.batch.min(limit).min(self.left).min(records.len() - self.next);
        let taken = records.iter().skip(self.next).take(count);
        batch.records.extend(taken.map(|(value, time)| Record::at(value.clone(), *time)));
        self.next += count;
        self.left -= count;
        batch.end = Position::from_u64(self.next as u64);
        Ok(if self.next == records.len() {
            Polled::End
        } else if count == 0 {
            Polled::Idle
        } else {
            Polled::More
        })
    }
}

/// The results of a [`check`].
#[derive(Clone, Debug)]
pub struct ScriptSink<T> {
    outside: Outside,
    record: PhantomData<fn(T)>,
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
}

/// How a script is cut; the first gives the results that the others are compared with.
const CUTS: [Cut; 5] = [
    Cut { name: "record by record", batch: 1, per_life: usize::MAX, channel_frames: 16, parallelism: 1, ordered: true },
    Cut { name: "as one frame", batch: 256, per_life: usize::MAX, channel_frames: 16, parallelism: 1, ordered: true },
    Cut {
        name: "an output of one frame",
        batch: 3,
        per_life: usize::MAX,
        channel_frames: 1,
        parallelism: 1,
        ordered: true,
    },
    Cut {
        name: "restored after every record",
        batch: 1,
        per_life: 1,
        channel_frames: 16,
        parallelism: 1,
        ordered: true,
    },
    Cut { name: "three subtasks", batch: 2, per_life: 4, channel_frames: 2, parallelism: 3, ordered: false },
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
    let records = Arc::new(script.into_iter().collect::<Vec<_>>());
    let mut expected: Option<Vec<Vec<u8>>> = None;
    for cut in CUTS {
        let mut rows = run(&cut, &records, &describe)?;
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
    records: &Arc<Vec<(In, Timestamp)>>,
    describe: &impl Fn(ScriptSource<In>, ScriptSink<Out>) -> Graph,
) -> Result<Vec<Vec<u8>>, HarnessFailure> {
    let outside = Outside::default();
    let pipeline = || {
        let source = ScriptSource { records: Arc::clone(records), batch: cut.batch, per_life: cut.per_life };
        describe(source, ScriptSink { outside: outside.clone(), record: PhantomData })
    };
    let mut config = SimConfig::calm(1);
    config.parallelism = vec![cut.parallelism];
    config.channel_frames = cut.channel_frames;
    config.job.epoch_interval = Duration::from_millis(2);
    config.job.restart = crate::job::RestartPolicy::never();
    config.stop_after = (cut.per_life < usize::MAX).then_some(Duration::from_millis(10));
    match simulate(&config, &pipeline) {
        Ok(_) => Ok(outside.rows()),
        Err(failure) => Err(HarnessFailure::Failed { cut: cut.name, failure }),
    }
}

//! Runs a script through a pipeline, in both modes and in every way that must not matter, and holds what it has sent by each drain
//! against what the row says.
//!
//! A script is a list of *drains*: records that come together, after which the pipeline is left alone until only time could bring
//! anything more. Runs are on the simulated store, on one thread, in virtual time: undisturbed with one subtask and with three; stopped
//! behind every drain and started again with another parallelism; crashed in every drain, at several places of it; and crashed at random
//! points. A row may ask for RocksDB besides, where every drain has a runtime of its own.

mod disk;
mod event;
mod source;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use millstream::operators::OutputMode;
use millstream::operators::prelude::*;
use millstream::runtime::fault::CrashPoint;
use millstream::runtime::id::ExecutionMode;
use millstream::runtime::job::RestartPolicy;
use millstream::runtime::operator::DropReason;
use millstream::runtime::sink::IntoSink;
use millstream::runtime::source::Source;
use millstream::runtime::testing::{Outside, SimConfig, SimControl, SimFailure, SimReport, SimSink, simulate};
use millstream::runtime::time::Timestamp;
use millstream::runtime::trigger::Trigger;

pub(super) use self::event::{Event, at, micros, number, on, says, seconds, secs, untimed};
use self::source::{Ends, Scripted};

/// What came of one run.
pub(super) struct Ran {
    /// What was sent by each drain, sorted.
    pub(super) drains: Vec<Vec<String>>,
    /// All that was sent, with its epoch.
    pub(super) rows: Vec<(u64, String)>,
    /// At the begin of each life: the drain that it is in, from 0, and how many rows had been delivered.
    pub(super) lives: Vec<(usize, usize)>,
    pub(super) report: SimReport,
}

/// What is read, and what the pipeline is told.
#[derive(Clone)]
pub(super) struct Script {
    /// By source, then by drain.
    inputs: Vec<Vec<Vec<Event>>>,
    mode: OutputMode,
    /// How far the watermark is behind, by source; no event times where there is none.
    delays: Vec<Option<Duration>>,
    /// How long a drain lasts.
    lasts: Duration,
    trigger: Trigger,
    interval: Duration,
    no_data_epochs: bool,
    begins: Option<Timestamp>,
    dropped: BTreeMap<DropReason, u64>,
    on_disk: bool,
    stops: bool,
    troubles: bool,
    control: Option<SimControl>,
}

/// How a run is disturbed.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    /// Stopped behind every drain.
    Stops,
    /// Crashed so long after every drain has begun.
    Crash(Duration),
    /// Crashed at points that the seed draws.
    Points(u64),
    /// Crashed at this point, the first few times that it is passed.
    At(CrashPoint),
}

/// Every run of a script in one mode: what it meets, and its parallelisms, life by life.
const RUNS: &[(Trouble, &[u16])] = &[
    (Trouble::None, &[1]),
    (Trouble::None, &[3]),
    (Trouble::Stops, &[1, 3]),
    (Trouble::Crash(Duration::ZERO), &[3, 1]),
    (Trouble::Crash(Duration::from_millis(2)), &[1, 3]),
    (Trouble::Crash(Duration::from_millis(700)), &[3, 1]),
    (Trouble::Points(1), &[1, 3, 2]),
    (Trouble::Points(2), &[3, 1]),
];

/// Between barriers, in continuous mode.
const INTERVAL: Duration = Duration::from_millis(500);

pub(super) const MODES: [ExecutionMode; 2] = [ExecutionMode::Continuous, ExecutionMode::MicroBatch];

impl Script {
    /// One source; *append*, no event times.
    pub(super) fn new<const N: usize>(drains: [Vec<Event>; N]) -> Self {
        Self {
            inputs: vec![drains.to_vec()],
            mode: OutputMode::Append,
            delays: vec![None],
            lasts: Duration::from_secs(2),
            trigger: Trigger::ProcessingTime(Duration::ZERO),
            interval: INTERVAL,
            no_data_epochs: true,
            begins: None,
            dropped: BTreeMap::new(),
            on_disk: false,
            stops: true,
            troubles: true,
            control: None,
        }
    }

    /// With a second source, whose records come in the same drains.
    pub(super) fn and<const N: usize>(mut self, drains: [Vec<Event>; N]) -> Self {
        assert_eq!(self.inputs[0].len(), N, "both sources have the same number of drains");
        self.inputs.push(drains.to_vec());
        self.delays.push(self.delays[0]);
        self
    }

    pub(super) const fn mode(mut self, mode: OutputMode) -> Self {
        self.mode = mode;
        self
    }

    /// Gives all sources event times, with a watermark that is so far behind, as in Spark.
    pub(super) fn delay(mut self, seconds: u64) -> Self {
        self.delays.fill(Some(secs(seconds)));
        self
    }

    /// How long each drain lasts; 2 s.
    pub(super) const fn lasting(mut self, lasts: Duration) -> Self {
        self.lasts = lasts;
        self
    }

    /// In micro-batches; as soon as there is something.
    pub(super) const fn trigger(mut self, trigger: Trigger) -> Self {
        self.trigger = trigger;
        self
    }

    /// Between barriers in continuous mode; half a second.
    pub(super) const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    pub(super) const fn no_data_epochs(mut self, run: bool) -> Self {
        self.no_data_epochs = run;
        self
    }

    /// When the run begins; the year 2100.
    pub(super) const fn beginning(mut self, begins: Timestamp) -> Self {
        self.begins = Some(begins);
        self
    }

    /// What is dropped and counted, besides nothing.
    pub(super) fn dropping(mut self, reason: DropReason, records: u64) -> Self {
        self.dropped.insert(reason, records);
        self
    }

    /// Runs it on RocksDB too.
    pub(super) const fn on_disk(mut self) -> Self {
        self.on_disk = true;
        self
    }

    /// Leaves out the runs with orderly stops.
    pub(super) const fn without_stops(mut self) -> Self {
        self.stops = false;
        self
    }

    /// Leaves out all runs in which lives end: time would not be what the row says.
    pub(super) const fn undisturbed(mut self) -> Self {
        self.troubles = false;
        self
    }

    /// Gives a hand on the next run to the test: for one run only, since its clock goes on.
    pub(super) fn controlled_by(mut self, control: &SimControl) -> Self {
        self.control = Some(control.clone());
        self
    }

    /// Holds both modes against the same results, drain by drain. In which order a drain's results leave is not said.
    #[track_caller]
    pub(super) fn gives<Out: Debug + Send + 'static, const N: usize>(
        &self,
        describe: impl Fn(Stream<Event>) -> Stream<Out>,
        wanted: [Vec<Out>; N],
    ) {
        self.gives_of(|inputs| describe(inputs.into_iter().next().unwrap()), [&wanted, &wanted]);
    }

    /// As [`Script::gives`], where results differ: in continuous mode, and in micro-batches.
    #[track_caller]
    pub(super) fn gives_apart<Out: Debug + Send + 'static, const N: usize>(
        &self,
        describe: impl Fn(Stream<Event>) -> Stream<Out>,
        continuous: [Vec<Out>; N],
        batches: [Vec<Out>; N],
    ) {
        self.gives_of(|inputs| describe(inputs.into_iter().next().unwrap()), [&continuous, &batches]);
    }

    /// As [`Script::gives`], of two sources.
    #[track_caller]
    pub(super) fn gives_of_two<Out: Debug + Send + 'static, const N: usize>(
        &self,
        describe: impl Fn(Stream<Event>, Stream<Event>) -> Stream<Out>,
        wanted: [Vec<Out>; N],
    ) {
        let both = |inputs: Vec<Stream<Event>>| {
            let [left, right] = <[_; 2]>::try_from(inputs).unwrap();
            describe(left, right)
        };
        self.gives_of(both, [&wanted, &wanted]);
    }

    #[track_caller]
    fn gives_of<Out: Debug + Send + 'static>(
        &self,
        describe: impl Fn(Vec<Stream<Event>>) -> Stream<Out>,
        wanted: [&[Vec<Out>]; 2],
    ) {
        for (mode, wanted) in MODES.into_iter().zip(wanted) {
            self.gives_in(mode, &describe, wanted);
        }
    }

    /// Holds one mode against results.
    #[track_caller]
    pub(super) fn gives_in<Out: Debug + Send + 'static>(
        &self,
        mode: ExecutionMode,
        describe: impl Fn(Vec<Stream<Event>>) -> Stream<Out>,
        wanted: &[Vec<Out>],
    ) {
        let wanted: Vec<Vec<String>> = wanted.iter().map(|drain| sorted(drain.iter().map(text))).collect();
        for (trouble, parallelism) in RUNS {
            let leave_out = match trouble {
                Trouble::None => false,
                Trouble::Stops => !(self.stops && self.troubles),
                _ => !self.troubles,
            };
            if leave_out {
                continue;
            }
            let ran = self.run(mode, *trouble, parallelism, &describe);
            assert_eq!(ran.drains, wanted, "{mode:?}, {trouble:?}, parallelism {parallelism:?}");
            if matches!(trouble, Trouble::None) {
                let dropped = ran.report.dropped.into_iter().filter(|(_, records)| *records > 0);
                let dropped: BTreeMap<_, _> = dropped.collect();
                assert_eq!(dropped, self.dropped, "dropped in {mode:?}, parallelism {parallelism:?}");
            }
        }
        if self.on_disk {
            assert_eq!(disk::run(self, mode, &describe), wanted, "{mode:?} on RocksDB");
        }
    }

    /// Undisturbed, with one subtask: for rows that look at more than results.
    pub(super) fn calm<Out: Debug + Send + 'static>(
        &self,
        mode: ExecutionMode,
        describe: impl Fn(Vec<Stream<Event>>) -> Stream<Out>,
    ) -> Ran {
        self.run(mode, Trouble::None, &[1], &describe)
    }

    /// Crashes at a point of the protocol, four times if it is passed as often.
    #[track_caller]
    pub(super) fn crashing_at<Out: Debug + Send + 'static>(
        &self,
        mode: ExecutionMode,
        point: CrashPoint,
        describe: impl Fn(Stream<Event>) -> Stream<Out>,
    ) -> Ran {
        let one = |inputs: Vec<Stream<Event>>| describe(inputs.into_iter().next().unwrap());
        self.run(mode, Trouble::At(point), &[1, 3], &one)
    }

    /// Runs it once without any restart, and returns what it fails with.
    #[track_caller]
    pub(super) fn failure<Out: Debug + Send + 'static>(
        &self,
        mode: ExecutionMode,
        describe: impl Fn(Stream<Event>) -> Stream<Out>,
    ) -> String {
        let one = |inputs: Vec<Stream<Event>>| describe(inputs.into_iter().next().unwrap());
        let ran = self.try_run(mode, (Trouble::None, RestartPolicy::never()), &[1], &one);
        ran.err().expect("it runs").to_string()
    }

    #[track_caller]
    fn run<Out: Debug + Send + 'static>(
        &self,
        mode: ExecutionMode,
        trouble: Trouble,
        parallelism: &[u16],
        describe: &dyn Fn(Vec<Stream<Event>>) -> Stream<Out>,
    ) -> Ran {
        let restart = RestartPolicy::at_most(1_000).backoff(Duration::from_millis(1));
        let ran = self.try_run(mode, (trouble, restart), parallelism, describe);
        ran.unwrap_or_else(|failure| panic!("{mode:?}, {trouble:?}, {parallelism:?}: {failure}"))
    }

    fn try_run<Out: Debug + Send + 'static>(
        &self,
        mode: ExecutionMode,
        (trouble, restart): (Trouble, RestartPolicy),
        parallelism: &[u16],
        describe: &dyn Fn(Vec<Stream<Event>>) -> Stream<Out>,
    ) -> Result<Ran, SimFailure> {
        let (outside, control) = (Outside::default(), self.control.clone().unwrap_or_default());
        let ends = match trouble {
            Trouble::Stops => Ends::Stop,
            Trouble::Crash(after) => Ends::Crash(after),
            Trouble::None | Trouble::Points(_) | Trouble::At(_) => Ends::Never,
        };
        let scripted = Scripted::new(&self.inputs, self.lasts, ends, (control.clone(), outside.clone()));
        let mut config = SimConfig { parallelism: parallelism.to_vec(), control: Some(control), ..SimConfig::calm(7) };
        if let Trouble::Points(seed) = trouble {
            config = SimConfig { seed, crashes: 6, crash_chance: 0.1, ..config };
        }
        if let Trouble::At(point) = trouble {
            config = SimConfig { crashes: 4, crash_chance: 1.0, crash_point: Some(point), ..config };
        }
        config.begins = self.begins.unwrap_or(config.begins);
        config.job.restart = restart;
        config.job.epoch_interval = self.interval;
        config.job.no_data_epochs = self.no_data_epochs;
        config.job.trigger = (mode == ExecutionMode::MicroBatch).then_some(self.trigger);
        let pipeline = || {
            let sink = SimSink { outside: outside.clone(), seed: 0, faults: 0.0 };
            self.describe(|index| scripted.source(index), describe, sink).into()
        };
        let report = simulate(&config, &pipeline)?;
        if matches!(trouble, Trouble::Crash(_)) {
            assert_eq!(report.crashes, self.inputs[0].len() as u64, "a crash in every drain");
        }
        let rows = outside.rows_of_epochs().into_iter();
        let rows = rows.map(|(epoch, row)| (epoch.number(), String::from_utf8_lossy(&row).into_owned())).collect();
        Ok(Ran { drains: scripted.drains(), rows, lives: scripted.lives(), report })
    }

    /// The pipeline: sources with their event times, what the row is about, a sink of texts.
    fn describe<S: Source<Out = Event>, Out: Debug + Send + 'static>(
        &self,
        source: impl Fn(usize) -> S,
        describe: &dyn Fn(Vec<Stream<Event>>) -> Stream<Out>,
        sink: impl IntoSink<Text>,
    ) -> Pipeline {
        let pipeline = Pipeline::new("row").output_mode(self.mode);
        let inputs = self.delays.iter().enumerate().map(|(index, delay)| {
            let events = pipeline.source(&format!("in{index}"), source(index));
            let Some(delay) = delay else { return events };
            let strategy = WatermarkStrategy::delayed(*delay).max_ahead(Duration::MAX);
            events.event_time_by(|event: &Event| event.time, strategy)
        });
        describe(inputs.collect()).map(|row| Text(text(&row))).sink("out", sink);
        pipeline
    }
}

/// A result as text, which its own debug form is.
struct Text(String);

impl Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn text(row: &impl Debug) -> String {
    format!("{row:?}")
}

fn sorted(rows: impl Iterator<Item = String>) -> Vec<String> {
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    rows
}

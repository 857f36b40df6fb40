//! What a job says when its metrics are collected: reads counters, computes nothing ahead of time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::config::RuntimeConfig;
use crate::actor::link::{SubtaskView, View};
use crate::graph::VertexKind;
use crate::id::TaskId;
use crate::job::{FailureKind, JobTally, PartPhase, RestartReason};
use crate::metrics::{Collect, Label, MetricsLevel, Samples, Summary, TimeState, names};
use crate::operator::{DeadLetterKind, DeadLetters, DropReason, Dropped};
use crate::plan::{ChannelProbe, Plan};
use crate::time::{SharedClock, Timestamp};

/// An operator as metrics tell of it.
struct OperatorView {
    name: String,
    kind: String,
    /// Names of the operators of its task.
    chain: String,
    role: Role,
    /// Records that reach it have event times.
    timed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Source,
    Operator,
    Sink,
}

fn operators(plan: &Plan) -> Vec<OperatorView> {
    let graph = plan.graph();
    let views = plan.tasks().iter().flat_map(|task| {
        let vertices = || task.vertices.iter().filter_map(|id| Some((*id, graph.vertex(*id)?)));
        let chain = vertices().map(|(_, vertex)| vertex.name.as_str()).collect::<Vec<_>>().join(" > ");
        vertices().map(move |(id, vertex)| OperatorView {
            name: vertex.name.clone(),
            kind: vertex.kind.label().to_owned(),
            chain: chain.clone(),
            role: match vertex.kind {
                VertexKind::Source(_) => Role::Source,
                VertexKind::Operator(_) => Role::Operator,
                VertexKind::Sink(_) => Role::Sink,
            },
            timed: graph.is_timed(id),
        })
    });
    views.collect()
}

/// The names of a task's operators, its head first.
fn names_of(plan: &Plan, task: TaskId) -> Vec<String> {
    let task = plan.tasks().iter().find(|planned| planned.id == task);
    let vertices = task.into_iter().flat_map(|task| &task.vertices);
    vertices.filter_map(|id| Some(plan.graph().vertex(*id)?.name.clone())).collect()
}

fn label(text: &str) -> Label {
    text.to_owned().into()
}

fn unix_seconds(time: Timestamp) -> f64 {
    time.as_micros() as f64 / 1e6
}

/// What counts for the whole job, over its attempts.
pub(super) struct JobCollector {
    pipeline: String,
    topology: String,
    parallelism: u16,
    operators: Vec<OperatorView>,
    /// Names of the operators of each task.
    tasks: Vec<(TaskId, Vec<String>)>,
    /// Names of those that the store knows, in the order of their numbers in the tally.
    declared: Vec<String>,
    epoch_interval: Duration,
    view: Arc<View>,
}

impl JobCollector {
    pub(super) fn new(plan: &Plan, config: &RuntimeConfig, view: Arc<View>) -> Self {
        Self {
            pipeline: plan.name().to_owned(),
            topology: format!("{:08x}", crc32fast::hash(plan.graph().to_dot().as_bytes())),
            parallelism: plan.parallelism(),
            operators: operators(plan),
            tasks: plan.tasks().iter().map(|task| (task.id, names_of(plan, task.id))).collect(),
            declared: plan.declarations().into_iter().map(|declared| declared.name).collect(),
            epoch_interval: config.job.epoch_interval,
            view,
        }
    }

    fn describe(&self, into: &mut Samples) {
        let pipeline = || label(&self.pipeline);
        into.gauge(&names::PIPELINE_INFO, [pipeline(), label(&self.topology)], 1.0);
        for operator in &self.operators {
            let OperatorView { name, kind, chain, .. } = operator;
            into.gauge(&names::OPERATOR_INFO, [pipeline(), label(name), label(kind), label(chain)], 1.0);
            into.gauge(&names::OPERATOR_PARALLELISM, [pipeline(), label(name)], f64::from(self.parallelism));
        }
    }
}

impl Collect for JobCollector {
    fn collect(&self, into: &mut Samples) {
        let tally = self.view.tally();
        let pipeline = || label(&self.pipeline);
        self.describe(into);
        tally.state.put(&self.pipeline, into);
        if let Some(since) = tally.running_since {
            into.gauge(&names::PIPELINE_START, [pipeline()], unix_seconds(since));
        }
        for reason in RestartReason::ALL {
            let count = tally.restarts.get(&reason).copied().unwrap_or_default();
            into.count(&names::PIPELINE_RESTARTS, [pipeline(), reason.label().into()], count);
        }
        // All that there may be are there with 0, so that the first one is seen to rise.
        let possible = self.operators.iter().flat_map(|operator| {
            let kinds: &[FailureKind] = match operator.role {
                Role::Source => &FailureKind::OF_SOURCES,
                Role::Operator => &FailureKind::OF_OPERATORS,
                Role::Sink => &FailureKind::OF_SINKS,
            };
            kinds.iter().map(|kind| (operator.name.as_str(), *kind))
        });
        for (operator, kind) in possible.chain(FailureKind::OF_NOBODY.map(|kind| ("", kind))) {
            into.count(&names::PIPELINE_FAILURES, [pipeline(), label(operator), kind.label().into()], 0);
        }
        for ((operator, kind), count) in &tally.failures {
            into.count(&names::PIPELINE_FAILURES, [pipeline(), label(operator), kind.label().into()], *count);
        }
        for operator in &self.operators {
            let failures = |kind| tally.failures.get(&(operator.name.clone(), kind)).copied().unwrap_or_default();
            let returned = failures(FailureKind::Error) + failures(FailureKind::Source);
            for (kind, count) in [("error", returned), ("panic", failures(FailureKind::Panic))] {
                into.count(&names::ERRORS, [pipeline(), label(&operator.name), kind.into()], count);
            }
        }
        self.collect_checkpoints(&tally, into);
        for (result, count) in [("ok", tally.restored), ("failed", tally.not_restored)] {
            into.count(&names::RESTORES, [pipeline(), result.into()], count);
        }
        if let Some((took, epoch)) = tally.restore {
            into.gauge(&names::RESTORE_LAST_DURATION, [pipeline()], took.as_secs_f64());
            into.gauge(&names::RESTORE_LAST_EPOCH, [pipeline()], epoch.number() as f64);
        }
    }
}

impl JobCollector {
    fn collect_checkpoints(&self, tally: &JobTally, into: &mut Samples) {
        let pipeline = || label(&self.pipeline);
        let results = [("completed", tally.completed), ("failed", tally.failed), ("timed_out", tally.timed_out)];
        for (result, count) in results {
            into.count(&names::CHECKPOINTS, [pipeline(), result.into()], count);
        }
        into.gauge(&names::CHECKPOINTS_IN_PROGRESS, [pipeline()], tally.in_progress as f64);
        into.gauge(&names::CHECKPOINT_INTERVAL, [pipeline()], self.epoch_interval.as_secs_f64());
        for (number, name) in self.declared.iter().enumerate() {
            let written = tally.operators.get(number).and_then(|id| tally.written_bytes.get(id));
            let written = written.copied().unwrap_or_default();
            into.count(&names::CHECKPOINT_WRITTEN, [pipeline(), label(name)], written);
        }
        into.times(&names::CHECKPOINT_DURATION, [pipeline()], tally.duration.clone());
        into.times(&names::CHECKPOINT_PHASE, [pipeline(), "persist".into()], tally.persist.clone());
        for (phase, times) in PartPhase::ALL.iter().zip(&tally.phases) {
            into.times(&names::CHECKPOINT_PHASE, [pipeline(), phase.label().into()], times.clone());
        }
        if let Some(last) = tally.last() {
            into.gauge(&names::CHECKPOINT_LAST_DURATION, [pipeline()], last.duration.as_secs_f64());
            into.gauge(&names::CHECKPOINT_LAST_SIZE, [pipeline(), "written".into()], last.bytes as f64);
            into.gauge(&names::CHECKPOINT_LAST_EPOCH, [pipeline()], last.epoch.number() as f64);
            into.gauge(&names::CHECKPOINT_LAST_COMPLETED, [pipeline()], unix_seconds(last.at));
            let phase = |operator: &str, phase: &'static str| [pipeline(), label(operator), phase.into()];
            into.gauge(&names::CHECKPOINT_LAST_PHASE, phase("", "persist"), last.persist.as_secs_f64());
            for (task, operators) in &self.tasks {
                let slowest = last.slowest.get(task).copied().unwrap_or_default();
                for (of, time) in PartPhase::ALL.iter().zip(slowest) {
                    for operator in operators {
                        into.gauge(&names::CHECKPOINT_LAST_PHASE, phase(operator, of.label()), time.as_secs_f64());
                    }
                }
            }
        }
        let live = self.view.state().and_then(|state| state.share.try_with(|store| store.live_bytes())).flatten();
        if let Some(bytes) = live {
            into.gauge(&names::CHECKPOINT_LAST_SIZE, [pipeline(), "full".into()], bytes as f64);
        }
    }
}

/// What counts for one attempt, from zero.
pub(super) struct AttemptCollector {
    pipeline: String,
    /// With the names of their operators.
    subtasks: Vec<(SubtaskView, Vec<String>)>,
    operators: BTreeMap<String, OperatorView>,
    channels: Vec<ChannelProbe>,
    channel_frames: usize,
    level: MetricsLevel,
    clock: SharedClock,
}

impl AttemptCollector {
    pub(super) fn new(
        plan: &Plan,
        subtasks: Vec<SubtaskView>,
        channels: Vec<ChannelProbe>,
        (config, clock): (&RuntimeConfig, SharedClock),
    ) -> Self {
        Self {
            pipeline: plan.name().to_owned(),
            subtasks: subtasks.into_iter().map(|view| (view.clone(), names_of(plan, view.subtask.task))).collect(),
            operators: operators(plan).into_iter().map(|view| (view.name.clone(), view)).collect(),
            channels,
            channel_frames: config.channel_frames,
            level: config.metrics,
            clock,
        }
    }

    fn collect_subtask(&self, view: &SubtaskView, operators: &[String], now: Timestamp, into: &mut Samples) {
        let SubtaskView { subtask, control, source, .. } = view;
        let index = || Label::from(subtask.index.to_string());
        let pipeline = || label(&self.pipeline);
        let meter = control.meter();
        let split = meter.is_counting().then(|| meter.split(now));
        for operator in operators {
            let labels = || [pipeline(), label(operator), index()];
            for (state, time) in TimeState::ALL.iter().zip(split.into_iter().flatten()) {
                into.time(&names::TIME, [pipeline(), label(operator), index(), state.label().into()], time);
            }
            into.gauge(&names::BACKPRESSURED, labels(), f64::from(u8::from(control.is_blocked())));
            if let Some(at) = meter.last_turn() {
                into.gauge(&names::LAST_PROGRESS, labels(), unix_seconds(at));
            }
        }
        if let Some((source, head)) = source.as_ref().zip(operators.first()) {
            into.gauge(&names::MAILBOX, [pipeline(), label(head), index()], source.waiting() as f64);
        }
        for (operator, meter) in control.operators() {
            let Some(of) = self.operators.get(&*operator) else { continue };
            let labels = || [pipeline(), label(&operator), index()];
            if let Some(times) = meter.process_times().filter(|_| of.role != Role::Source) {
                into.times(&names::PROCESS, [pipeline(), label(&operator)], times);
            }
            if let Some(watermark) = meter.watermark() {
                into.gauge(&names::WATERMARK, labels(), unix_seconds(watermark));
            }
            match of.role {
                Role::Source => into.count(&names::SOURCE_RECORDS, labels(), meter.given().0),
                Role::Operator => {}
                Role::Sink => into.count(&names::SINK_RECORDS, labels(), meter.taken().0),
            }
            if of.role != Role::Source {
                let (records, frames) = meter.taken();
                into.count(&names::RECORDS_IN, labels(), records);
                into.count(&names::FRAMES_IN, labels(), frames);
            }
            if of.role != Role::Sink {
                let (records, frames) = meter.given();
                into.count(&names::RECORDS_OUT, labels(), records);
                into.count(&names::FRAMES_OUT, labels(), frames);
            } else {
                let latency = meter.latency();
                let (recent, count, sum) = (meter.recent(now), latency.count(), latency.sum());
                let window = Summary { recent, count, sum };
                into.summary(&names::LATENCY_WINDOW, [pipeline(), label(&operator)], window);
                into.times(&names::LATENCY, [pipeline(), label(&operator)], latency);
                if of.timed {
                    into.times(&names::EVENT_TIME_LATENCY, [pipeline(), label(&operator)], meter.event_time_latency());
                }
            }
        }
        for dropped in control.dropped() {
            let Dropped { operator, reason, records } = dropped;
            into.count(&names::RECORDS_DROPPED, [pipeline(), label(&operator), reason.label().into()], records);
            if reason == DropReason::Skipped {
                into.count(&names::ERRORS, [pipeline(), label(&operator), "error".into()], records);
            }
        }
        for letters in control.dead_letters() {
            let DeadLetters { operator, kind, records } = letters;
            into.count(&names::DEAD_LETTERS, [pipeline(), label(&operator), kind.label().into()], records);
            if kind == DeadLetterKind::Error {
                into.count(&names::ERRORS, [pipeline(), label(&operator), "error".into()], records);
            }
        }
        for (channel, meter) in control.outputs() {
            into.time(&names::CHANNEL_BLOCKED, [pipeline(), label(&channel)], meter.waited(now));
        }
    }

    fn collect_channels(&self, into: &mut Samples) {
        let mut queues: BTreeMap<(&str, u16), (u64, usize, usize)> = BTreeMap::new();
        let mut held: BTreeMap<&str, usize> = BTreeMap::new();
        for ChannelProbe { channel, receiver, subtask, probe } in &self.channels {
            let (frames, records, links) = queues.entry((channel, *subtask)).or_default();
            *frames += probe.frames();
            *records += probe.records();
            *links += 1;
            *held.entry(receiver).or_default() += probe.held_records();
            if self.level >= MetricsLevel::Debug {
                into.times(&names::CHANNEL_WAIT, [label(&self.pipeline), label(channel)], probe.waits());
            }
        }
        for (operator, records) in held {
            into.gauge(&names::CHECKPOINT_BUFFERED, [label(&self.pipeline), label(operator)], records as f64);
        }
        for ((channel, subtask), (frames, records, links)) in queues {
            let labels = || [label(&self.pipeline), label(channel), Label::from(subtask.to_string())];
            into.gauge(&names::CHANNEL_FRAMES, labels(), frames as f64);
            into.gauge(&names::CHANNEL_RECORDS, labels(), records as f64);
            let capacity = (links * self.channel_frames) as f64;
            into.gauge(&names::CHANNEL_CAPACITY, [label(&self.pipeline), label(channel)], capacity);
        }
    }
}

impl Collect for AttemptCollector {
    fn collect(&self, into: &mut Samples) {
        let now = self.clock.now();
        for (view, operators) in &self.subtasks {
            self.collect_subtask(view, operators, now, into);
        }
        self.collect_channels(into);
    }
}

//! One run: baseline, warm-up, measured phase, drain, check.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use millstream::prelude::*;
use millstream::runtime::config::LatencyPolicy;

use crate::args::{Backend, Mode};
use crate::check::Tally;
use crate::clock::{Stopwatch, nanos};
use crate::hiccup::HiccupMeter;
use crate::latency::Latency;
use crate::pacing::Pacing;
use crate::probe::{Probe, Probes, Processed, Visible};
use crate::progress::Progress;
use crate::report::{
    Counts, Env, Epochs, Latencies, Phases, PipelineOf, RESULT, Rates, Run, RunResult, ScheduleOf, Verdict,
    VisibleCounts, WorkloadOf,
};
use crate::schedule::{DueTimes, Spec};
use crate::search::Step;
use crate::slo::Slo;
use crate::source::{LoadSource, Senders, Times, lock};
use crate::steady::{Second, Trend, is_steady};
use crate::validity::{Evidence, exit_code, judge};
use crate::workload::Workload;

const SECOND: u64 = 1_000_000_000;
/// How far ahead of its announcement a phase begins, so that no sender is past it already.
const AHEAD: u64 = 20_000_000;

/// What a run is to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) workload: Workload,
    pub(crate) name: String,
    pub(crate) spec: Spec,
    pub(crate) rate: f64,
    pub(crate) seed: u64,
    pub(crate) senders: u16,
    pub(crate) pacing: Pacing,
    pub(crate) baseline: Duration,
    pub(crate) warmup_min: Duration,
    pub(crate) warmup_max: Duration,
    pub(crate) duration: Duration,
    pub(crate) drain: Duration,
    pub(crate) parallelism: u16,
    /// Nothing: no epoch closes while records flow.
    pub(crate) epoch_interval: Option<Duration>,
    /// In micro-batches there are epochs.
    pub(crate) mode: Mode,
    pub(crate) latency_policy: LatencyPolicy,
    pub(crate) policy_name: String,
    pub(crate) backend: Backend,
    pub(crate) visible: bool,
    pub(crate) strict: bool,
    pub(crate) slos: Vec<Slo>,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) result: RunResult,
    pub(crate) step: Step,
    pub(crate) exit: u8,
}

/// Looks at the run once a second.
struct Watch<'a> {
    times: &'a Times,
    senders: &'a Senders,
    processed: &'a Probes,
    outputs: u64,
    schedule: std::iter::Peekable<DueTimes>,
    due: u64,
    seen: Second,
    progress: &'a mut Progress,
}

impl Watch<'_> {
    /// Sleeps until `at`, in pieces, and says whether it was not interrupted.
    fn sleep_until(&self, at: u64, interrupted: &AtomicBool) -> bool {
        while !interrupted.load(Ordering::Acquire) {
            let now = self.times.clock.nanos();
            if now >= at {
                return true;
            }
            std::thread::sleep(Duration::from_nanos((at - now).min(50_000_000)));
        }
        false
    }

    /// Takes what happened since the last look.
    fn second(&mut self, begin: u64, end: u64, phase: &str) -> anyhow::Result<Second> {
        let now = self.times.clock.nanos().min(end);
        while self.schedule.next_if(|due| begin + due < now).is_some() {
            self.due += 1;
        }
        let (sent, completed) = (self.senders.sum(|sender| sender.sent), self.processed.completed() / self.outputs);
        let window = self.processed.take_window()?;
        let second = Second {
            scheduled: self.due - self.seen.scheduled,
            sent: sent - self.seen.sent,
            completed: completed - self.seen.completed,
            backlog: self.due.saturating_sub(completed),
            p50_ns: window.quantile(0.5),
            p99_ns: window.quantile(0.99),
            max_ns: window.max(),
        };
        self.seen = Second { scheduled: self.due, sent, completed, ..Second::default() };
        self.progress.second(phase, &second);
        Ok(second)
    }
}

/// Runs a plan on a fresh pipeline.
pub(crate) fn run(plan: &Plan, interrupted: &AtomicBool, progress: &mut Progress) -> anyhow::Result<Outcome> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pacing = plan.pacing.resolve(cores, usize::from(plan.parallelism), usize::from(plan.senders));
    let started = humantime::format_rfc3339_seconds(wall_clock()).to_string();
    let mut env = Env::read();
    let clock = Stopwatch::start();
    let times = Arc::new(Times::new(clock));
    let epochs_on = plan.epoch_interval.is_some();
    let senders = Senders::new(Arc::clone(&times), plan.spec.clone(), plan.seed, pacing, epochs_on, plan.senders)?;
    let processed = Probes::new(Arc::clone(&times), plan.senders);
    let visible = (plan.visible && epochs_on).then(|| Probes::new(Arc::clone(&times), plan.senders));
    let hiccups = HiccupMeter::start(clock)?;

    #[cfg(feature = "rocksdb")]
    let directory = tempfile::Builder::new().prefix("millstream-loadtest-").tempdir()?;
    let pipeline = Pipeline::new("loadtest")
        .parallelism(plan.parallelism)
        // Epochs that never come: longer than any run.
        .epoch_interval(plan.epoch_interval.unwrap_or(Duration::from_secs(365 * 86_400)));
    let pipeline = match (plan.mode, plan.epoch_interval) {
        (Mode::MicroBatch, Some(interval)) => pipeline.trigger(Trigger::ProcessingTime(interval)),
        _ => pipeline,
    };
    let source = pipeline.source("load", LoadSource(senders.clone()));
    plan.workload.build(source, Processed(processed.clone()), visible.clone().map(Visible));
    let builder = Runtime::builder().workers(usize::from(plan.parallelism)).latency_policy(plan.latency_policy);
    let builder = match plan.backend {
        Backend::Memory => builder.state_backend(Memory::new()),
        #[cfg(feature = "rocksdb")]
        Backend::Rocksdb => builder.state_backend(RocksDb::at(directory.path())),
    };
    let runtime = builder.build().context("the runtime refuses its options")?;
    let job = runtime.start(pipeline).context("the pipeline does not start")?;

    let mut watch = Watch {
        times: &times,
        senders: &senders,
        processed: &processed,
        outputs: plan.workload.outputs(),
        schedule: plan.spec.due_times(plan.seed).peekable(),
        due: 0,
        seen: Second::default(),
        progress,
    };
    hiccups.take();
    let mut going = watch.sleep_until(clock.nanos() + nanos(plan.baseline), interrupted);
    let hiccup_baseline = hiccups.take();

    let begin = clock.nanos() + AHEAD;
    times.begin_at(begin);
    let (mut warm_up, mut steady, mut ticks) = (Vec::new(), false, 0);
    while going && clock.nanos() < begin + nanos(plan.warmup_max) {
        ticks += 1;
        going = watch.sleep_until(begin + ticks * SECOND, interrupted);
        warm_up.push(watch.second(begin, u64::MAX, "warm-up")?);
        if clock.nanos() >= begin + nanos(plan.warmup_min) && is_steady(&warm_up) {
            steady = true;
            break;
        }
        fail_early(&job)?;
    }

    hiccups.take();
    let cpu = CpuTimes::read();
    let from = clock.nanos() + AHEAD;
    let epochs_before = job.status().committed.number();
    times.measure(from, from.saturating_add(nanos(plan.duration)));
    watch.progress.say(&format!("measuring for {:?} from here on", plan.duration));
    let mut timeline = Vec::new();
    let mut at = from;
    while going && at < times.end() {
        at = (at + SECOND).min(times.end());
        going = watch.sleep_until(at, interrupted);
        timeline.push(watch.second(begin, times.end(), "measure")?);
        fail_early(&job)?;
    }
    if !going {
        times.stop_at(clock.nanos());
    }
    let end = times.end();
    let in_time = processed.merged()?.response.count();
    let status = job.status();
    let hiccup = hiccups.take();
    let steal = CpuTimes::steal_since(cpu);

    // Drain: everything that was due before the end has to come out, then to be committed.
    let limit = clock.nanos() + nanos(plan.drain);
    let sent = || senders.all.iter().map(|sender| lock(sender).sent).collect::<Vec<_>>();
    let total = || sent().iter().sum::<u64>() * plan.workload.outputs();
    let finished = || senders.all.iter().all(|sender| lock(sender).finished);
    let mut drain_s = None;
    while clock.nanos() < limit && job.status().restarts == 0 {
        if finished() && processed.completed() >= total() {
            drain_s = Some(clock.nanos().saturating_sub(end) as f64 / 1e9);
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let settled = || {
        senders.sum(|sender| sender.committed) >= senders.sum(|sender| sender.sent)
            && visible.as_ref().is_none_or(|probes| probes.completed() >= total())
    };
    while epochs_on && drain_s.is_some() && clock.nanos() < limit && !settled() && job.status().restarts == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let restarts = job.status().restarts;
    ensure!(restarts == 0, "the pipeline failed during the run: {:?}", job.status().last_failure);
    // Delivers what an epoch that never came has kept, too.
    job.stop_blocking(Duration::from_secs(60)).context("the pipeline does not stop")?;
    watch.progress.end();

    let expected = plan.workload.expected(sent());
    let seen = processed.merged()?;
    let tally = seen.check.judge(&expected);
    let committed = visible.as_ref().map(Probes::merged).transpose()?;
    let committed_tally =
        committed.as_ref().map(|probe| probe.check.judge(&crate::check::Expected { counts: None, ..expected.clone() }));
    let (mut lag, mut durable, mut sender_nice) = (Latency::new()?, Latency::new()?, None);
    for sender in senders.all.iter() {
        let sender = lock(sender);
        lag.merge(&sender.lag)?;
        durable.merge(&sender.durable)?;
        (env.timer_slack_ns, sender_nice) = (sender.timer_slack, sender.nice);
    }
    let measure_s = end.saturating_sub(from) as f64 / 1e9;
    let epochs_committed = status.committed.number() - epochs_before;
    let (validity, reasons) = judge(
        &Evidence {
            processed_p99: seen.response.quantile(0.99),
            lag_p99: lag.quantile(0.99),
            hiccup_p99: hiccup.rough_quantile(0.99),
            baseline_p99: hiccup_baseline.rough_quantile(0.99),
            steal,
            steady,
            epochs: plan.epoch_interval.map(|interval| (measure_s / interval.as_secs_f64(), epochs_committed)),
        },
        plan.strict,
    );
    let scheduled = plan
        .spec
        .due_times(plan.seed)
        .map(|due| begin + due)
        .skip_while(|due| *due < from)
        .take_while(|due| *due < end)
        .count() as u64;
    let backlog: Vec<f64> = timeline.iter().map(|second| second.backlog as f64).collect();
    let tallies: Vec<Tally> = std::iter::once(tally).chain(committed_tally).collect();
    let interrupted = !going;
    let sent_measured = senders.sum(|sender| sender.sent_measured);
    let completed_in_time = in_time / plan.workload.outputs();
    let step = Step {
        rate: plan.rate,
        scheduled,
        sent: sent_measured,
        completed_in_time,
        seconds: timeline.clone(),
        drain_s,
        clean: tallies.iter().all(Tally::is_clean),
    };
    let mut result = RunResult {
        schema: RESULT.to_owned(),
        run: Run {
            started,
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            argv: std::env::args().collect(),
            seed: plan.seed,
            interrupted,
        },
        workload: WorkloadOf {
            name: plan.name.clone(),
            keys: plan.workload.keys,
            outputs: plan.workload.outputs(),
            latency_of: "newest_input".to_owned(),
        },
        pipeline: PipelineOf {
            parallelism: plan.parallelism,
            mode: plan.mode.name().to_owned(),
            epoch_interval_ms: plan.epoch_interval.map(|interval| interval.as_secs_f64() * 1e3),
            latency_policy: plan.policy_name.clone(),
            state_backend: plan.backend.name().to_owned(),
            visible_sink: visible.is_some(),
        },
        schedule: ScheduleOf {
            kind: plan.spec.to_string(),
            rate: plan.rate,
            senders: plan.senders,
            pacing: pacing.name().to_owned(),
            sender_nice,
        },
        phases: Phases {
            baseline_s: plan.baseline.as_secs_f64(),
            warmup_s: from.saturating_sub(begin) as f64 / 1e9,
            measure_s,
            drain_s,
            steady,
        },
        counts: Counts {
            scheduled,
            sent: sent_measured,
            completed: seen.response.count(),
            checked: expected.sent.iter().sum(),
            lost: tally.lost,
            duplicated: tally.duplicated,
            reordered: tally.reordered,
            wrong: tally.wrong,
            visible: committed_tally.map(VisibleCounts::from),
        },
        rates: Rates {
            scheduled: scheduled as f64 / measure_s.max(f64::MIN_POSITIVE),
            achieved: completed_in_time as f64 / measure_s.max(f64::MIN_POSITIVE),
            backlog_slope: Trend::of(&backlog).map(|trend| trend.slope),
            backlog_max: timeline.iter().map(|second| second.backlog).max().unwrap_or_default(),
        },
        latency_ns: Latencies {
            processed: seen.response.summary()?,
            durable: epochs_on.then(|| durable.summary()).transpose()?,
            visible: committed.map(|Probe { response, .. }| response.summary()).transpose()?,
            service: seen.service.summary()?,
            send_lag: lag.summary()?,
            hiccup_baseline: hiccup_baseline.summary()?,
            hiccup: hiccup.summary()?,
        },
        epochs: Epochs { committed: epochs_committed, skipped_triggers: status.skipped_triggers },
        timeline,
        slo: Vec::new(),
        verdict: Verdict { validity, reasons, passed: false },
        env,
    };
    result.slo = plan.slos.iter().flat_map(|slo| slo.judge(&result).collect::<Vec<_>>()).collect();
    let exit = exit_code(&tallies, validity, result.slo.iter().all(|slo| slo.met), interrupted);
    result.verdict.passed = exit == 0;
    Ok(Outcome { result, step, exit })
}

fn fail_early(job: &JobHandle) -> anyhow::Result<()> {
    let status = job.status();
    ensure!(status.restarts == 0, "the pipeline failed during the run: {:?}", status.last_failure);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "only names the day of the run; nothing is measured with it")]
fn wall_clock() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// What all cores did, in ticks (Linux).
#[derive(Clone, Copy, Debug)]
struct CpuTimes {
    all: u64,
    stolen: u64,
}

impl CpuTimes {
    fn read() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        // user, nice, system, idle, iowait, irq, softirq, steal
        let fields = text.lines().next()?.split_whitespace().skip(1).take(8).map(str::parse);
        let fields: Vec<u64> = fields.collect::<Result<_, _>>().ok()?;
        Some(Self { all: fields.iter().sum(), stolen: *fields.get(7)? })
    }

    fn steal_since(before: Option<Self>) -> Option<f64> {
        let (before, now) = (before?, Self::read()?);
        Some((now.stolen - before.stolen) as f64 / (now.all - before.all).max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Arguments, Command};

    #[test]
    fn what_a_run_writes_is_read_back_field_by_field() {
        let line = "millstream-loadtest run keyed-count --rate 1k/s --duration 100ms --backend memory --baseline 10ms \
                    --warmup-min 0s --warmup-max 10ms --epoch-interval 10ms";
        let Command::Run(args) = Arguments::parse_from(line.split_whitespace()).command else { panic!("not a run") };
        let plan = args.common.plan(args.rate, &args.schedule, args.duration).unwrap();
        let outcome = run(&plan, &AtomicBool::new(false), &mut Progress::new(true)).unwrap();
        assert!(outcome.step.clean);
        let text = serde_json::to_string(&outcome.result).unwrap();
        // Refuses a field that it does not know, and one that is missing unless it may be null.
        let read: RunResult = serde_json::from_str(&text).unwrap();
        let (written, read) = (outcome.result.latency_ns.processed, read.latency_ns.processed);
        assert!(written.n > 0);
        assert_eq!((written.n, written.max, written.hdr_v2), (read.n, read.max, read.hdr_v2));
    }
}

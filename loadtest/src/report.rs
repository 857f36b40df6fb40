//! The result file, and the table for humans.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::Tally;
use crate::latency::Summary;
use crate::slo::SloResult;
use crate::steady::Second;
use crate::validity::Validity;

/// The name and version of the result's form.
pub(crate) const RESULT: &str = "loadtest-result/1";
/// The same for several results.
pub(crate) const SUITE: &str = "loadtest-suite/1";

/// One run. Times are nanoseconds and rates records per second unless the name ends otherwise; what is unknown is null.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunResult {
    pub(crate) schema: String,
    pub(crate) run: Run,
    pub(crate) workload: WorkloadOf,
    pub(crate) pipeline: PipelineOf,
    pub(crate) schedule: ScheduleOf,
    pub(crate) phases: Phases,
    pub(crate) counts: Counts,
    pub(crate) rates: Rates,
    pub(crate) latency_ns: Latencies,
    pub(crate) epochs: Epochs,
    pub(crate) timeline: Vec<Second>,
    /// What was asked of the run, term by term.
    pub(crate) slo: Vec<SloResult>,
    pub(crate) verdict: Verdict,
    pub(crate) env: Env,
}

/// Which run it was.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    pub(crate) started: String,
    pub(crate) tool: String,
    pub(crate) argv: Vec<String>,
    pub(crate) seed: u64,
    /// Ended early by SIGINT.
    pub(crate) interrupted: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkloadOf {
    pub(crate) name: String,
    pub(crate) keys: u32,
    /// Outputs of one record.
    pub(crate) outputs: u64,
    /// What the latency of an output counts from.
    pub(crate) latency_of: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PipelineOf {
    pub(crate) parallelism: u16,
    pub(crate) mode: String,
    /// Nothing where no epoch closes while records flow.
    pub(crate) epoch_interval_ms: Option<f64>,
    pub(crate) latency_policy: String,
    pub(crate) state_backend: String,
    /// Whether there is a second, exactly-once sink, whose reader is what `visible` means.
    pub(crate) visible_sink: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduleOf {
    pub(crate) kind: String,
    pub(crate) rate: f64,
    pub(crate) senders: u16,
    pub(crate) pacing: String,
    /// Niceness of the sending threads; nothing where the system does not tell.
    pub(crate) sender_nice: Option<i32>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Phases {
    pub(crate) baseline_s: f64,
    pub(crate) warmup_s: f64,
    pub(crate) measure_s: f64,
    /// From the end of the measured phase until all had come out; nothing if it did not in time.
    pub(crate) drain_s: Option<f64>,
    pub(crate) steady: bool,
}

/// Records of the measured phase, and what was wrong in the whole run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counts {
    pub(crate) scheduled: u64,
    pub(crate) sent: u64,
    /// Outputs of them.
    pub(crate) completed: u64,
    /// Records of the whole run, warm-up included: all of them are checked.
    pub(crate) checked: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Outputs that nobody sent, and keys whose count differs from the reference.
    pub(crate) wrong: u64,
    /// The same of committed output; nothing without an exactly-once sink.
    pub(crate) visible: Option<VisibleCounts>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VisibleCounts {
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) wrong: u64,
}

impl From<Tally> for VisibleCounts {
    fn from(tally: Tally) -> Self {
        let Tally { completed: _, lost, duplicated, reordered, wrong } = tally;
        Self { lost, duplicated, reordered, wrong }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rates {
    pub(crate) scheduled: f64,
    /// Came out before the measured phase was over, per second of it.
    pub(crate) achieved: f64,
    /// Records per second by which the backlog grew.
    pub(crate) backlog_slope: Option<f64>,
    pub(crate) backlog_max: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Latencies {
    /// The sink has the record; from the due time, as the two below.
    pub(crate) processed: Summary,
    /// Its epoch is committed.
    pub(crate) durable: Option<Summary>,
    /// A reader of committed output has it.
    pub(crate) visible: Option<Summary>,
    /// The sink has the record; from the moment of sending.
    pub(crate) service: Summary,
    /// By how much the tester itself sent late.
    pub(crate) send_lag: Summary,
    pub(crate) hiccup_baseline: Summary,
    pub(crate) hiccup: Summary,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Epochs {
    /// In the measured phase.
    pub(crate) committed: u64,
    pub(crate) skipped_triggers: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verdict {
    pub(crate) validity: Validity,
    pub(crate) reasons: Vec<String>,
    /// Valid, with right results, and all that was asked of it is met.
    pub(crate) passed: bool,
}

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Env {
    pub(crate) cpu_model: Option<String>,
    /// Those this process may use.
    pub(crate) cpus: usize,
    pub(crate) governor: Option<String>,
    pub(crate) kernel: Option<String>,
    pub(crate) clocksource: Option<String>,
    pub(crate) loadavg: Option<f64>,
    pub(crate) timer_slack_ns: Option<u64>,
    pub(crate) debug_assertions: bool,
}

impl Env {
    pub(crate) fn read() -> Self {
        let file = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let cpu_model = file("/proc/cpuinfo").and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        Self {
            cpu_model,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            governor: file("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            kernel: file("/proc/sys/kernel/osrelease"),
            clocksource: file("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            loadavg: file("/proc/loadavg").and_then(|text| text.split_whitespace().next()?.parse().ok()),
            timer_slack_ns: None,
            debug_assertions: cfg!(debug_assertions),
        }
    }
}

/// Several runs of one search.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Suite {
    pub(crate) schema: String,
    /// The highest rate that was sustained; nothing if none was.
    pub(crate) max: Option<f64>,
    pub(crate) precision: f64,
    pub(crate) interrupted: bool,
    pub(crate) steps: Vec<StepResult>,
}

/// One step of it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepResult {
    pub(crate) rate: f64,
    pub(crate) confirming: bool,
    pub(crate) sustained: bool,
    /// Why it is not.
    pub(crate) reasons: Vec<String>,
    pub(crate) result: RunResult,
}

/// A time in the unit that suits it; `n/a` where it is not known.
pub(crate) fn time(nanos: Option<u64>) -> String {
    let Some(nanos) = nanos else { return "n/a".to_owned() };
    let value = nanos as f64;
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} µs", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

/// The quantiles of several latencies, one a line. `≈platform` marks what is less than twice the platform's own hiccups.
pub(crate) fn quantile_table(rows: &[(&str, &Summary)], hiccup: &Summary) -> String {
    let mut text = format!("{:<16}", "");
    for column in ["p50", "p90", "p99", "p99.9", "p99.99", "max", "n"] {
        let _ = write!(text, "{column:>12}");
    }
    let quantiles = |summary: &Summary| {
        let q = summary.q;
        [q.q50, q.q90, q.q99, q.q999, q.q9999, summary.max]
    };
    for (name, summary) in rows {
        let _ = write!(text, "\n{name:<16}");
        let mut platform = false;
        for (value, pause) in quantiles(summary).into_iter().zip(quantiles(hiccup)) {
            let near = !name.starts_with("hiccup")
                && value.zip(pause).is_some_and(|(value, pause)| value < pause.saturating_mul(2));
            platform |= near;
            let _ = write!(text, "{:>12}", format!("{}{}", time(value), if near { "≈" } else { "" }));
        }
        let _ = write!(text, "{:>12}{}", summary.n, if platform { "  ≈platform" } else { "" });
    }
    text
}

impl RunResult {
    /// The last words of a run.
    pub(crate) fn table(&self) -> String {
        let latency = &self.latency_ns;
        let mut rows = vec![("processed", &latency.processed)];
        rows.extend(latency.durable.as_ref().map(|summary| ("durable", summary)));
        rows.extend(latency.visible.as_ref().map(|summary| ("visible", summary)));
        rows.extend([
            ("service", &latency.service),
            ("send lag", &latency.send_lag),
            ("hiccup", &latency.hiccup),
            ("hiccup baseline", &latency.hiccup_baseline),
        ]);
        let (counts, rates, phases) = (&self.counts, &self.rates, &self.phases);
        let mut text = quantile_table(&rows, &latency.hiccup);
        let _ = write!(
            text,
            "\n\n{}: {:.0} records/s offered, {:.0}/s came out in time, over {:.1} s; backlog at most {}\n\
             {} records checked: {} lost, {} doubled, {} reordered, {} wrong",
            self.workload.name,
            rates.scheduled,
            rates.achieved,
            phases.measure_s,
            rates.backlog_max,
            counts.checked,
            counts.lost,
            counts.duplicated,
            counts.reordered,
            counts.wrong,
        );
        if let Some(visible) = &counts.visible {
            let VisibleCounts { lost, duplicated, reordered, wrong } = visible;
            let _ = write!(
                text,
                "; committed output: {lost} lost, {duplicated} doubled, {reordered} reordered, {wrong} wrong"
            );
        }
        let verdict = match self.verdict.validity {
            Validity::Valid => "valid",
            Validity::InvalidTester => "INVALID, the tester was in the way",
            Validity::InvalidPlatform => "INVALID, the machine was in the way",
            Validity::Unsteady => "INVALID, not long enough or not steady",
        };
        let _ = write!(text, "\nepochs committed: {}", self.epochs.committed);
        for SloResult { expr, observed, met } in &self.slo {
            let observed = match observed {
                None => "not known".to_owned(),
                // Times are all that is told by a quantile, a mean or a maximum.
                Some(value) if SloResult::is_time(expr) => time(Some(*value as u64)),
                Some(value) => format!("{value:.0}"),
            };
            let _ = write!(text, "\n{} {expr}: {observed}", if *met { "✓" } else { "✗" });
        }
        let _ = write!(text, "\nverdict: {verdict}");
        if self.run.interrupted {
            text.push_str(" (interrupted)");
        }
        for reason in &self.verdict.reasons {
            let _ = write!(text, "\n  - {reason}");
        }
        text
    }
}

/// The JSON Schema of what `run` writes, and of what `max` does.
pub(crate) fn schemas() -> [(&'static str, schemars::Schema); 2] {
    [("result", schemars::schema_for!(RunResult)), ("suite", schemars::schema_for!(Suite))]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::latency::Latency;

    /// A run of which nothing is known but that it was.
    pub(crate) fn result() -> RunResult {
        let none = || Latency::new().unwrap().summary().unwrap();
        RunResult {
            schema: RESULT.to_owned(),
            run: Run {
                started: "2026-01-01T00:00:00Z".to_owned(),
                tool: String::new(),
                argv: Vec::new(),
                seed: 1,
                interrupted: false,
            },
            workload: WorkloadOf { name: String::new(), keys: 1, outputs: 1, latency_of: String::new() },
            pipeline: PipelineOf {
                parallelism: 1,
                mode: String::new(),
                epoch_interval_ms: None,
                latency_policy: String::new(),
                state_backend: String::new(),
                visible_sink: false,
            },
            schedule: ScheduleOf {
                kind: String::new(),
                rate: 1.0,
                senders: 1,
                pacing: String::new(),
                sender_nice: None,
            },
            phases: Phases { baseline_s: 0.0, warmup_s: 0.0, measure_s: 1.0, drain_s: None, steady: true },
            counts: Counts {
                scheduled: 0,
                sent: 0,
                completed: 0,
                checked: 0,
                lost: 0,
                duplicated: 0,
                reordered: 0,
                wrong: 0,
                visible: None,
            },
            rates: Rates { scheduled: 0.0, achieved: 0.0, backlog_slope: None, backlog_max: 0 },
            latency_ns: Latencies {
                processed: none(),
                durable: Some(none()),
                visible: None,
                service: none(),
                send_lag: none(),
                hiccup_baseline: none(),
                hiccup: none(),
            },
            epochs: Epochs { committed: 0, skipped_triggers: 0 },
            timeline: Vec::new(),
            slo: Vec::new(),
            verdict: Verdict { validity: Validity::Valid, reasons: Vec::new(), passed: true },
            env: Env::read(),
        }
    }

    #[test]
    fn times_have_a_unit_that_suits_them() {
        let texts = [None, Some(5), Some(5_500), Some(5_500_000), Some(5_500_000_000)].map(time);
        assert_eq!(texts, ["n/a", "5 ns", "5.5 µs", "5.50 ms", "5.50 s"]);
    }

    #[test]
    fn marks_what_the_platform_explains_and_tells_no_quantile_without_samples() {
        let of = |nanos: u64| {
            let mut latency = Latency::new().unwrap();
            (0..1_000).for_each(|_| latency.record(nanos));
            latency.summary().unwrap()
        };
        let table = quantile_table(&[("processed", &of(1_500)), ("durable", &of(2_500))], &of(1_000));
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].contains("1.5 µs≈") && lines[1].ends_with("≈platform"), "{table}");
        assert!(!lines[2].contains('≈') && lines[2].contains("n/a"), "{table}");
    }
}

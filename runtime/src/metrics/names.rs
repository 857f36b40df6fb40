//! The catalogue: every metric's name, kind, labels and help text, once.
//!
//! Base units only; a point in time is Unix time in seconds. `pipeline` is a label of all but the process's own. Never a label:
//! `job` and `instance`, which Prometheus attaches itself; keys, epochs, texts of errors, or anything else without a bound.

use crate::metrics::MetricsLevel;

/// What kind of series a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A whole number that only rises.
    Counter,
    /// Seconds that only rise, with their fraction.
    Seconds,
    /// A value that may fall.
    Gauge,
    /// A distribution of times, by [`BOUNDS_MICROS`](super::BOUNDS_MICROS).
    Histogram,
    /// Quantiles of the last ten seconds. Those of several series cannot be added up.
    Summary,
}

/// One family of series.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Family {
    /// Its name, with the unit.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// The least level at which it is there.
    pub level: MetricsLevel,
    /// One sentence for whoever writes a query.
    pub help: &'static str,
}

macro_rules! families {
    ($($id:ident $kind:ident $level:ident $name:literal $labels:tt $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: Family = Family {
                name: concat!("millstream_", $name),
                kind: Kind::$kind,
                labels: &$labels,
                level: MetricsLevel::$level,
                help: $help,
            };
        )*

        /// All families.
        pub static FAMILIES: &[&Family] = &[$(&$id),*];
    };
}

/// Labels that many families have.
const PIPELINE: [&str; 1] = ["pipeline"];
const OPERATOR: [&str; 2] = ["pipeline", "operator"];
const SUBTASK: [&str; 3] = ["pipeline", "operator", "subtask"];
const CHANNEL: [&str; 2] = ["pipeline", "channel"];
const QUEUE: [&str; 3] = ["pipeline", "channel", "subtask"];
const SINK: [&str; 2] = ["pipeline", "sink"];

families! {
    // The build and the pipeline.
    BUILD_INFO Gauge Off "build_info" ["version", "profile"] "Always 1; which build of millstream runs.";
    PIPELINE_INFO Gauge Off "pipeline_info" ["pipeline", "topology"]
        "Always 1; topology is a hash of the graph and changes with it.";
    PIPELINE_STATE Gauge Off "pipeline_state" ["pipeline", "state"] "1 for the state that the pipeline is in, 0 for the others.";
    PIPELINE_START Gauge Off "pipeline_start_timestamp_seconds" PIPELINE
        "Unix time at which the pipeline began to run last, restarts included.";
    PIPELINE_RESTARTS Counter Off "pipeline_restarts_total" ["pipeline", "reason"]
        "Restarts after a failure, by what failed.";
    PIPELINE_FAILURES Counter Off "pipeline_failures_total" ["pipeline", "operator", "kind"]
        "Failures that ended an attempt, by the operator they came from; operator is empty where it was none.";
    OPERATOR_INFO Gauge Off "operator_info" ["pipeline", "operator", "kind", "chain"]
        "Always 1; what the operator is, and the fused chain that it runs in.";
    OPERATOR_PARALLELISM Gauge Off "operator_parallelism" OPERATOR "Subtasks of the operator.";

    // Records.
    RECORDS_IN Counter Info "operator_records_in_total" SUBTASK
        "Records that the operator took.";
    RECORDS_OUT Counter Info "operator_records_out_total" SUBTASK
        "Records that the operator gave, to side outputs too.";
    FRAMES_IN Counter Info "operator_frames_in_total" SUBTASK
        "Frames of records that the operator took.";
    FRAMES_OUT Counter Info "operator_frames_out_total" SUBTASK
        "Frames of records that the operator gave.";
    RECORDS_DROPPED Counter Off "operator_records_dropped_total" ["pipeline", "operator", "reason"]
        "Records that left the pipeline on purpose, by reason.";
    ERRORS Counter Off "operator_errors_total" ["pipeline", "operator", "kind"]
        "Errors and panics of user code that were met, whatever the policy made of them.";
    DEAD_LETTERS Counter Off "dead_letter_records_total" ["pipeline", "operator", "kind"]
        "Records that were handed to the dead letters, by what brought them there.";

    // Time and back pressure.
    TIME Seconds Info "operator_time_seconds_total" ["pipeline", "operator", "subtask", "state"]
        "Seconds that the subtask spent in each state; fused operators share those of their subtask.";
    BACKPRESSURED Gauge Off "operator_backpressured" SUBTASK
        "1 while the subtask waits for room in an output.";
    PROCESS Histogram Debug "operator_process_seconds" OPERATOR
        "Seconds that user code took for a record: the mean of each frame, counted once.";
    LAST_PROGRESS Gauge Info "operator_last_progress_timestamp_seconds" SUBTASK
        "Unix time at which the subtask looked for work last; every barrier makes it look.";
    MAILBOX Gauge Off "operator_mailbox_depth" SUBTASK
        "Orders of the job, barriers as a rule, that the subtask of a source has not taken.";
    CHANNEL_FRAMES Gauge Off "channel_frames" QUEUE
        "Frames that are queued for the receiving subtask.";
    CHANNEL_CAPACITY Gauge Off "channel_capacity_frames" CHANNEL
        "Frames of records that may be queued for each receiving subtask.";
    CHANNEL_RECORDS Gauge Off "channel_records" QUEUE
        "Records that are queued for the receiving subtask.";
    CHANNEL_BLOCKED Seconds Info "channel_send_blocked_seconds_total" CHANNEL
        "Seconds that sending subtasks waited for room, added up over them.";
    CHANNEL_WAIT Histogram Debug "channel_wait_seconds" CHANNEL
        "Seconds that a frame of records was queued.";

    // Latency.
    LATENCY Histogram Info "latency_seconds" SINK
        "Seconds from a source's taking a record until the sink was through with it; records that travel together count as the oldest.";
    LATENCY_WINDOW Summary Info "latency_window_seconds" SINK
        "The same as quantiles of the last ten seconds; not to be added up over series.";
    EVENT_TIME_LATENCY Histogram Info "event_time_latency_seconds" SINK
        "Seconds from the time of a record's event until the sink had taken it; records without an event time are left out.";

    // Event time.
    WATERMARK Gauge Info "operator_watermark_timestamp_seconds" SUBTASK
        "The operator's watermark as Unix time; absent before the first and behind the final one.";

    // Sources and sinks.
    SOURCE_RECORDS Counter Info "source_records_total" ["pipeline", "source", "subtask"] "Records that the source gave.";
    SINK_RECORDS Counter Info "sink_records_total" ["pipeline", "sink", "subtask"] "Records that the sink took.";

    // Checkpoints and recovery.
    CHECKPOINTS Counter Off "checkpoints_total" ["pipeline", "result"]
        "Checkpoints that came to an end, by result; failed and timed_out end the attempt.";
    CHECKPOINTS_IN_PROGRESS Gauge Off "checkpoints_in_progress" PIPELINE
        "Epochs whose barrier is out and that are not committed.";
    CHECKPOINT_DURATION Histogram Off "checkpoint_duration_seconds" PIPELINE
        "Seconds from the barrier until the epoch was durable.";
    CHECKPOINT_LAST_DURATION Gauge Off "checkpoint_last_duration_seconds" PIPELINE
        "Seconds from the barrier until the epoch was durable, of the last one.";
    CHECKPOINT_LAST_SIZE Gauge Off "checkpoint_last_size_bytes" ["pipeline", "kind"]
        "Bytes of the last checkpoint; kind written is what it added to the store, kind full what the store holds, where that can be told.";
    CHECKPOINT_LAST_EPOCH Gauge Off "checkpoint_last_epoch" PIPELINE "The last committed epoch.";
    CHECKPOINT_LAST_COMPLETED Gauge Off "checkpoint_last_completed_timestamp_seconds" PIPELINE
        "Unix time at which the last epoch became durable.";
    CHECKPOINT_INTERVAL Gauge Off "checkpoint_interval_seconds" PIPELINE "Configured seconds between barriers.";
    CHECKPOINT_PHASE Histogram Off "checkpoint_phase_seconds" ["pipeline", "phase"]
        "Seconds of an epoch's phases: start_delay, alignment and snapshot for each subtask, persist for the whole.";
    CHECKPOINT_LAST_PHASE Gauge Off "checkpoint_last_phase_seconds" ["pipeline", "operator", "phase"]
        "Seconds of the last checkpoint's phases: of the slowest subtask of an operator; persist, of no operator, for the whole.";
    CHECKPOINT_BUFFERED Gauge Off "checkpoint_buffered_records" OPERATOR
        "Records that are held back behind a barrier which waits for others.";
    CHECKPOINT_WRITTEN Counter Off "checkpoint_written_bytes_total" OPERATOR
        "Bytes of an operator's state and output that committed epochs handed to the store.";
    RESTORES Counter Off "restores_total" ["pipeline", "result"]
        "Attempts that went on from a stored epoch, by whether they came to run.";
    RESTORE_LAST_DURATION Gauge Off "restore_last_duration_seconds" PIPELINE
        "Seconds from the beginning of the last attempt until it ran.";
    RESTORE_LAST_EPOCH Gauge Off "restore_last_epoch" PIPELINE "The epoch that the last attempt went on from.";

    // Itself.
    COLLECT_SECONDS Gauge Off "metrics_collect_seconds" [] "Seconds that the collection before this one took.";
    SERIES Gauge Off "metrics_series" [] "Series in the collection before this one.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn is_snake_case(name: &str) -> bool {
        name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.contains("__")
    }

    #[test]
    fn every_name_follows_the_conventions() {
        let mut seen = BTreeSet::new();
        for family in FAMILIES {
            let Family { name, kind, labels, help, .. } = family;
            assert!(seen.insert(*name), "{name} is there twice");
            assert!(is_snake_case(name) && labels.iter().all(|label| is_snake_case(label)), "{name}");
            assert_eq!(matches!(kind, Kind::Counter | Kind::Seconds), name.ends_with("_total"), "{name}");
            if *kind == Kind::Seconds {
                assert!(name.ends_with("_seconds_total"), "{name}");
            }
            if matches!(kind, Kind::Histogram | Kind::Summary) {
                assert!(name.ends_with("_seconds"), "{name}");
            }
            let reserved = ["job", "instance", "le", "quantile"];
            assert!(!labels.iter().any(|label| reserved.contains(label)), "{name}: {labels:?}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
            // What promtool refuses.
            assert!(
                !["_info_", "_summary", "_histogram", "_gauge", "_counter"].iter().any(|part| name.contains(part)),
                "{name}"
            );
        }
    }
}

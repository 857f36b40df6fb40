//! The catalogue: every metric's name, kind, labels and help text, once.
//!
//! Base units only; a point in time is Unix time in seconds. `pipeline` is a label of all but the process's own. Never a label:
//! `job` and `instance`, which Prometheus attaches itself; keys, epochs, texts of errors, or anything else without a bound.

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
    /// One sentence for whoever writes a query.
    pub help: &'static str,
}

macro_rules! families {
    ($($id:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: Family =
                Family { name: concat!("millstream_", $name), kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*

        /// All families.
        pub static FAMILIES: &[&Family] = &[$(&$id),*];
    };
}

families! {
    // The build and the pipeline.
    BUILD_INFO Gauge "build_info" ["version", "profile"] "Always 1; which build of millstream runs.";
    PIPELINE_INFO Gauge "pipeline_info" ["pipeline", "topology"]
        "Always 1; topology is a hash of the graph and changes with it.";
    PIPELINE_STATE Gauge "pipeline_state" ["pipeline", "state"] "1 for the state that the pipeline is in, 0 for the others.";
    PIPELINE_START Gauge "pipeline_start_timestamp_seconds" ["pipeline"]
        "Unix time at which the pipeline began to run last, restarts included.";
    PIPELINE_RESTARTS Counter "pipeline_restarts_total" ["pipeline", "reason"]
        "Restarts after a failure, by what failed.";
    PIPELINE_FAILURES Counter "pipeline_failures_total" ["pipeline", "operator", "kind"]
        "Failures that ended an attempt, by the operator they came from; operator is empty where it was none.";
    OPERATOR_INFO Gauge "operator_info" ["pipeline", "operator", "kind", "chain"]
        "Always 1; what the operator is, and the fused chain that it runs in.";
    OPERATOR_PARALLELISM Gauge "operator_parallelism" ["pipeline", "operator"] "Subtasks of the operator.";

    // Records.
    RECORDS_IN Counter "operator_records_in_total" ["pipeline", "operator", "subtask"]
        "Records that the operator took.";
    RECORDS_OUT Counter "operator_records_out_total" ["pipeline", "operator", "subtask"]
        "Records that the operator gave, to side outputs too.";
    FRAMES_IN Counter "operator_frames_in_total" ["pipeline", "operator", "subtask"]
        "Frames of records that the operator took.";
    FRAMES_OUT Counter "operator_frames_out_total" ["pipeline", "operator", "subtask"]
        "Frames of records that the operator gave.";
    RECORDS_DROPPED Counter "operator_records_dropped_total" ["pipeline", "operator", "reason"]
        "Records that left the pipeline on purpose, by reason.";

    // Time and back pressure.
    TIME Seconds "operator_time_seconds_total" ["pipeline", "operator", "subtask", "state"]
        "Seconds that the subtask spent in each state; fused operators share those of their subtask.";
    BACKPRESSURED Gauge "operator_backpressured" ["pipeline", "operator", "subtask"]
        "1 while the subtask waits for room in an output.";
    LAST_PROGRESS Gauge "operator_last_progress_timestamp_seconds" ["pipeline", "operator", "subtask"]
        "Unix time at which the subtask looked for work last; every barrier makes it look.";
    CHANNEL_FRAMES Gauge "channel_frames" ["pipeline", "channel", "subtask"]
        "Frames that are queued for the receiving subtask.";
    CHANNEL_CAPACITY Gauge "channel_capacity_frames" ["pipeline", "channel"]
        "Frames of records that may be queued for each receiving subtask.";
    CHANNEL_RECORDS Gauge "channel_records" ["pipeline", "channel", "subtask"]
        "Records that are queued for the receiving subtask.";
    CHANNEL_BLOCKED Seconds "channel_send_blocked_seconds_total" ["pipeline", "channel"]
        "Seconds that sending subtasks waited for room, added up over them.";

    // Latency.
    LATENCY Histogram "latency_seconds" ["pipeline", "sink"]
        "Seconds from a source's taking a record until the sink was through with it; records that travel together count as the oldest.";
    EVENT_TIME_LATENCY Histogram "event_time_latency_seconds" ["pipeline", "sink"]
        "Seconds from the time of a record's event until the sink had taken it; records without an event time are left out.";

    // Event time.
    WATERMARK Gauge "operator_watermark_timestamp_seconds" ["pipeline", "operator", "subtask"]
        "The operator's watermark as Unix time; absent before the first and behind the final one.";

    // Sources and sinks.
    SOURCE_RECORDS Counter "source_records_total" ["pipeline", "source", "subtask"] "Records that the source gave.";
    SINK_RECORDS Counter "sink_records_total" ["pipeline", "sink", "subtask"] "Records that the sink took.";

    // Checkpoints and recovery.
    CHECKPOINTS Counter "checkpoints_total" ["pipeline", "result"]
        "Checkpoints that came to an end, by result; failed and timed_out end the attempt.";
    CHECKPOINTS_IN_PROGRESS Gauge "checkpoints_in_progress" ["pipeline"]
        "Epochs whose barrier is out and that are not committed.";
    CHECKPOINT_DURATION Histogram "checkpoint_duration_seconds" ["pipeline"]
        "Seconds from the barrier until the epoch was durable.";
    CHECKPOINT_LAST_DURATION Gauge "checkpoint_last_duration_seconds" ["pipeline"]
        "Seconds from the barrier until the epoch was durable, of the last one.";
    CHECKPOINT_LAST_SIZE Gauge "checkpoint_last_size_bytes" ["pipeline", "kind"]
        "Bytes of the last checkpoint; kind written is what it added to the store.";
    CHECKPOINT_LAST_EPOCH Gauge "checkpoint_last_epoch" ["pipeline"] "The last committed epoch.";
    CHECKPOINT_LAST_COMPLETED Gauge "checkpoint_last_completed_timestamp_seconds" ["pipeline"]
        "Unix time at which the last epoch became durable.";
    CHECKPOINT_INTERVAL Gauge "checkpoint_interval_seconds" ["pipeline"] "Configured seconds between barriers.";
    CHECKPOINT_PHASE Histogram "checkpoint_phase_seconds" ["pipeline", "phase"]
        "Seconds of an epoch's phases: alignment and snapshot for each subtask, persist for the whole.";
    CHECKPOINT_WRITTEN Counter "checkpoint_written_bytes_total" ["pipeline"] "Bytes that committed epochs handed to the store.";
    RESTORES Counter "restores_total" ["pipeline", "result"]
        "Attempts that went on from a stored epoch, by whether they came to run.";
    RESTORE_LAST_DURATION Gauge "restore_last_duration_seconds" ["pipeline"]
        "Seconds from the beginning of the last attempt until it ran.";
    RESTORE_LAST_EPOCH Gauge "restore_last_epoch" ["pipeline"] "The epoch that the last attempt went on from.";

    // Itself.
    COLLECT_SECONDS Gauge "metrics_collect_seconds" [] "Seconds that the collection before this one took.";
    SERIES Gauge "metrics_series" [] "Series in the collection before this one.";
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
            let Family { name, kind, labels, help } = family;
            assert!(seen.insert(*name), "{name} is there twice");
            assert!(is_snake_case(name) && labels.iter().all(|label| is_snake_case(label)), "{name}");
            assert_eq!(matches!(kind, Kind::Counter | Kind::Seconds), name.ends_with("_total"), "{name}");
            if *kind == Kind::Seconds {
                assert!(name.ends_with("_seconds_total"), "{name}");
            }
            if *kind == Kind::Histogram {
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

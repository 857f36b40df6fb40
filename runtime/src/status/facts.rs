//! What is known of jobs, as JSON.

use std::sync::{Arc, PoisonError};

use serde_json::{Map, Value as Json, json};

use super::Status;
use crate::actor::JobLink;
use crate::config::RuntimeOptions;
use crate::handle::StateStatus;
use crate::job::{Checkpointed, Held, PartPhase};
use crate::metrics::{Recent, Sample, Value, names};
use crate::time::Timestamp;

/// Raised when what is there changes its name or meaning; what is new does not.
pub(super) const SCHEMA: u32 = 1;

/// The jobs that are known, or the one of a pipeline; of one that was started again the last.
pub(super) fn jobs(status: &Status, only: Option<&str>) -> Vec<Arc<JobLink>> {
    let jobs = status.jobs.lock().unwrap_or_else(PoisonError::into_inner);
    jobs.iter().filter(|job| only.is_none_or(|only| job.pipeline() == only)).cloned().collect()
}

/// All that is known now.
pub(super) fn status(status: &Status, only: Option<&str>) -> Json {
    let mut pipelines = Map::new();
    for sample in status.metrics.collect().iter() {
        let labels = labels_of(&sample);
        let Some((("pipeline", pipeline), labels)) = labels.split_first() else { continue };
        if only.is_some_and(|only| *pipeline != only) {
            continue;
        }
        if *sample.family != names::PIPELINE_STATE {
            put(&mut pipelines, pipeline, labels, &sample);
        } else if let [(_, state)] = labels
            && *sample.value == Value::Gauge(1.0)
        {
            insert(&mut pipelines, &[pipeline, "state"], json!(state));
        }
    }
    // Of several jobs of a pipeline the last one.
    for job in jobs(status, only) {
        if pipelines.contains_key(job.pipeline()) {
            insert(&mut pipelines, &[job.pipeline(), "job"], job_facts(&job));
        }
    }
    json!({ "schema": SCHEMA, "version": env!("CARGO_PKG_VERSION"), "pipelines": pipelines })
}

/// Labels with their values.
fn labels_of<'a>(sample: &Sample<'a>) -> Vec<(&'static str, &'a str)> {
    sample.family.labels.iter().copied().zip(sample.labels.iter().map(|value| &**value)).collect()
}

/// Puts a series where its labels say: below its operator, channel, source or sink by name, then by its family, then by the values of
/// the other labels.
fn put(pipelines: &mut Map<String, Json>, pipeline: &str, labels: &[(&str, &str)], sample: &Sample<'_>) {
    let family = sample.family.name.strip_prefix("millstream_").unwrap_or(sample.family.name);
    let (mut path, others) = match labels.split_first() {
        Some((("operator", name), others)) => (vec![pipeline, "operators", name, family], others),
        Some((("channel", name), others)) => (vec![pipeline, "channels", name, family], others),
        Some((("source", name), others)) => (vec![pipeline, "sources", name, family], others),
        Some((("sink", name), others)) => (vec![pipeline, "sinks", name, family], others),
        _ => (vec![pipeline, "pipeline", family], labels),
    };
    path.extend(others.iter().map(|(_, value)| *value));
    insert(pipelines, &path, number(sample.value));
}

/// Puts a value at the end of a path of objects, which are made as far as they are not there.
fn insert(place: &mut Map<String, Json>, path: &[&str], value: Json) {
    match path {
        [] => {}
        [last] => drop(place.insert((*last).to_owned(), value)),
        [first, rest @ ..] => {
            let inner = place.entry(*first).or_insert_with(|| Json::Object(Map::new()));
            if let Some(inner) = inner.as_object_mut() {
                insert(inner, rest, value);
            }
        }
    }
}

fn number(value: &Value) -> Json {
    match value {
        Value::Count(count) => json!(count),
        Value::Time(time) => json!(time.as_secs_f64()),
        Value::Gauge(value) => json!(value),
        Value::Times(times) => json!({ "count": times.count(), "sum": times.sum().as_secs_f64() }),
        Value::Summary(summary) => {
            let quantile =
                |share: &f64| Some((share.to_string(), json!(summary.recent.quantile(*share)?.as_secs_f64())));
            let mut all: Map<_, _> = Recent::QUANTILES.iter().filter_map(quantile).collect();
            all.insert("count".into(), json!(summary.count));
            all.insert("sum".into(), json!(summary.sum.as_secs_f64()));
            Json::Object(all)
        }
    }
}

fn job_facts(job: &JobLink) -> Json {
    let status = job.status();
    let held = status.held.map(|held| match held {
        Held::Outbox => "outbox",
        Held::Commit => "commit",
        Held::Fold => "fold",
        Held::Memory => "memory",
    });
    let quarantined = status.quarantined.iter().map(|known| {
        let (operator, time) = (&*known.record.operator, known.record.time);
        let time = (time > Timestamp::MIN).then(|| unix_seconds(time));
        json!({ "operator": operator, "event_time": time, "origins": known.origins.to_string() })
    });
    let view = job.state();
    let store = view.as_ref().and_then(|view| view.share.with(|store| store.place().display().to_string()));
    let state = view.map(StateStatus::from).unwrap_or_default();
    json!({
        "attempt": status.attempt.number(),
        "restarts": status.restarts,
        "restored_epoch": status.restored.number(),
        "committed_epoch": status.committed.number(),
        "last_failure": status.last_failure,
        "held": held,
        "waiting": status.waiting,
        "skipped_triggers": status.skipped_triggers,
        "abandoned": status.abandoned,
        "outbox_bytes": status.outbox_bytes,
        "waiting_bytes": status.waiting_bytes,
        "quarantined": quarantined.collect::<Json>(),
        "state": {
            "store": store,
            "memory_bytes": state.memory_bytes,
            "memory_limit": state.memory_limit,
            "store_bytes": state.store_bytes,
            "fold_bytes": state.fold_bytes,
            "folded_through": state.folded_through.number(),
            "read_keys": state.read_keys,
            "evicted_keys": state.evicted_keys,
        },
    })
}

fn unix_seconds(time: Timestamp) -> f64 {
    time.as_micros() as f64 / 1e6
}

/// The last checkpoints, the newest first.
pub(super) fn checkpoints(job: &JobLink) -> Json {
    let topology = job.topology();
    let one = |checkpoint: &Arc<Checkpointed>| {
        let Checkpointed { epoch, at, duration, bytes, persist, slowest } = &**checkpoint;
        let tasks =
            topology.tasks.iter().filter_map(|task| Some((task, slowest.get(&task.id)?))).map(|(task, phases)| {
                let names = task.vertices.iter().map(|vertex| vertex.name.as_str());
                let mut of: Map<_, _> = [("operators".to_owned(), names.collect::<Json>())].into_iter().collect();
                for (phase, time) in PartPhase::ALL.iter().zip(phases) {
                    of.insert(format!("{}_seconds", phase.label()), json!(time.as_secs_f64()));
                }
                Json::Object(of)
            });
        json!({
            "epoch": epoch.number(),
            "completed": unix_seconds(*at),
            "duration_seconds": duration.as_secs_f64(),
            "persist_seconds": persist.as_secs_f64(),
            "written_bytes": bytes,
            "tasks": tasks.collect::<Json>(),
        })
    };
    job.tally().checkpoints.iter().rev().map(one).collect()
}

/// The options that a job runs with.
pub(super) fn config(job: &JobLink) -> Json {
    // Numbers, names and lists of them only: nothing that JSON has not.
    serde_json::to_value(RuntimeOptions::from(job.config())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Samples, Summary};

    #[test]
    fn series_stand_where_their_labels_say_whatever_they_say() {
        let hostile = "a\"} 1\nb\\<script>";
        let mut samples = Samples::default();
        samples.count(&names::RECORDS_IN, ["p".into(), hostile.into(), "0".into()], 3);
        samples.count(&names::RECORDS_IN, ["p".into(), hostile.into(), "1".into()], 4);
        samples.gauge(&names::CHECKPOINT_LAST_EPOCH, ["p".into()], f64::NAN);
        samples.time(&names::CHANNEL_BLOCKED, ["p".into(), "a>b".into()], Duration::from_millis(1_500));
        samples.count(&names::CHECKPOINTS, ["p".into(), "completed".into()], 9);
        samples.summary(&names::LATENCY_WINDOW, ["p".into(), "out".into()], Summary::default());
        let mut pipelines = Map::new();
        for sample in samples.iter() {
            put(&mut pipelines, "p", &labels_of(&sample)[1..], &sample);
        }
        let expected = json!({
            "operators": { hostile: { "operator_records_in_total": { "0": 3, "1": 4 } } },
            "pipeline": { "checkpoint_last_epoch": null, "checkpoints_total": { "completed": 9 } },
            "channels": { "a>b": { "channel_send_blocked_seconds_total": 1.5 } },
            "sinks": { "out": { "latency_window_seconds": { "count": 0, "sum": 0.0 } } },
        });
        assert_eq!(pipelines["p"], expected);
    }
}

//! What a runtime's jobs count, as Prometheus text.

mod families;
#[cfg(feature = "http")]
mod http;
mod scrape;
#[cfg(feature = "status")]
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use millstream::prelude::*;
use millstream::runtime::metrics::MetricsLevel;

use self::scrape::Scrape;

const LONG: Duration = Duration::from_secs(60);

fn runtime() -> Runtime {
    Runtime::builder().workers(2).build().unwrap()
}

fn scrape(runtime: &Runtime) -> Scrape {
    Scrape::of(&runtime.metrics().render())
}

/// Words of a feed, counted by themselves: a source, two operators in its task, an exchange, and a keyed count with its sink.
fn words(name: &str) -> (Pipeline, Feed<String>, Collected<String>) {
    let (feed, source) = feed::<String>(1_000);
    let (collect, collected) = Collect::new();
    let pipeline = Pipeline::new(name).parallelism(2).epoch_interval(Duration::from_millis(10));
    pipeline
        .source("words", source)
        .filter(|word: &String| word != "drop")
        .key_by(String::clone)
        .count("count")
        .map(|(word, count)| format!("{word} {count}"))
        .sink("out", collect);
    (pipeline, feed, collected)
}

#[test]
fn every_record_is_counted_once_at_each_operator_it_passes() {
    let (pipeline, feed, collected) = words("words");
    let runtime = runtime();
    let job = runtime.start(pipeline).unwrap();
    for word in ["a", "b", "drop", "a", "c", "drop", "a"] {
        feed.send(word.to_owned()).unwrap();
    }
    collected.wait_for(5).unwrap();
    let seen = scrape(&runtime);

    let records = |family: &str, operator: &str| seen.sum(family, &[("pipeline", "words"), ("operator", operator)]);
    let (taken, given) = ("millstream_operator_records_in_total", "millstream_operator_records_out_total");
    let operators = seen.values_of("millstream_operator_info", "operator");
    let stateless = |kind: &str| operators.iter().find(|name| name.starts_with(kind)).unwrap().as_str();
    assert_eq!(records(given, "words"), 7.0);
    assert_eq!((records(taken, stateless("filter")), records(given, stateless("filter"))), (7.0, 5.0));
    assert_eq!((records(taken, "count"), records(given, "count")), (5.0, 5.0));
    assert_eq!((records(taken, stateless("map")), records(given, stateless("map"))), (5.0, 5.0));
    assert_eq!(records(taken, "out"), 5.0);
    let frames = seen.sum("millstream_operator_frames_in_total", &[("operator", "out")]);
    assert!((1.0..=5.0).contains(&frames), "{frames}");
    // A source takes from no operator, and nothing behind a sink counts.
    assert!(!seen.has(taken, &[("operator", "words")]) && !seen.has(given, &[("operator", "out")]));

    assert_eq!(seen.sum("millstream_operator_parallelism", &[("operator", "count")]), 2.0);
    assert_eq!(seen.sum("millstream_pipeline_state", &[("state", "running")]), 1.0);
    assert_eq!(seen.sum("millstream_pipeline_state", &[]), 1.0, "in one state only");
    assert_eq!(seen.sum("millstream_pipeline_restarts_total", &[]), 0.0);
    // Two subtasks, each with two senders of 64 frames.
    let channels = seen.values_of("millstream_channel_capacity_frames", "channel");
    assert_eq!(channels.len(), 1, "{channels:?}");
    assert_eq!(seen.sum("millstream_channel_capacity_frames", &[]), 128.0);
    assert_eq!(seen.sum("millstream_channel_records", &[]), 0.0);
    job.stop_blocking(LONG).unwrap();
}

const TIME: &str = "millstream_operator_time_seconds_total";
const STATES: [&str; 5] = ["busy", "idle", "backpressured", "aligning", "checkpointing"];

#[test]
fn a_subtask_is_in_one_of_five_states_at_any_time() {
    let (pipeline, feed, collected) = words("words");
    let runtime = runtime();
    let job = runtime.start(pipeline).unwrap();
    feed.send("a".to_owned()).unwrap();
    collected.wait_for(1).unwrap();
    let (first, then) = (scrape(&runtime), scrape(&runtime));
    for subtask in ["0", "1"] {
        let labels = [("operator", "count"), ("subtask", subtask)];
        let (before, after) = (first.sum(TIME, &labels), then.sum(TIME, &labels));
        assert!(before > 0.0 && after >= before, "{before} s, then {after} s");
        let states: f64 = STATES.iter().map(|state| then.sum(TIME, &[labels[0], labels[1], ("state", state)])).sum();
        assert!((states - after).abs() < 1e-6, "{STATES:?} are all there are: {states} of {after} s");
    }
    job.stop_blocking(LONG).unwrap();
}

#[test]
fn committed_epochs_are_counted_with_their_times() {
    let (pipeline, feed, _collected) = words("words");
    let runtime = runtime();
    let job = runtime.start(pipeline).unwrap();
    // Its epoch has something to write.
    feed.send_durable("a".to_owned()).unwrap().wait().unwrap();
    let epoch = block_on(job.checkpoint_now());
    let seen = scrape(&runtime);
    let of = |family: &str, labels: &[(&str, &str)]| seen.sum(&format!("millstream_{family}"), labels);
    let completed = of("checkpoints_total", &[("result", "completed")]);
    assert!(completed >= epoch as f64, "epoch {epoch} is durable, {completed} are counted");
    assert_eq!(of("checkpoint_last_epoch", &[]), completed, "gapless, from epoch 1 on");
    assert_eq!(of("checkpoint_duration_seconds_count", &[]), completed);
    assert_eq!(of("checkpoint_duration_seconds_bucket", &[("le", "+Inf")]), completed);
    assert_eq!(of("checkpoint_phase_seconds_count", &[("phase", "persist")]), completed);
    // Every subtask has handed in a part of every epoch: four of them.
    assert!(of("checkpoint_phase_seconds_count", &[("phase", "snapshot")]) >= 4.0 * completed);
    assert!(of("checkpoint_written_bytes_total", &[]) > 0.0);
    assert_eq!(of("checkpoint_interval_seconds", &[]), 0.01);
    assert_eq!(of("checkpoints_total", &[("result", "failed")]), 0.0);
    job.stop_blocking(LONG).unwrap();
}

fn block_on(checkpoint: impl Future<Output = Result<millstream::runtime::id::Epoch, JobError>>) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(checkpoint).unwrap().number()
}

#[test]
fn a_restart_lets_counters_go_on_and_is_counted_by_its_cause() {
    let (feed, source) = feed::<u64>(100);
    let (collect, collected) = Collect::new();
    let panics = Arc::new(AtomicBool::new(false));
    let trap = Arc::clone(&panics);
    let pipeline = Pipeline::new("p").parallelism(1).epoch_interval(Duration::from_millis(10));
    pipeline
        .source("numbers", source)
        .inspect(move |_| {
            if trap.swap(false, Ordering::Relaxed) {
                // As a panic, without the message on the terminal.
                std::panic::resume_unwind(Box::new("planned"));
            }
        })
        .sink("out", collect);
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    for number in 0..10 {
        feed.send_durable(number).unwrap().wait().unwrap();
    }
    let before = scrape(&runtime);
    let count = |seen: &Scrape| seen.sum("millstream_operator_records_out_total", &[("operator", "numbers")]);
    assert_eq!(count(&before), 10.0);
    panics.store(true, Ordering::Relaxed);
    feed.send(10).unwrap();
    // What the record that panicked was taken with is lost with its epoch; those behind it come.
    while collected.delivered() < 11 {
        feed.send(11).unwrap();
        std::thread::yield_now();
    }
    let after = scrape(&runtime);
    assert!(count(&after) > 11.0, "ten, the one that panicked, and at least one more: {}", count(&after));
    let of = |family: &str, labels: &[(&str, &str)]| after.sum(&format!("millstream_{family}"), labels);
    assert_eq!(of("pipeline_restarts_total", &[("reason", "panic")]), 1.0);
    assert_eq!(of("pipeline_restarts_total", &[]), 1.0);
    let inspect = after.values_of("millstream_operator_info", "operator");
    let inspect = inspect.iter().find(|name| name.starts_with("inspect")).unwrap();
    assert_eq!(of("pipeline_failures_total", &[("operator", inspect), ("kind", "panic")]), 1.0);
    assert_eq!(of("restores_total", &[("result", "ok")]), 1.0);
    for (series, value) in before.counters() {
        let now = after.get(&series).unwrap_or_else(|| panic!("{series} is gone"));
        assert!(now >= value, "{series} fell from {value} to {now}");
    }
    job.stop_blocking(LONG).unwrap();
}

#[test]
fn a_pipeline_that_ended_leaves_its_state_and_its_counts_behind() {
    let (pipeline, feed, collected) = words("words");
    let runtime = runtime();
    let metrics = runtime.metrics();
    let job = runtime.start(pipeline).unwrap();
    feed.send("a".to_owned()).unwrap();
    collected.wait_for(1).unwrap();
    job.stop_blocking(LONG).unwrap();
    let seen = Scrape::of(&metrics.render());
    assert_eq!(seen.families_of("words"), ["millstream_pipeline_state"]);
    assert_eq!(seen.sum("millstream_pipeline_state", &[("state", "finished")]), 1.0);

    let (pipeline, feed, collected) = words("words");
    let job = runtime.start(pipeline).unwrap();
    feed.send("a".to_owned()).unwrap();
    collected.wait_for(1).unwrap();
    let seen = Scrape::of(&metrics.render());
    assert_eq!(seen.sum("millstream_operator_records_out_total", &[("operator", "words")]), 2.0);
    job.stop_blocking(LONG).unwrap();
}

#[test]
fn two_runtimes_of_one_process_know_nothing_of_each_other() {
    let jobs = [3, 5].map(|count| {
        let (pipeline, feed, collected) = words("words");
        let runtime = runtime();
        let job = runtime.start(pipeline).unwrap();
        (0..count).for_each(|_| feed.send("a".to_owned()).unwrap());
        collected.wait_for(count).unwrap();
        // Without its feed a job would be over.
        (runtime, job, feed, count)
    });
    for (runtime, job, _feed, count) in jobs {
        let seen = scrape(&runtime);
        assert_eq!(seen.sum("millstream_operator_records_in_total", &[("operator", "out")]), count as f64);
        job.stop_blocking(LONG).unwrap();
    }
}

#[test]
fn every_record_has_a_latency_from_its_source_to_its_sink() {
    let (pipeline, feed, collected) = words("words");
    let runtime = runtime();
    let job = runtime.start(pipeline).unwrap();
    ["a", "b", "a", "drop"].iter().for_each(|word| feed.send((*word).to_owned()).unwrap());
    collected.wait_for(3).unwrap();
    // A sink's turn counts when the next one begins, at the latest with a barrier.
    let family = "millstream_latency_seconds";
    let seen = loop {
        let seen = scrape(&runtime);
        if seen.sum(&format!("{family}_count"), &[("sink", "out")]) >= 3.0 {
            break seen;
        }
        std::thread::yield_now();
    };
    assert_eq!(seen.sum(&format!("{family}_bucket"), &[("sink", "out"), ("le", "+Inf")]), 3.0);
    assert!(seen.sum(&format!("{family}_sum"), &[]) > 0.0);
    job.stop_blocking(LONG).unwrap();
}

#[test]
fn what_is_off_is_not_counted_and_the_job_is() {
    let (pipeline, feed, _collected) = words("words");
    let runtime = Runtime::builder().workers(2).metrics_level(MetricsLevel::Off).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    feed.send_durable("a".to_owned()).unwrap().wait().unwrap();
    let seen = scrape(&runtime);
    for family in ["operator_records_in_total", "operator_time_seconds_total", "latency_seconds_count"] {
        assert!(!seen.has(&format!("millstream_{family}"), &[]), "{family}");
    }
    assert!(seen.sum("millstream_checkpoints_total", &[("result", "completed")]) >= 1.0);
    assert_eq!(seen.sum("millstream_pipeline_state", &[("state", "running")]), 1.0);
    job.stop_blocking(LONG).unwrap();
}

#[test]
fn the_age_of_events_at_the_sink_is_counted_where_they_have_a_time() {
    let (feed, source) = feed::<u64>(100);
    let (collect, collected) = Collect::new();
    let pipeline = Pipeline::new("p").parallelism(1).epoch_interval(Duration::from_millis(10));
    let stream = pipeline.source("numbers", source);
    // Decades before the clock, whatever it shows: beyond the last bound.
    let strategy = WatermarkStrategy::monotonous();
    stream.event_time_by(|_| Timestamp::from_millis(5_000), strategy).sink("out", collect);
    let runtime = runtime();
    let job = runtime.start(pipeline).unwrap();
    (0..3).for_each(|number| feed.send(number).unwrap());
    collected.wait_for(3).unwrap();
    let seen = scrape(&runtime);
    let family = "millstream_event_time_latency_seconds";
    assert_eq!(seen.sum(&format!("{family}_count"), &[("sink", "out")]), 3.0);
    assert_eq!(seen.sum(&format!("{family}_bucket"), &[("le", "30.0")]), 0.0);
    // They were committed, and a watermark goes before the barrier. The source itself has none.
    let watermark = "millstream_operator_watermark_timestamp_seconds";
    assert_eq!(seen.sum(watermark, &[("operator", "out")]), 4.999);
    assert!(!seen.has(watermark, &[("operator", "numbers")]));
    assert_eq!(seen.sum("millstream_source_records_total", &[("source", "numbers")]), 3.0);
    assert_eq!(seen.sum("millstream_sink_records_total", &[("sink", "out")]), 3.0);
    job.stop_blocking(LONG).unwrap();
}

/// An embedder's own recorder: counts what is registered with it.
#[derive(Debug)]
struct Foreign(&'static AtomicBool);

impl Recorder for Foreign {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        self.0.store(true, Ordering::Relaxed);
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.store(true, Ordering::Relaxed);
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        self.0.store(true, Ordering::Relaxed);
        Histogram::noop()
    }
}

#[test]
fn the_process_s_recorder_is_the_embedder_s() {
    static TOUCHED: AtomicBool = AtomicBool::new(false);
    let (pipeline, feed, collected) = words("words");
    let runtime = runtime();
    let job = runtime.start(pipeline).unwrap();
    let before = runtime.metrics().render();
    // Fails if the library has set one.
    metrics::set_global_recorder(Foreign(&TOUCHED)).unwrap();
    feed.send("a".to_owned()).unwrap();
    collected.wait_for(1).unwrap();
    let after = runtime.metrics().render();
    assert!(!TOUCHED.load(Ordering::Relaxed), "the library wrote into a recorder that is not its own");
    assert!(before.contains("millstream_build_info{") && after.contains("millstream_build_info{"));
    job.stop_blocking(LONG).unwrap();
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let (pipeline, feed, collected) = words("words");
    let runtime = runtime();
    let job = runtime.start(pipeline).unwrap();
    feed.send_durable("a".to_owned()).unwrap().wait().unwrap();
    collected.wait_for(1).unwrap();
    scrape::promtool(&runtime.metrics().render());
    job.stop_blocking(LONG).unwrap();
}

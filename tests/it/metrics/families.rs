//! Each family is moved by a pipeline that makes it move, and all that are named are served.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::metrics::MetricsLevel;
use millstream::runtime::metrics::names::{FAMILIES, Kind};
use millstream::runtime::operator::DeadLetterKind;
use millstream::runtime::testing::ManualClock;

use super::scrape::Scrape;
use super::{LONG, runtime, scrape, words};

const EPOCH: Duration = Duration::from_millis(10);

/// Looks until it is so.
#[track_caller]
fn wait_for(runtime: &Runtime, mut is_so: impl FnMut(&Scrape) -> bool) -> Scrape {
    for _ in 0..1_000_000 {
        let seen = scrape(runtime);
        if is_so(&seen) {
            return seen;
        }
        std::thread::yield_now();
    }
    panic!("it never came to that: {:#?}", scrape(runtime));
}

#[test]
fn errors_count_by_operator_whatever_becomes_of_their_records() {
    let (feed, source) = feed::<String>(100);
    let (letters, dead) = Collect::new();
    let (collect, collected) = Collect::new();
    let tag = OutputTag::<String>::new("not \"a\nnumber\\");
    let pipeline = Pipeline::new("p").parallelism(1).epoch_interval(EPOCH);
    let parsed = pipeline
        .source("texts", source)
        .try_map(|text: String| if text == "no" { Err("no") } else { Ok(text) })
        .skip_errors()
        .erase()
        .try_map(|text: String| text.parse::<u64>())
        .dead_letters_to(&tag);
    parsed.clone().side(&tag).rebalance().sink("dead", letters);
    parsed.sink("out", collect);
    let runtime = runtime();
    let job = runtime.start(pipeline).unwrap();
    ["1", "no", "two", "3", "four", "no", "no"].iter().for_each(|text| feed.send((*text).to_owned()).unwrap());
    collected.wait_for(2).unwrap();
    dead.wait_for(2).unwrap();
    let seen = wait_for(&runtime, |seen| seen.sum("millstream_operator_records_dropped_total", &[]) == 3.0);
    let mut names = seen.values_of("millstream_operator_info", "operator");
    names.retain(|name| name.starts_with("try_map"));
    let [skips, hands_on] = &*names else { panic!("{names:?}") };
    let of = |family: &str, operator: &str, kind| seen.sum(family, &[("operator", operator), kind]);
    let errors = "millstream_operator_errors_total";
    assert_eq!(of(errors, skips, ("kind", "error")), 3.0);
    assert_eq!(of(errors, hands_on, ("kind", "error")), 2.0);
    assert_eq!(of(errors, hands_on, ("kind", "panic")), 0.0);
    assert_eq!(of("millstream_operator_records_dropped_total", skips, ("reason", "skipped")), 3.0);
    assert_eq!(of("millstream_operator_records_dropped_total", hands_on, ("reason", "skipped")), 0.0);
    assert_eq!(of("millstream_dead_letter_records_total", hands_on, ("kind", "error")), 2.0);
    assert_eq!(of("millstream_dead_letter_records_total", skips, ("kind", "error")), 0.0);
    let status = job.subtasks();
    let letters: u64 = status
        .iter()
        .flat_map(|subtask| &subtask.dead_letters)
        .filter(|letters| letters.kind == DeadLetterKind::Error)
        .map(|letters| letters.records)
        .sum();
    assert_eq!(letters, 2);
    // A tag may have any name; the channel's is made of it.
    let channels = seen.values_of("millstream_channel_records", "channel");
    assert!(channels.contains(&format!("{hands_on}.not \"a\nnumber\\>dead")), "{channels:?}");
    scrape::promtool(&runtime.metrics().render());
    job.stop_blocking(LONG).unwrap();
}

#[test]
fn a_failure_counts_as_an_error_of_its_operator() {
    let (feed, source) = feed::<u64>(100);
    let (collect, collected) = Collect::new();
    let fails = Arc::new(AtomicBool::new(true));
    let pipeline = Pipeline::new("p").parallelism(1).epoch_interval(EPOCH);
    let once = move |n: u64| if fails.swap(false, Ordering::Relaxed) { Err("planned") } else { Ok(n) };
    pipeline.source("numbers", source).try_map(once).sink("out", collect);
    let runtime = runtime();
    let job = runtime.start(pipeline).unwrap();
    let errors = |seen: &Scrape, kind| seen.sum("millstream_operator_errors_total", &[("kind", kind)]);
    assert_eq!(errors(&scrape(&runtime), "error"), 0.0, "it is there before the first one");
    feed.send(1).unwrap();
    wait_for(&runtime, |seen| seen.sum("millstream_pipeline_restarts_total", &[]) == 1.0);
    while collected.delivered() == 0 {
        let _ = feed.try_send(2);
        std::thread::yield_now();
    }
    let seen = scrape(&runtime);
    assert_eq!((errors(&seen, "error"), errors(&seen, "panic")), (1.0, 0.0));
    job.stop_blocking(LONG).unwrap();
}

/// Hangs whoever calls it on worker 1, until the sender is dropped; says so first.
fn hang_worker_1() -> (impl Fn() + Clone + Send + Sync + 'static, Receiver<()>, SyncSender<()>) {
    let (entered, inside) = sync_channel(1);
    let (release, released) = sync_channel::<()>(1);
    let released = Arc::new(Mutex::new(released));
    let hang = move || {
        if std::thread::current().name() == Some("millstream-work-1") {
            let _ = entered.try_send(());
            let _ = released.lock().unwrap().recv();
        }
    };
    (hang, inside, release)
}

/// Numbers, each of which is a key; a count per key, and what happens on worker 1 behind it. The source is on worker 0.
fn hanging() -> (Pipeline, Feed<u64>, Receiver<()>, SyncSender<()>) {
    let (feed, source) = feed::<u64>(100);
    let (hang, inside, release) = hang_worker_1();
    let pipeline = Pipeline::new("p").parallelism(2).epoch_interval(EPOCH);
    let counts = pipeline.source("numbers", source).key_by(|n: &u64| *n).count("count");
    counts.inspect(move |_| hang()).sink("out", Blackhole::new());
    (pipeline, feed, inside, release)
}

#[test]
fn orders_that_a_source_does_not_take_are_seen_to_wait() {
    let (pipeline, feed, inside, release) = hanging();
    let runtime = runtime();
    let job = runtime.start(pipeline).unwrap();
    (0..20).for_each(|n| feed.send(n).unwrap());
    inside.recv_timeout(LONG).unwrap();
    let depth = |seen: &Scrape, subtask: &str| {
        seen.sum("millstream_operator_mailbox_depth", &[("operator", "numbers"), ("subtask", subtask)])
    };
    // The source's other subtask shares the worker. Two epochs may be in flight, so two barriers wait and no third one comes.
    let seen = wait_for(&runtime, |seen| depth(seen, "1") == 2.0 && depth(seen, "0") == 0.0);
    assert_eq!(seen.sum("millstream_checkpoints_in_progress", &[]), 2.0);
    drop(release);
    wait_for(&runtime, |seen| depth(seen, "1") == 0.0);
    job.stop_blocking(LONG).unwrap();
}

#[test]
fn records_behind_a_barrier_that_waits_for_others_are_seen() {
    let (pipeline, feed, inside, release) = hanging();
    let runtime = runtime();
    let job = runtime.start(pipeline).unwrap();
    (0..20).for_each(|n| feed.send(n).unwrap());
    inside.recv_timeout(LONG).unwrap();
    let buffered = |seen: &Scrape| seen.sum("millstream_checkpoint_buffered_records", &[("operator", "count")]);
    let mut next = 20;
    wait_for(&runtime, |seen| {
        // Subtask 0 has the barrier of one source's subtask, and that of the other does not come; what is behind it stays there.
        next += u64::from(feed.try_send(next).is_ok());
        buffered(seen) > 0.0
    });
    drop(release);
    // Phases are told when their epoch is durable.
    let phase = |seen: &Scrape, phase| seen.sum("millstream_checkpoint_phase_seconds_sum", &[("phase", phase)]);
    wait_for(&runtime, |seen| {
        buffered(seen) == 0.0 && phase(seen, "alignment") > 0.0 && phase(seen, "start_delay") > 0.0
    });
    job.stop_blocking(LONG).unwrap();
}

#[test]
fn quantiles_are_those_of_the_last_ten_seconds() {
    let clock = ManualClock::at(Timestamp::from_millis(1_000_000));
    let (feed, source) = feed::<u64>(100);
    let (collect, collected) = Collect::new();
    let pipeline = Pipeline::new("p").parallelism(1).epoch_interval(EPOCH);
    pipeline.source("numbers", source).sink("out", collect);
    let runtime = Runtime::builder().workers(1).clock(Arc::new(clock.clone())).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    let family = "millstream_latency_window_seconds";
    let has = |seen: &Scrape| seen.has(family, &[("sink", "out"), ("quantile", "0.99")]);
    feed.send(1).unwrap();
    // Epochs close as the clock goes on, and every barrier is a turn.
    let turn = |seen: &Scrape, found: bool| {
        clock.advance(EPOCH);
        has(seen) == found
    };
    let seen = wait_for(&runtime, |seen| turn(seen, true));
    collected.wait_for(1).unwrap();
    assert_eq!(seen.sum(&format!("{family}_count"), &[]), 1.0);
    let highest = seen.sum(family, &[("quantile", "1.0")]);
    assert!((0.0..1.0).contains(&highest), "the clock went on by less than a second: {highest}");
    let seen = wait_for(&runtime, |seen| turn(seen, false));
    assert_eq!(seen.sum(&format!("{family}_count"), &[]), 1.0, "what was counted in all stays");
    // The clock stands still: by itself nothing goes on.
    let stopping = std::thread::spawn(move || job.stop_blocking(LONG));
    while !stopping.is_finished() {
        clock.advance(EPOCH);
        std::thread::yield_now();
    }
    stopping.join().unwrap().unwrap();
}

#[test]
#[cfg(feature = "rocksdb")]
fn what_a_checkpoint_wrote_and_where_it_took_its_time_is_told_by_operator() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::builder().workers(2).state_backend(RocksDb::at(directory.path())).build().unwrap();
    let (pipeline, feed, _collected) = words("words");
    let job = runtime.start(pipeline).unwrap();
    let written =
        |seen: &Scrape, operator| seen.sum("millstream_checkpoint_written_bytes_total", &[("operator", operator)]);
    let before = wait_for(&runtime, |seen| seen.has("millstream_checkpoint_last_epoch", &[]));
    assert_eq!((written(&before, "count"), written(&before, "out")), (0.0, 0.0));
    feed.send_durable("a".to_owned()).unwrap().wait().unwrap();
    let seen = scrape(&runtime);
    assert!(written(&seen, "count") > 0.0 && written(&seen, "out") > 0.0);
    assert_eq!(written(&seen, "words"), 0.0, "a position is part of no delta");
    let last = |operator, phase| {
        seen.sum("millstream_checkpoint_last_phase_seconds", &[("operator", operator), ("phase", phase)])
    };
    for phase in ["start_delay", "alignment", "snapshot"] {
        assert!(last("count", phase) >= 0.0 && last("words", phase) >= 0.0);
    }
    let duration = seen.sum("millstream_checkpoint_last_duration_seconds", &[]);
    let longest = last("count", "start_delay") + last("count", "alignment") + last("count", "snapshot");
    assert!(longest.max(last("", "persist")) <= duration * 2.0 + 0.001, "{longest} of {duration}");
    let size = |kind| seen.sum("millstream_checkpoint_last_size_bytes", &[("kind", kind)]);
    assert!(size("full") > 0.0, "the store holds something");
    job.stop_blocking(LONG).unwrap();
}

#[test]
#[cfg(feature = "rocksdb")]
fn all_families_of_the_catalogue_are_served_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::builder().workers(2).metrics_level(MetricsLevel::Debug);
    let runtime = runtime.state_backend(RocksDb::at(directory.path())).build().unwrap();
    let (feed, source) = feed::<u64>(100);
    let (collect, collected) = Collect::new();
    let pipeline = Pipeline::new("p").epoch_interval(EPOCH);
    let time = |n: &u64| Timestamp::from_millis(i64::try_from(*n).unwrap());
    pipeline
        .source("numbers", source)
        .event_time_by(time, WatermarkStrategy::monotonous())
        .try_map(|n: u64| if n < 100 { Ok(n) } else { Err("too large") })
        .skip_errors()
        .key_by(|n: &u64| n % 3)
        .count("count")
        .sink("out", collect);
    let job = runtime.start(pipeline).unwrap();
    (1..5).for_each(|n| feed.send(n).unwrap());
    collected.wait_for(4).unwrap();
    let watermark = "millstream_operator_watermark_timestamp_seconds";
    wait_for(&runtime, |seen| seen.has(watermark, &[("operator", "out")]));
    let text = runtime.metrics().render();
    let mut served: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    served.sort_unstable();
    let kind = |kind| match kind {
        Kind::Counter | Kind::Seconds => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        Kind::Summary => "summary",
        other => panic!("{other:?}"),
    };
    let named = FAMILIES.iter().map(|family| format!("{} {}", family.name, kind(family.kind)));
    let mut named: Vec<_> = named.collect();
    named.sort_unstable();
    assert_eq!(served, named);
    job.stop_blocking(LONG).unwrap();
}

#[test]
fn the_level_debug_times_user_code_and_queues() {
    let (pipeline, feed, collected) = words("words");
    let debug = Runtime::builder().workers(2).metrics_level(MetricsLevel::Debug).build().unwrap();
    let job = debug.start(pipeline).unwrap();
    ["a", "b", "drop", "a"].iter().for_each(|word| feed.send((*word).to_owned()).unwrap());
    collected.wait_for(3).unwrap();
    let seen = scrape(&debug);
    let frames = |operator| seen.sum("millstream_operator_frames_in_total", &[("operator", operator)]);
    for operator in ["count", "out"] {
        let times = seen.sum("millstream_operator_process_seconds_count", &[("operator", operator)]);
        assert_eq!(times, frames(operator), "{operator}: one per frame");
    }
    assert!(!seen.has("millstream_operator_process_seconds_count", &[("operator", "words")]), "a source has no input");
    let waits = seen.sum("millstream_channel_wait_seconds_count", &[]);
    assert!((1.0..=3.0).contains(&waits), "frames through the exchange: {waits}");
    job.stop_blocking(LONG).unwrap();

    let (pipeline, feed, collected) = words("words");
    let info = runtime();
    let job = info.start(pipeline).unwrap();
    feed.send("a".to_owned()).unwrap();
    collected.wait_for(1).unwrap();
    let seen = scrape(&info);
    for family in ["operator_process_seconds_count", "channel_wait_seconds_count"] {
        assert!(!seen.has(&format!("millstream_{family}"), &[]), "{family}");
    }
    job.stop_blocking(LONG).unwrap();
}

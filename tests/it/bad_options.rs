//! Options at their limits and beyond: what is out of its range is refused by name, and what is in it works.

use std::net::{Ipv4Addr, TcpListener};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::runtime::RuntimeBuilder;
use millstream::runtime::state::log::LogLimits;

const LONG: Duration = Duration::MAX;

#[test]
fn every_option_of_a_runtime_that_is_out_of_its_range_is_named() {
    let builder = Runtime::builder;
    let limits = |limits: LogLimits| builder().log_limits(limits);
    let usual = LogLimits::default();
    let (no_time, room, bytes) = (Duration::ZERO, "it must be 1 to 65536", "it must be at least 1");
    let table: [(RuntimeBuilder, &str, &str); 24] = [
        (builder().workers(0), "workers is 0", "it must be 1 to 960"),
        (builder().workers(usize::MAX), "workers is 18446744073709551615", "it must be 1 to 960"),
        (builder().channel_frames(0), "channel_frames is 0", room),
        (builder().channel_frames(65_537), "channel_frames is 65537", room),
        (builder().read_ahead(0), "read_ahead is 0", room),
        (builder().read_ahead(65_537), "read_ahead is 65537", room),
        (builder().max_epochs_in_flight(0), "max_epochs_in_flight is 0", "it must be 1 to 8"),
        (builder().max_epochs_in_flight(9), "max_epochs_in_flight is 9", "it must be 1 to 8"),
        (builder().epoch_interval(no_time), "epoch_interval is 0ns", "it must be at least 1 ms"),
        (builder().epoch_interval(Duration::from_micros(999)), "epoch_interval is 999µs", "it must be at least 1 ms"),
        (builder().open_timeout(no_time), "open_timeout is 0ns", "it must be above zero"),
        (builder().stop_timeout(no_time), "stop_timeout is 0ns", "it must be above zero"),
        (builder().shutdown_timeout(no_time), "shutdown_timeout is 0ns", "it must be above zero"),
        (builder().epoch_timeout(no_time), "epoch_timeout is 0ns", "it must be above zero"),
        (builder().key_groups(NonZeroU16::MAX), "key_groups is 65535", "it must be 1 to 65534"),
        (builder().max_outbox_bytes(0), "max_outbox_bytes is 0", bytes),
        (builder().max_waiting_bytes(0), "max_waiting_bytes is 0", bytes),
        (builder().max_unfolded_bytes(0), "max_unfolded_bytes is 0", bytes),
        (builder().max_commit_bytes(0), "max_commit_bytes is 0", bytes),
        // All that is a share of it is none, too.
        (builder().state_memory(0), " is 0", bytes),
        (limits(LogLimits { fold_bytes: 0, ..usual }), "log_limits.fold_bytes is 0", bytes),
        (limits(LogLimits { fold_epochs: 0, ..usual }), "log_limits.fold_epochs is 0", bytes),
        (limits(LogLimits { batch_bytes: 0, ..usual }), "log_limits.batch_bytes is 0", bytes),
        (builder().workers(961), "workers is 961", "it must be 1 to 960"),
    ];
    for (builder, given, range) in table {
        let text = builder.build().unwrap_err().to_string();
        assert!(text.starts_with("runtime option ") && text.contains(given) && text.contains(range), "{text}");
    }
}

/// A runtime with the most of everything, but for threads, on a real store.
fn largest(backend: RocksDb) -> Runtime {
    let limits = LogLimits { fold_bytes: u64::MAX, fold_epochs: u64::MAX, batch_bytes: usize::MAX };
    let mut restart = RestartPolicy::at_most(usize::MAX).backoff(Duration::ZERO);
    (restart.window, restart.max_backoff) = (LONG, LONG);
    Runtime::builder()
        .workers(2)
        .restart(restart)
        .state_backend(backend)
        .channel_frames(65_536)
        .read_ahead(65_536)
        .epoch_interval(LONG)
        .open_timeout(LONG)
        .stop_timeout(LONG)
        .shutdown_timeout(LONG)
        .epoch_timeout(LONG)
        .max_epochs_in_flight(8)
        .key_groups(NonZeroU16::new(65_534).unwrap())
        .max_outbox_bytes(usize::MAX)
        .max_waiting_bytes(usize::MAX)
        .state_memory(u64::MAX)
        .max_unfolded_bytes(u64::MAX)
        .max_commit_bytes(usize::MAX)
        .log_limits(limits)
        .build()
        .unwrap()
}

#[test]
fn the_largest_options_work() {
    let dir = tempfile::tempdir().unwrap();
    let [state, input, out] = ["state", "in", "out"].map(|name| dir.path().join(name));
    std::fs::create_dir(&input).unwrap();
    std::fs::write(input.join("file"), "1\n2\n").unwrap();
    let runtime = largest(RocksDb::at(&state));

    // Epochs never close by the clock, so all of it is the last one, in both attempts.
    let pipeline = Pipeline::new("finite").parallelism(2);
    let made = pipeline.source("made", Generator::new(Some(10), |n| n).rate(f64::MAX).splits(1_000));
    let lines = Lines::at(&input).max_line_bytes(usize::MAX).pace(f64::MAX);
    let read = pipeline.source("read", lines).try_map(|line| line.parse::<u64>());
    let failed = Arc::new(AtomicBool::new(false));
    let fail_once = move |n: u64| match n == 2 && !failed.swap(true, Ordering::Relaxed) {
        true => Err("planned"),
        false => Ok(n),
    };
    let strategy = || WatermarkStrategy::bounded(LONG).idle_after(LONG).max_ahead(LONG);
    let time = |n: &u64| Timestamp::from_micros(*n as i64);
    made.event_time_by(time, strategy())
        .union(read.event_time_by(time, strategy()))
        .try_map(fail_once)
        .key_by(|n| *n)
        .count("times")
        .map(|(n, times)| format!("{n} {times}"))
        .sink("out", FileSink::at(&out).roll_bytes(usize::MAX).roll_interval(LONG));
    runtime.start(pipeline).unwrap().join().unwrap();
    let files = read_committed(&out).unwrap();
    let mut counts: Vec<_> = files.iter().flat_map(|file| file.lines().unwrap()).collect();
    counts.sort_unstable();
    let once = (0..10).map(|n| format!("{n} 1"));
    let mut expected: Vec<_> = once.chain(["1 2".to_owned(), "2 2".to_owned()]).collect();
    expected.sort_unstable();
    assert_eq!(counts, expected);

    // Those that never end. What they wait for comes at once.
    let pipeline = Pipeline::new("endless").parallelism(1).epoch_interval(Duration::from_millis(5));
    let backend = RocksDb::at(&state);
    let watched = WatchedDirectory::at(&input, "files", backend.clone());
    let watched = watched.interval(LONG).max_file_age(LONG).max_line_bytes(usize::MAX);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let heard = SocketListener::on(listener).max_connections(usize::MAX).max_connections_per_address(usize::MAX);
    let heard = heard.max_line_bytes(usize::MAX).idle_timeout(LONG).line_timeout(LONG);
    let (feed, fed) = feed::<String>(1 << 20);
    let fed = WalSource::new("log", fed, backend).max_bytes(u64::MAX);
    let (sink, collected) = Collect::new();
    pipeline
        .source("watched", watched)
        .union(pipeline.source("heard", heard))
        .union(pipeline.source("fed", fed))
        .sink("out", sink);
    let job = runtime.start(pipeline).unwrap();
    std::io::Write::write_all(&mut std::net::TcpStream::connect(address).unwrap(), b"heard\n").unwrap();
    feed.send_durable("fed".to_owned()).unwrap().wait().unwrap();
    collected.wait_for(4).unwrap();
    job.stop_blocking(LONG).unwrap();
    let mut seen = collected.snapshot();
    seen.sort_unstable();
    assert_eq!(seen, ["1", "2", "fed", "heard"]);
}

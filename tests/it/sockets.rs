//! Sources that cannot be read again, under a whole pipeline: floods, silence, what is dropped; a write-ahead log behind them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
#[cfg(feature = "rocksdb")]
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream::connectors::socket::SocketCounter;
use millstream::prelude::*;
#[cfg(feature = "rocksdb")]
use millstream::runtime::source::Source;
use millstream::runtime::testing::ManualClock;

#[cfg(feature = "rocksdb")]
use crate::stored::chain;

/// More than a process may have to serve.
const FLOOD: usize = 5_000;
const MOST: usize = 100;

fn is_closed(peer: &mut TcpStream) -> bool {
    match peer.read(&mut [0; 8]) {
        Ok(length) => length == 0,
        Err(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted),
    }
}

/// A job that listens, and what it has committed.
struct Listening {
    // Its end would be the job's.
    _runtime: Runtime,
    job: JobHandle,
    collected: Collected<String>,
    counter: SocketCounter,
    address: SocketAddr,
}

fn listen(with: impl FnOnce(SocketListener) -> SocketListener) -> Listening {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let source = with(SocketListener::on(listener));
    let counter = source.counter();
    let (sink, collected) = Collect::new();
    let pipeline = Pipeline::new("sockets").epoch_interval(Duration::from_millis(5));
    pipeline.source("lines", source).sink("out", sink);
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    Listening { _runtime: runtime, job, collected, counter, address }
}

#[tokio::test]
async fn five_thousand_connections_do_not_disturb_those_who_are_in() {
    let Listening { _runtime, job, collected, counter, address } = listen(|source| source.max_connections(MOST));
    let call = || TcpStream::connect(address).unwrap();
    let mut peers: Vec<_> = (0..MOST).map(|_| call()).collect();
    let say = |peers: &mut Vec<TcpStream>, text: &str| {
        peers.iter_mut().for_each(|peer| peer.write_all(text.as_bytes()).unwrap());
    };
    say(&mut peers, "here\n");
    collected.wait_for(MOST).unwrap();
    for _ in MOST..FLOOD {
        assert!(is_closed(&mut call()));
    }
    say(&mut peers, "still here\n");
    collected.wait_for(2 * MOST).unwrap();
    let counts = counter.counts();
    assert_eq!((counts.open, counts.refused), (MOST as u64, (FLOOD - MOST) as u64));
    job.stop(Duration::from_secs(10)).await.unwrap();
    assert!(peers.iter_mut().all(is_closed), "the end of the job closes its connections");
}

#[tokio::test]
async fn a_silent_peer_is_closed_after_its_time() {
    let clock = ManualClock::default();
    let listening = listen(|source| source.clock(Arc::new(clock.clone())));
    let Listening { _runtime, job, collected, counter, address } = listening;
    let mut peer = TcpStream::connect(address).unwrap();
    peer.write_all(b"hello\n").unwrap();
    collected.wait_for(1).unwrap();
    clock.advance(Duration::from_secs(60));
    assert!(is_closed(&mut peer));
    assert_eq!(counter.counts().silent, 1);
    job.stop(Duration::from_secs(10)).await.unwrap();
}

#[test]
fn a_server_that_closes_in_mid_line_costs_that_line_and_it_is_counted() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let source = SocketLines::connect(listener.local_addr().unwrap().to_string()).end_with_peer();
    let counter = source.counter();
    let (sink, collected) = Collect::new();
    let pipeline = Pipeline::new("sockets");
    pipeline.source("lines", source).sink("out", sink);
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    listener.accept().unwrap().0.write_all(b"one\ntwo\nthr").unwrap();
    job.join().unwrap();
    assert_eq!(collected.snapshot(), ["one", "two"]);
    assert_eq!((counter.counts().lines, counter.counts().partial_lines), (2, 1));
}

/// What a line's process does with it; fails once, in the middle.
#[cfg(feature = "rocksdb")]
fn numbers_of<S: Source<Out = u64>>(source: S, backend: RocksDb) -> (Runtime, JobHandle, Collected<u64>) {
    let (sink, collected) = Collect::new();
    let pipeline = Pipeline::new("behind-a-log").epoch_interval(Duration::from_millis(5));
    let failed = Arc::new(AtomicBool::new(false));
    let fail_once = move |n: u64| match n == 150 && !failed.swap(true, Ordering::Relaxed) {
        true => Err("planned"),
        false => Ok(n),
    };
    pipeline.source("numbers", source).try_map(fail_once).sink("out", sink);
    let runtime = Runtime::builder().workers(1).state_backend(backend).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    (runtime, job, collected)
}

#[cfg(feature = "rocksdb")]
#[test]
fn behind_a_write_ahead_log_a_feed_loses_nothing_when_an_attempt_fails() {
    let dir = tempfile::tempdir().unwrap();
    let backend = RocksDb::at(dir.path());
    let (feed, source) = feed::<u64>(16);
    let (_runtime, job, collected) = numbers_of(WalSource::new("log", source, backend.clone()), backend.clone());
    let receipts: Vec<_> = (0..300).map(|n| feed.send_durable(n).unwrap()).collect();
    for receipt in receipts {
        receipt.wait().unwrap();
    }
    drop(feed);
    job.join().unwrap();
    assert!(collected.snapshot().into_iter().eq(0..300));
    // The log holds its own store's lock, under its own name.
    let (_feed, source) = millstream::prelude::feed::<u64>(16);
    let pipeline = Pipeline::new("same-name");
    pipeline.source("numbers", WalSource::new("same-name", source, backend.clone())).sink("out", Blackhole::new());
    let runtime = Runtime::builder().workers(1).restart(RestartPolicy::never()).state_backend(backend).build().unwrap();
    let error = match runtime.start(pipeline) {
        Err(error) => chain(&error),
        Ok(job) => chain(&job.join().expect_err("two stores in one directory")),
    };
    assert!(error.contains("write-ahead log same-name") && error.contains("in use by"), "{error}");
}

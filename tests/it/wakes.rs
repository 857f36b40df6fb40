//! Nobody waits for a bell that was not rung. Epochs close once an hour here: no barrier comes by that would wake a task whose own
//! wake-up was lost, so such a job would stand still.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use millstream::connectors::channel::{Feed, feed};
use millstream::prelude::*;
use millstream::runtime::config::LatencyPolicy;

/// Longest that a record may take.
const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Two exchanges over channels of one frame: numbers come out as they are processed.
fn start(policy: LatencyPolicy) -> (Runtime, JobHandle, Feed<u64>, Receiver<u64>) {
    let (feed, source) = feed::<u64>(4_096);
    let (out, seen) = sync_channel(65_536);
    let pipeline = Pipeline::new("wakes").parallelism(2).epoch_interval(HOUR);
    pipeline
        .source("numbers", source)
        .key_by(|n: &u64| *n % 64)
        .count("first")
        .key_by(|(_, count): &(u64, u64)| *count)
        .count("second")
        .sink(
            "out",
            for_each(move |(_, count): (u64, u64)| {
                let _ = out.send(count);
            }),
        );
    let runtime = Runtime::builder().workers(2).channel_frames(1).read_ahead(1).latency_policy(policy).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    (runtime, job, feed, seen)
}

#[test]
fn a_record_wakes_all_that_it_has_to_pass() {
    for policy in [LatencyPolicy::Park, LatencyPolicy::Adaptive] {
        let (_runtime, job, feed, seen) = start(policy);
        // Alone, so that everybody sleeps before it; then more than there is room for, so that everybody waits for room.
        for burst in [1; 5_000].into_iter().chain([2_000; 10]) {
            (0..burst).for_each(|n| feed.send(n).unwrap());
            for number in 0..burst {
                let came = seen.recv_timeout(PATIENCE);
                assert!(came.is_ok(), "record {number} of {burst} does not come: {:?}", job.status());
            }
        }
        job.stop_blocking(PATIENCE).unwrap();
    }
}

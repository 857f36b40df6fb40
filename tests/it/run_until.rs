//! Running until a shutdown: what a daemon's main function does.

use std::pin::pin;
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::job::JobError;
use millstream::runtime::runtime::RunError;
use tokio::sync::{mpsc, oneshot};

fn runtime() -> Runtime {
    Runtime::builder().workers(1).restart(RestartPolicy::never()).build().unwrap()
}

/// A pipeline that runs until it is stopped, and closes no epoch by itself.
struct Endless {
    feed: Feed<u64>,
    /// As processed.
    processed: mpsc::Receiver<u64>,
    committed: Collected<u64>,
}

fn endless(runtime: &Runtime, name: &str) -> Endless {
    let (feed, numbers) = feed::<u64>(10);
    let (tell, processed) = mpsc::channel(10);
    let (sink, committed) = Collect::new();
    let pipeline = Pipeline::new(name).epoch_interval(Duration::from_secs(3600));
    let numbers = pipeline.source("numbers", numbers);
    numbers.clone().sink("processed", try_for_each(move |number| Ok(tell.try_send(number)?)));
    numbers.sink("committed", sink);
    runtime.start(pipeline).unwrap();
    Endless { feed, processed, committed }
}

fn finite(runtime: &Runtime, name: &str, fails: bool) {
    let pipeline = Pipeline::new(name);
    let check = move |n: u64| if fails { Err("a bad number") } else { Ok(n) };
    pipeline.source("numbers", Generator::new(Some(3), |n| n)).try_map(check).sink("nothing", Blackhole::new());
    runtime.start(pipeline).unwrap();
}

#[tokio::test]
async fn stops_all_jobs_in_order_when_it_is_told() {
    let runtime = runtime();
    let mut one = endless(&runtime, "one");
    let _two = endless(&runtime, "two");
    let (tell, told) = oneshot::channel::<()>();
    one.feed.send_async(7).await.unwrap();
    let until = runtime.run_until(async { drop(told.await) });
    let processed = async {
        assert_eq!(one.processed.recv().await, Some(7));
        assert!(one.committed.snapshot().is_empty(), "no epoch has closed yet");
        tell.send(()).unwrap();
    };
    let (ended, ()) = tokio::join!(until, processed);
    let ended = ended.unwrap();
    let names: Vec<&str> = ended.iter().map(|(pipeline, _)| pipeline.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    assert!(ended.iter().all(|(_, ended)| matches!(ended, Ended::Stopped { .. })), "{ended:?}");
    assert_eq!(one.committed.snapshot(), [7], "the last epoch is committed and delivered");
}

#[tokio::test]
async fn what_waits_for_a_file_to_be_full_is_written_at_the_end() {
    let (runtime, dir) = (runtime(), tempfile::tempdir().unwrap());
    let (feed, numbers) = feed::<u64>(10);
    let pipeline = Pipeline::new("files").epoch_interval(Duration::from_secs(3600));
    let files = FileSink::at(dir.path()).roll_interval(Duration::MAX).roll_bytes(usize::MAX);
    pipeline.source("numbers", numbers).sink("files", files);
    let job = runtime.start(pipeline).unwrap();
    // One epoch is committed and waits for its file when the last one begins.
    let mut receipt = pin!(feed.send_durable_async(1).await.unwrap().into_future());
    loop {
        tokio::select! {
            durable = &mut receipt => break durable.unwrap(),
            // The one that it was taken in, or one before.
            epoch = job.checkpoint_now() => drop(epoch.unwrap()),
        }
    }
    feed.send_async(2).await.unwrap();
    drop(feed);
    job.wait().await.unwrap();
    let lines: Vec<_> = read_committed(dir.path()).unwrap().iter().flat_map(|file| file.lines().unwrap()).collect();
    assert_eq!(lines, ["1", "2"]);
}

#[tokio::test]
async fn returns_when_all_have_ended_and_at_once_without_any() {
    let runtime = runtime();
    assert_eq!(runtime.run_until(std::future::pending()).await.unwrap(), []);
    finite(&runtime, "short", false);
    let ended = runtime.run_until(std::future::pending()).await.unwrap();
    assert!(matches!(ended.as_slice(), [(name, Ended::Finished { .. })] if name == "short"), "{ended:?}");
}

#[tokio::test]
async fn stops_the_others_when_one_fails() {
    let runtime = runtime();
    let _goes_on = endless(&runtime, "goes-on");
    finite(&runtime, "fails", true);
    let RunError { pipeline, source, .. } = runtime.run_until(std::future::pending()).await.unwrap_err();
    assert_eq!(pipeline, "fails");
    assert!(matches!(source, JobError::Task { .. }), "{source}");
    // The other's store is free again: it has ended.
    let _goes_on = endless(&runtime, "goes-on");
}

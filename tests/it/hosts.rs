//! A pipeline starts and stops the same way wherever its host's code runs.

use std::time::Duration;

use millstream::prelude::*;

/// Counts numbers by their last digit, by the words of `Collect`.
fn start(runtime: &Runtime, name: &str) -> (JobHandle, Collected<(u64, u64)>) {
    let (sink, counts) = Collect::new();
    let pipeline = Pipeline::new(name).epoch_interval(Duration::from_millis(10));
    pipeline.source("numbers", Generator::new(Some(1_000), |n| n)).key_by(|n| n % 10).count("counts").sink("out", sink);
    (runtime.start(pipeline).unwrap(), counts)
}

fn runtime() -> Runtime {
    Runtime::builder().workers(2).build().unwrap()
}

#[track_caller]
fn check(counts: &Collected<(u64, u64)>) {
    let mut found = counts.snapshot();
    found.sort_unstable();
    let wanted: Vec<_> = (0..10).flat_map(|digit| (1..=100).map(move |count| (digit, count))).collect();
    assert_eq!(found, wanted);
}

async fn run() {
    let runtime = runtime();
    let (job, counts) = start(&runtime, "hosted");
    assert!(matches!(job.wait().await, Ok(Ended::Finished { .. })));
    check(&counts);
}

#[test]
fn runs_in_a_plain_main() {
    let runtime = runtime();
    let (job, counts) = start(&runtime, "hosted");
    assert!(matches!(job.join(), Ok(Ended::Finished { .. })));
    check(&counts);
}

#[test]
fn runs_in_both_flavours_of_tokio() {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run());
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap().block_on(run());
}

#[test]
fn runs_in_a_task_of_a_multi_threaded_tokio() {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    tokio.block_on(async { tokio::spawn(run()).await.unwrap() });
}

#[test]
fn runs_in_a_local_set() {
    let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tokio::task::LocalSet::new().block_on(&tokio, async { tokio::task::spawn_local(run()).await.unwrap() });
}

#[test]
fn two_runtimes_run_at_once_and_know_nothing_of_each_other() {
    let (left, right) = (runtime(), runtime());
    let ((first, first_counts), (second, second_counts)) = (start(&left, "same-name"), start(&right, "same-name"));
    assert!(matches!(first.join(), Ok(Ended::Finished { .. })));
    assert!(matches!(second.join(), Ok(Ended::Finished { .. })));
    check(&first_counts);
    check(&second_counts);
}

#[test]
#[should_panic(expected = "join")]
fn join_inside_async_code_panics_and_says_what_to_call() {
    let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let runtime = runtime();
    tokio.block_on(async {
        let (job, _counts) = start(&runtime, "hosted");
        let _ = job.join();
    });
}

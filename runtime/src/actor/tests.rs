//! Whole jobs on real threads: small graphs by hand, both kinds of sink.

mod failing;
mod numbers;

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use self::numbers::{Collected, Numbers, Outside, identity, pipeline};
use crate::actor::config::LatencyPolicy;
use crate::graph::Graph;
use crate::handle::JobHandle;
use crate::id::Epoch;
use crate::job::{Ended, JobError, JobPhase, RestartPolicy};
use crate::runtime::{Runtime, RuntimeBuilder, StartError};
use crate::state::store::{Memory, StoreErrorKind};

const SOON: Duration = Duration::from_secs(20);

fn two_workers() -> RuntimeBuilder {
    Runtime::builder().workers(2).restart(RestartPolicy::at_most(3).backoff(Duration::from_millis(1)))
}

/// Looks until it is so; a watchdog of the test runner ends it if it never is.
fn until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::yield_now();
    }
}

/// Threads of this name, by the kernel's account of this process.
fn threads_named(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|comm| comm.starts_with(name)).count()
}

/// A joined thread leaves the kernel's list only a moment later.
#[track_caller]
fn assert_no_thread_is_left() {
    let mut looks = 0;
    while threads_named("millstream-") > 0 {
        looks += 1;
        assert!(looks < 20_000, "{} threads are left", threads_named("millstream-"));
        std::thread::yield_now();
    }
}

/// Tests that count threads or hold a core share one process with the others: they take turns.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn a_finite_input_runs_to_its_end_and_is_committed_and_delivered() {
    let _alone = alone();
    for policy in [LatencyPolicy::Park, LatencyPolicy::Adaptive, LatencyPolicy::Spin] {
        let (source, outside) = (Numbers::new(10_000, true), Outside::default());
        let runtime = two_workers().latency_policy(policy).build().unwrap();
        let job = runtime.start(pipeline(&source, identity, outside.spec())).unwrap();
        let ended = job.join().unwrap();
        assert!(matches!(ended, Ended::Finished { .. }), "{ended:?}");
        outside.assert_each_once(10_000);
        assert_eq!(source.acknowledged.load(Ordering::SeqCst), 10_000);
        assert_eq!(job.status().phase, JobPhase::Over);
        let read: u64 = job.subtasks().iter().map(|subtask| subtask.records_in).sum();
        assert_eq!(read, 20_000, "each number enters both tasks");
        assert_eq!(job.join().unwrap(), ended, "asked again, it says the same");
    }
}

#[test]
fn a_pipeline_that_finished_and_delivered_is_not_run_again_unasked() {
    let _alone = alone();
    let (source, outside) = (Numbers::new(3_000, true), Outside::default());
    let runtime = two_workers().build().unwrap();
    runtime.start(pipeline(&source, identity, outside.spec())).unwrap().join().unwrap();
    let again = runtime.start(pipeline(&source, identity, outside.spec())).unwrap().join().unwrap_err();
    assert!(matches!(again, JobError::AlreadyEnded { .. }), "{again}");
    outside.assert_each_once(3_000);
}

#[test]
fn a_level_one_sink_sees_every_record() {
    let _alone = alone();
    let (source, collected) = (Numbers::new(3_000, true), Collected::default());
    let runtime = two_workers().build().unwrap();
    runtime.start(pipeline(&source, identity, collected.direct())).unwrap().join().unwrap();
    assert_eq!(collected.sorted(), (0..3_000).collect::<Vec<_>>());
    let again = runtime.start(pipeline(&source, identity, collected.direct())).unwrap().join().unwrap_err();
    assert!(matches!(again, JobError::AlreadyEnded { .. }), "{again}");
}

#[test]
fn stop_and_start_goes_on_at_the_saved_position_with_nothing_lost_or_doubled() {
    let _alone = alone();
    let (source, outside, memory) = (Numbers::new(0, false), Outside::default(), Memory::new());
    let mut last = Epoch::GENESIS;
    for round in 1..=5 {
        let runtime = two_workers().state_backend(memory.clone()).build().unwrap();
        let job = runtime.start(pipeline(&source, identity, outside.spec())).unwrap();
        source.upto.store(round * 1_000, Ordering::SeqCst);
        until(|| outside.len() > (round as usize - 1) * 1_000 + 10);
        let ended = job.stop_blocking(SOON).unwrap();
        assert!(matches!(ended, Ended::Stopped { epoch } if epoch > last), "{ended:?}");
        assert_eq!(job.status().restored, last);
        last = ended.epoch();
    }
    let runtime = two_workers().state_backend(memory).build().unwrap();
    let job = runtime.start(pipeline(&source, identity, outside.spec())).unwrap();
    until(|| outside.len() == 5_000);
    assert!(matches!(job.drain_blocking(SOON).unwrap(), Ended::Drained { .. }));
    outside.assert_each_once(5_000);
}

#[test]
#[cfg(feature = "rocksdb")]
fn a_store_on_disk_is_unlocked_by_stop_and_gone_on_with() {
    use crate::state::store::RocksDb;
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let (source, outside) = (Numbers::new(0, false), Outside::default());
    for round in 1..=3 {
        let runtime = two_workers().state_backend(RocksDb::at(directory.path())).build().unwrap();
        let job = runtime.start(pipeline(&source, identity, outside.spec())).unwrap();
        source.upto.store(round * 1_000, Ordering::SeqCst);
        until(|| outside.len() == round as usize * 1_000);
        let second = runtime.start(pipeline(&source, identity, outside.spec()));
        assert!(matches!(second, Err(StartError::Store { source, .. }) if source.kind == StoreErrorKind::Locked));
        job.stop_blocking(SOON).unwrap();
    }
    outside.assert_each_once(3_000);
}

#[test]
fn a_second_start_of_a_running_pipeline_is_refused_by_the_lock_and_succeeds_after_stop() {
    let _alone = alone();
    let (source, outside, memory) = (Numbers::new(100, false), Outside::default(), Memory::new());
    let runtime = two_workers().state_backend(memory.clone()).build().unwrap();
    let other = two_workers().state_backend(memory).build().unwrap();
    let job = runtime.start(pipeline(&source, identity, outside.spec())).unwrap();
    for runtime in [&runtime, &other] {
        match runtime.start(pipeline(&source, identity, outside.spec())) {
            Err(StartError::Store { pipeline, source }) => {
                assert_eq!((pipeline.as_str(), source.kind), ("numbers", StoreErrorKind::Locked));
            }
            other => panic!("{other:?}"),
        }
    }
    job.stop_blocking(SOON).unwrap();
    let job = other.start(pipeline(&source, identity, outside.spec())).unwrap();
    job.stop_blocking(SOON).unwrap();
}

#[test]
fn all_mistakes_of_a_pipeline_come_back_together() {
    let mut graph = Graph::new("not a name");
    graph.set_parallelism(0);
    match Runtime::builder().build().unwrap().start(graph) {
        Err(StartError::Build(errors)) => assert_eq!(errors.0.len(), 4, "{errors}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn checkpoint_now_answers_when_a_later_barrier_is_committed() {
    let _alone = alone();
    let (source, outside, memory) = (Numbers::new(100, false), Outside::default(), Memory::new());
    let runtime = two_workers().state_backend(memory).build().unwrap();
    let mut graph = pipeline(&source, identity, outside.spec());
    graph.set_epoch_interval(Duration::from_secs(3600));
    let job = runtime.start(graph).unwrap();
    let mut last = Epoch::GENESIS;
    for _ in 0..3 {
        let epoch = super::block_on(job.checkpoint_now()).unwrap();
        assert!(epoch > last && job.status().committed >= epoch);
        last = epoch;
    }
    let ended = job.stop_blocking(SOON).unwrap();
    assert_eq!(super::block_on(job.checkpoint_now()).unwrap(), ended.epoch(), "over: all of it is committed");
}

async fn runs_here() {
    let (source, outside) = (Numbers::new(1_000, false), Outside::default());
    let runtime = two_workers().build().unwrap();
    let job: JobHandle = runtime.start(pipeline(&source, identity, outside.spec())).unwrap();
    job.checkpoint_now().await.unwrap();
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.join()));
    let message = *refused.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("JobHandle::join blocks its thread") && message.contains("wait()"), "{message}");
    source.upto.store(2_000, Ordering::SeqCst);
    job.drain(SOON).await.unwrap();
    assert!(matches!(job.wait().await, Ok(Ended::Drained { .. })));
    assert_no_thread_is_left();
}

#[test]
fn starts_on_every_kind_of_executor() {
    let _alone = alone();
    let current = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    current().block_on(runs_here());
    tokio::task::LocalSet::new().block_on(&current(), runs_here());
    let inside = actix::System::new();
    inside.block_on(async { actix::spawn(runs_here()).await.unwrap() });
}

#[test]
fn two_runtimes_run_at_once() {
    let _alone = alone();
    let runtimes: Vec<_> = (0..2).map(|_| two_workers().build().unwrap()).collect();
    let outside: Vec<_> = (0..2).map(|_| Outside::default()).collect();
    let start = |(runtime, outside): (&Runtime, &Outside)| {
        runtime.start(pipeline(&Numbers::new(4_000, true), identity, outside.spec())).unwrap()
    };
    let jobs: Vec<_> = runtimes.iter().zip(&outside).map(start).collect();
    for job in jobs {
        job.join().unwrap();
    }
    outside.iter().for_each(|outside| outside.assert_each_once(4_000));
}

#[test]
fn no_thread_is_left_after_twenty_starts_and_stops() {
    let _alone = alone();
    let runtime = two_workers().build().unwrap();
    let (source, outside) = (Numbers::new(100, false), Outside::default());
    for _ in 0..20 {
        let job = runtime.start(pipeline(&source, identity, outside.spec())).unwrap();
        assert!(threads_named("millstream-") >= 5, "control, commit, ack and two workers");
        drop(job.clone());
        job.stop_blocking(SOON).unwrap();
        assert_no_thread_is_left();
    }
}

#[test]
fn a_dropped_runtime_ends_its_jobs_without_a_commit_and_without_waiting() {
    let _alone = alone();
    let (source, outside, memory) = (Numbers::new(1_000, false), Outside::default(), Memory::new());
    let runtime = two_workers().state_backend(memory.clone()).build().unwrap();
    let job = runtime.start(pipeline(&source, identity, outside.spec())).unwrap();
    super::block_on(job.checkpoint_now()).unwrap();
    drop(runtime);
    assert!(matches!(job.join(), Err(JobError::Gone)));
    assert_no_thread_is_left();
    let runtime = two_workers().state_backend(memory).build().unwrap();
    let job = runtime.start(pipeline(&source, identity, outside.spec())).unwrap();
    until(|| outside.len() == 1_000);
    job.stop_blocking(SOON).unwrap();
    outside.assert_each_once(1_000);
}

//! Whole jobs on real threads: small graphs by hand, both kinds of sink.

use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::actor::config::LatencyPolicy;
use crate::error::BoxError;
use crate::graph::{Exchange, Graph, OperatorOf, SinkOf, SourceOf, VertexKind, WireOf};
use crate::handle::JobHandle;
use crate::id::Epoch;
use crate::job::{Ended, JobError, JobPhase, RestartPolicy};
use crate::operator::{FrameInput, OpenContext, Operator, TaskError};
use crate::record::Record;
use crate::runtime::{Runtime, RuntimeBuilder, StartError};
use crate::sink::{Encoder, EpochBatch, Sink, SinkContext, SinkError, SinkErrorKind, SinkSpec, Token, TokenSink};
use crate::source::{Batch, Polled, Position, Reader, Source, SplitId};
use crate::state::store::{Memory, StoreErrorKind};

const SOON: Duration = Duration::from_secs(20);

/// Numbers from 0 on, in one split; waits at the end of what it is given so far, and ends only if told so.
#[derive(Clone)]
struct Numbers {
    upto: Arc<AtomicU64>,
    ends: bool,
    acknowledged: Arc<AtomicU64>,
    panics: Arc<AtomicUsize>,
}

impl Numbers {
    fn new(upto: u64, ends: bool) -> Self {
        Self { upto: Arc::new(upto.into()), ends, acknowledged: Arc::default(), panics: Arc::default() }
    }
}

struct NumbersReader {
    source: Numbers,
    at: u64,
}

impl Source for Numbers {
    type Out = u64;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(vec![SplitId::new("all")])
    }

    fn reader(&self, _: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<u64>>, BoxError> {
        Ok(Box::new(NumbersReader { source: self.clone(), at: from.and_then(Position::as_u64).unwrap_or(0) }))
    }

    fn committed(&self, at: &[(SplitId, Position)]) {
        let at = at.first().and_then(|(_, position)| position.as_u64()).unwrap();
        assert!(self.acknowledged.fetch_max(at, Ordering::SeqCst) <= at, "went back to {at}");
    }
}

impl Reader<u64> for NumbersReader {
    fn poll(&mut self, batch: &mut Batch<u64>, limit: usize) -> Result<Polled, BoxError> {
        if self.source.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            panic!("a planned panic of the reader");
        }
        let upto = self.source.upto.load(Ordering::SeqCst);
        let end = upto.min(self.at + (limit as u64).min(50));
        batch.records.extend((self.at..end).map(Record::new));
        self.at = end;
        batch.end = Position::from_u64(end);
        Ok(match (end < upto, self.source.ends) {
            (true, _) => Polled::More,
            (false, true) => Polled::End,
            (false, false) => Polled::Idle,
        })
    }
}

/// Calls a function on every number.
struct Each<F>(F);

impl<F: FnMut(u64) -> Result<u64, BoxError> + 'static> Operator for Each<F> {
    type In = u64;
    type Out = u64;

    fn next(&mut self, input: &mut FrameInput<u64>) -> Result<Option<Record<u64>>, BoxError> {
        input.pop().map(|record| Ok(Record::new((self.0)(record.value)?))).transpose()
    }
}

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<u64>>>);

impl Collected {
    fn sorted(&self) -> Vec<u64> {
        let mut numbers = self.0.lock().unwrap().clone();
        numbers.sort_unstable();
        numbers
    }

    fn direct(&self) -> SinkSpec<u64> {
        let collected = self.clone();
        SinkSpec::Direct(Arc::new(move || Ok(Box::new(collected.clone()))))
    }
}

impl Sink<u64> for Collected {
    fn write(&mut self, value: u64) -> Result<(), BoxError> {
        self.0.lock().unwrap().push(value);
        Ok(())
    }
}

/// An outside system with a token: rows arrive exactly once.
#[derive(Clone, Default)]
struct Outside {
    inner: Arc<Mutex<(Token, BTreeMap<u64, usize>)>>,
    panics: Arc<AtomicUsize>,
}

struct Plain;

impl Encoder<u64> for Plain {
    fn encode(&self, value: &u64, out: &mut Vec<u8>) -> Result<(), BoxError> {
        out.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }
}

impl TokenSink for Outside {
    fn open(&mut self, _: &SinkContext) -> Result<Token, SinkError> {
        Ok(self.inner.lock().unwrap().0)
    }

    fn apply(&mut self, batch: &EpochBatch<'_>) -> Result<(), SinkError> {
        if self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            panic!("a planned panic of the connector");
        }
        let mut inner = self.inner.lock().unwrap();
        if batch.first() < inner.0.next {
            return Err(SinkError::plain(SinkErrorKind::Fatal, "an epoch came twice"));
        }
        for row in batch.rows() {
            *inner.1.entry(u64::from_be_bytes(row.bytes.try_into().unwrap())).or_default() += 1;
        }
        inner.0 = Token { next: batch.last().next() };
        Ok(())
    }
}

impl Outside {
    fn spec(&self) -> SinkSpec<u64> {
        let outside = self.clone();
        let connector = Arc::new(move || Ok(Box::new(outside.clone()) as Box<dyn TokenSink>));
        SinkSpec::Outbox { encoder: Arc::new(Plain), connector }
    }

    fn len(&self) -> usize {
        self.inner.lock().unwrap().1.len()
    }

    #[track_caller]
    fn assert_each_once(&self, upto: u64) {
        let inner = self.inner.lock().unwrap();
        assert!(inner.1.values().all(|count| *count == 1), "doubled");
        assert_eq!(inner.1.keys().copied().collect::<Vec<_>>(), (0..upto).collect::<Vec<_>>());
    }
}

fn pipeline<F, O>(source: &Numbers, each: F, sink: SinkSpec<u64>) -> Graph
where
    F: Fn(&OpenContext) -> O + Send + Sync + 'static,
    O: FnMut(u64) -> Result<u64, BoxError> + 'static,
{
    let at = Location::caller();
    let mut graph = Graph::new("numbers");
    let from = graph.add_vertex(Some("from"), VertexKind::Source(Arc::new(SourceOf::new(source.clone()))), at);
    let make = move |open: &OpenContext| Ok(Each(each(open)));
    let each = graph.add_vertex(Some("each"), VertexKind::Operator(Arc::new(OperatorOf::stateless("each", make))), at);
    let to = graph.add_vertex(Some("to"), VertexKind::Sink(Arc::new(SinkOf::new(sink))), at);
    // Through a channel to all subtasks of the next task.
    graph.add_edge(from, each, Exchange::Rebalance, Arc::new(WireOf::<u64>::plain()));
    graph.add_edge(each, to, Exchange::Forward, Arc::new(WireOf::<u64>::plain()));
    graph.set_epoch_interval(Duration::from_millis(5));
    graph
}

fn identity(_: &OpenContext) -> impl FnMut(u64) -> Result<u64, BoxError> + use<> {
    Ok
}

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
fn a_panic_in_an_operator_restarts_from_the_last_epoch() {
    let _alone = alone();
    let (source, outside) = (Numbers::new(5_000, true), Outside::default());
    let left = Arc::new(AtomicUsize::new(2));
    let fails = move |_: &OpenContext| {
        let left = Arc::clone(&left);
        move |number| {
            let now = number == 3_000
                && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            assert!(!now, "a planned panic");
            Ok(number)
        }
    };
    let runtime = two_workers().build().unwrap();
    let job = runtime.start(pipeline(&source, fails, outside.spec())).unwrap();
    assert!(matches!(job.join().unwrap(), Ended::Finished { .. }));
    outside.assert_each_once(5_000);
    let status = job.status();
    assert_eq!((status.restarts, status.abandoned), (2, 0));
    assert!(status.last_failure.unwrap().contains("a planned panic"));
}

#[test]
fn panics_of_a_reader_and_of_a_connector_restart_the_attempt_too() {
    let _alone = alone();
    let (source, outside) = (Numbers::new(5_000, true), Outside::default());
    source.panics.store(1, Ordering::SeqCst);
    outside.panics.store(1, Ordering::SeqCst);
    let runtime = two_workers().build().unwrap();
    let job = runtime.start(pipeline(&source, identity, outside.spec())).unwrap();
    assert!(matches!(job.join().unwrap(), Ended::Finished { .. }));
    outside.assert_each_once(5_000);
    assert_eq!(job.status().restarts, 2);
}

#[test]
fn an_exhausted_restart_policy_returns_the_failure() {
    let _alone = alone();
    let fails = |_: &OpenContext| |number: u64| if number == 7 { Err("a planned error".into()) } else { Ok(number) };
    let runtime = two_workers().restart(RestartPolicy::at_most(2).backoff(Duration::from_millis(1))).build().unwrap();
    let job = runtime.start(pipeline(&Numbers::new(100, true), fails, Outside::default().spec())).unwrap();
    match job.join().unwrap_err() {
        JobError::Task { restarts, source, .. } => {
            assert_eq!(restarts, 2);
            assert!(matches!(&*source, TaskError::Operator { operator, .. } if operator == "each"), "{source}");
        }
        other => panic!("{other}"),
    }
    assert_eq!(job.status().attempt.number(), 3);
}

#[test]
fn an_operator_that_panics_when_it_is_built_is_a_failure_of_its_subtask() {
    let _alone = alone();
    let fails = |open: &OpenContext| {
        assert!(open.subtask.index == 0, "a planned panic in open");
        Ok
    };
    let runtime = two_workers().restart(RestartPolicy::never()).build().unwrap();
    let job = runtime.start(pipeline(&Numbers::new(100, true), fails, Outside::default().spec())).unwrap();
    let error = job.join().unwrap_err();
    assert!(matches!(&error, JobError::Task { subtask, .. } if subtask.index == 1), "{error:?}");
}

/// Holds whoever comes through until it is opened.
#[derive(Clone, Default)]
struct Door(Arc<(Mutex<bool>, Condvar, AtomicBool)>);

impl Door {
    fn pass(&self) {
        self.0.2.store(true, Ordering::SeqCst);
        let mut open = self.0.0.lock().unwrap();
        while !*open {
            open = self.0.1.wait(open).unwrap();
        }
    }

    fn is_reached(&self) -> bool {
        self.0.2.load(Ordering::SeqCst)
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

#[test]
fn a_deadline_is_missed_by_name_when_an_operator_blocks_and_its_worker_is_left_behind() {
    let _alone = alone();
    let door = Door::default();
    let at = door.clone();
    let blocks = move |_: &OpenContext| {
        let door = at.clone();
        move |number| {
            if number == 500 {
                door.pass();
            }
            Ok(number)
        }
    };
    let memory = Memory::new();
    let runtime = two_workers().state_backend(memory.clone()).stop_timeout(Duration::from_millis(50)).build().unwrap();
    let outside = Outside::default();
    let source = Numbers::new(1_000, true);
    let job = runtime.start(pipeline(&source, blocks, outside.spec())).unwrap();
    until(|| door.is_reached());
    assert_ne!(job.status().phase, JobPhase::Over, "status is read while a worker hangs");
    let error = job.stop_blocking(Duration::from_millis(20)).unwrap_err();
    assert!(matches!(&error, JobError::Deadline { .. }), "{error:?}");
    assert!(error.to_string().contains("SubtaskId { task: TaskId(1)"), "{error}");
    assert!(matches!(job.join(), Err(JobError::Deadline { .. })));
    assert_eq!(job.status().abandoned, 2, "the other loop of that worker cannot end either");
    // The lock is free although the worker still hangs.
    let next = two_workers().state_backend(memory).build().unwrap();
    next.start(pipeline(&source, identity, outside.spec())).unwrap().join().unwrap();
    outside.assert_each_once(1_000);
    door.open();
    assert_no_thread_is_left();
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

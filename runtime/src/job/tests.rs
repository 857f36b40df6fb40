//! The job machine by itself: events in, orders out, no host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::checkpoint::{Closing, Delivered, EpochBundle, OutboxPart, Part};
use crate::id::{Attempt, Epoch, OperatorId, SubtaskId, TaskId};
use crate::operator::{Ends, Origins, Poison, SourceCommand, TaskError};
use crate::rows::RowsBuilder;
use crate::sink::DeliveryAnswer;
use crate::state::log::{Committed, Restored};
use crate::time::Timestamp;

const SINK: OperatorId = OperatorId::new(7);

fn subtask(index: u16) -> SubtaskId {
    SubtaskId { task: TaskId::new(0), index }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A machine and what it ordered, one word each.
struct Bench {
    machine: JobMachine,
    orders: Vec<JobOrder>,
}

impl Bench {
    /// A job of two subtasks, of which the first is a source, and one sink; it runs since time 0.
    fn running(config: JobConfig) -> Self {
        let mut bench = Self { machine: JobMachine::new(config), orders: Vec::new() };
        assert_eq!(bench.words(0), ["begin"]);
        bench.begin(1, 0);
        bench
    }

    fn begin(&mut self, attempt: u64, committed: u64) {
        let restored = Restored {
            plan: None,
            folded: BTreeSet::new(),
            epoch: Epoch::new(committed),
            closing: None,
            positions: Vec::new(),
            state: BTreeMap::new(),
            states: BTreeMap::new(),
            outbox: BTreeMap::new(),
        };
        let attempt = Attempt::new(attempt);
        let began = CommitterAnswer::Began {
            attempt,
            operators: vec![SINK],
            restored: Arc::new(restored),
            place: PathBuf::new(),
        };
        assert_eq!(self.on(JobEvent::Committer(began), 0), ["build"]);
        let subtasks = vec![subtask(0), subtask(1)];
        let built = JobEvent::Built { attempt, subtasks, sources: vec![subtask(0)], sinks: vec![SINK] };
        assert_eq!(self.on(built, 0), [] as [&str; 0]);
    }

    fn on(&mut self, event: JobEvent, millis: i64) -> Vec<&'static str> {
        self.machine.on(event, at(millis));
        self.words(millis)
    }

    fn words(&mut self, _millis: i64) -> Vec<&'static str> {
        self.orders = self.machine.take_orders();
        let words = self.orders.iter().filter_map(|order| {
            Some(match order {
                JobOrder::Committer(CommitterOrder::Begin) => "begin",
                JobOrder::Committer(CommitterOrder::Commit { .. }) => "commit",
                JobOrder::Committer(CommitterOrder::Fence { .. }) => "fence committer",
                JobOrder::Committer(CommitterOrder::Folded(_)) => "folded",
                JobOrder::Committer(CommitterOrder::FoldSoon) => "fold soon",
                JobOrder::Committer(CommitterOrder::Delivered(_)) => "note delivery",
                JobOrder::Build { .. } => "build",
                JobOrder::Sources(SourceCommand::Barrier { ends: Ends::Epoch, .. }) => "barrier",
                JobOrder::Sources(SourceCommand::Barrier { ends: Ends::Life, .. }) => "last barrier",
                JobOrder::Sources(SourceCommand::Barrier { ends: Ends::Input, .. }) => "final barrier",
                JobOrder::Committer(CommitterOrder::Plan { .. }) => "write plan",
                JobOrder::Sources(SourceCommand::Plan { .. }) => "ask",
                JobOrder::Sources(SourceCommand::Go { .. }) => "go",
                JobOrder::Sources(SourceCommand::End) => "end",
                JobOrder::HoldSources(true) => "hold",
                JobOrder::HoldSources(false) => "release",
                JobOrder::Publish { .. } => "publish",
                JobOrder::FlushSinks => "flush",
                JobOrder::CloseAttempt { .. } => "close",
                JobOrder::FenceSinks { .. } => "fence sinks",
                JobOrder::Abandon { .. } => "abandon",
                JobOrder::WakeAt(_) => return None,
                JobOrder::Over(Ok(_)) => "over",
                JobOrder::Over(Err(_)) => "failed",
            })
        });
        words.collect()
    }

    fn tick(&mut self, millis: i64) -> Vec<&'static str> {
        self.on(JobEvent::Tick, millis)
    }

    fn part(&mut self, epoch: u64, index: u16, output: usize) -> Vec<&'static str> {
        let attempt = self.machine.status().attempt;
        let mut part = Part::new(attempt, Epoch::new(epoch), subtask(index));
        if output > 0 {
            let mut rows = RowsBuilder::default();
            let write = |out: &mut Vec<u8>| {
                out.resize(out.len() + output, 0);
                Ok::<_, ()>(())
            };
            rows.push(write).unwrap();
            let (chunks, rows) = rows.take();
            part.outbox.push(OutboxPart { operator: SINK, chunks, rows });
        }
        self.on(JobEvent::Part(part), 0)
    }

    fn committed_bundles(&mut self) -> Vec<EpochBundle> {
        let bundles = self.orders.iter_mut().find_map(|order| match order {
            JobOrder::Committer(CommitterOrder::Commit { bundles, .. }) => Some(std::mem::take(bundles)),
            _ => None,
        });
        bundles.expect("a commit was ordered")
    }

    fn committed(&mut self, bundles: Vec<EpochBundle>, millis: i64) -> Vec<&'static str> {
        let attempt = self.machine.status().attempt;
        let committed = Committed::of(bundles);
        self.on(JobEvent::Committer(CommitterAnswer::Committed { attempt, committed }), millis)
    }

    fn delivered(&mut self, next: u64, millis: i64) -> Vec<&'static str> {
        let attempt = self.machine.status().attempt;
        let delivered = Delivered { operator: SINK, next: Epoch::new(next) };
        self.on(JobEvent::Delivery(DeliveryAnswer::Delivered { attempt, delivered }), millis)
    }

    fn fenced(&mut self, next: u64, millis: i64) -> Vec<&'static str> {
        let attempt = Attempt::new(next);
        let mut words = self.on(JobEvent::Committer(CommitterAnswer::Fenced { attempt }), millis);
        words.extend(self.on(JobEvent::Delivery(DeliveryAnswer::Fenced { attempt, operator: SINK }), millis));
        words
    }

    fn ended(&mut self, index: u16, error: Option<TaskError>, millis: i64) -> Vec<&'static str> {
        let attempt = self.machine.status().attempt;
        self.on(JobEvent::TaskEnded { attempt, subtask: subtask(index), error }, millis)
    }
}

fn panic() -> Option<TaskError> {
    Some(TaskError::Panic { message: "planned".to_owned() })
}

#[test]
fn at_most_two_epochs_are_in_flight_and_a_trigger_that_finds_two_is_skipped() {
    let mut bench = Bench::running(JobConfig::default());
    assert_eq!(bench.tick(99), [] as [&str; 0]);
    assert_eq!(bench.tick(100), ["barrier"]);
    assert_eq!(bench.tick(200), ["barrier"]);
    assert_eq!(bench.tick(300), [] as [&str; 0]);
    assert_eq!(bench.machine.status().skipped_triggers, 1);
    assert_eq!(bench.part(1, 0, 0), [] as [&str; 0]);
    assert_eq!(bench.part(1, 1, 0), ["commit"], "time 0 in this call: no barrier is due");
    assert_eq!(bench.tick(301), ["barrier"], "the skipped trigger is made up for at once");
}

#[test]
fn epochs_that_complete_while_the_committer_writes_go_together_in_the_next_commit() {
    let mut bench = Bench::running(JobConfig::default());
    bench.tick(100);
    bench.part(1, 0, 0);
    bench.part(1, 1, 0);
    let first = bench.committed_bundles();
    for epoch in [2, 3] {
        bench.tick(100 * epoch as i64);
        bench.part(epoch, 0, 0);
        assert_eq!(bench.part(epoch, 1, 0), [] as [&str; 0]);
    }
    assert_eq!(bench.committed(first, 310), ["publish", "commit"]);
    let epochs: Vec<_> = bench.committed_bundles().iter().map(|bundle| bundle.epoch.number()).collect();
    assert_eq!(epochs, [2, 3]);
}

#[test]
fn an_attempt_ends_in_order_and_the_next_begins_only_when_all_have_answered() {
    let mut bench = Bench::running(JobConfig::default());
    bench.tick(100);
    assert_eq!(bench.ended(1, panic(), 110), ["close", "fence committer", "fence sinks"]);
    assert_eq!(bench.fenced(2, 111), [] as [&str; 0]);
    assert_eq!(bench.tick(150), [] as [&str; 0], "one loop has not ended");
    assert_eq!(bench.ended(0, None, 160), [] as [&str; 0]);
    assert_eq!(bench.machine.status().phase, JobPhase::Pausing);
    assert_eq!(bench.tick(260), ["begin"], "after the back-off");
    bench.begin(2, 0);
    assert_eq!(bench.machine.status().restarts, 1);
}

#[test]
fn a_loop_that_does_not_end_is_abandoned_and_its_late_part_is_dropped() {
    let mut bench = Bench::running(JobConfig::default());
    bench.tick(100);
    bench.ended(1, panic(), 110);
    bench.fenced(2, 111);
    assert_eq!(bench.tick(10_110), ["abandon"]);
    bench.tick(10_300);
    bench.begin(2, 0);
    bench.tick(100);
    let late = Part::new(Attempt::new(1), Epoch::new(1), subtask(0));
    bench.on(JobEvent::Part(late), 120);
    assert_eq!((bench.machine.status().abandoned, bench.machine.status().dropped_parts), (1, 1));
    assert_eq!(bench.part(1, 1, 0), [] as [&str; 0], "the epoch still waits for the part of its own attempt");
    assert_eq!(bench.part(1, 0, 0), ["commit"]);
}

#[test]
fn the_error_that_others_followed_from_is_the_one_that_is_reported() {
    let never = JobConfig { restart: RestartPolicy::never(), ..JobConfig::default() };
    let mut bench = Bench::running(never);
    let lost = TaskError::Output(crate::channel::Closed.into());
    bench.ended(0, Some(lost), 10);
    bench.fenced(2, 11);
    assert_eq!(bench.ended(1, panic(), 12), ["failed"]);
    let JobOrder::Over(Err(error)) = &bench.orders[0] else { panic!("{:?}", bench.orders) };
    assert!(matches!(error, JobError::Task { source, .. } if matches!(**source, TaskError::Panic { .. })), "{error}");
}

#[test]
fn stop_commits_one_last_epoch_and_delivers_it_before_the_attempt_ends() {
    let mut bench = Bench::running(JobConfig::default());
    assert_eq!(bench.on(JobEvent::Stop { deadline: at(5_000) }, 50), ["last barrier", "flush"]);
    bench.part(1, 0, 10);
    bench.part(1, 1, 0);
    let bundles = bench.committed_bundles();
    assert_eq!(bundles[0].closing, None, "a stopped pipeline may go on");
    assert_eq!(bench.committed(bundles, 60), ["publish", "flush"], "its rows do not wait for a sink to roll");
    assert_eq!(bench.delivered(2, 70), ["note delivery", "close", "fence committer", "fence sinks"]);
    bench.ended(0, None, 80);
    bench.ended(1, None, 80);
    assert_eq!(bench.fenced(2, 90), ["over"]);
    let stopped = Ended::Stopped { epoch: Epoch::new(1) };
    assert!(matches!(bench.orders[0], JobOrder::Over(Ok(ended)) if ended == stopped));
}

#[test]
fn drain_ends_the_input_with_its_last_epoch_and_stop_does_not() {
    let deadline = at(5_000);
    let mut drained = Bench::running(JobConfig::default());
    assert_eq!(drained.on(JobEvent::Drain { deadline }, 50), ["final barrier", "flush"]);
    let mut stopped = Bench::running(JobConfig::default());
    assert_eq!(stopped.on(JobEvent::Stop { deadline }, 50), ["last barrier", "flush"]);
}

#[test]
fn the_end_is_sent_only_after_the_closing_epoch_is_committed_and_delivered() {
    let mut bench = Bench::running(JobConfig::default());
    let done = JobEvent::SourceDone { attempt: Attempt::new(1), subtask: subtask(0) };
    assert_eq!(bench.on(done, 20), ["final barrier", "flush"]);
    bench.part(1, 0, 0);
    bench.part(1, 1, 10);
    let bundles = bench.committed_bundles();
    assert_eq!(bundles[0].closing, Some(Closing::Finished));
    assert_eq!(bench.committed(bundles, 30), ["publish", "flush"]);
    assert_eq!(bench.delivered(2, 40), ["note delivery", "end"]);
    assert_eq!(bench.ended(0, None, 50), [] as [&str; 0]);
    // All is done: a panic in a `Drop` changes nothing.
    assert_eq!(bench.ended(1, panic(), 51), ["close", "fence committer", "fence sinks"]);
    assert_eq!(bench.fenced(2, 52), ["over"]);
}

/// A job whose input is used up, and everything committed and delivered by 40 ms: the end is sent.
fn ending_well() -> Bench {
    let mut bench = Bench::running(JobConfig::default());
    bench.on(JobEvent::SourceDone { attempt: Attempt::new(1), subtask: subtask(0) }, 20);
    bench.part(1, 0, 0);
    bench.part(1, 1, 10);
    let bundles = bench.committed_bundles();
    bench.committed(bundles, 30);
    assert_eq!(bench.delivered(2, 40), ["note delivery", "end"]);
    bench
}

#[test]
fn a_loop_that_hangs_when_all_is_done_is_waited_for_within_a_bound_and_what_was_done_counts() {
    let mut bench = ending_well();
    assert_eq!(bench.ended(0, None, 50), [] as [&str; 0]);
    assert_eq!(bench.tick(10_039), [] as [&str; 0]);
    assert_eq!(bench.tick(10_040), ["close", "fence committer", "fence sinks"]);
    let failure = bench.machine.status().last_failure.unwrap();
    assert!(failure.contains("index: 1") && !failure.contains("index: 0") && failure.contains("10s"), "{failure}");
    bench.fenced(2, 10_050);
    assert_eq!(bench.tick(20_039), [] as [&str; 0]);
    assert_eq!(bench.tick(20_040), ["abandon", "over"]);
    assert_eq!(bench.machine.status().abandoned, 1);
    let finished = Ended::Finished { epoch: Epoch::new(1) };
    assert!(matches!(bench.orders[1], JobOrder::Over(Ok(ended)) if ended == finished), "{:?}", bench.orders);
}

#[test]
fn a_deadline_that_passes_while_a_loop_hangs_when_all_is_done_names_the_loop() {
    let mut bench = ending_well();
    bench.on(JobEvent::Drain { deadline: at(500) }, 50);
    bench.ended(0, None, 60);
    assert_eq!(bench.tick(500), ["close", "fence committer", "fence sinks"]);
    let failure = bench.machine.status().last_failure.unwrap();
    assert!(failure.contains("did not end") && failure.contains("index: 1"), "{failure}");
}

#[test]
fn a_deadline_that_passes_says_what_was_still_going_on() {
    let mut bench = Bench::running(JobConfig::default());
    bench.on(JobEvent::Stop { deadline: at(500) }, 50);
    bench.part(1, 0, 0);
    assert_eq!(bench.tick(500), ["close", "fence committer", "fence sinks"]);
    bench.fenced(2, 510);
    bench.ended(0, None, 510);
    assert_eq!(bench.ended(1, None, 510), ["failed"]);
    let JobOrder::Over(Err(error)) = &bench.orders[0] else { panic!("{:?}", bench.orders) };
    assert!(error.to_string().contains("0/1") || error.to_string().contains("index: 1"), "{error}");
}

#[test]
fn an_epoch_that_is_not_complete_in_time_ends_the_attempt_and_names_who_did_not_report() {
    let config =
        JobConfig { epoch_timeout: Duration::from_secs(1), restart: RestartPolicy::never(), ..JobConfig::default() };
    let mut bench = Bench::running(config);
    bench.tick(100);
    bench.part(1, 0, 0);
    assert_eq!(bench.tick(1_100), ["barrier", "close", "fence committer", "fence sinks"]);
    let failure = bench.machine.status().last_failure.unwrap();
    assert!(failure.contains("epoch 1") && failure.contains("index: 1") && !failure.contains("index: 0"), "{failure}");
}

#[test]
fn sources_are_held_while_more_output_waits_than_its_bound_and_barriers_still_pass() {
    let config = JobConfig { max_outbox_bytes: 100, ..JobConfig::default() };
    let mut bench = Bench::running(config);
    bench.tick(100);
    bench.part(1, 0, 1_000);
    bench.part(1, 1, 0);
    let bundles = bench.committed_bundles();
    assert_eq!(bench.committed(bundles, 110), ["publish", "flush", "hold"]);
    assert_eq!(bench.tick(200), ["barrier"]);
    assert_eq!(bench.delivered(2, 210), ["note delivery", "release"]);
}

fn panicked_on(bytes: &[u8]) -> Option<TaskError> {
    let record = Some(Box::new(Poison::new("op".into(), at(7), bytes.to_vec())));
    let (operator, message) = ("op".to_owned(), "planned".to_owned());
    Some(TaskError::Panicked { operator, epoch: Epoch::new(1), message, record, origins: Origins::default() })
}

/// Fails the attempt, ends it, and begins the next; `pause` is the time until then.
fn fail_and_restart(bench: &mut Bench, error: Option<TaskError>, pause: i64, attempt: u64) {
    bench.ended(1, error, 0);
    bench.ended(0, None, 0);
    assert_eq!(bench.fenced(attempt, 0), [] as [&str; 0]);
    assert_eq!(bench.tick(pause - 1), [] as [&str; 0]);
    assert_eq!(bench.tick(pause), ["begin"]);
    bench.begin(attempt, 0);
}

#[test]
fn a_record_that_fails_twice_is_in_quarantine_and_its_second_restart_does_not_count() {
    let mut bench = Bench::running(JobConfig { restart: RestartPolicy::at_most(1), ..JobConfig::default() });
    fail_and_restart(&mut bench, panicked_on(b"bad"), 100, 2);
    assert!(bench.machine.status().quarantined.is_empty());
    fail_and_restart(&mut bench, panicked_on(b"bad"), 100, 3);
    let status = bench.machine.status();
    assert_eq!((status.restarts, status.quarantined.len()), (2, 1));
    assert_eq!(status.quarantined[0].record.bytes, b"bad");
    // Another record has its own first time, and there is no restart left for it.
    bench.ended(1, panicked_on(b"other"), 0);
    bench.ended(0, None, 0);
    assert_eq!(bench.fenced(4, 0), ["failed"]);
}

#[test]
fn the_pause_before_a_restart_doubles_up_to_its_bound_and_the_last_failure_is_the_cause() {
    let restart = RestartPolicy { restarts: 4, max_backoff: Duration::from_millis(300), ..RestartPolicy::default() };
    let mut bench = Bench::running(JobConfig { restart, ..JobConfig::default() });
    for (attempt, pause) in [(2, 100), (3, 200), (4, 300), (5, 300)] {
        fail_and_restart(&mut bench, panic(), pause, attempt);
    }
    bench.ended(1, panic(), 0);
    bench.ended(0, None, 0);
    assert_eq!(bench.fenced(6, 0), ["failed"]);
    let [JobOrder::Over(Err(error))] = bench.orders.as_slice() else { panic!("{:?}", bench.orders) };
    assert!(error.to_string().contains("4 restarts"), "{error}");
    assert!(std::error::Error::source(error).unwrap().to_string().contains("planned"), "{error:?}");
}

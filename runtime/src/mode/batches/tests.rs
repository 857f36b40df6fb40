//! The batches over a scripted job: what is said to them, and what they want next.

use std::time::Duration;

use super::*;
use crate::id::{OperatorId, TaskId};
use crate::position::{Position, SplitId};

const EPOCH: Epoch = Epoch::new(7);

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn source(index: u16) -> SubtaskId {
    SubtaskId { task: TaskId::new(0), index }
}

fn split(records: u64) -> PlannedSplit {
    let (operator, split) = (OperatorId::new(1), SplitId::new("a"));
    PlannedSplit { operator, split, records, end: Position::from_u64(records) }
}

fn every(millis: u64) -> Trigger {
    Trigger::ProcessingTime(Duration::from_millis(millis))
}

/// Batches of one source.
struct Job(Batches);

impl Job {
    fn new(trigger: Trigger) -> Self {
        Self(Batches::new(trigger, true, None, false))
    }

    fn next(&mut self, millis: i64) -> Next {
        self.0.next(EPOCH, &BTreeSet::from([source(0)]), false, at(millis))
    }

    /// The source answers so many records.
    fn answer(&mut self, records: u64, dry: bool, millis: i64) -> Next {
        let splits = if records == 0 { vec![] } else { vec![split(records)] };
        self.0.on_answer(source(0), splits, dry);
        self.next(millis)
    }

    /// Asks, writes and lets pass a batch of so many records.
    fn begin(&mut self, records: u64, dry: bool, millis: i64) {
        assert_eq!(self.next(millis), Next::Ask);
        let Next::Write(plan) = self.answer(records, dry, millis) else { panic!("no plan at {millis}") };
        assert_eq!(plan.time, at(millis));
        assert_eq!(self.next(millis), Next::Wait(None));
        self.0.on_written(EPOCH);
        assert_eq!(self.next(millis), Next::Go(plan));
        assert_eq!(self.next(millis), Next::Wait(None));
    }

    fn wish(&mut self, watermark: bool, timer: Option<Timestamp>) {
        self.0.on_wishes(Wishes { watermark, timer });
    }
}

#[test]
fn the_first_begins_at_once_and_the_next_at_the_boundary() {
    let mut job = Job::new(every(100));
    job.begin(3, false, 130);
    assert!(!job.0.on_committed(at(140)));
    assert_eq!(job.next(140), Next::Wait(Some(at(200))));
    job.begin(1, false, 200);
    // It takes longer than the interval: the next one follows at once, and its successor at the boundary behind that.
    assert!(job.0.on_committed(at(330)));
    job.begin(1, false, 330);
    assert!(!job.0.on_committed(at(340)));
    assert_eq!(job.next(340), Next::Wait(Some(at(400))));
}

#[test]
fn without_records_none_begins_until_there_are_some() {
    let mut job = Job::new(every(0));
    assert_eq!(job.next(0), Next::Ask);
    assert_eq!(job.answer(0, true, 0), Next::Wait(None));
    assert_eq!(job.next(50), Next::Wait(None));
    job.0.on_available();
    job.begin(2, false, 60);
    assert!(!job.0.on_committed(at(70)));

    let mut job = Job::new(every(100));
    assert_eq!(job.next(10), Next::Ask);
    assert_eq!(job.answer(0, true, 10), Next::Wait(Some(at(100))));
    assert_eq!(job.next(100), Next::Ask);
}

#[test]
fn a_risen_watermark_and_a_due_timer_ask_for_one_without_records() {
    let mut job = Job::new(every(0));
    job.begin(1, false, 0);
    job.wish(true, None);
    assert!(!job.0.on_committed(at(10)));
    job.begin(0, false, 10);
    // That one raised nothing: there is no endless row of them.
    job.wish(false, Some(at(500)));
    assert!(!job.0.on_committed(at(20)));
    assert_eq!(job.next(20), Next::Wait(Some(at(500))));
    job.begin(0, false, 500);
    assert!(!job.0.on_committed(at(510)));
    assert_eq!(job.next(510), Next::Wait(None));
}

#[test]
fn where_they_are_switched_off_no_epoch_is_without_records() {
    let mut job = Job(Batches::new(every(0), false, None, false));
    job.begin(1, false, 0);
    job.wish(true, Some(at(5)));
    assert!(!job.0.on_committed(at(10)));
    assert_eq!(job.next(10), Next::Ask);
    assert_eq!(job.answer(0, false, 10), Next::Wait(None));
    // But one that is asked for is: a checkpoint now, memory that only an epoch gives back.
    job.0.force();
    job.begin(0, false, 20);
}

#[test]
fn once_takes_one_and_ends() {
    let mut job = Job::new(Trigger::Once);
    job.begin(9, true, 0);
    job.wish(true, None);
    assert!(!job.0.on_committed(at(10)));
    assert_eq!(job.next(10), Next::End);

    let mut empty = Job::new(Trigger::Once);
    assert_eq!(empty.next(0), Next::Ask);
    assert_eq!(empty.answer(0, true, 0), Next::End);
}

#[test]
fn available_now_takes_what_there_is_and_one_more_for_the_watermark() {
    let mut job = Job::new(Trigger::AvailableNow);
    for (now, dry) in [(0, false), (10, true)] {
        job.begin(5, dry, now);
        job.wish(true, None);
        assert!(!job.0.on_committed(at(now + 5)));
    }
    job.begin(0, true, 20);
    job.wish(false, None);
    assert!(!job.0.on_committed(at(25)));
    assert_eq!(job.next(25), Next::Ask);
    assert_eq!(job.answer(0, true, 25), Next::End);
}

#[test]
fn a_plan_that_was_found_goes_first_as_it_is() {
    let plan = EpochPlan { epoch: EPOCH, time: at(3), splits: vec![split(4)] };
    let mut job = Job(Batches::new(every(1_000), true, Some(plan.clone()), false));
    assert!(job.0.is_replay());
    // Also while the sources are held back: part of it may be out.
    assert_eq!(job.0.next(EPOCH, &BTreeSet::from([source(0)]), true, at(90)), Next::Ask);
    assert_eq!(job.answer(0, false, 90), Next::Go(plan));
    assert!(!job.0.is_replay());
    assert_eq!(job.next(91), Next::Wait(None));
    assert!(!job.0.on_committed(at(100)));
    assert_eq!(job.next(100), Next::Wait(Some(at(1_000))));
}

#[test]
fn behind_a_plan_that_was_found_the_sources_are_asked_what_else_they_have() {
    let plan = EpochPlan { epoch: EPOCH, time: at(3), splits: vec![split(4)] };
    let mut job = Job(Batches::new(every(0), true, Some(plan.clone()), false));
    assert_eq!(job.next(90), Next::Ask);
    assert_eq!(job.answer(0, false, 90), Next::Go(plan));
    assert!(!job.0.on_committed(at(100)));
    assert_eq!(job.next(100), Next::Ask);
}

#[test]
fn all_sources_answer_before_there_is_a_plan_and_held_ones_are_not_asked() {
    let sources = BTreeSet::from([source(0), source(1)]);
    let mut batches = Batches::new(every(0), true, None, false);
    assert_eq!(batches.next(EPOCH, &sources, true, at(0)), Next::Wait(None));
    assert_eq!(batches.next(EPOCH, &sources, false, at(1)), Next::Ask);
    batches.on_answer(source(1), vec![split(1)], true);
    batches.on_answer(source(1), vec![split(1)], true);
    assert_eq!(batches.next(EPOCH, &sources, false, at(2)), Next::Wait(None));
    assert_eq!(batches.missing(), [source(0)]);
    batches.on_answer(source(0), vec![], true);
    let Next::Write(plan) = batches.next(EPOCH, &sources, false, at(3)) else { panic!("no plan") };
    assert_eq!(plan.splits, [split(1)]);
}

#[test]
fn a_new_trigger_counts_from_the_next_one_on() {
    let mut job = Job::new(every(1_000));
    job.begin(1, false, 5);
    job.0.set_trigger(every(10));
    assert_eq!(job.next(6), Next::Wait(None));
    assert!(!job.0.on_committed(at(7)));
    job.begin(1, false, 8);
}

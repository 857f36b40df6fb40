//! The committer, step by step on a simulated disk: when it marks, and what it does while a disk is full.

use super::*;
use crate::fault::NoFaults;
use crate::id::ShardId;
use crate::state::store::{Mark, StateBackend, StoreErrorKind};
use crate::testing::sim_store::SimDisk;

const SHARD: ShardId = ShardId::new(0);

fn committer(disk: &SimDisk) -> Committer {
    let identity = Identity { pipeline: "p".to_owned(), shard: SHARD, key_groups: 960 };
    let disk = disk.clone();
    let open: OpenStore = Box::new(move |create| disk.open("p", SHARD, create));
    Committer::new(identity, StartFrom::default(), LogLimits::default(), Vec::new(), open, Arc::new(NoFaults))
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn answer(committer: &mut Committer, millis: i64) -> CommitterAnswer {
    match committer.step(at(millis)).unwrap() {
        CommitterStep::Answer(answer) => *answer,
        step => panic!("{step:?}"),
    }
}

/// Steps until there is nothing to do; until when.
fn idle(committer: &mut Committer, millis: i64) -> Option<Timestamp> {
    loop {
        match committer.step(at(millis)).unwrap() {
            CommitterStep::Idle(until) => return until,
            CommitterStep::Worked => {}
            step => panic!("{step:?}"),
        }
    }
}

fn commit(committer: &mut Committer, attempt: Attempt, epoch: u64) {
    let bundle = EpochBundle { attempt, epoch: Epoch::new(epoch), parts: Vec::new(), closing: None };
    committer.order(CommitterOrder::Commit { attempt, bundles: vec![bundle] });
}

/// What is marked in the store, which must not be open.
fn mark(disk: &SimDisk) -> (u64, u64) {
    let Mark { epoch, attempt } = disk.open("p", SHARD, false).unwrap().mark().unwrap();
    (epoch.number(), attempt.number())
}

#[test]
fn marks_within_a_second_of_a_commit_and_at_once_when_an_attempt_ends() {
    let disk = SimDisk::new();
    let first = Attempt::new(1);
    let mut one = committer(&disk);
    one.order(CommitterOrder::Begin);
    assert!(matches!(answer(&mut one, 0), CommitterAnswer::Began { .. }));
    for (epoch, millis) in [(1, 100), (2, 500)] {
        commit(&mut one, first, epoch);
        assert!(matches!(answer(&mut one, millis), CommitterAnswer::Committed { .. }));
    }
    let until = idle(&mut one, 500).expect("a mark is due");
    assert!(until > at(500) && until <= at(1_100), "{until:?}");
    drop(one);
    assert_eq!(mark(&disk), (0, 1), "not by every commit, and the attempt at once");

    let mut two = committer(&disk);
    two.order(CommitterOrder::Begin);
    assert!(matches!(answer(&mut two, 2_000), CommitterAnswer::Began { .. }));
    let second = Attempt::new(2);
    commit(&mut two, second, 3);
    assert!(matches!(answer(&mut two, 2_000), CommitterAnswer::Committed { .. }));
    assert_eq!(idle(&mut two, 3_000), None, "it marked and waits for orders");
    commit(&mut two, second, 4);
    assert!(matches!(answer(&mut two, 3_000), CommitterAnswer::Committed { .. }));
    drop(two);
    assert_eq!(mark(&disk), (3, 2));

    let mut three = committer(&disk);
    three.order(CommitterOrder::Begin);
    assert!(matches!(answer(&mut three, 4_000), CommitterAnswer::Began { .. }));
    commit(&mut three, Attempt::new(3), 5);
    three.order(CommitterOrder::Fence { attempt: Attempt::new(4) });
    assert!(matches!(answer(&mut three, 4_000), CommitterAnswer::Committed { .. }));
    assert!(matches!(answer(&mut three, 4_000), CommitterAnswer::Fenced { .. }));
    drop(three);
    assert_eq!(mark(&disk), (5, 3));
}

#[test]
fn an_attempt_waits_for_room_to_begin() {
    let disk = SimDisk::new();
    let mut committer = committer(&disk);
    disk.fail_next(StoreErrorKind::Full, 2);
    committer.order(CommitterOrder::Begin);
    for millis in [0, 600] {
        let CommitterAnswer::Waiting { error } = answer(&mut committer, millis) else { panic!("it did not wait") };
        assert!(error.to_string().contains("the job waits to begin"), "{error}");
        assert_eq!(idle(&mut committer, millis + 100), Some(at(millis + 500)));
    }
    assert!(matches!(answer(&mut committer, 1_200), CommitterAnswer::Began { .. }));
}

#[test]
fn a_fence_ends_the_wait_to_begin() {
    let disk = SimDisk::new();
    let mut committer = committer(&disk);
    disk.fail_next(StoreErrorKind::Full, 1);
    committer.order(CommitterOrder::Begin);
    assert!(matches!(answer(&mut committer, 0), CommitterAnswer::Waiting { .. }));
    committer.order(CommitterOrder::Fence { attempt: Attempt::new(1) });
    assert!(matches!(answer(&mut committer, 1), CommitterAnswer::Fenced { .. }));
    assert_eq!(idle(&mut committer, 10_000), None);
}

#[test]
fn epochs_that_wait_for_room_are_named() {
    let disk = SimDisk::new();
    let mut committer = committer(&disk);
    committer.order(CommitterOrder::Begin);
    assert!(matches!(answer(&mut committer, 0), CommitterAnswer::Began { .. }));
    disk.fail_next(StoreErrorKind::Full, 1);
    let attempt = Attempt::new(1);
    let bundle = |epoch| EpochBundle { attempt, epoch: Epoch::new(epoch), parts: Vec::new(), closing: None };
    committer.order(CommitterOrder::Commit { attempt, bundles: vec![bundle(1), bundle(2)] });
    let CommitterAnswer::Waiting { error } = answer(&mut committer, 0) else { panic!("it did not wait") };
    assert!(error.to_string().starts_with("epochs 1 to 2 are not written yet"), "{error}");
    assert!(error.to_string().contains("epoch 0 is intact; free some space"), "{error}");
    assert!(matches!(answer(&mut committer, 500), CommitterAnswer::Committed { .. }));
}

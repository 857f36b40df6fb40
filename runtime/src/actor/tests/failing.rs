//! Jobs whose user code panics, fails or hangs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::numbers::{Numbers, Outside, identity, pipeline};
use super::{alone, assert_no_thread_is_left, two_workers, until};
use crate::job::{Ended, JobError, JobPhase, RestartPolicy};
use crate::operator::{OpenContext, TaskError};
use crate::state::store::Memory;

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

//! Panics, and a hang, in the last epoch of a job that stops, drains or finishes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use millstream::prelude::*;

use super::pipeline::{Numbers, Outside, WRITTEN, describe};
use super::{ALONE, NUMBERS, threads, trap, until};

/// No epoch is closed before the last one.
const NO_EPOCH: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_secs(60);
/// Numbers that are there before the job is told to end.
const HALF: u64 = NUMBERS / 2;

/// Starts a job and waits until it has worked on half of the numbers, all of them in the epoch that is open. Their timers have fired, but
/// for the last one's.
fn begin(memory: &Memory, source: &Numbers, outside: &Outside) -> (Runtime, JobHandle) {
    source.upto.store(HALF, Ordering::SeqCst);
    WRITTEN.store(0, Ordering::SeqCst);
    let restart = RestartPolicy::at_most(5).backoff(Duration::from_millis(1));
    let runtime = Runtime::builder().workers(2).restart(restart).state_backend(memory.clone()).build().unwrap();
    let job = runtime.start(describe(source.clone(), outside.clone(), NO_EPOCH)).unwrap();
    until(|| WRITTEN.load(Ordering::SeqCst) == HALF - 1);
    (runtime, job)
}

/// How a job is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stop,
    Drain,
    Finish,
}

/// Ends a job with a trap in its last epoch.
fn end(how: End, place: &'static str) {
    let (memory, source, outside) = (Memory::new(), Numbers::default(), Outside::default());
    let (_runtime, job) = begin(&memory, &source, &outside);
    *trap() = vec![(place, 1)];
    let ended = match how {
        End::Stop => job.stop_blocking(SOON),
        End::Drain => job.drain_blocking(SOON),
        End::Finish => {
            source.upto.store(NUMBERS, Ordering::SeqCst);
            job.join()
        }
    };
    assert_eq!(*trap(), [], "{how:?}, {place}: it was not met");
    let failure = job.status().last_failure.unwrap_or_default();
    assert!(failure.contains(&format!("planned in {place}")), "{how:?}, {place}: {failure}");
    if how == End::Finish {
        assert!(matches!(ended, Ok(Ended::Finished { .. })), "{how:?}, {place}: {ended:?}");
        assert_eq!(job.status().restarts, 1, "{how:?}, {place}");
        assert!(outside.is_each_once(NUMBERS), "{how:?}, {place}");
        return;
    }
    // Whoever wants the end gets the failure, not a restart; a new start goes on from the last epoch.
    assert!(ended.is_err(), "{how:?}, {place}: {ended:?}");
    source.upto.store(NUMBERS, Ordering::SeqCst);
    // After `drain` the last epoch may be committed, and only its delivery was not done: the next start does that, and no more.
    let runtime = Runtime::builder().workers(2).state_backend(memory.clone()).build().unwrap();
    let next = runtime.start(describe(source, outside.clone(), NO_EPOCH)).unwrap().join().unwrap();
    let upto = if matches!(next, Ended::Drained { .. }) { HALF } else { NUMBERS };
    assert!(outside.is_each_once(upto), "{how:?}, {place}: {next:?}");
}

#[test]
fn a_panic_in_the_last_epoch_is_named_and_the_next_start_or_attempt_loses_and_doubles_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for place in ["flush", "encode", "roll", "apply", "end of apply"] {
        for how in [End::Stop, End::Drain, End::Finish] {
            end(how, place);
        }
    }
    // By the final watermark.
    for place in ["on_timer", "encode of a row", "write"] {
        end(End::Drain, place);
        end(End::Finish, place);
    }
}

/// Keeps whoever drops it until it is opened.
#[derive(Clone, Default)]
struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
    fn pass(&self) {
        let open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_while(open, |open| !*open).unwrap_or_else(PoisonError::into_inner));
    }

    fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

#[derive(Clone)]
struct Stuck(Door);

impl Stuck {
    fn name(&self, number: u64) -> (u64, u64) {
        (number, u64::from(ARMED.load(Ordering::Relaxed)))
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        if ARMED.swap(false, Ordering::SeqCst) {
            self.0.pass();
        }
    }
}

/// The next drop hangs.
static ARMED: AtomicBool = AtomicBool::new(false);

#[test]
fn a_task_that_hangs_when_all_is_done_is_left_behind_and_the_job_ends_well() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let door = Door::default();
    let (source, outside) = (Numbers::default(), Outside::default());
    source.upto.store(HALF, Ordering::SeqCst);
    let pipeline = Pipeline::new("hangs").epoch_interval(Duration::from_millis(2));
    let stuck = Stuck(door.clone());
    let numbers = pipeline.source("numbers", source.clone()).rebalance();
    numbers.map(move |number| stuck.name(number)).sink("out", outside.clone());
    let runtime = Runtime::builder().workers(2).stop_timeout(Duration::from_millis(20)).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    // Whatever was made and dropped on the way is gone by then.
    until(|| outside.is_each_once(HALF));
    ARMED.store(true, Ordering::SeqCst);
    source.upto.store(NUMBERS, Ordering::SeqCst);
    let ended = job.join();
    assert!(matches!(ended, Ok(Ended::Finished { .. })), "{ended:?}");
    assert!(outside.is_each_once(NUMBERS));
    let status = job.status();
    let failure = status.last_failure.unwrap_or_default();
    assert!(failure.contains("did not end within 20ms"), "{failure}");
    assert!(status.abandoned > 0 && status.restarts == 0, "{} abandoned", status.abandoned);
    door.open();
    until(|| threads() == 0);
}

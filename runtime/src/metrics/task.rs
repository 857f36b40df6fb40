//! What a subtask counts of itself. One writer, its own thread; read by whoever wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering, fence};
use std::time::Duration;

use crate::metrics::{Buckets, SharedBuckets};
use crate::time::Timestamp;

/// A number that one thread raises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it. Only the owner's thread may.
    #[inline]
    pub fn add(&self, by: u64) {
        // One writer: a load and a store are cheaper than an atomic addition.
        self.0.store(self.0.load(Ordering::Relaxed) + by, Ordering::Relaxed);
    }

    /// Reads it.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What an operator counts in one subtask. Cheap to clone; all clones count together. By default nobody reads it.
#[derive(Clone, Debug, Default)]
pub struct OperatorMeter(Arc<OperatorCells>);

/// In cache lines of its own: its neighbour in memory may be another worker's.
#[derive(Debug, Default)]
#[repr(align(128))]
struct OperatorCells {
    records_in: Counter,
    frames_in: Counter,
    records_out: Counter,
    frames_out: Counter,
    event_time_latency: SharedBuckets,
}

impl OperatorMeter {
    /// Counts a frame of records that it took.
    #[inline]
    pub fn took(&self, records: usize) {
        self.0.records_in.add(records as u64);
        self.0.frames_in.add(1);
    }

    /// Counts a frame of records that it gave.
    #[inline]
    pub fn gave(&self, records: usize) {
        self.0.records_out.add(records as u64);
        self.0.frames_out.add(1);
    }

    /// Counts how long after its event a record was done with.
    #[inline]
    pub fn done_after(&self, micros: u64) {
        self.0.event_time_latency.record_micros(micros);
    }

    /// Records and frames that it took.
    pub fn taken(&self) -> (u64, u64) {
        (self.0.records_in.read(), self.0.frames_in.read())
    }

    /// Records and frames that it gave.
    pub fn given(&self) -> (u64, u64) {
        (self.0.records_out.read(), self.0.frames_out.read())
    }

    /// How long after their event records were done with.
    pub fn event_time_latency(&self) -> Buckets {
        self.0.event_time_latency.read()
    }
}

/// How long one output of a subtask waited for room. Cheap to clone. By default nobody reads it.
#[derive(Clone, Debug, Default)]
pub struct OutputMeter(Arc<OutputCells>);

#[derive(Debug, Default)]
struct OutputCells {
    waited_micros: Counter,
    /// Since when it waits, in microseconds; zero while it does not.
    since: AtomicI64,
}

impl OutputMeter {
    /// Takes note of whether the output waits for room. Only the owner's thread may.
    #[inline]
    pub fn note(&self, waits: bool, now: Timestamp) {
        let since = self.0.since.load(Ordering::Relaxed);
        if waits == (since != 0) {
            return;
        }
        self.0.since.store(if waits { now.as_micros() } else { 0 }, Ordering::Relaxed);
        if !waits {
            // Behind the store above: who reads in between sees too little, never a time twice.
            self.0.waited_micros.add(micros_between(since, now));
        }
    }

    /// How long it has waited until `now`, in all.
    pub fn waited(&self, now: Timestamp) -> Duration {
        let waited = self.0.waited_micros.read();
        let open = match self.0.since.load(Ordering::Relaxed) {
            0 => 0,
            since => micros_between(since, now),
        };
        Duration::from_micros(waited + open)
    }
}

fn micros_between(since: i64, now: Timestamp) -> u64 {
    u64::try_from(now.as_micros().saturating_sub(since)).unwrap_or(0)
}

/// What a subtask is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeState {
    /// It works on records or marks, or waits for rows of its own state.
    Busy,
    /// Nothing has come.
    #[default]
    Idle,
    /// No output has room.
    Backpressured,
    /// A barrier of one input waits for that of others, and nothing else has come.
    Aligning,
    /// Nothing has come, and it encodes what the last barrier froze.
    Checkpointing,
}

impl TimeState {
    /// All of them, in the order of [`TimeSplit`].
    pub const ALL: [Self; 5] = [Self::Busy, Self::Idle, Self::Backpressured, Self::Aligning, Self::Checkpointing];

    /// Its name as a label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Idle => "idle",
            Self::Backpressured => "backpressured",
            Self::Aligning => "aligning",
            Self::Checkpointing => "checkpointing",
        }
    }

    fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or_default()
    }
}

/// How long a subtask was in each of [`TimeState::ALL`].
pub type TimeSplit = [Duration; 5];

/// What a subtask counts of itself besides its operators.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct TaskMeter {
    /// Odd while the owner changes what follows; a reader that sees it change reads again.
    version: AtomicU64,
    /// Microseconds by state.
    spent: [AtomicU64; 5],
    /// Since when it is in `state`, in microseconds; zero before its first turn.
    since: AtomicI64,
    state: AtomicU8,
    alignment: SharedBuckets,
    snapshot: SharedBuckets,
}

impl TaskMeter {
    /// A turn begins: what has passed goes to the state that the last turn left. It counts as busy until it says otherwise. Only
    /// the owner's thread may call.
    #[inline]
    pub fn begin_turn(&self, now: Timestamp) {
        let since = self.since.load(Ordering::Relaxed);
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let state = self.state.load(Ordering::Relaxed);
        if since != 0
            && let Some(spent) = self.spent.get(usize::from(state))
        {
            spent.store(spent.load(Ordering::Relaxed) + micros_between(since, now), Ordering::Relaxed);
        }
        self.since.store(now.as_micros(), Ordering::Relaxed);
        self.state.store(TimeState::Busy as u8, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// A turn has ended, and this is what it was, and what the time until the next will be. Only the owner's thread may call.
    #[inline]
    pub fn end_turn(&self, state: TimeState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Counts how long a barrier waited for those of other inputs. Only the owner's thread may call.
    pub fn aligned(&self, time: Duration) {
        self.alignment.record(time);
    }

    /// Counts how long it took from the barrier until the subtask's part was encoded. Only the owner's thread may call.
    pub fn snapshot(&self, time: Duration) {
        self.snapshot.record(time);
    }

    /// The times of alignments.
    pub fn alignments(&self) -> Buckets {
        self.alignment.read()
    }

    /// The times of snapshots.
    pub fn snapshots(&self) -> Buckets {
        self.snapshot.read()
    }

    /// When its last turn began; nothing before the first.
    pub fn last_turn(&self) -> Option<Timestamp> {
        let since = self.since.load(Ordering::Relaxed);
        (since != 0).then(|| Timestamp::from_micros(since))
    }

    /// How long it was in each state until `now`. The turn that goes on counts as busy; it may turn out to be another's, by less
    /// than its own length.
    pub fn split(&self, now: Timestamp) -> TimeSplit {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let mut spent = self.spent.each_ref().map(|spent| spent.load(Ordering::Relaxed));
            let since = self.since.load(Ordering::Relaxed);
            let state = TimeState::from_number(self.state.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if version % 2 == 1 || self.version.load(Ordering::Relaxed) != version {
                // The owner is inside for a few instructions, unless the kernel has taken its core away there.
                std::thread::yield_now();
                continue;
            }
            if since != 0
                && let Some(spent) = spent.get_mut(state as usize)
            {
                *spent += micros_between(since, now);
            }
            return spent.map(Duration::from_micros);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn split(meter: &TaskMeter, now: i64) -> [u128; 5] {
        meter.split(at(now)).map(|time| time.as_micros())
    }

    #[test]
    fn time_goes_to_the_state_that_the_turn_before_has_left() {
        let meter = TaskMeter::default();
        assert_eq!(split(&meter, 999), [0; 5], "before the first turn nothing counts");
        for (now, state) in [
            (1_000, TimeState::Busy),
            (1_010, TimeState::Idle),
            (1_500, TimeState::Backpressured),
            (1_700, TimeState::Aligning),
            (1_703, TimeState::Checkpointing),
            (1_705, TimeState::Idle),
        ] {
            meter.begin_turn(at(now));
            meter.end_turn(state);
        }
        assert_eq!(split(&meter, 2_000), [10, 490 + 295, 200, 3, 2]);
        assert_eq!(split(&meter, 2_000).iter().sum::<u128>(), 1_000, "the states add up");
        assert_eq!(meter.last_turn(), Some(at(1_705)));
    }

    #[test]
    fn a_turn_that_does_not_end_is_busy() {
        let meter = TaskMeter::default();
        meter.begin_turn(at(100));
        assert_eq!(split(&meter, 5_000_100), [5_000_000, 0, 0, 0, 0]);
    }

    #[test]
    fn an_output_that_waits_shows_it_while_it_does() {
        let meter = OutputMeter::default();
        let waited = |now| meter.waited(at(now)).as_micros();
        meter.note(false, at(50));
        for (now, waits) in [(100, true), (110, true), (150, false), (160, false), (200, true)] {
            meter.note(waits, at(now));
        }
        assert_eq!((waited(200), waited(203)), (50, 53));
    }

    #[test]
    fn a_reader_never_sees_a_time_twice() {
        let meter = TaskMeter::default();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for now in 1..200_000 {
                    meter.begin_turn(at(now));
                    meter.end_turn(TimeState::Idle);
                }
            });
            while !writer.is_finished() {
                let total = split(&meter, 200_000).iter().sum::<u128>();
                assert!(total <= 199_999, "{total}");
            }
        });
        assert_eq!(split(&meter, 200_000).iter().sum::<u128>(), 199_999);
    }
}

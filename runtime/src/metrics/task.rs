//! What a subtask counts of itself. One writer, its own thread; read by whoever wants.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering, fence};
use std::time::Duration;

use crate::metrics::MetricsLevel;
use crate::metrics::operator::micros_between;
use crate::time::Timestamp;

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
    /// It counts nothing per turn.
    off: bool,
    /// Odd while the owner changes what follows; a reader that sees it change reads again.
    version: AtomicU64,
    /// Microseconds by state.
    spent: [AtomicU64; 5],
    /// Since when it is in `state`, in microseconds; zero before its first turn.
    since: AtomicI64,
    state: AtomicU8,
}

impl TaskMeter {
    /// Makes one.
    pub fn new(level: MetricsLevel) -> Self {
        Self { off: level == MetricsLevel::Off, ..Self::default() }
    }

    /// Says whether it counts.
    pub const fn is_counting(&self) -> bool {
        !self.off
    }

    /// A turn begins: what has passed goes to the state that the last turn left. It counts as busy until it says otherwise. Only
    /// the owner's thread may call.
    #[inline]
    pub fn begin_turn(&self, now: Timestamp) {
        if self.off {
            return;
        }
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
        if self.off {
            return;
        }
        self.state.store(state as u8, Ordering::Relaxed);
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

//! The task machine: one turn at a time.
//!
//! ```text
//!                 +--------- room again -----------+
//!                 v                                |
//!   Running --output full--> Blocked --------------+
//!      |  \                     |
//!      |   \--- closed ---------+----> Ended        (the attempt is over: nothing more is handed in)
//!      +------- end passed ----------> Ended
//! ```
//! Between frames, when idle and while blocked it encodes a slice of what is frozen, so that a barrier never pauses it and
//! an epoch's part is in after half an interval at the latest.

use std::fmt;
use std::time::Duration;

use crate::metrics::TimeState;
use crate::operator::{Effect, Head, Origins, Polled, TaskContext, TaskControl, TaskError};
use crate::plan::TaskSeed;
use crate::time::{SharedClock, Timestamp};

/// Entries that are encoded between two frames when there is no hurry.
const SLICE: usize = 8;
/// Entries that are encoded in a turn in which nothing else was done.
const IDLE_SLICE: usize = 4;
/// Entries that are encoded in one turn at most, so that a turn stays short.
const LARGEST_SLICE: usize = 4096;

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Turn {
    /// There may be more to do at once.
    Worked,
    /// Nothing to do until the bell rings.
    Idle,
    /// No output has room until the bell rings.
    Blocked,
    /// The task is over.
    Ended,
}

/// One subtask. See the module.
pub struct TaskMachine {
    head: Box<dyn Head>,
    context: TaskContext,
    control: TaskControl,
    state: State,
    /// An output is full, and nothing else is what it waits for.
    waits_for_room: bool,
    /// Entries left in frozen epochs.
    frozen: usize,
    /// Time within which an epoch's entries are to be encoded.
    encode_within: Duration,
    /// When the last slice was encoded.
    encoded_at: Timestamp,
    /// Most entries of a slice.
    largest_slice: usize,
    /// Where its records come from, if it reads no source itself.
    origins: Origins,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Blocked,
    Ended,
}

impl fmt::Debug for TaskMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskMachine").field("subtask", &self.context.subtask()).field("state", &self.state).finish()
    }
}

impl TaskMachine {
    /// Grows a seed into a machine, on the worker that will run it.
    ///
    /// # Errors
    /// [`TaskError`] when an operator cannot be opened or its state not restored.
    pub fn build(seed: TaskSeed, clock: SharedClock) -> Result<Self, TaskError> {
        let control = seed.control.clone();
        let epoch_interval = seed.epoch_interval();
        let origins = seed.origins.clone();
        let (head, context) = seed.grow(clock)?;
        Ok(Self { origins, ..Self::new(head, context, control, epoch_interval) })
    }

    /// Makes a machine. An epoch's entries are encoded within half of `epoch_interval`.
    pub fn new(head: Box<dyn Head>, context: TaskContext, control: TaskControl, epoch_interval: Duration) -> Self {
        let encoded_at = context.turn_time();
        Self {
            head,
            context,
            control,
            state: State::Running,
            waits_for_room: false,
            frozen: 0,
            encode_within: epoch_interval / 2,
            encoded_at,
            largest_slice: LARGEST_SLICE,
            origins: Origins::default(),
        }
    }

    /// Encodes at most `entries` (≥ 1) entries in one turn, so that a test sees what lies between two slices.
    #[cfg(feature = "test-util")]
    pub fn limit_slices(&mut self, entries: usize) {
        self.largest_slice = entries.max(1);
    }

    /// The subtask's control.
    pub const fn control(&self) -> &TaskControl {
        &self.control
    }

    /// Which subtask this is.
    pub const fn subtask(&self) -> crate::id::SubtaskId {
        self.context.subtask()
    }

    /// The epoch whose records are being worked on.
    pub const fn epoch(&self) -> crate::id::Epoch {
        self.context.epoch()
    }

    /// When it has to be woken although nothing was sent to it: a processing-time timer is due, or it waits for memory.
    pub fn wakes_at(&self) -> Option<Timestamp> {
        self.context.wakes_at()
    }

    /// Does one frame's work and one slice of encoding. Take the effects after every turn.
    ///
    /// # Errors
    /// [`TaskError`]: the machine is over and the attempt has failed.
    pub fn step(&mut self) -> Result<Turn, TaskError> {
        if self.control.is_closed() {
            self.state = State::Ended;
        }
        self.turn()
    }

    /// A turn of a loop that was lost in user code while its attempt was closed and abandoned: it finishes the turn it is in.
    ///
    /// # Errors
    /// As [`TaskMachine::step`].
    #[cfg(feature = "test-util")]
    pub fn step_late(&mut self) -> Result<Turn, TaskError> {
        self.turn()
    }

    fn end(&mut self) {
        self.state = State::Ended;
        // Until the attempt is over, it waits.
        self.control.meter().end_turn(TimeState::Idle);
    }

    fn turn(&mut self) -> Result<Turn, TaskError> {
        self.context.tick();
        self.control.meter().begin_turn(self.context.turn_time());
        let polled = match self.state {
            State::Ended => {
                self.end();
                return Ok(Turn::Ended);
            }
            State::Running => self.head.poll(&mut self.context),
            State::Blocked => self.head.resume(&mut self.context),
        };
        let polled = polled.map_err(|error| {
            self.end();
            error.located(|| {
                self.head.origin().map_or_else(|| self.origins.clone(), |origin| [origin].into_iter().collect())
            })
        })?;
        self.state = if polled == Polled::Blocked { State::Blocked } else { State::Running };
        // It may be rows of its own state that it waits for.
        let waits_for_room = polled == Polled::Blocked && !self.context.is_reading();
        if waits_for_room != self.waits_for_room {
            self.waits_for_room = waits_for_room;
            self.control.set_blocked(waits_for_room);
        }
        if polled == Polled::Ended {
            self.end();
            return Ok(Turn::Ended);
        }
        let encoded = self.encode(polled).inspect_err(|_| self.end())?;
        self.control.meter().end_turn(match polled {
            Polled::Worked => TimeState::Busy,
            Polled::Blocked if waits_for_room => TimeState::Backpressured,
            Polled::Blocked => TimeState::Busy,
            _ if encoded => TimeState::Checkpointing,
            _ if self.head.is_aligning() => TimeState::Aligning,
            Polled::Idle | Polled::Ended => TimeState::Idle,
        });
        Ok(match polled {
            Polled::Worked => Turn::Worked,
            _ if encoded => Turn::Worked,
            Polled::Blocked => Turn::Blocked,
            Polled::Idle | Polled::Ended => Turn::Idle,
        })
    }

    /// Takes what the host has to do, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        self.context.take_effects()
    }

    /// Encodes a slice if anything is frozen; says whether more is left.
    fn encode(&mut self, polled: Polled) -> Result<bool, TaskError> {
        let Some(frozen_at) = self.context.oldest_frozen_at() else { return Ok(false) };
        let spent = self.context.turn_time().saturating_since(frozen_at);
        let slice = if spent >= self.encode_within {
            LARGEST_SLICE / 8
        } else if polled != Polled::Worked {
            // This task has nothing to do, but its siblings on the worker may have: a slice must not make them wait.
            IDLE_SLICE
        } else {
            // The share of what is left that keeps the time, if turns go on taking as long as the last one did. Less than that
            // in the first half: an entry that is touched meanwhile is encoded where it lies in the cache anyway, and right
            // behind a barrier touches cost most.
            let turn = self.context.turn_time().saturating_since(self.encoded_at).as_micros();
            let left = (self.encode_within - spent).as_micros().max(1);
            let early = (spent.as_micros() * 2 * 256 / self.encode_within.as_micros().max(1)).min(256);
            let share = usize::try_from(self.frozen as u128 * turn * early / left / 256).unwrap_or(LARGEST_SLICE);
            share.clamp(SLICE, LARGEST_SLICE)
        };
        self.encoded_at = self.context.turn_time();
        self.frozen = self.head.encode_slice(slice.min(self.largest_slice), &mut self.context)?;
        Ok(self.frozen > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::channel::Bell;
    use crate::id::{Attempt, Epoch, SubtaskId};
    use crate::time::Clock;

    /// Shows the time that a test sets.
    #[derive(Debug, Default)]
    struct Hand(AtomicI64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(self.0.load(Ordering::Relaxed))
        }
    }

    /// What a turn comes to: whether it waits for rows, whether a barrier waits for others, and how long it takes.
    type Scripted = (Polled, bool, bool, i64);

    struct Script {
        clock: Arc<Hand>,
        turns: std::vec::IntoIter<Scripted>,
        aligns: bool,
    }

    impl Script {
        fn turn(&mut self, context: &mut TaskContext) -> Polled {
            let (polled, reads, aligns, takes) = self.turns.next().unwrap();
            if reads {
                context.waits_for_rows();
            }
            self.aligns = aligns;
            self.clock.0.fetch_add(takes, Ordering::Relaxed);
            polled
        }
    }

    impl Head for Script {
        fn poll(&mut self, context: &mut TaskContext) -> Result<Polled, TaskError> {
            Ok(self.turn(context))
        }

        fn resume(&mut self, context: &mut TaskContext) -> Result<Polled, TaskError> {
            Ok(self.turn(context))
        }

        fn encode_slice(&mut self, _: usize, _: &mut TaskContext) -> Result<usize, TaskError> {
            Ok(0)
        }

        fn is_aligning(&self) -> bool {
            self.aligns
        }
    }

    #[test]
    fn each_turn_and_the_wait_behind_it_count_for_what_it_came_to() {
        let clock = Arc::new(Hand(AtomicI64::new(1_000)));
        let turns: Vec<Scripted> = vec![
            (Polled::Worked, false, false, 5),
            (Polled::Idle, false, false, 1),
            (Polled::Idle, false, true, 2),
            (Polled::Blocked, false, false, 3),
            (Polled::Blocked, true, false, 4),
            (Polled::Worked, false, false, 0),
            (Polled::Ended, false, false, 7),
        ];
        let script = Script { clock: Arc::clone(&clock), turns: turns.into_iter(), aligns: false };
        let shared: SharedClock = clock.clone();
        let context =
            TaskContext::new(Attempt::default(), SubtaskId::default(), Epoch::GENESIS, shared, Bell::default());
        let control = TaskControl::default();
        let mut machine = TaskMachine::new(Box::new(script), context, control.clone(), Duration::from_millis(100));
        let mut waits = Vec::new();
        for _ in 0..8 {
            let _ = machine.step().unwrap();
            waits.push(control.is_blocked());
            // Until the next turn.
            clock.0.fetch_add(100, Ordering::Relaxed);
        }
        assert_eq!(
            waits[..6],
            [false, false, false, true, false, false],
            "one that waits for rows waits for no output"
        );
        let split = control.meter().split(clock.now()).map(|time| time.as_micros());
        // Behind its end it is idle, though it is asked once more.
        let (busy, idle) = (105 + 104 + 100, 101 + 107 + 100);
        assert_eq!(split, [busy, idle, 103, 102, 0], "busy, idle, backpressured, aligning, checkpointing");
    }
}

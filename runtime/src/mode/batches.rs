//! [`Batches`]: one micro-batch after the other.
//!
//! ```text
//!   Resting --due--> Asking --all sources have said what they have--> Writing --the plan is durable--> Working --committed--+
//!      ^  ^             \--nothing, and nobody wants an epoch--+                                                            |
//!      |  +----------------------------------------------------+                                                            |
//!      +--------------------------------------------------------------------------------------------------------------------+
//! ```
//! A plan that was found in the store is done first: the sources are asked all the same, and answer when they have it.

use std::collections::BTreeSet;

use crate::checkpoint::{EpochPlan, PlannedSplit};
use crate::id::{Epoch, SubtaskId};
use crate::time::Timestamp;
use crate::trigger::Trigger;

#[derive(Debug)]
enum State {
    Resting,
    Asking { waiting: BTreeSet<SubtaskId>, splits: Vec<PlannedSplit>, dry: bool },
    Writing(EpochPlan),
    Working { written: Option<EpochPlan> },
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something is said, or until this time.
    Wait(Option<Timestamp>),
    /// All sources are to be asked what they have.
    Ask,
    /// This plan is to be made durable.
    Write(EpochPlan),
    /// This plan is durable: its records may pass.
    Go(EpochPlan),
    /// There is nothing more to do.
    End,
}

/// Why an epoch is to begin although there are no records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The watermark would rise.
    pub watermark: bool,
    /// A timer of processing time is due then.
    pub timer: Option<Timestamp>,
}

impl Wishes {
    /// Adds those of another part.
    pub fn add(&mut self, watermark: bool, timer: Option<Timestamp>) {
        self.watermark |= watermark;
        self.timer = self.timer.into_iter().chain(timer).min();
    }

    fn are_due(self, now: Timestamp) -> bool {
        self.watermark || self.timer.is_some_and(|at| at <= now)
    }
}

/// See the module. While it is in use no other epoch is in flight.
#[derive(Debug)]
pub struct Batches {
    trigger: Trigger,
    no_data_epochs: bool,
    state: State,
    /// A plan that was found in the store.
    found: Option<EpochPlan>,
    /// When the next one begins at the earliest.
    begin_at: Timestamp,
    /// A source has something since it was asked last, or nobody was asked yet.
    available: bool,
    /// One is wanted at once, with records or without.
    forced: bool,
    wishes: Wishes,
    /// Everything that there was is planned.
    dry: bool,
    /// One was done since the trigger was set.
    ran: bool,
}

impl Batches {
    /// Begins in a new attempt, with the plan that it found. `ran`: see [`Batches::has_run`].
    pub fn new(trigger: Trigger, no_data_epochs: bool, found: Option<EpochPlan>, ran: bool) -> Self {
        Self {
            trigger,
            no_data_epochs,
            state: State::Resting,
            found,
            begin_at: Timestamp::MIN,
            available: true,
            forced: false,
            wishes: Wishes::default(),
            dry: false,
            ran,
        }
    }

    /// Changes the trigger; takes effect with the next epoch that begins.
    pub fn set_trigger(&mut self, trigger: Trigger) {
        *self = Self { trigger, available: true, dry: false, ran: false, begin_at: Timestamp::MIN, ..self.take() };
    }

    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new(self.trigger, self.no_data_epochs, None, false))
    }

    /// Says whether the epoch that is in work, or about to be, is the one that was found in the store.
    pub const fn is_replay(&self) -> bool {
        self.found.is_some()
    }

    /// Says whether a micro-batch was done since the trigger was set.
    pub const fn has_run(&self) -> bool {
        self.ran
    }

    /// Says whether sources were asked and have not all answered.
    pub const fn is_asking(&self) -> bool {
        matches!(self.state, State::Asking { .. })
    }

    /// Says whether a micro-batch is on its way.
    pub const fn is_busy(&self) -> bool {
        !matches!(self.state, State::Resting)
    }

    /// The source subtasks that have not answered.
    pub fn missing(&self) -> Vec<SubtaskId> {
        match &self.state {
            State::Asking { waiting, .. } => waiting.iter().copied().collect(),
            _ => Vec::new(),
        }
    }

    /// Wants an epoch at once, with records or without.
    pub const fn force(&mut self) {
        self.forced = true;
    }

    /// A source that had nothing when it was asked has something now.
    pub const fn on_available(&mut self) {
        self.available = true;
    }

    /// A source says what it gives to the next epoch, and whether that was all there is.
    pub fn on_answer(&mut self, subtask: SubtaskId, mut splits: Vec<PlannedSplit>, dry: bool) {
        if let State::Asking { waiting, splits: all, dry: all_dry } = &mut self.state
            && waiting.remove(&subtask)
        {
            all.append(&mut splits);
            *all_dry &= dry;
        }
    }

    /// The plan of this epoch is durable.
    pub fn on_written(&mut self, epoch: Epoch) {
        let state = std::mem::replace(&mut self.state, State::Resting);
        self.state = match state {
            State::Writing(plan) if plan.epoch == epoch => State::Working { written: Some(plan) },
            state => state,
        };
    }

    /// The epoch is committed. Says whether the next one should have begun before.
    pub fn on_committed(&mut self, now: Timestamp) -> bool {
        if !matches!(self.state, State::Working { .. }) {
            return false;
        }
        self.state = State::Resting;
        self.ran = true;
        self.available |= self.trigger.is_finite();
        matches!(self.trigger, Trigger::ProcessingTime(interval) if !interval.is_zero())
            && self.begin_at > Timestamp::MIN
            && now > self.begin_at
    }

    /// What the parts of the epoch that is in work wish for.
    pub const fn on_wishes(&mut self, wishes: Wishes) {
        self.wishes = wishes;
    }

    /// Says what comes next for `epoch`. `held`: the sources are held back. `now` never goes back.
    pub fn next(&mut self, epoch: Epoch, sources: &BTreeSet<SubtaskId>, held: bool, now: Timestamp) -> Next {
        match &mut self.state {
            State::Resting => self.rest(sources, held, now),
            State::Asking { waiting, .. } if !waiting.is_empty() => Next::Wait(None),
            State::Asking { splits, dry, .. } => {
                let (splits, dry) = (std::mem::take(splits), *dry);
                self.decide(EpochPlan { epoch, time: now, splits }, dry)
            }
            State::Working { written } => written.take().map_or(Next::Wait(None), Next::Go),
            State::Writing(_) => Next::Wait(None),
        }
    }

    fn rest(&mut self, sources: &BTreeSet<SubtaskId>, held: bool, now: Timestamp) -> Next {
        let finite = self.trigger.is_finite();
        if self.trigger == Trigger::Once && self.ran && !self.forced {
            return Next::End;
        }
        if self.found.is_none() && !self.forced {
            if held {
                return Next::Wait(None);
            }
            let wishes = if self.no_data_epochs { self.wishes } else { Wishes::default() };
            if (finite || self.is_eager()) && !self.available && !wishes.are_due(now) {
                return Next::Wait(wishes.timer);
            }
            if !finite && now < self.begin_at {
                return Next::Wait(Some(self.begin_at));
            }
        }
        self.available = false;
        self.state = State::Asking { waiting: sources.clone(), splits: Vec::new(), dry: true };
        Next::Ask
    }

    fn decide(&mut self, plan: EpochPlan, dry: bool) -> Next {
        let now = plan.time;
        self.begin_at = self.trigger.after(now);
        if let Some(found) = self.found.take() {
            self.state = State::Working { written: None };
            // What the sources have besides was not asked.
            self.available = true;
            return Next::Go(found);
        }
        self.dry = dry;
        let no_data = self.no_data_epochs && self.trigger != Trigger::Once && self.wishes.are_due(now);
        if plan.splits.is_empty() && !self.forced && !no_data {
            self.state = State::Resting;
            return if self.trigger.is_finite() && self.dry { Next::End } else { Next::Wait(self.wakes_at()) };
        }
        self.forced = false;
        self.wishes = Wishes::default();
        // Where there was something there may be more.
        self.available |= !plan.splits.is_empty();
        self.state = State::Writing(plan.clone());
        Next::Write(plan)
    }

    /// The next one begins as soon as there is something.
    fn is_eager(&self) -> bool {
        matches!(self.trigger, Trigger::ProcessingTime(interval) if interval.is_zero())
    }

    fn wakes_at(&self) -> Option<Timestamp> {
        if self.is_eager() || self.trigger.is_finite() {
            return self.wishes.timer.filter(|_| self.no_data_epochs);
        }
        Some(self.begin_at)
    }
}

#[cfg(test)]
mod tests;

//! What goes wrong while a life runs, as the seed wants it.

use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::{Life, Sender, SimTask};
use crate::job::JobEvent;
use crate::operator::TaskError;
use crate::state::store::StoreErrorKind;
use crate::testing::sim_store::{FailedWrite, WriteFaults};
use crate::time::Clock;
use crate::trigger::Trigger;

impl Life<'_> {
    /// Lets something go wrong now and then: a task fails, a loop hangs or wakes up, the disk is full, somebody stops the job.
    pub(super) fn disturb(&mut self) {
        // A hanging loop that was abandoned comes back some time, if there is time.
        if self.tasks.iter().any(|task| task.asleep && task.abandoned) && self.world.rng.random_bool(0.05) {
            for task in self.tasks.iter_mut().filter(|task| task.asleep && task.abandoned) {
                task.asleep = false;
                task.runnable = true;
                self.world.report.late_loops += 1;
            }
        }
        if self.world.switches > 0 && self.world.rng.random_bool(0.02) {
            self.switch();
        }
        if !self.world.rng.random_bool(0.01) {
            return;
        }
        let now = self.world.clock.now();
        if self.config.state_memory < u64::MAX {
            // Somebody changes the budget while it runs.
            let factor = *[0, 1, 4, 40].choose(&mut self.world.rng).unwrap_or(&1);
            self.memory.set_limit(self.config.state_memory.saturating_mul(factor));
        }
        match self.world.rng.random_range(0..3) {
            0 if self.world.failures > 0 => self.fail_a_task(),
            1 if self.world.full_disks > 0 => {
                self.world.full_disks -= 1;
                let rng = &mut self.world.rng;
                // A full disk is waited for; any other error ends the attempt if the write is lost, which the contract leaves
                // open. Some hit the writes of a recovery, some the ingestion of a fold.
                let kind = if rng.random() { StoreErrorKind::Full } else { StoreErrorKind::Io };
                let outcome = if rng.random() { FailedWrite::Lost } else { FailedWrite::Written };
                let (after, times) = (rng.random_range(0..3), rng.random_range(1..4));
                self.world.disk.fail_writes(WriteFaults { kind, after, times, outcome });
            }
            2 if self.world.stops > 0 && self.world.rng.random_bool(0.3) => {
                self.world.stops -= 1;
                let deadline = now.saturating_add(Duration::from_secs(3600));
                self.mail.entry(Sender::User).or_default().push_back(JobEvent::Stop { deadline });
            }
            _ => {}
        }
    }

    /// Somebody changes the trigger.
    fn switch(&mut self) {
        self.world.switches -= 1;
        self.world.report.switches += 1;
        let interval = Duration::from_micros(self.world.rng.random_range(200..5_000));
        let trigger = match self.world.rng.random_range(0..4) {
            0 => Trigger::ProcessingTime(Duration::ZERO),
            1 => Trigger::ProcessingTime(interval),
            _ => Trigger::Continuous(interval),
        };
        self.mail.entry(Sender::User).or_default().push_back(JobEvent::SetTrigger(trigger));
    }

    /// Everything is committed and delivered, and some loop gets lost in user code all the same.
    pub(super) fn hang_at_the_end(&mut self) {
        if self.world.failures == 0 || !self.world.rng.random_bool(0.2) {
            return;
        }
        let attempt = self.machine.status().attempt;
        let alive: Vec<&mut SimTask> =
            self.tasks.iter_mut().filter(|task| task.attempt == attempt && task.machine.is_some()).collect();
        let hangs = self.world.rng.random_range(0..alive.len().max(1));
        if let Some(task) = alive.into_iter().nth(hangs) {
            task.asleep = true;
            self.world.failures -= 1;
            self.world.report.hung_ends += 1;
        }
    }

    fn fail_a_task(&mut self) {
        let attempt = self.machine.status().attempt;
        let alive = self.tasks.iter().enumerate().filter(|(_, task)| task.attempt == attempt && task.machine.is_some());
        let alive: Vec<usize> = alive.map(|(index, _)| index).collect();
        let Some(index) = alive.choose(&mut self.world.rng).copied() else { return };
        self.world.failures -= 1;
        // Some other loop may be lost in user code at that moment, best with a part that it has just handed in.
        let speaking = alive.iter().copied().filter(|index| {
            let task = self.tasks.get(*index);
            task.is_some_and(|task| self.mail.contains_key(&Sender::Task(task.attempt, task.subtask)))
        });
        let speaking: Vec<usize> = speaking.collect();
        let others = if speaking.is_empty() { &alive } else { &speaking };
        if self.world.rng.random_bool(0.7)
            && let Some(other) = others.choose(&mut self.world.rng).copied()
            && other != index
            && let Some(task) = self.tasks.get_mut(other)
        {
            task.asleep = true;
        }
        let Some(task) = self.tasks.get_mut(index) else { return };
        task.machine = None;
        let (attempt, subtask) = (task.attempt, task.subtask);
        let error = Some(TaskError::Panic { message: "planned".to_owned() });
        let event = JobEvent::TaskEnded { attempt, subtask, error };
        self.mail.entry(Sender::Task(attempt, subtask)).or_default().push_back(event);
    }
}

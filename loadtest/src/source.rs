//! The senders: a source whose readers emit what is due, each on a thread of its own.

use std::collections::VecDeque;
use std::iter::{Skip, StepBy};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream::runtime::error::BoxError;
use millstream::runtime::record::Record;
use millstream::runtime::source::{Batch, Polled, Position, Reader, Source, SplitId};

use crate::check::Stamp;
use crate::clock::Stopwatch;
use crate::latency::Latency;
use crate::pacing::{Pacing, go_first, sharpen_timers};
use crate::schedule::{DueTimes, Spec};

/// Locks; a thread that panicked while it held the lock has failed the run anyway.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Times of a run, set by the driver and read by senders and probes; never, until they are known.
#[derive(Debug)]
pub(crate) struct Times {
    pub(crate) clock: Stopwatch,
    /// The base instant of the schedule.
    begin: AtomicU64,
    from: AtomicU64,
    to: AtomicU64,
}

impl Times {
    pub(crate) fn new(clock: Stopwatch) -> Self {
        Self { clock, begin: AtomicU64::new(u64::MAX), from: AtomicU64::new(u64::MAX), to: AtomicU64::new(u64::MAX) }
    }

    pub(crate) fn begin_at(&self, at: u64) {
        self.begin.store(at, Ordering::Release);
    }

    pub(crate) fn measure(&self, from: u64, to: u64) {
        self.to.store(to, Ordering::Release);
        self.from.store(from, Ordering::Release);
    }

    /// Sends nothing that is due at `to` or later.
    pub(crate) fn stop_at(&self, to: u64) {
        self.to.fetch_min(to, Ordering::AcqRel);
    }

    pub(crate) fn begin(&self) -> Option<u64> {
        Some(self.begin.load(Ordering::Acquire)).filter(|at| *at != u64::MAX)
    }

    pub(crate) fn end(&self) -> u64 {
        self.to.load(Ordering::Acquire)
    }

    /// Whether a record that is due then is measured.
    #[inline]
    pub(crate) fn is_measured(&self, due: u64) -> bool {
        due >= self.from.load(Ordering::Acquire) && due < self.to.load(Ordering::Acquire)
    }
}

/// What is known of one sender.
#[derive(Debug)]
pub(crate) struct Sender {
    /// Records handed to the pipeline.
    pub(crate) sent: u64,
    /// Those of the measured phase.
    pub(crate) sent_measured: u64,
    /// By how much the tester itself was late.
    pub(crate) lag: Latency,
    /// From the due time until the epoch was committed.
    pub(crate) durable: Latency,
    /// Records known to be durable.
    pub(crate) committed: u64,
    /// Due times of those that are not.
    pending: VecDeque<u64>,
    /// Whether the sender has sent all that was due before the end.
    pub(crate) finished: bool,
    pub(crate) timer_slack: Option<u64>,
    pub(crate) nice: Option<i32>,
}

/// The senders of a run.
#[derive(Clone, Debug)]
pub(crate) struct Senders {
    pub(crate) times: Arc<Times>,
    pub(crate) spec: Spec,
    pub(crate) seed: u64,
    pub(crate) pacing: Pacing,
    /// Whether epochs are committed while records flow; else nothing is noted for them, since it would grow without bound.
    pub(crate) epochs: bool,
    pub(crate) all: Arc<Vec<Mutex<Sender>>>,
}

impl Senders {
    pub(crate) fn new(
        times: Arc<Times>,
        spec: Spec,
        seed: u64,
        pacing: Pacing,
        epochs: bool,
        count: u16,
    ) -> anyhow::Result<Self> {
        let sender = || {
            Ok(Mutex::new(Sender {
                sent: 0,
                sent_measured: 0,
                lag: Latency::new()?,
                durable: Latency::new()?,
                committed: 0,
                pending: VecDeque::new(),
                finished: false,
                timer_slack: None,
                nice: None,
            }))
        };
        let all = (0..count).map(|_| sender()).collect::<anyhow::Result<_>>()?;
        Ok(Self { times, spec, seed, pacing, epochs, all: Arc::new(all) })
    }

    /// Sums one number over all senders.
    pub(crate) fn sum(&self, number: impl Fn(&Sender) -> u64) -> u64 {
        self.all.iter().map(|sender| number(&lock(sender))).sum()
    }

    fn of(&self, split: &SplitId) -> Result<(usize, &Mutex<Sender>), BoxError> {
        let number: usize = split.as_str().parse()?;
        Ok((number, self.all.get(number).ok_or("there is no such sender")?))
    }
}

/// Sends stamps; what else a record holds, a workload makes of it.
#[derive(Debug)]
pub(crate) struct LoadSource(pub(crate) Senders);

impl Source for LoadSource {
    type Out = Stamp;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok((0..self.0.all.len()).map(|number| SplitId::new(number.to_string())).collect())
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<Stamp>>, BoxError> {
        if from.is_some() {
            return Err("the pipeline was restarted during a load test: nothing it measures would be true".into());
        }
        let (number, _) = self.0.of(split)?;
        // Interleaved: all senders together send the schedule.
        let due_times = self.0.spec.due_times(self.0.seed).skip(number).step_by(self.0.all.len());
        Ok(Box::new(LoadReader { senders: self.0.clone(), number, due_times, next: None, sent: 0, sharp: false }))
    }

    fn committed(&self, at: &[(SplitId, Position)]) {
        // One reading: all of them became durable by the same commit.
        let now = self.0.times.clock.nanos();
        for (split, position) in at {
            let (Ok((_, sender)), Some(upto)) = (self.0.of(split), position.as_u64()) else { continue };
            let sender = &mut *lock(sender);
            let fresh = upto.saturating_sub(sender.committed) as usize;
            sender.committed = sender.committed.max(upto);
            for due in sender.pending.drain(..fresh.min(sender.pending.len())) {
                if self.0.times.is_measured(due) {
                    sender.durable.record(now.saturating_sub(due));
                }
            }
        }
    }
}

struct LoadReader {
    senders: Senders,
    number: usize,
    due_times: StepBy<Skip<DueTimes>>,
    /// The due time of the next record, from the base instant.
    next: Option<u64>,
    sent: u64,
    sharp: bool,
}

impl Reader<Stamp> for LoadReader {
    fn poll(&mut self, batch: &mut Batch<Stamp>, limit: usize) -> Result<Polled, BoxError> {
        let Senders { times, pacing, epochs, all, .. } = &self.senders;
        let sender = all.get(self.number).ok_or("there is no such sender")?;
        batch.end = Position::from_u64(self.sent);
        if !self.sharp {
            let (slack, nice) = (sharpen_timers(), go_first());
            let mut state = lock(sender);
            (state.timer_slack, state.nice) = (slack, nice);
            self.sharp = true;
        }
        let entered = times.clock.nanos();
        let Some(begin) = times.begin() else {
            pacing.wait(times.clock, entered + 1_000_000);
            return Ok(Polled::Idle);
        };
        let mut due = begin + *self.next.get_or_insert_with(|| self.due_times.next().unwrap_or(u64::MAX / 2));
        let end = times.end();
        let mut now = entered;
        if due.min(end) > now {
            now = pacing.wait(times.clock, due.min(end));
        }
        let mut state = lock(sender);
        while due <= now && due < times.end() && batch.records.len() < limit {
            // The pipeline holds a sender back between two polls; what is late since this poll began, the tester is to blame for.
            let lag = now - due.max(entered).min(now);
            let seq = self.sent * all.len() as u64 + self.number as u64;
            batch.records.push(Record::new(Stamp { seq, due, sent: now, key: 0, sender: self.number as u16 }));
            self.sent += 1;
            if *epochs {
                state.pending.push_back(due);
            }
            if times.is_measured(due) {
                state.sent_measured += 1;
                state.lag.record(lag);
            }
            let next = self.due_times.next().unwrap_or(u64::MAX / 2);
            self.next = Some(next);
            due = begin + next;
        }
        state.sent = self.sent;
        state.finished = due >= times.end();
        batch.end = Position::from_u64(self.sent);
        // Never the end: the driver decides when the pipeline stops.
        Ok(if batch.records.is_empty() { Polled::Idle } else { Polled::More })
    }
}

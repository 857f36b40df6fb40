//! Delivers committed output of one level-2 sink: strictly in epoch order, outside the data path.
//!
//! ```text
//!   Closed --open: fence older instances, read the token, drop what is in--> Open --apply--> Open
//!     ^                                                                       |
//!     +---- outcome unknown: build the connector anew, compare the token -----+
//! ```
//! It may block in the connector, so its host gives it a thread of its own; the simulator steps it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::canary::{Canary, planted};
use crate::checkpoint::Delivered;
use crate::fault::{CrashPoint, Crashed, SharedFaults};
use crate::id::{Attempt, Epoch, OperatorId};
use crate::rows::Rows;
use crate::sink::{EpochBatch, Roll, SinkContext, SinkError, SinkErrorKind, TokenSink, TokenSinkFactory};
use crate::time::Timestamp;

/// First pause before a retry; doubled for each further one.
const RETRY_BACKOFF: Duration = Duration::from_millis(50);
/// Longest pause between retries.
const MAX_RETRY_BACKOFF: Duration = Duration::from_secs(10);

/// What a delivery is told, in this order: open, rows of rising epochs, fence.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeliveryOrder {
    /// A new attempt begins: open the connector, deliver what the store holds.
    Open {
        /// The attempt.
        attempt: Attempt,
        /// The last committed epoch.
        committed: Epoch,
        /// Committed output that is not known to be delivered.
        pending: Vec<Rows>,
    },
    /// Epochs up to `committed` are durable; their rows.
    Committed {
        /// The attempt.
        attempt: Attempt,
        /// The last committed epoch.
        committed: Epoch,
        /// Their rows, if there are any.
        rows: Vec<Rows>,
    },
    /// Do not wait for a full batch: the job is closing, or the outbox is half full.
    Flush,
    /// Answer when nothing of the attempt before `attempt` can reach the sink any more.
    Fence {
        /// The next attempt.
        attempt: Attempt,
    },
}

/// What a delivery has to say.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeliveryAnswer {
    /// Rows are in.
    Delivered {
        /// The attempt.
        attempt: Attempt,
        /// Up to where.
        delivered: Delivered,
    },
    /// It cannot go on.
    Failed {
        /// The attempt.
        attempt: Attempt,
        /// Which sink.
        operator: OperatorId,
        /// Why.
        error: SinkError,
    },
    /// See [`DeliveryOrder::Fence`].
    Fenced {
        /// The next attempt.
        attempt: Attempt,
        /// Which sink.
        operator: OperatorId,
    },
}

/// What a step came to.
#[derive(Debug)]
pub enum DeliveryStep {
    /// There is something to say.
    Answer(DeliveryAnswer),
    /// Something was done; step again.
    Worked,
    /// Nothing to do before this time, or before the next order if there is none.
    Idle(Option<Timestamp>),
}

#[derive(Debug)]
struct Waiting {
    rows: Rows,
    since: Timestamp,
}

/// The deliverer of one sink and shard.
pub struct Delivery {
    operator: OperatorId,
    context: SinkContext,
    factory: TokenSinkFactory,
    faults: SharedFaults,
    connector: Option<Box<dyn TokenSink>>,
    attempt: Attempt,
    /// Between open and fence.
    active: bool,
    committed: Epoch,
    waiting: VecDeque<Waiting>,
    /// Everything before this is reported as delivered.
    reported: Epoch,
    flush: bool,
    backoff: Duration,
    retry_at: Option<Timestamp>,
    fence: Option<Attempt>,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("sink", &self.context.sink)
            .field("attempt", &self.attempt)
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl Delivery {
    /// Makes a closed delivery. `context` needs no attempt yet.
    pub fn new(operator: OperatorId, context: SinkContext, factory: TokenSinkFactory, faults: SharedFaults) -> Self {
        Self {
            operator,
            context,
            factory,
            faults,
            connector: None,
            attempt: Attempt::default(),
            active: false,
            committed: Epoch::GENESIS,
            waiting: VecDeque::new(),
            reported: Epoch::GENESIS,
            flush: false,
            backoff: RETRY_BACKOFF,
            retry_at: None,
            fence: None,
        }
    }

    /// Which sink it serves.
    pub const fn operator(&self) -> OperatorId {
        self.operator
    }

    /// Its name.
    pub fn sink(&self) -> &str {
        &self.context.sink
    }

    /// Takes an order. Orders of an older attempt are dropped.
    pub fn order(&mut self, order: DeliveryOrder, now: Timestamp) {
        match order {
            DeliveryOrder::Open { attempt, committed, pending } => {
                // A fence that nobody waited for: the attempt before had not been built.
                self.fence = None;
                self.connector = None;
                self.attempt = attempt;
                self.active = true;
                self.committed = committed;
                self.waiting = pending.into_iter().map(|rows| Waiting { rows, since: now }).collect();
                self.reported = Epoch::GENESIS;
                self.flush = false;
                self.backoff = RETRY_BACKOFF;
                self.retry_at = None;
            }
            DeliveryOrder::Committed { attempt, committed, rows } if attempt == self.attempt && self.active => {
                self.committed = committed;
                self.waiting.extend(rows.into_iter().map(|rows| Waiting { rows, since: now }));
            }
            DeliveryOrder::Committed { .. } => {}
            DeliveryOrder::Flush => self.flush = true,
            DeliveryOrder::Fence { attempt } => self.fence = Some(attempt),
        }
    }

    /// Does one thing: opens, applies one batch, or reports.
    ///
    /// # Errors
    /// [`Crashed`] in a test host.
    pub fn step(&mut self, now: Timestamp) -> Result<DeliveryStep, Crashed> {
        if let Some(attempt) = self.fence.take() {
            self.active = false;
            self.connector = None;
            self.waiting.clear();
            let operator = self.operator;
            return Ok(DeliveryStep::Answer(DeliveryAnswer::Fenced { attempt, operator }));
        }
        if !self.active {
            return Ok(DeliveryStep::Idle(None));
        }
        if let Some(at) = self.retry_at {
            if now < at {
                return Ok(DeliveryStep::Idle(Some(at)));
            }
            self.retry_at = None;
        }
        let done = if self.connector.is_none() { self.open() } else { self.apply(now)? };
        match done {
            Ok(step) => Ok(step),
            Err(error) => Ok(self.failed(error, now)),
        }
    }

    fn open(&mut self) -> Result<DeliveryStep, SinkError> {
        self.context.attempt = self.attempt;
        let name = &self.context.sink;
        let mut connector = (self.factory)()
            .map_err(|source| SinkError::new(SinkErrorKind::Fatal, format!("cannot make sink {name}"), source))?;
        let token = connector.open(&self.context)?;
        let next = self.committed.next();
        if token.next > next {
            let text = format!(
                "sink {name} has epoch {}, our store only {}: the store is older than the sink; start from the store \
                 that belongs to the sink, or empty the sink",
                token.next.number().saturating_sub(1),
                self.committed
            );
            return Err(SinkError::plain(SinkErrorKind::SinkAhead, text));
        }
        if !planted(Canary::TokenIgnored) {
            while self.waiting.front().is_some_and(|waiting| waiting.rows.epoch() < token.next) {
                self.waiting.pop_front();
            }
        }
        self.connector = Some(connector);
        Ok(self.report().map_or(DeliveryStep::Worked, DeliveryStep::Answer))
    }

    fn apply(&mut self, now: Timestamp) -> Result<Result<DeliveryStep, SinkError>, Crashed> {
        let Some(connector) = self.connector.as_mut() else { return Ok(Ok(DeliveryStep::Worked)) };
        let Some(oldest) = self.waiting.front() else {
            return Ok(Ok(self.report().map_or(DeliveryStep::Idle(None), DeliveryStep::Answer)));
        };
        let roll = connector.roll();
        let due = oldest.since.saturating_add(roll.interval);
        let bytes: usize = self.waiting.iter().map(|waiting| waiting.rows.bytes()).sum();
        if !self.flush && now < due && bytes < roll.bytes {
            return Ok(Ok(DeliveryStep::Idle(Some(due))));
        }
        let epochs = batch(&self.waiting, roll);
        let Some(batch) = EpochBatch::new(&epochs) else { return Ok(Ok(DeliveryStep::Worked)) };
        self.faults.pass(CrashPoint::DeliverBefore)?;
        if let Err(error) = connector.apply(&batch) {
            return Ok(Err(error));
        }
        self.faults.pass(CrashPoint::DeliverAfter)?;
        self.waiting.drain(..epochs.len());
        self.backoff = RETRY_BACKOFF;
        Ok(Ok(self.report().map_or(DeliveryStep::Worked, DeliveryStep::Answer)))
    }

    /// Says how far the sink is if that is news: everything before the oldest waiting epoch is in.
    fn report(&mut self) -> Option<DeliveryAnswer> {
        let next = self.waiting.front().map_or(self.committed.next(), |waiting| waiting.rows.epoch());
        if self.waiting.is_empty() {
            self.flush = false;
        }
        (next > self.reported).then(|| {
            self.reported = next;
            let delivered = Delivered { operator: self.operator, next };
            DeliveryAnswer::Delivered { attempt: self.attempt, delivered }
        })
    }

    fn failed(&mut self, error: SinkError, now: Timestamp) -> DeliveryStep {
        match error.kind {
            SinkErrorKind::Retry => {}
            SinkErrorKind::Unknown => self.connector = None,
            _ => {
                self.active = false;
                self.connector = None;
                let (attempt, operator) = (self.attempt, self.operator);
                return DeliveryStep::Answer(DeliveryAnswer::Failed { attempt, operator, error });
            }
        }
        tracing::warn!(sink = %self.context.sink, attempt = %self.attempt, %error, "delivery will be tried again");
        let at = now.saturating_add(self.backoff);
        self.backoff = (self.backoff * 2).min(MAX_RETRY_BACKOFF);
        self.retry_at = Some(at);
        DeliveryStep::Idle(Some(at))
    }
}

/// The oldest epochs up to the sink's batch size, at least one.
fn batch(waiting: &VecDeque<Waiting>, roll: Roll) -> Vec<Rows> {
    let mut bytes = 0;
    let fits = waiting.iter().take_while(|waiting| {
        let first = bytes == 0;
        bytes += waiting.rows.bytes();
        first || bytes <= roll.bytes
    });
    fits.map(|waiting| waiting.rows.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::fault::NoFaults;
    use crate::id::ShardId;
    use crate::operator::OutputMode;
    use crate::rows::RowsBuilder;
    use crate::sink::Token;

    type Outside = Arc<Mutex<(Token, Vec<(u64, u64)>, Vec<SinkErrorKind>)>>;

    struct Recorder(Outside);

    impl TokenSink for Recorder {
        fn open(&mut self, _context: &SinkContext) -> Result<Token, SinkError> {
            Ok(self.0.lock().unwrap().0)
        }

        fn apply(&mut self, batch: &EpochBatch<'_>) -> Result<(), SinkError> {
            let mut outside = self.0.lock().unwrap();
            let fault = outside.2.pop();
            if fault != Some(SinkErrorKind::Retry) {
                outside.0 = Token { next: batch.last().next() };
                outside.1.push((batch.first().number(), batch.last().number()));
            }
            fault.map_or(Ok(()), |kind| Err(SinkError::plain(kind, "planned")))
        }

        fn roll(&self) -> Roll {
            Roll { interval: Duration::from_millis(10), bytes: 1 << 20 }
        }
    }

    fn rows(epoch: u64) -> Rows {
        let mut builder = RowsBuilder::default();
        let write = |out: &mut Vec<u8>| {
            out.push(1);
            Ok::<_, ()>(())
        };
        builder.push(write).unwrap();
        Rows::new(Epoch::new(epoch), builder.take().0)
    }

    fn delivery(outside: &Outside) -> Delivery {
        let context = SinkContext {
            pipeline: "p".into(),
            sink: "s".into(),
            shard: ShardId::new(0),
            attempt: Attempt::new(0),
            output_mode: OutputMode::Append,
            subtask: 0,
            first_epoch: Epoch::GENESIS,
        };
        let outside = Arc::clone(outside);
        let factory: TokenSinkFactory = Arc::new(move || Ok(Box::new(Recorder(Arc::clone(&outside)))));
        Delivery::new(OperatorId::new(1), context, factory, Arc::new(NoFaults))
    }

    fn run(delivery: &mut Delivery, from: i64, until: i64) -> Vec<DeliveryAnswer> {
        let mut answers = Vec::new();
        let mut now = Timestamp::from_millis(from);
        loop {
            match delivery.step(now).unwrap() {
                DeliveryStep::Answer(answer) => answers.push(answer),
                DeliveryStep::Worked => {}
                DeliveryStep::Idle(Some(at)) if at <= Timestamp::from_millis(until) => now = at,
                DeliveryStep::Idle(_) => return answers,
            }
        }
    }

    fn open(committed: u64, pending: Vec<Rows>) -> DeliveryOrder {
        DeliveryOrder::Open { attempt: Attempt::new(1), committed: Epoch::new(committed), pending }
    }

    #[test]
    fn skips_what_the_token_says_is_in_and_groups_the_rest() {
        let outside = Outside::default();
        outside.lock().unwrap().0 = Token { next: Epoch::new(3) };
        let mut delivery = delivery(&outside);
        delivery.order(open(5, vec![rows(2), rows(4), rows(5)]), Timestamp::default());
        assert!(run(&mut delivery, 0, 5).len() == 1 && outside.lock().unwrap().1.is_empty(), "waits to roll");
        run(&mut delivery, 0, 10);
        assert_eq!(outside.lock().unwrap().1, [(4, 5)]);
    }

    #[test]
    fn after_an_unknown_outcome_the_token_decides_and_nothing_is_applied_twice() {
        let outside = Outside::default();
        outside.lock().unwrap().2 = vec![SinkErrorKind::Unknown, SinkErrorKind::Retry];
        let mut delivery = delivery(&outside);
        delivery.order(open(1, vec![rows(1)]), Timestamp::default());
        let answers = run(&mut delivery, 0, 1000);
        assert_eq!(outside.lock().unwrap().1, [(1, 1)]);
        let next = Epoch::new(2);
        assert!(matches!(answers.last(), Some(DeliveryAnswer::Delivered { delivered, .. }) if delivered.next == next));
    }

    #[test]
    fn refuses_a_sink_that_is_ahead_of_the_store_and_answers_a_fence() {
        let outside = Outside::default();
        outside.lock().unwrap().0 = Token { next: Epoch::new(9) };
        let mut delivery = delivery(&outside);
        delivery.order(open(7, vec![]), Timestamp::default());
        let answers = run(&mut delivery, 0, 0);
        assert!(matches!(&answers[0], DeliveryAnswer::Failed { error, .. } if error.kind == SinkErrorKind::SinkAhead));
        delivery.order(DeliveryOrder::Fence { attempt: Attempt::new(2) }, Timestamp::default());
        assert!(matches!(run(&mut delivery, 0, 0)[0], DeliveryAnswer::Fenced { .. }));
    }
}

//! The loops of threads that may block: readers, committer, deliveries, acknowledgements.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;

use crate::actor::job::JobActor;
use crate::actor::message::ToJob;
use crate::actor::outlet::Acknowledged;
use crate::channel::{QueueReceiver, QueueRecvError, QueueSender, WeakQueueSender};
use crate::error::guarded;
use crate::id::{Attempt, SubtaskId};
use crate::job::{Committer, CommitterAnswer, CommitterOrder, CommitterStep, JobEvent};
use crate::operator::TaskControl;
use crate::plan::Plan;
use crate::sink::{Delivery, DeliveryAnswer, DeliveryOrder, DeliveryStep, SinkError, SinkErrorKind};
use crate::source::{Fetch, Fetching};
use crate::state::FoldJob;
use crate::state::log::FoldError;
use crate::time::{SharedClock, Timestamp};

/// Longest sleep until a time of the clock: one that is set by hand may stand still or jump.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);
/// Sleep for an order where no time is set; a closed queue wakes it.
const NO_TIME: Duration = Duration::from_secs(3600);
/// A reader that answers faster than this did not wait by itself.
const INSTANT: Duration = Duration::from_millis(1);
/// Longest pause of a reader that has nothing.
const READER_PAUSE: Duration = Duration::from_millis(1);

fn sleep_until(at: Option<Timestamp>, clock: &SharedClock) -> Duration {
    at.map_or(NO_TIME, |at| at.saturating_since(clock.now()).min(LONGEST_SLEEP))
}

/// One source subtask's readers.
pub(super) struct ReaderHost {
    pub(super) attempt: Attempt,
    pub(super) subtask: SubtaskId,
    pub(super) control: TaskControl,
    pub(super) fetching: Box<dyn Fetching>,
    pub(super) clock: SharedClock,
    pub(super) job: Addr<JobActor>,
}

impl ReaderHost {
    /// Reads until the task is closed or nothing is left to read.
    pub(super) fn run(self) {
        let Self { attempt, subtask, control, mut fetching, clock, job } = self;
        let read = guarded(move || {
            let mut idle = 0_u32;
            while !control.is_closed() {
                // One empty split must not slow down its neighbours, so the pause grows from nothing.
                let began = (idle > 0).then(|| clock.now());
                match fetching.step() {
                    Fetch::Worked => idle = 0,
                    Fetch::Idle => {
                        idle += 1;
                        if began.is_some_and(|began| clock.now().saturating_since(began) < INSTANT) {
                            let pause = Duration::from_micros(32) * (1 << idle.min(6));
                            std::thread::park_timeout(pause.min(READER_PAUSE));
                        }
                    }
                    // Ends when the task has taken something, or is gone with its end of the queue.
                    Fetch::Full => {
                        idle = 0;
                        if fetching.wait_for_room() == Fetch::Done {
                            break;
                        }
                    }
                    Fetch::Done => break,
                }
            }
        });
        job.do_send(ToJob::ReaderEnded { attempt, subtask, panic: read.err() });
    }
}

/// Runs the committer until its queue is closed; the store is closed by then.
///
/// After a crash point that came back, or a panic, nothing is written any more; fences are still answered, so that the
/// attempt ends.
pub(super) fn commit(
    mut committer: Committer,
    orders: &QueueReceiver<CommitterOrder>,
    folds: &QueueSender<Box<FoldJob>>,
    job: &Addr<JobActor>,
    clock: &SharedClock,
) {
    let trouble = loop {
        while let Ok(order) = orders.try_recv() {
            committer.order(order);
        }
        match guarded(|| committer.step(clock.now())) {
            Ok(Ok(CommitterStep::Answer(answer))) => job.do_send(ToJob::Event(JobEvent::Committer(*answer))),
            Ok(Ok(CommitterStep::Worked)) => {}
            Ok(Ok(CommitterStep::Fold(fold))) => {
                // One at a time, so there is room.
                if folds.try_send(fold).is_err() {
                    committer.order(CommitterOrder::Folded(Err(FoldError::Closed)));
                }
            }
            Ok(Ok(CommitterStep::Idle(at))) => match orders.recv_timeout(sleep_until(at, clock)) {
                Ok(order) => committer.order(order),
                Err(QueueRecvError::Empty) => {}
                Err(QueueRecvError::Closed) => return,
            },
            Ok(Err(crashed)) => break ToJob::Crashed(crashed),
            Err(panic) => break ToJob::CommitterPanicked(panic),
        }
    };
    let _ = guarded(move || drop(committer));
    job.do_send(trouble);
    loop {
        match orders.recv_timeout(NO_TIME) {
            Ok(CommitterOrder::Fence { attempt }) => {
                job.do_send(ToJob::Event(JobEvent::Committer(CommitterAnswer::Fenced { attempt })));
            }
            Ok(_) | Err(QueueRecvError::Empty) => {}
            Err(QueueRecvError::Closed) => return,
        }
    }
}

/// Folds what it is given until the queue is closed. A panic there leaves the log as it is.
pub(super) fn fold(folds: &QueueReceiver<Box<FoldJob>>, committer: &WeakQueueSender<CommitterOrder>) {
    loop {
        match folds.recv_timeout(NO_TIME) {
            Ok(fold) => {
                let run = guarded(|| fold.run()).unwrap_or_else(|panic| {
                    tracing::error!(panic, "folding the log panicked");
                    Err(FoldError::Closed)
                });
                drop(fold);
                // Whoever does not take it any more does not need it either.
                let Some(committer) = committer.upgrade() else { return };
                if committer.send(CommitterOrder::Folded(run)).is_err() {
                    return;
                }
            }
            Err(QueueRecvError::Empty) => {}
            Err(QueueRecvError::Closed) => return,
        }
    }
}

/// Runs one sink's delivery until its queue is closed.
pub(super) fn deliver(
    mut delivery: Delivery,
    orders: &QueueReceiver<DeliveryOrder>,
    job: &Addr<JobActor>,
    clock: &SharedClock,
) {
    let operator = delivery.operator();
    let mut attempt = Attempt::default();
    // After a panic, until the fence: whatever the connector is in, it is not used again.
    let mut broken = false;
    let mut got = None;
    loop {
        let mut fence = None;
        // A fence is answered before anything behind it is taken: it would clear what a new attempt has opened.
        while fence.is_none()
            && let Some(order) = got.take().or_else(|| orders.try_recv().ok())
        {
            match &order {
                DeliveryOrder::Open { attempt: opened, .. } => attempt = *opened,
                DeliveryOrder::Fence { attempt: next } => fence = Some(*next),
                _ => {}
            }
            delivery.order(order, clock.now());
        }
        let stepped = match fence {
            None if broken => Ok(Ok(DeliveryStep::Idle(None))),
            _ => guarded(|| delivery.step(clock.now())),
        };
        broken &= fence.is_none();
        match (stepped, fence) {
            (Ok(Ok(DeliveryStep::Answer(answer))), _) => job.do_send(ToJob::Event(JobEvent::Delivery(answer))),
            (Ok(Ok(DeliveryStep::Worked)), _) => {}
            (Ok(Ok(DeliveryStep::Idle(at))), _) => match orders.recv_timeout(sleep_until(at, clock)) {
                Ok(order) => got = Some(order),
                Err(QueueRecvError::Empty) => {}
                Err(QueueRecvError::Closed) => return,
            },
            (Ok(Err(crashed)), _) => {
                broken = true;
                job.do_send(ToJob::Crashed(crashed));
            }
            // Dropping the connector panicked: the fence holds all the same, since nothing uses it any more.
            (Err(_), Some(attempt)) => {
                job.do_send(ToJob::Event(JobEvent::Delivery(DeliveryAnswer::Fenced { attempt, operator })));
            }
            (Err(panic), None) => {
                broken = true;
                let error = SinkError::plain(
                    SinkErrorKind::Fatal,
                    format!("the connector of sink {} panicked: {panic}", delivery.sink()),
                );
                let answer = DeliveryAnswer::Failed { attempt, operator, error };
                job.do_send(ToJob::Event(JobEvent::Delivery(answer)));
            }
        }
    }
}

/// Tells sources what is durable, until the queue is closed. A panic there is the source's own: what is durable stays so.
pub(super) fn acknowledge(plan: &Arc<Plan>, orders: &QueueReceiver<Acknowledged>) {
    loop {
        let acknowledged = match orders.recv_timeout(NO_TIME) {
            Ok(acknowledged) => acknowledged,
            Err(QueueRecvError::Empty) => continue,
            Err(QueueRecvError::Closed) => return,
        };
        for (source, positions) in acknowledged.positions {
            let at: Vec<_> = positions.into_iter().collect();
            if let Err(panic) = guarded(|| plan.committed(&acknowledged.operators, source, &at)) {
                tracing::error!(%source, panic, "a source panicked when it was told what is durable");
            }
        }
    }
}

//! What the job actor hands to threads that may block: it never waits for room, and nothing grows without a bound.
//!
//! An order that finds the queue full waits here and takes up what follows it where the two can be said as one. So there
//! wait at most one commit, one fence, one opening, and per sink one report and one run of epochs; the bytes of the latter
//! are bounded by the outbox limit.

use std::collections::{BTreeMap, VecDeque};

use crate::channel::{QueueSendError, QueueSender};
use crate::id::OperatorId;
use crate::job::CommitterOrder;
use crate::position::{Position, SplitId};
use crate::sink::DeliveryOrder;

/// Orders that can be said as one.
pub(super) trait Merge: Sized {
    /// Merges `next` into what waits, or hands it back.
    fn merge(waiting: &mut VecDeque<Self>, next: Self) -> Option<Self>;
}

/// A bounded queue with a waiting room in front of it.
#[derive(Debug)]
pub(super) struct Outlet<T> {
    queue: QueueSender<T>,
    waiting: VecDeque<T>,
}

impl<T: Merge> Outlet<T> {
    pub(super) const fn new(queue: QueueSender<T>) -> Self {
        Self { queue, waiting: VecDeque::new() }
    }

    /// Sends now, or as soon as [`Outlet::flush`] finds room.
    pub(super) fn send(&mut self, order: T) {
        if let Some(order) = T::merge(&mut self.waiting, order) {
            self.waiting.push_back(order);
        }
        self.flush();
    }

    /// Sends what waits; says whether nothing is left.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(order) = self.waiting.pop_front() {
            match self.queue.try_send(order) {
                Ok(()) => {}
                Err(QueueSendError::Full(order)) => {
                    self.waiting.push_front(order);
                    return false;
                }
                // The thread died and said so; nobody reads this.
                Err(QueueSendError::Closed(_)) => {}
            }
        }
        true
    }
}

impl Merge for CommitterOrder {
    fn merge(waiting: &mut VecDeque<Self>, next: Self) -> Option<Self> {
        let Self::Delivered(new) = &next else { return Some(next) };
        for order in waiting.iter_mut().rev() {
            match order {
                Self::Delivered(old) if old.operator == new.operator => {
                    old.next = old.next.max(new.next);
                    return None;
                }
                Self::Delivered(_) => {}
                // A report must not overtake a commit or a fence.
                _ => break,
            }
        }
        Some(next)
    }
}

impl Merge for DeliveryOrder {
    fn merge(waiting: &mut VecDeque<Self>, next: Self) -> Option<Self> {
        match (waiting.back_mut(), next) {
            (
                Some(Self::Committed { attempt: before, committed: last, rows: all }),
                Self::Committed { attempt, committed, mut rows },
            ) if *before == attempt => {
                *last = committed;
                all.append(&mut rows);
                None
            }
            (Some(Self::Flush), Self::Flush) => None,
            (_, next) => Some(next),
        }
    }
}

/// Where sources stand, durably.
#[derive(Debug)]
pub(super) struct Acknowledged {
    /// The durable numbers of the plan's declarations.
    pub(super) operators: Vec<OperatorId>,
    /// By source and split.
    pub(super) positions: BTreeMap<OperatorId, BTreeMap<SplitId, Position>>,
}

impl Merge for Acknowledged {
    fn merge(waiting: &mut VecDeque<Self>, next: Self) -> Option<Self> {
        let Some(last) = waiting.back_mut() else { return Some(next) };
        for (source, positions) in next.positions {
            last.positions.entry(source).or_default().extend(positions);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::queue;
    use crate::checkpoint::Delivered;
    use crate::id::{Attempt, Epoch};

    #[test]
    fn what_finds_no_room_is_merged_and_sent_in_order() {
        let (sender, receiver) = queue(1);
        let mut outlet = Outlet::new(sender);
        let committed = |epoch| DeliveryOrder::Committed {
            attempt: Attempt::new(1),
            committed: Epoch::new(epoch),
            rows: Vec::new(),
        };
        for epoch in 1..=4 {
            outlet.send(committed(epoch));
        }
        outlet.send(DeliveryOrder::Fence { attempt: Attempt::new(2) });
        let mut seen = Vec::new();
        while let Ok(order) = receiver.try_recv() {
            seen.push(match order {
                DeliveryOrder::Committed { committed, .. } => committed.number(),
                _ => 0,
            });
            outlet.flush();
        }
        assert_eq!(seen, [1, 4, 0]);
    }

    #[test]
    fn a_report_of_a_sink_takes_up_the_next_one_and_overtakes_no_fence() {
        let (sender, receiver) = queue(1);
        let mut outlet = Outlet::new(sender);
        let delivered = |operator, next| {
            let (operator, next) = (OperatorId::new(operator), Epoch::new(next));
            CommitterOrder::Delivered(Delivered { operator, next })
        };
        outlet.send(CommitterOrder::Begin);
        for (operator, next) in [(1, 2), (2, 2), (1, 5)] {
            outlet.send(delivered(operator, next));
        }
        outlet.send(CommitterOrder::Fence { attempt: Attempt::new(2) });
        outlet.send(delivered(2, 9));
        let mut seen = Vec::new();
        while let Ok(order) = receiver.try_recv() {
            if let CommitterOrder::Delivered(delivered) = order {
                seen.push((delivered.operator.number(), delivered.next.number()));
            }
            outlet.flush();
        }
        assert_eq!(seen, [(1, 5), (2, 2), (2, 9)]);
    }
}

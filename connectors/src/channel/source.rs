//! The pipeline's side of a feed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream_runtime::channel::{QueueReceiver, QueueRecvError};
use millstream_runtime::error::BoxError;
use millstream_runtime::source::{Batch, Guarantee, Polled, Position, Reader, Source, SourceDeclaration, SplitId};

use super::feed::Fed;
use super::receipt::{NotDurable, Settle};
use crate::newest::Newest;
use crate::only_split::OnlySplit;

const SPLIT: OnlySplit = OnlySplit("feed");
/// How long a poll waits for a record.
const WAIT: Duration = Duration::from_millis(50);
/// The same while receipts are open: the commit that settles them is heard between polls, so a poll must not be what
/// they wait for.
const WAIT_WITH_RECEIPTS: Duration = Duration::from_millis(1);

/// The source of a feed, made by [`feed`](super::feed()). One split; its **position** counts the records it has
/// handed out in the life of the pipeline. Not replayable: see [`feed`](super::feed()) for what a restart means.
pub struct FeedSource<T> {
    intake: Arc<Intake<T>>,
}

/// What all readers of a feed share, over all attempts.
pub(super) struct Intake<T> {
    gone: Arc<AtomicBool>,
    state: Newest<State<T>>,
}

struct State<T> {
    receiver: QueueReceiver<Fed<T>>,
    /// Number of the last record that was taken.
    taken: u64,
    /// Receipts of taken records that no epoch has committed yet, in rising order.
    open: VecDeque<(u64, Settle)>,
}

impl<T> FeedSource<T> {
    pub(super) fn new(intake: Intake<T>) -> Self {
        Self { intake: Arc::new(intake) }
    }
}

impl<T> Intake<T> {
    pub(super) fn new(receiver: QueueReceiver<Fed<T>>, gone: Arc<AtomicBool>) -> Self {
        Self { gone, state: Newest::new(State { receiver, taken: 0, open: VecDeque::new() }) }
    }
}

impl<T> Drop for Intake<T> {
    fn drop(&mut self) {
        let mut newest = self.state.any();
        let State { receiver, open, .. } = &mut newest.state;
        for (_, receipt) in open.drain(..) {
            receipt.settle(Err(NotDurable::Unknown));
        }
        // In this order: a sender that still finds `gone` unset put its record in before, so that it is drained here.
        self.gone.store(true, Ordering::SeqCst);
        while receiver.try_recv().is_ok() {}
    }
}

impl<T: Send + 'static> Source for FeedSource<T> {
    type Out = T;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(SPLIT.list())
    }

    fn declaration(&self) -> SourceDeclaration {
        SourceDeclaration::new("feed")
            .records("what the process sends")
            .position("number of records taken")
            .guarantee(Guarantee::AtMostOnce, "for the open epoch; a receipt says when a record is durable")
            .after_restart(
                "what waits in the feed stays; what was taken and not committed is lost, and its receipts say so",
            )
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<T>>, BoxError> {
        let Some(from) = SPLIT.start(split, from) else {
            return Err(format!("cannot go on in split {split}: it is no feed's; give the source a new name").into());
        };
        let (reader, mut newest) = self.intake.state.claim();
        let state = &mut newest.state;
        state.settle_up_to(from);
        // Whatever else was taken went into epochs that will never be committed.
        state.open.clear();
        state.taken = from;
        Ok(Box::new(FeedReader { intake: Arc::clone(&self.intake), reader }))
    }

    fn committed(&self, at: &[(SplitId, Position)]) {
        for (split, position) in at {
            if let Some(position) = SPLIT.start(split, Some(position)) {
                self.intake.state.any().state.settle_up_to(position);
            }
        }
    }
}

impl<T> State<T> {
    fn settle_up_to(&mut self, position: u64) {
        let settled = self.open.partition_point(|(number, _)| *number <= position);
        for (_, receipt) in self.open.drain(..settled) {
            receipt.settle(Ok(()));
        }
    }
}

struct FeedReader<T> {
    intake: Arc<Intake<T>>,
    reader: u64,
}

impl<T: Send> Reader<T> for FeedReader<T> {
    fn poll(&mut self, batch: &mut Batch<T>, limit: usize) -> Result<Polled, BoxError> {
        let mut newest = self.intake.state.get(self.reader)?;
        let state = &mut newest.state;
        let wait = if state.open.is_empty() { WAIT } else { WAIT_WITH_RECEIPTS };
        let mut next = state.receiver.recv_timeout(wait);
        let mut count = 0;
        let polled = loop {
            match next {
                Ok(fed) => {
                    state.taken += 1;
                    let number = state.taken;
                    state.open.extend(fed.receipt.map(|receipt| (number, receipt)));
                    batch.records.push(fed.record);
                    count += 1;
                    if count == limit {
                        break Polled::More;
                    }
                    next = state.receiver.try_recv();
                }
                // The end, too, waits for a poll that finds nothing else.
                Err(_) if count > 0 => break Polled::More,
                Err(QueueRecvError::Closed) => break Polled::End,
                Err(_) => break Polled::Idle,
            }
        };
        batch.end = Position::from_u64(state.taken);
        Ok(polled)
    }
}

impl<T> fmt::Debug for FeedSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedSource").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use millstream_runtime::record::Record;
    use millstream_runtime::time::Timestamp;

    use super::*;
    use crate::channel::{Feed, FeedError, TryFeedError, feed};
    use crate::newest::Replaced;

    fn open<T: Send + 'static>(source: &FeedSource<T>, from: Option<u64>) -> Box<dyn Reader<T>> {
        source.reader(&source.splits().unwrap()[0], from.map(Position::from_u64).as_ref()).unwrap()
    }

    fn poll<T>(reader: &mut Box<dyn Reader<T>>, limit: usize) -> (Vec<T>, u64, Polled) {
        let mut batch = Batch::default();
        let polled = reader.poll(&mut batch, limit).unwrap();
        let values = batch.records.into_iter().map(|record| record.value).collect();
        (values, batch.end.as_u64().unwrap(), polled)
    }

    fn commit<T: Send + 'static>(source: &FeedSource<T>, at: u64) {
        source.committed(&[(SplitId::new("feed"), Position::from_u64(at))]);
    }

    #[test]
    fn hands_records_over_in_order_and_ends_with_its_last_feed() {
        let (feed, source) = feed(8);
        let mut reader = open(&source, None);
        let other = feed.clone();
        feed.send(1).unwrap();
        other.send(2).unwrap();
        feed.send(3).unwrap();
        feed.close();
        assert_eq!(poll(&mut reader, 2), (vec![1, 2], 2, Polled::More));
        assert_eq!(poll(&mut reader, 2), (vec![3], 3, Polled::More));
        drop(other);
        assert_eq!(poll(&mut reader, 2), (vec![], 3, Polled::End));
        assert_eq!(poll(&mut open(&source, Some(3)), 2), (vec![], 3, Polled::End));
    }

    #[test]
    fn carries_event_times() {
        let (feed, source) = feed(8);
        feed.send_at("a", Timestamp::from_millis(5)).unwrap();
        feed.try_send_at("b", Timestamp::from_millis(6)).unwrap();
        feed.send("c").unwrap();
        let mut batch = Batch::default();
        open(&source, None).poll(&mut batch, 9).unwrap();
        let expected =
            [Record::at("a", Timestamp::from_millis(5)), Record::at("b", Timestamp::from_millis(6)), Record::new("c")];
        assert_eq!(batch.records, expected);
    }

    #[test]
    fn gives_records_back_when_it_is_full_or_ended() {
        let (feed, source) = feed(1);
        feed.try_send(1).unwrap();
        assert_eq!(feed.try_send(2), Err(TryFeedError::Full(2)));
        drop(source);
        assert!(feed.is_ended());
        assert_eq!(feed.send(3), Err(FeedError(3)));
        assert_eq!(feed.try_send(4), Err(TryFeedError::Ended(4)));
        assert_eq!(feed.send_durable(5).map(|_| ()), Err(FeedError(5)));
    }

    #[test]
    fn receipts_come_true_with_the_commit_of_their_record_and_not_before() {
        let (feed, source) = feed(8);
        let mut reader = open(&source, Some(100));
        let receipts: Vec<_> = (0..3).map(|value| feed.send_durable(value).unwrap()).collect();
        let outcomes = || receipts.iter().map(|receipt| receipt.try_wait()).collect::<Vec<_>>();
        assert_eq!(poll(&mut reader, 2), (vec![0, 1], 102, Polled::More));
        assert_eq!(outcomes(), [None, None, None]);
        commit(&source, 101);
        assert_eq!(outcomes(), [Some(Ok(())), None, None]);
        commit(&source, 101);
        commit(&source, 102);
        assert_eq!(outcomes(), [Some(Ok(())), Some(Ok(())), None]);
    }

    #[test]
    fn a_new_attempt_settles_what_the_old_one_took_and_goes_on_with_what_it_did_not() {
        let (feed, source) = feed(8);
        let mut old = open(&source, None);
        let receipts: Vec<_> = (0..4).map(|value| feed.send_durable(value).unwrap()).collect();
        assert_eq!(poll(&mut old, 3).0, [0, 1, 2]);
        let mut new = open(&source, Some(1));
        let outcomes: Vec<_> = receipts.iter().map(|receipt| receipt.try_wait()).collect();
        assert_eq!(outcomes, [Some(Ok(())), Some(Err(NotDurable::Lost)), Some(Err(NotDurable::Lost)), None]);
        assert!(old.poll(&mut Batch::default(), 1).unwrap_err().is::<Replaced>());
        assert_eq!(poll(&mut new, 9), (vec![3], 2, Polled::More));
        commit(&source, 2);
        assert_eq!(receipts[3].try_wait(), Some(Ok(())));
    }

    #[test]
    fn no_receipt_stays_open_when_the_pipeline_goes_away() {
        let (feed, source) = feed(8);
        let mut reader = open(&source, None);
        let taken = feed.send_durable(1).unwrap();
        poll(&mut reader, 1);
        let queued = feed.send_durable(2).unwrap();
        drop((source, reader));
        assert_eq!(taken.wait(), Err(NotDurable::Unknown));
        assert_eq!(queued.wait(), Err(NotDurable::Lost));
    }

    #[test]
    fn sends_and_waits_without_blocking_the_thread() {
        let (feed, source) = feed(1);
        let mut reader = open(&source, None);
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = pin!(feed.send_durable_async(1)).poll(&mut context) else { panic!("there is room") };
        let mut second = pin!(feed.send_async_at(2, Timestamp::from_millis(1)));
        assert_eq!(second.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(poll(&mut reader, 1).0, [1]);
        assert_eq!(second.as_mut().poll(&mut context), Poll::Ready(Ok(())));
        let mut first = pin!(first.unwrap());
        assert_eq!(first.as_mut().poll(&mut context), Poll::Pending);
        commit(&source, 1);
        assert_eq!(first.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    }

    #[test]
    fn loses_and_doubles_nothing_between_threads() {
        let (feed, source) = feed(4);
        let senders: Vec<_> = (0..4u32)
            .map(|sender| {
                let feed: Feed<(u32, u32)> = feed.clone();
                std::thread::spawn(move || (0..200).for_each(|value| feed.send((sender, value)).unwrap()))
            })
            .collect();
        drop(feed);
        let mut reader = open(&source, None);
        let mut seen = vec![Vec::new(); 4];
        loop {
            let (values, _, polled) = poll(&mut reader, 16);
            values.into_iter().for_each(|(sender, value)| seen[sender as usize].push(value));
            if polled == Polled::End {
                break;
            }
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert!(seen.iter().all(|values| values.iter().copied().eq(0..200)));
    }

    #[test]
    fn refuses_a_position_of_another_source() {
        let (_feed, source) = feed::<u8>(1);
        assert!(source.reader(&SplitId::new("p0"), None).is_err());
        let position = Position::from_bytes(vec![1, 2]).unwrap();
        assert!(source.reader(&SplitId::new("feed"), Some(&position)).is_err());
    }
}

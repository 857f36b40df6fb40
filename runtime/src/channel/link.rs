//! One channel: from one upstream subtask to one downstream subtask, bounded in frames and in queued records.
//!
//! **Back pressure in time.** Besides its capacity a channel has a *credit*: how many records may lie in it. The receiver sets
//! it, at every barrier, to what it handled in the last half epoch, so that a barrier is never hours behind the rows of
//! a slow sink; a receiver that finds the channel empty gives full credit back. Where records become state, full credit is no
//! more than the memory for that state has room for. Marks have room of their own behind the records' capacity, so that records
//! cannot hold up a checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::channel::bell::Bell;
use crate::channel::frame::{FRAME_RECORDS, Frame, Grammar, IllegalFrame, Mark};
use crate::metrics::{Buckets, Counter, SharedBuckets};
use crate::record::Record;
use crate::time::Timestamp;

/// Room for marks behind the records' capacity: barriers of all epochs in flight and what stands between them.
const MARK_ROOM: usize = 8;

#[derive(Debug)]
struct Shared {
    queued: AtomicUsize,
    /// Frames of records that went in and came out: one writer each, and what lies in between is their difference.
    sent: Counter,
    received: Counter,
    credit: AtomicUsize,
    full_credit: usize,
    sender_waits: AtomicBool,
    /// It is past a barrier that others owe, and is not read.
    held: AtomicBool,
    /// How long frames of records were queued, of those that say when they were sent.
    waits: SharedBuckets,
    sender: Bell,
    receiver: Bell,
}

/// The other end is gone: the attempt is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other end of the channel is gone")]
pub struct Closed;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way, all of it.
    Yes,
    /// There is no room; the sender's bell rings when there is.
    Full,
}

/// A failed send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The receiver is gone.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The frame may not follow the one before it. Checked in debug builds.
    #[error(transparent)]
    Illegal(#[from] IllegalFrame),
}

/// Makes a channel for at most `capacity` (≥ 1) frames of records between the owners of two bells.
pub fn link<T>(capacity: usize, sender: &Bell, receiver: &Bell) -> (LinkSender<T>, LinkReceiver<T>) {
    let capacity = capacity.max(1);
    let (sender_end, receiver_end) = flume::bounded(capacity + MARK_ROOM);
    let full_credit = capacity * FRAME_RECORDS;
    let shared = Arc::new(Shared {
        queued: AtomicUsize::new(0),
        sent: Counter::default(),
        received: Counter::default(),
        credit: AtomicUsize::new(full_credit),
        full_credit,
        sender_waits: AtomicBool::new(false),
        held: AtomicBool::new(false),
        waits: SharedBuckets::default(),
        sender: sender.clone(),
        receiver: receiver.clone(),
    });
    let (grammar, stamps) = (Grammar::default(), Stamps::default());
    let sender = LinkSender { queue: sender_end, capacity, shared: Arc::clone(&shared), grammar, stamps };
    (sender, LinkReceiver { queue: receiver_end, shared, handled: 0, most: full_credit, stamps })
}

/// What travels with a frame; [`Timestamp::MIN`] where nobody knows.
#[derive(Clone, Copy, Debug)]
struct Stamps {
    /// When a source took the oldest of its records.
    oldest: Timestamp,
    /// When it was sent.
    sent: Timestamp,
}

impl Default for Stamps {
    fn default() -> Self {
        Self { oldest: Timestamp::MIN, sent: Timestamp::MIN }
    }
}

/// The upstream end.
#[derive(Debug)]
pub struct LinkSender<T> {
    queue: flume::Sender<(Frame<T>, Stamps)>,
    capacity: usize,
    shared: Arc<Shared>,
    grammar: Grammar,
    stamps: Stamps,
}

impl<T> LinkSender<T> {
    /// Says when a source took the oldest of the records that are sent from now on; [`Timestamp::MIN`] if nobody knows.
    pub const fn sends_from(&mut self, oldest: Timestamp) {
        self.stamps.oldest = oldest;
    }

    /// Says when frames are sent from now on, so that the receiver can tell how long they were queued.
    pub const fn sends_at(&mut self, sent: Timestamp) {
        self.stamps.sent = sent;
    }

    /// Sends as many of `records` (≤ [`FRAME_RECORDS`]) as there is room for; the rest stays.
    ///
    /// # Errors
    /// [`SendError`] when the receiver is gone.
    pub fn send_records(&mut self, records: &mut Vec<Record<T>>) -> Result<Sent, SendError> {
        while !records.is_empty() {
            let mut room = self.room();
            if room == 0 {
                self.shared.sender_waits.store(true, Ordering::SeqCst);
                // The receiver may have made room before it could see the flag.
                room = self.room();
                if room == 0 {
                    return if self.queue.is_disconnected() { Err(Closed.into()) } else { Ok(Sent::Full) };
                }
            }
            let frame = if room >= records.len() {
                std::mem::take(records)
            } else {
                let rest = records.split_off(room);
                std::mem::replace(records, rest)
            };
            self.shared.queued.fetch_add(frame.len(), Ordering::AcqRel);
            self.shared.sent.add(1);
            self.push(Frame::Records(frame))?;
        }
        Ok(Sent::Yes)
    }

    /// Sends a mark.
    ///
    /// # Errors
    /// [`SendError`] when the receiver is gone.
    pub fn send_mark(&mut self, mark: Mark) -> Result<Sent, SendError> {
        if self.queue.is_full() {
            self.shared.sender_waits.store(true, Ordering::SeqCst);
            if self.queue.is_full() {
                return if self.queue.is_disconnected() { Err(Closed.into()) } else { Ok(Sent::Full) };
            }
        }
        self.push(mark.frame())?;
        Ok(Sent::Yes)
    }

    /// How many records there is room for now. Only this end adds, so the answer can only grow.
    ///
    /// A sender says that it waits and then looks for room; a receiver makes room and then looks whether somebody waits. One of them
    /// has to see the other, on every processor: so all four are in the one order of `SeqCst`.
    fn room(&self) -> usize {
        if self.queue.len() >= self.capacity {
            return 0;
        }
        let queued = self.shared.queued.load(Ordering::SeqCst);
        self.shared.credit.load(Ordering::SeqCst).saturating_sub(queued)
    }

    fn push(&mut self, frame: Frame<T>) -> Result<(), SendError> {
        if cfg!(debug_assertions) {
            self.grammar.check(&frame)?;
        }
        // Single producer: room that was seen cannot vanish.
        self.queue.try_send((frame, self.stamps)).map_err(|_| Closed)?;
        self.shared.receiver.ring();
        Ok(())
    }
}

impl<T> Drop for LinkSender<T> {
    fn drop(&mut self) {
        self.shared.receiver.ring();
    }
}

/// The downstream end.
#[derive(Debug)]
pub struct LinkReceiver<T> {
    queue: flume::Receiver<(Frame<T>, Stamps)>,
    shared: Arc<Shared>,
    /// Records handled since the last barrier.
    handled: usize,
    /// Full credit for now.
    most: usize,
    stamps: Stamps,
}

/// Sees how full a channel is. Keeps neither end alive.
#[derive(Clone, Debug)]
pub struct LinkProbe {
    shared: Arc<Shared>,
}

impl LinkProbe {
    /// Frames of records that are queued now.
    pub fn frames(&self) -> u64 {
        // In this order: what comes out in between has gone in before.
        let received = self.shared.received.read();
        self.shared.sent.read().saturating_sub(received)
    }

    /// Records that are queued now.
    pub fn records(&self) -> usize {
        self.shared.queued.load(Ordering::Relaxed)
    }

    /// How long frames of records were queued.
    pub fn waits(&self) -> Buckets {
        self.shared.waits.read()
    }

    /// Records that are queued behind a barrier which waits for that of other channels.
    pub fn held_records(&self) -> usize {
        if self.shared.held.load(Ordering::Relaxed) { self.records() } else { 0 }
    }
}

impl<T> LinkReceiver<T> {
    /// When a source took the oldest record of the frame that was received last; [`Timestamp::MIN`] if nobody knows.
    pub const fn oldest(&self) -> Timestamp {
        self.stamps.oldest
    }

    /// Counts how long the frame that was received last was queued until `now`, if it says when it was sent.
    pub fn note_wait(&self, now: Timestamp) {
        if self.stamps.sent > Timestamp::MIN {
            self.shared.waits.record(now.saturating_since(self.stamps.sent));
        }
    }

    /// Takes note of whether the channel is held back behind a barrier.
    pub fn hold(&self, held: bool) {
        self.shared.held.store(held, Ordering::Relaxed);
    }

    /// Makes a probe of the channel.
    pub fn probe(&self) -> LinkProbe {
        LinkProbe { shared: Arc::clone(&self.shared) }
    }

    /// Takes the next frame; nothing if there is none now.
    ///
    /// # Errors
    /// [`Closed`] when the channel is empty and the sender is gone.
    pub fn receive(&mut self) -> Result<Option<Frame<T>>, Closed> {
        match self.queue.try_recv() {
            Ok((frame, stamps)) => {
                self.stamps = stamps;
                match &frame {
                    Frame::Records(records) => {
                        self.handled += records.len();
                        self.shared.queued.fetch_sub(records.len(), Ordering::SeqCst);
                        self.shared.received.add(1);
                    }
                    Frame::Barrier(_) => {
                        let half = (std::mem::take(&mut self.handled) / 2).clamp(1, self.most);
                        self.shared.credit.store(half, Ordering::SeqCst);
                    }
                    _ => {}
                }
                self.wake_sender();
                Ok(Some(frame))
            }
            Err(flume::TryRecvError::Empty) => {
                if self.shared.credit.swap(self.most, Ordering::SeqCst) != self.most {
                    self.wake_sender();
                }
                Ok(None)
            }
            Err(flume::TryRecvError::Disconnected) => Err(Closed),
        }
    }

    /// Lets at most so many records lie in the channel from now on, at least one. Those that lie there stay.
    pub fn limit(&mut self, most: usize) {
        // Whole frames: a sender with room for less cuts its frames, and all that is done per frame is done for fewer records.
        let most = if most > FRAME_RECORDS { most - most % FRAME_RECORDS } else { most };
        self.most = most.clamp(1, self.shared.full_credit);
        self.shared.credit.fetch_min(self.most, Ordering::SeqCst);
    }

    fn wake_sender(&self) {
        if self.shared.sender_waits.swap(false, Ordering::SeqCst) {
            self.shared.sender.ring();
        }
    }
}

impl<T> Drop for LinkReceiver<T> {
    fn drop(&mut self) {
        self.shared.sender.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Barrier;
    use crate::id::{Epoch, ExecutionMode};

    fn records(count: usize) -> Vec<Record<usize>> {
        (0..count).map(Record::new).collect()
    }

    fn barrier(epoch: u64) -> Mark {
        Mark::Barrier(Barrier {
            epoch: Epoch::new(epoch),
            next_mode: ExecutionMode::Continuous,
            last: false,
            had_data: false,
        })
    }

    #[test]
    fn a_full_channel_takes_marks_but_no_records_and_rings_when_there_is_room() {
        let (upstream, downstream) = (Bell::default(), Bell::default());
        let (mut sender, mut receiver) = link(1, &upstream, &downstream);
        assert_eq!(sender.send_records(&mut records(3)), Ok(Sent::Yes));
        assert!(downstream.answer());
        let mut more = records(2);
        assert_eq!(sender.send_records(&mut more), Ok(Sent::Full));
        assert_eq!(more.len(), 2);
        assert_eq!(sender.send_mark(barrier(1)), Ok(Sent::Yes));
        assert!(!upstream.is_rung());
        assert!(matches!(receiver.receive(), Ok(Some(Frame::Records(_)))));
        assert!(upstream.answer());
    }

    #[test]
    fn a_probe_sees_how_full_it_is_without_keeping_an_end() {
        let bell = Bell::default();
        let (mut sender, mut receiver) = link(4, &bell, &bell);
        let probe = receiver.probe();
        for count in [3, 2] {
            assert_eq!(sender.send_records(&mut records(count)), Ok(Sent::Yes));
        }
        assert_eq!(sender.send_mark(barrier(1)), Ok(Sent::Yes));
        assert_eq!((probe.frames(), probe.records()), (2, 5));
        receiver.receive().unwrap();
        assert_eq!((probe.frames(), probe.records()), (1, 2));
        drop(receiver);
        assert!(matches!(sender.send_mark(barrier(2)), Err(SendError::Closed(_))));
    }

    #[test]
    fn frames_that_say_when_they_were_sent_are_counted_by_how_long_they_were_queued() {
        let bell = Bell::default();
        let (mut sender, mut receiver) = link(4, &bell, &bell);
        let probe = receiver.probe();
        for sent in [Timestamp::MIN, Timestamp::from_micros(100), Timestamp::from_micros(900)] {
            sender.sends_at(sent);
            assert_eq!(sender.send_records(&mut records(1)), Ok(Sent::Yes));
            receiver.receive().unwrap();
            receiver.note_wait(Timestamp::from_micros(150));
        }
        assert_eq!((probe.waits().count(), probe.waits().sum().as_micros()), (2, 50));
    }

    #[test]
    fn credit_shrinks_to_half_an_epoch_of_work_and_comes_back_when_the_channel_runs_empty() {
        let bell = Bell::default();
        let (mut sender, mut receiver) = link(4, &bell, &bell);
        assert_eq!(sender.send_records(&mut records(4)), Ok(Sent::Yes));
        assert_eq!(sender.send_mark(barrier(1)), Ok(Sent::Yes));
        receiver.receive().unwrap();
        receiver.receive().unwrap();
        let mut more = records(5);
        assert_eq!(sender.send_records(&mut more), Ok(Sent::Full));
        assert_eq!(more.len(), 3, "two of five fit into the credit");
        receiver.receive().unwrap();
        assert_eq!(receiver.receive(), Ok(None));
        assert_eq!(sender.send_records(&mut more), Ok(Sent::Yes));
    }

    #[test]
    fn full_credit_is_no_more_than_the_limit() {
        let bell = Bell::default();
        let (mut sender, mut receiver) = link(4, &bell, &bell);
        receiver.limit(2);
        let mut more = records(3);
        assert_eq!(sender.send_records(&mut more), Ok(Sent::Full));
        receiver.receive().unwrap();
        assert_eq!(receiver.receive(), Ok(None), "empty: full credit again");
        more.append(&mut records(2));
        assert_eq!(sender.send_records(&mut more), Ok(Sent::Full));
        assert_eq!(more.len(), 1);
        receiver.limit(FRAME_RECORDS * 2 + 5);
        receiver.receive().unwrap();
        assert_eq!(receiver.receive(), Ok(None));
        assert_eq!(sender.send_records(&mut more), Ok(Sent::Yes));
        assert_eq!(sender.send_records(&mut records(FRAME_RECORDS)), Ok(Sent::Yes));
        let mut more = records(FRAME_RECORDS);
        assert_eq!(sender.send_records(&mut more), Ok(Sent::Full));
        assert_eq!(more.len(), 1, "of whole frames");
    }

    #[test]
    fn each_end_notices_when_the_other_is_gone() {
        let bell = Bell::default();
        let (mut sender, receiver) = link::<usize>(1, &bell, &bell);
        drop(receiver);
        assert_eq!(sender.send_mark(Mark::Idle), Err(Closed.into()));
        let (sender, mut receiver) = link::<usize>(1, &bell, &bell);
        drop(sender);
        assert_eq!(receiver.receive(), Err(Closed));
    }

    #[test]
    #[cfg(debug_assertions)]
    fn an_illegal_frame_is_refused() {
        let bell = Bell::default();
        let (mut sender, _receiver) = link::<usize>(1, &bell, &bell);
        assert_eq!(sender.send_mark(barrier(1)), Ok(Sent::Yes));
        assert!(matches!(sender.send_mark(barrier(3)), Err(SendError::Illegal(_))));
    }
}

//! A stream that is polled by its reader.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use futures_core::Stream;
use millstream_runtime::error::BoxError;
use millstream_runtime::record::Record;
use millstream_runtime::source::{Batch, Guarantee, Polled, Position, Reader, Source, SourceDeclaration, SplitId};

use crate::newest::Newest;
use crate::only_split::OnlySplit;

const SPLIT: OnlySplit = OnlySplit("stream");
/// How long a poll waits for an item.
const WAIT: Duration = Duration::from_millis(50);

/// Hands out the items of a `futures` [`Stream`](futures_core::Stream) as they come, and ends when it ends.
///
/// One split; the **position** counts the items that were taken in the life of the pipeline. A stream cannot be read
/// again, so this source is **at-most-once for the open epoch**: the stream outlives the attempts of a job, and what was
/// not taken yet is read by the next one, but what an attempt had taken and not committed when it failed is lost, never
/// doubled. After a restart of the process it reads the stream it is given then. If that is not enough, put a
/// [`WalSource`](crate::wal::WalSource) in front of it.
///
/// The stream is polled on the reader's thread, outside of any async runtime, one item at a time and only when there is
/// room for it: back pressure is that it is not polled. Timers and sockets of a tokio runtime work if they were made
/// inside that runtime, which has to be running.
#[must_use]
pub struct StreamSource<T> {
    intake: Arc<Newest<Intake<T>>>,
}

/// What the readers share, over all attempts.
struct Intake<T> {
    /// Nothing once it has ended: a stream must not be polled after that.
    stream: Option<Pin<Box<dyn Stream<Item = T> + Send>>>,
    /// Number of items that were taken.
    taken: u64,
}

impl<T> StreamSource<T> {
    /// Hands out the items of `stream`.
    pub fn new(stream: impl Stream<Item = T> + Send + 'static) -> Self {
        let intake = Intake { stream: Some(Box::pin(stream)), taken: 0 };
        Self { intake: Arc::new(Newest::new(intake)) }
    }
}

impl<T> fmt::Debug for StreamSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSource").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Source for StreamSource<T> {
    type Out = T;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(SPLIT.list())
    }

    fn declaration(&self) -> SourceDeclaration {
        SourceDeclaration::new("StreamSource")
            .records("the items of a stream")
            .position("number of items taken")
            .guarantee(Guarantee::AtMostOnce, "for the open epoch")
            .after_restart("what the stream has not given stays; what was taken and not committed is lost")
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<T>>, BoxError> {
        let Some(from) = SPLIT.start(split, from) else {
            return Err(format!("cannot go on in split {split}: it is no stream's; give the source a new name").into());
        };
        let (reader, mut intake) = self.intake.claim();
        intake.state.taken = from;
        Ok(Box::new(StreamReader { intake: Arc::clone(&self.intake), reader }))
    }
}

struct StreamReader<T> {
    intake: Arc<Newest<Intake<T>>>,
    reader: u64,
}

/// Wakes the thread that polls.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<T: Send> Reader<T> for StreamReader<T> {
    fn poll(&mut self, batch: &mut Batch<T>, limit: usize) -> Result<Polled, BoxError> {
        let mut intake = self.intake.get(self.reader)?;
        let intake = &mut intake.state;
        // A poll may come from another thread than the last one did, so each hands its own waker in.
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let (mut count, mut waited) = (0, false);
        let polled = loop {
            let Some(stream) = intake.stream.as_mut() else { break Polled::End };
            match stream.as_mut().poll_next(&mut context) {
                Poll::Ready(Some(item)) => {
                    batch.records.push(Record::new(item));
                    intake.taken += 1;
                    count += 1;
                    if count == limit {
                        break Polled::More;
                    }
                }
                Poll::Ready(None) => intake.stream = None,
                Poll::Pending if count > 0 => break Polled::More,
                Poll::Pending if waited => break Polled::Idle,
                // Once: a stream that wakes without having anything must not keep the poll from returning.
                Poll::Pending => {
                    std::thread::park_timeout(WAIT);
                    waited = true;
                }
            }
        };
        batch.end = Position::from_u64(intake.taken);
        Ok(polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::newest::Replaced;

    /// Gives what it is asked to, one after the other.
    struct Scripted(std::vec::IntoIter<Poll<u32>>);

    impl Stream for Scripted {
        type Item = u32;

        fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<u32>> {
            match self.0.next() {
                Some(Poll::Ready(item)) => Poll::Ready(Some(item)),
                Some(Poll::Pending) => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                None => Poll::Ready(None),
            }
        }
    }

    fn scripted(script: &[Option<u32>]) -> StreamSource<u32> {
        let script: Vec<_> = script.iter().map(|item| item.map_or(Poll::Pending, Poll::Ready)).collect();
        StreamSource::new(Scripted(script.into_iter()))
    }

    fn open(source: &StreamSource<u32>, from: Option<u64>) -> Box<dyn Reader<u32>> {
        source.reader(&source.splits().unwrap()[0], from.map(Position::from_u64).as_ref()).unwrap()
    }

    fn poll(reader: &mut Box<dyn Reader<u32>>, limit: usize) -> (Vec<u32>, u64, Polled) {
        let mut batch = Batch::default();
        let polled = reader.poll(&mut batch, limit).unwrap();
        (batch.records.into_iter().map(|record| record.value).collect(), batch.end.as_u64().unwrap(), polled)
    }

    #[test]
    fn hands_items_out_as_they_come_and_ends_with_the_stream() {
        let source = scripted(&[Some(1), Some(2), Some(3), None, None, None, Some(4)]);
        let mut reader = open(&source, None);
        assert_eq!(poll(&mut reader, 2), (vec![1, 2], 2, Polled::More));
        assert_eq!(poll(&mut reader, 2), (vec![3], 3, Polled::More));
        assert_eq!(poll(&mut reader, 2), (vec![], 3, Polled::Idle));
        assert_eq!(poll(&mut reader, 2), (vec![4], 4, Polled::End));
        assert_eq!(poll(&mut reader, 2), (vec![], 4, Polled::End));
    }

    #[test]
    fn takes_no_more_than_there_is_room_for() {
        let source = scripted(&[Some(1), Some(2)]);
        poll(&mut open(&source, None), 1);
        let mut rest = source.intake.any();
        let next = rest.state.stream.as_mut().unwrap().as_mut().poll_next(&mut Context::from_waker(Waker::noop()));
        assert_eq!(next, Poll::Ready(Some(2)));
    }

    #[test]
    fn an_item_wakes_the_poll_that_waits_for_it() {
        let (sender, items) = tokio::sync::mpsc::channel(1);
        let source = StreamSource::new(Channel(items));
        let mut reader = open(&source, None);
        let sending = std::thread::spawn(move || (0..100).for_each(|item| sender.blocking_send(item).unwrap()));
        let mut seen = Vec::new();
        loop {
            let (items, _, polled) = poll(&mut reader, 8);
            seen.extend(items);
            if polled == Polled::End {
                break;
            }
        }
        sending.join().unwrap();
        assert!(seen.into_iter().eq(0..100));
    }

    struct Channel(tokio::sync::mpsc::Receiver<u32>);

    impl Stream for Channel {
        type Item = u32;

        fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<u32>> {
            self.0.poll_recv(context)
        }
    }

    #[test]
    fn a_new_attempt_goes_on_with_what_the_old_one_did_not_take() {
        let source = scripted(&[Some(1), Some(2), Some(3), Some(4)]);
        let mut old = open(&source, Some(10));
        assert_eq!(poll(&mut old, 2), (vec![1, 2], 12, Polled::More));
        let mut new = open(&source, Some(11));
        assert!(old.poll(&mut Batch::default(), 1).unwrap_err().is::<Replaced>());
        assert_eq!(poll(&mut new, 9), (vec![3, 4], 13, Polled::End));
        assert!(source.reader(&SplitId::new("feed"), None).is_err());
    }
}

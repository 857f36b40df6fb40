//! Committed records handed to code of the same process.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use millstream_runtime::id::Epoch;
use millstream_runtime::sink::{
    EpochBatch, IntoSink, SinkContext, SinkDeclaration, SinkError, SinkErrorKind, SinkSpec, Token, TokenSink,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::collect::{decode_rows, in_process, replaced};
use crate::codec::Msgpack;

/// Makes a sink that hands records to a receiver, **as committed**: a record arrives when its epoch is durable,
/// exactly once as long as the process lives, over any number of restarts of the job. At most `capacity` records wait
/// (at least 1).
///
/// A slow receiver holds back the sink's own delivery thread, never a worker; when the outbox is full, the sources
/// are held back too. So keep receiving until [`ChannelReceiver::recv`] returns nothing: a job that is drained waits
/// until its last record has found room. Dropping the receiver fails the job. As with [`Collect`](super::Collect),
/// records go through MessagePack, and a new process begins with an empty channel and no token.
///
/// For records as processed, before their commit, there is [`for_each`](super::for_each()).
pub fn channel_sink<T>(capacity: usize) -> (ChannelSink<T>, ChannelReceiver<T>) {
    let state = State {
        values: VecDeque::new(),
        capacity: capacity.max(1),
        next: Epoch::GENESIS,
        progress: (Epoch::GENESIS, 0),
        connector: 0,
        receiving: true,
        ended: false,
        waker: None,
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), room: Condvar::new(), arrived: Condvar::new() });
    (ChannelSink { end: Arc::new(End { shared: Arc::clone(&shared) }) }, ChannelReceiver { shared })
}

/// The pipeline's side of [`channel_sink`].
#[must_use]
pub struct ChannelSink<T> {
    end: Arc<End<T>>,
}

/// The receiving side of [`channel_sink`]. Also an iterator, which blocks and ends with the pipeline.
pub struct ChannelReceiver<T> {
    shared: Arc<Shared<T>>,
}

/// Nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelEmpty {
    /// Nothing is there; something may still come.
    #[error("no record is there yet")]
    Yet,
    /// Nothing is there and the pipeline has ended.
    #[error("no record is there and the pipeline has ended")]
    Ended,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    room: Condvar,
    arrived: Condvar,
}

struct State<T> {
    values: VecDeque<T>,
    capacity: usize,
    next: Epoch,
    /// Place after the last record that was handed in. A batch whose delivery broke off in the middle is delivered
    /// again from here: its epochs and places are the same every time.
    progress: (Epoch, u32),
    /// Counts the connectors; only the newest may deliver.
    connector: u64,
    receiving: bool,
    ended: bool,
    waker: Option<Waker>,
}

/// Tells the receiver when the last of the pipeline's side is dropped.
struct End<T> {
    shared: Arc<Shared<T>>,
}

impl<T> ChannelReceiver<T> {
    /// Takes the next record; blocks while there is none. Nothing once the pipeline has ended and all has been taken.
    pub fn recv(&self) -> Option<T> {
        let empty = |state: &mut State<T>| state.values.is_empty() && !state.ended;
        let mut state =
            self.shared.arrived.wait_while(self.shared.state(), empty).unwrap_or_else(PoisonError::into_inner);
        self.shared.take(&mut state).ok()
    }

    /// Takes the next record; waits while there is none, without blocking the thread. Nothing once the pipeline has
    /// ended and all has been taken.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has taken nothing.
    pub async fn recv_async(&mut self) -> Option<T> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// Takes the next record if there is one.
    ///
    /// # Errors
    /// [`ChannelEmpty`].
    pub fn try_recv(&self) -> Result<T, ChannelEmpty> {
        self.shared.take(&mut self.shared.state())
    }

    /// Takes the next record; blocks for at most `timeout` while there is none.
    ///
    /// # Errors
    /// [`ChannelEmpty`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, ChannelEmpty> {
        let empty = |state: &mut State<T>| state.values.is_empty() && !state.ended;
        let waited = self.shared.arrived.wait_timeout_while(self.shared.state(), timeout, empty);
        self.shared.take(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.shared.state();
        match self.shared.take(&mut state) {
            Ok(value) => Poll::Ready(Some(value)),
            Err(ChannelEmpty::Ended) => Poll::Ready(None),
            Err(ChannelEmpty::Yet) => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Iterator for ChannelReceiver<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.recv()
    }
}

impl<T> Drop for ChannelReceiver<T> {
    fn drop(&mut self) {
        self.shared.state().receiving = false;
        self.shared.room.notify_all();
    }
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, state: &mut State<T>) -> Result<T, ChannelEmpty> {
        let value =
            state.values.pop_front().ok_or(if state.ended { ChannelEmpty::Ended } else { ChannelEmpty::Yet })?;
        self.room.notify_one();
        Ok(value)
    }

    fn wake_receiver(&self, state: &mut State<T>) {
        self.arrived.notify_all();
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.ended = true;
        self.shared.wake_receiver(&mut state);
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> IntoSink<T> for ChannelSink<T> {
    fn declaration(&self) -> SinkDeclaration {
        in_process("channel_sink", "the value, by way of MessagePack, to a receiver")
    }

    fn into_sink(self) -> SinkSpec<T> {
        SinkSpec::Outbox {
            encoder: Arc::new(Msgpack),
            connector: Arc::new(move || Ok(Box::new(ChannelConnector { end: Arc::clone(&self.end), number: 0 }))),
        }
    }
}

struct ChannelConnector<T> {
    end: Arc<End<T>>,
    number: u64,
}

impl<T: DeserializeOwned + Send + 'static> TokenSink for ChannelConnector<T> {
    fn open(&mut self, _context: &SinkContext) -> Result<Token, SinkError> {
        let mut state = self.end.shared.state();
        state.connector += 1;
        self.number = state.connector;
        // An older connector may wait for room; it has to learn that it was replaced.
        self.end.shared.room.notify_all();
        Ok(Token { next: state.next })
    }

    fn apply(&mut self, batch: &EpochBatch<'_>) -> Result<(), SinkError> {
        let values: Vec<T> = decode_rows(batch)?;
        let shared = &self.end.shared;
        let mut state = shared.state();
        for (row, value) in batch.rows().zip(values) {
            let full = |state: &mut State<T>| {
                state.values.len() >= state.capacity && state.receiving && state.connector == self.number
            };
            state = shared.room.wait_while(state, full).unwrap_or_else(PoisonError::into_inner);
            self.may_deliver(&state)?;
            if (row.epoch, row.seq) >= state.progress {
                state.values.push_back(value);
                state.progress = (row.epoch, row.seq + 1);
                shared.wake_receiver(&mut state);
            }
        }
        self.may_deliver(&state)?;
        state.next = batch.last().next();
        Ok(())
    }
}

impl<T> ChannelConnector<T> {
    fn may_deliver(&self, state: &State<T>) -> Result<(), SinkError> {
        if state.connector != self.number {
            return Err(replaced());
        }
        if !state.receiving {
            let text = "cannot deliver to the channel: its receiver was dropped; keep it until the job has ended";
            return Err(SinkError::plain(SinkErrorKind::Fatal, text));
        }
        Ok(())
    }
}

impl<T> fmt::Debug for ChannelSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelSink(..)")
    }
}

impl<T> fmt::Debug for ChannelReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelReceiver").field("waiting", &self.shared.state().values.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;

    use millstream_runtime::codec;
    use millstream_runtime::sink::{Rows, RowsBuilder, TokenSinkFactory};

    use super::*;
    use crate::testing::{Outside, token_sink_conformance};

    /// A bound for what comes at once, so that a fault does not hang the tests.
    const SOON: Duration = Duration::from_secs(20);

    struct Target {
        connector: TokenSinkFactory,
        receiver: ChannelReceiver<String>,
        seen: Mutex<Vec<Vec<u8>>>,
    }

    fn target(capacity: usize) -> Target {
        let (sink, receiver) = channel_sink(capacity);
        let SinkSpec::Outbox { connector, .. } = IntoSink::<String>::into_sink(sink) else { panic!("not level 2") };
        Target { connector, receiver, seen: Mutex::default() }
    }

    impl Outside for Target {
        fn connect(&self) -> Box<dyn TokenSink> {
            (self.connector)().unwrap()
        }

        fn visible(&self) -> Vec<Vec<u8>> {
            let mut seen = self.seen.lock().unwrap();
            seen.extend(
                std::iter::from_fn(|| self.receiver.try_recv().ok()).map(|value| codec::encode(&value).unwrap()),
            );
            seen.clone()
        }
    }

    fn context() -> SinkContext {
        crate::testing::context(0)
    }

    fn open(connector: &TokenSinkFactory) -> Box<dyn TokenSink> {
        let mut sink = connector().unwrap();
        sink.open(&context()).unwrap();
        sink
    }

    fn rows(values: &[&str]) -> [Rows; 1] {
        let mut builder = RowsBuilder::default();
        values.iter().for_each(|value| builder.push(|out| codec::encode_into(value, out)).unwrap());
        [Rows::new(Epoch::new(1), builder.take().0)]
    }

    fn apply(mut sink: Box<dyn TokenSink>, rows: &[Rows]) -> Result<(), SinkErrorKind> {
        sink.apply(&EpochBatch::new(rows).unwrap()).map_err(|error| error.kind)
    }

    #[test]
    fn keeps_the_contract_of_a_level_2_sink() {
        token_sink_conformance(|| target(1000)).unwrap();
    }

    #[test]
    fn a_delivery_that_broke_off_in_the_middle_goes_on_where_it_was() {
        let Target { connector, receiver, .. } = target(1);
        let rows = rows(&["a", "b", "c", "d"]);
        std::thread::scope(|scope| {
            let sink = open(&connector);
            let first = scope.spawn(|| apply(sink, &rows));
            assert_eq!(receiver.recv_timeout(SOON).unwrap(), "a");
            let sink = open(&connector);
            assert_eq!(first.join().unwrap(), Err(SinkErrorKind::Fenced));
            let second = scope.spawn(|| apply(sink, &rows));
            let rest: Vec<_> = (0..3).map(|_| receiver.recv_timeout(SOON).unwrap()).collect();
            assert_eq!(rest, ["b", "c", "d"]);
            assert_eq!(second.join().unwrap(), Ok(()));
        });
        assert_eq!(connector().unwrap().open(&context()).unwrap(), Token { next: Epoch::new(2) });
        assert_eq!(receiver.try_recv(), Err(ChannelEmpty::Yet));
        drop(connector);
        assert_eq!((receiver.try_recv(), receiver.recv()), (Err(ChannelEmpty::Ended), None));
    }

    #[test]
    fn a_dropped_receiver_frees_a_delivery_that_waits_for_room() {
        let Target { connector, receiver, .. } = target(1);
        let sink = open(&connector);
        let waiting = std::thread::spawn(move || apply(sink, &rows(&["a", "b", "c"])));
        assert_eq!(receiver.recv_timeout(SOON).unwrap(), "a");
        drop(receiver);
        assert_eq!(waiting.join().unwrap(), Err(SinkErrorKind::Fatal));
    }

    #[test]
    fn receives_in_every_way() {
        let Target { connector, mut receiver, .. } = target(8);
        apply(open(&connector), &rows(&["a", "b", "c", "d"])).unwrap();
        let mut polling = Context::from_waker(Waker::noop());
        assert_eq!(pin!(receiver.recv_async()).poll(&mut polling), Poll::Ready(Some("a".into())));
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Ok("b".into()));
        assert_eq!(receiver.next(), Some("c".into()));
        assert_eq!(receiver.try_recv(), Ok("d".into()));
        assert_eq!(pin!(receiver.recv_async()).poll(&mut polling), Poll::Pending);
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(ChannelEmpty::Yet));
        drop(connector);
        assert_eq!(pin!(receiver.recv_async()).poll(&mut polling), Poll::Ready(None));
    }
}

//! Committed records in a list: for tests, and for small results.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream_runtime::codec;
use millstream_runtime::error::BoxError;
use millstream_runtime::id::Epoch;
use millstream_runtime::sink::{
    EpochBatch, IntoSink, SinkContext, SinkDeclaration, SinkError, SinkErrorKind, SinkSpec, Token, TokenSink,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::Msgpack;

/// Collects records in memory, **as committed**: a record appears when its epoch is durable, exactly once as long as
/// the process lives, over any number of restarts of the job. Order is that of the committed bytes: by epoch, then by
/// subtask.
///
/// Records go through MessagePack on their way, as with every sink that delivers exactly once. The list has no bound.
/// With the process list and token are gone: a pipeline that goes on from a durable store in a new process delivers
/// only what it had not delivered before, and may refuse because the sink forgot its token.
#[must_use]
pub struct Collect<T> {
    end: Arc<End<T>>,
}

/// The reading side of [`Collect`]; clones see the same list.
pub struct Collected<T> {
    shared: Arc<Shared<T>>,
}

/// The pipeline ended, or was dropped, with fewer records than were waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("waited for {wanted} records, but the pipeline ended after {delivered}")]
#[non_exhaustive]
pub struct CollectedEnded {
    /// How many there were to be.
    pub wanted: usize,
    /// How many there are.
    pub delivered: usize,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    values: Vec<T>,
    /// How many were ever delivered, those that were taken included.
    delivered: usize,
    next: Epoch,
    /// Counts the connectors; only the newest may deliver.
    connector: u64,
    ended: bool,
}

/// Tells the readers when the last of the pipeline's side is dropped.
struct End<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Collect<T> {
    /// Makes the sink and the list it fills.
    pub fn new() -> (Self, Collected<T>) {
        let state = State { values: Vec::new(), delivered: 0, next: Epoch::GENESIS, connector: 0, ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        (Self { end: Arc::new(End { shared: Arc::clone(&shared) }) }, Collected { shared })
    }
}

impl<T> Collected<T> {
    /// Returns a copy of what was delivered and not taken.
    pub fn snapshot(&self) -> Vec<T>
    where
        T: Clone,
    {
        self.shared.state().values.clone()
    }

    /// Removes and returns what was delivered.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.shared.state().values)
    }

    /// How many records were ever delivered, those that were taken included.
    pub fn delivered(&self) -> usize {
        self.shared.state().delivered
    }

    /// Blocks until `wanted` records were ever delivered, those that were taken included.
    ///
    /// # Errors
    /// [`CollectedEnded`] when the pipeline has ended with fewer.
    pub fn wait_for(&self, wanted: usize) -> Result<(), CollectedEnded> {
        let open = |state: &mut State<T>| state.delivered < wanted && !state.ended;
        let state = self.shared.changed.wait_while(self.shared.state(), open).unwrap_or_else(PoisonError::into_inner);
        let delivered = state.delivered;
        if delivered < wanted { Err(CollectedEnded { wanted, delivered }) } else { Ok(()) }
    }

    /// Blocks until `wanted` records were ever delivered, the pipeline has ended, or `timeout` is over; returns
    /// whether there were as many.
    pub fn wait_for_timeout(&self, wanted: usize, timeout: Duration) -> bool {
        let open = |state: &mut State<T>| state.delivered < wanted && !state.ended;
        let waited = self.shared.changed.wait_timeout_while(self.shared.state(), timeout, open);
        waited.unwrap_or_else(PoisonError::into_inner).0.delivered >= wanted
    }
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_all();
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> IntoSink<T> for Collect<T> {
    fn declaration(&self) -> SinkDeclaration {
        in_process("Collect", "the value, by way of MessagePack, in a list")
    }

    fn into_sink(self) -> SinkSpec<T> {
        SinkSpec::Outbox {
            encoder: Arc::new(Msgpack),
            connector: Arc::new(move || Ok(Box::new(CollectConnector { end: Arc::clone(&self.end), number: 0 }))),
        }
    }
}

struct CollectConnector<T> {
    end: Arc<End<T>>,
    number: u64,
}

impl<T: DeserializeOwned + Send + 'static> TokenSink for CollectConnector<T> {
    fn open(&mut self, _context: &SinkContext) -> Result<Token, SinkError> {
        let mut state = self.end.shared.state();
        state.connector += 1;
        self.number = state.connector;
        Ok(Token { next: state.next })
    }

    fn apply(&mut self, batch: &EpochBatch<'_>) -> Result<(), SinkError> {
        let values = decode_rows(batch)?;
        let mut state = self.end.shared.state();
        if state.connector != self.number {
            return Err(replaced());
        }
        state.delivered += values.len();
        state.values.extend(values);
        state.next = batch.last().next();
        drop(state);
        self.end.shared.changed.notify_all();
        Ok(())
    }
}

/// What the sinks say about themselves whose outside is this process.
pub(crate) fn in_process(connector: &'static str, form: &'static str) -> SinkDeclaration {
    SinkDeclaration::new(connector)
        .form(form)
        .condition("while the process lives")
        .after_restart("nothing comes twice or is lost; in a new process it begins empty")
}

/// Reads all rows before any is delivered, so that a bad one cannot leave half a batch behind.
pub(crate) fn decode_rows<T: DeserializeOwned>(batch: &EpochBatch<'_>) -> Result<Vec<T>, SinkError> {
    let rows: Result<Vec<T>, BoxError> = batch.rows().map(|row| Ok(codec::decode(row.bytes)?)).collect();
    rows.map_err(|error| {
        let text = format!(
            "cannot read back a record of epochs {} to {}; does its type survive MessagePack (no untagged fields)?",
            batch.first(),
            batch.last()
        );
        SinkError::new(SinkErrorKind::Fatal, text, error)
    })
}

pub(crate) fn replaced() -> SinkError {
    SinkError::plain(SinkErrorKind::Fenced, "cannot deliver: another instance of this in-process sink took over")
}

impl<T> Clone for Collected<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for Collect<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collect(..)")
    }
}

impl<T> fmt::Debug for Collected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collected").field("delivered", &self.delivered()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use millstream_runtime::sink::{Rows, TokenSinkFactory};

    use super::*;
    use crate::testing::{Outside, token_sink_conformance};

    struct Target(TokenSinkFactory, Collected<String>);

    fn target() -> Target {
        let (collect, collected) = Collect::<String>::new();
        let SinkSpec::Outbox { connector, .. } = collect.into_sink() else { panic!("not a level-2 sink") };
        Target(connector, collected)
    }

    impl Outside for Target {
        fn connect(&self) -> Box<dyn TokenSink> {
            (self.0)().unwrap()
        }

        fn visible(&self) -> Vec<Vec<u8>> {
            self.1.snapshot().iter().map(|value| codec::encode(value).unwrap()).collect()
        }
    }

    #[test]
    fn keeps_the_contract_of_a_level_2_sink() {
        token_sink_conformance(target).unwrap();
    }

    #[test]
    fn delivers_nothing_of_a_batch_with_a_row_that_it_cannot_read() {
        let Target(connector, collected) = target();
        let mut sink = connector().unwrap();
        sink.open(&crate::testing::context(0)).unwrap();
        let chunk = [&[0, 0, 0, 2, 0xa1, b'x'][..], &[0, 0, 0, 1, 7]].concat();
        let rows = [Rows::new(Epoch::new(1), vec![chunk])];
        let error = sink.apply(&EpochBatch::new(&rows).unwrap()).unwrap_err();
        assert_eq!((error.kind, collected.delivered()), (SinkErrorKind::Fatal, 0));
    }

    #[test]
    fn whoever_waits_is_told_when_the_pipeline_ends() {
        let Target(connector, collected) = target();
        let other = collected.clone();
        let waiting = std::thread::spawn(move || other.wait_for(1));
        drop(connector);
        assert_eq!(waiting.join().unwrap(), Err(CollectedEnded { wanted: 1, delivered: 0 }));
        assert_eq!(collected.wait_for(0), Ok(()));
        assert!(!collected.wait_for_timeout(1, Duration::from_secs(9)));
    }
}

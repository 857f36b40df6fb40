//! A collection in memory that holds what was committed.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use millstream_runtime::id::Epoch;
use millstream_runtime::sink::{
    EpochBatch, IntoSink, SinkContext, SinkDeclaration, SinkError, SinkSpec, Token, TokenSink,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::channel::{decode_rows, in_process, replaced};
use crate::codec::Msgpack;

/// Makes a table in memory: the sink that fills it, and the handle that reads it while the pipeline runs. `C` is any collection
/// that can be extended by records, and says what a record does:
///
/// | `C` | a record |
/// |---|---|
/// | `Vec<T>` | is appended |
/// | `BTreeMap<K, V>`, `HashMap<K, V>` | `(key, value)` replaces what its key had: the current counts, the last reading |
/// | `BTreeSet<T>` | is added if it is not there yet |
///
/// The table holds what was **committed**: whole epochs, in their order, each exactly once as long as the process lives, over
/// any number of restarts of the job. Records go through MessagePack on their way. The table has no bound.
///
/// **With the process it is gone.** A new process that goes on from a durable store begins with an empty table, in which only
/// what is delivered from then on appears: of a map, the keys that change.
///
/// ```
/// use std::collections::BTreeMap;
/// use millstream_connectors::table::memory_table;
///
/// let (sink, counts) = memory_table::<BTreeMap<String, u64>>();
/// // pipeline. … .count("words").sink("counts", sink);
/// assert_eq!(counts.read(|counts, _epoch| counts.get("ada").copied()), None);
/// # drop(sink);
/// ```
pub fn memory_table<C: Default>() -> (MemoryTable<C>, Table<C>) {
    let state = State { rows: C::default(), next: Epoch::GENESIS, connector: 0, ended: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    (MemoryTable { end: Arc::new(End { shared: Arc::clone(&shared) }) }, Table { shared })
}

/// The pipeline's side of [`memory_table`].
#[must_use]
pub struct MemoryTable<C> {
    end: Arc<End<C>>,
}

/// The reading side of [`memory_table`]; clones read the same table.
pub struct Table<C> {
    shared: Arc<Shared<C>>,
}

struct Shared<C> {
    state: Mutex<State<C>>,
    changed: Condvar,
}

struct State<C> {
    rows: C,
    next: Epoch,
    /// Counts the connectors; only the newest may deliver.
    connector: u64,
    ended: bool,
}

/// Tells the readers when the last of the pipeline's side is dropped.
struct End<C> {
    shared: Arc<Shared<C>>,
}

impl<C> Table<C> {
    /// Reads the table and the last epoch in it, genesis (0) if there is none. Deliveries wait meanwhile, so that what is read
    /// is the table of that epoch.
    pub fn read<R>(&self, read: impl FnOnce(&C, Epoch) -> R) -> R {
        let state = self.shared.state();
        read(&state.rows, Epoch::new(state.next.number().saturating_sub(1)))
    }

    /// Returns a copy of the table.
    pub fn snapshot(&self) -> C
    where
        C: Clone,
    {
        self.read(|rows, _| rows.clone())
    }

    /// Blocks until the table is as wanted, or the pipeline has ended; returns whether it is.
    pub fn wait_until(&self, wanted: impl Fn(&C) -> bool) -> bool {
        let open = |state: &mut State<C>| !wanted(&state.rows) && !state.ended;
        let state = self.shared.changed.wait_while(self.shared.state(), open).unwrap_or_else(PoisonError::into_inner);
        wanted(&state.rows)
    }
}

impl<C> Shared<C> {
    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Drop for End<C> {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_all();
    }
}

impl<T, C> IntoSink<T> for MemoryTable<C>
where
    T: Serialize + DeserializeOwned + Send + 'static,
    C: Extend<T> + Send + 'static,
{
    fn declaration(&self) -> SinkDeclaration {
        in_process("memory_table", "the value, by way of MessagePack, into a collection")
    }

    fn into_sink(self) -> SinkSpec<T> {
        SinkSpec::Outbox {
            encoder: Arc::new(Msgpack),
            connector: Arc::new(move || {
                let end = Arc::clone(&self.end);
                Ok(Box::new(TableConnector { end, number: 0, record: std::marker::PhantomData::<fn(T)> }))
            }),
        }
    }
}

struct TableConnector<T, C> {
    end: Arc<End<C>>,
    number: u64,
    record: std::marker::PhantomData<fn(T)>,
}

impl<T, C> TokenSink for TableConnector<T, C>
where
    T: DeserializeOwned + Send + 'static,
    C: Extend<T> + Send + 'static,
{
    fn open(&mut self, _context: &SinkContext) -> Result<Token, SinkError> {
        let mut state = self.end.shared.state();
        state.connector += 1;
        self.number = state.connector;
        Ok(Token { next: state.next })
    }

    fn apply(&mut self, batch: &EpochBatch<'_>) -> Result<(), SinkError> {
        let values = decode_rows::<T>(batch)?;
        let mut state = self.end.shared.state();
        if state.connector != self.number {
            return Err(replaced());
        }
        state.rows.extend(values);
        state.next = batch.last().next();
        drop(state);
        self.end.shared.changed.notify_all();
        Ok(())
    }
}

impl<C> Clone for Table<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C> fmt::Debug for MemoryTable<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryTable(..)")
    }
}

impl<C> fmt::Debug for Table<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("next", &self.shared.state().next).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millstream_runtime::codec;
    use millstream_runtime::sink::{Rows, RowsBuilder, TokenSinkFactory};

    use super::*;
    use crate::testing::{Outside, context, token_sink_conformance};

    struct Target(TokenSinkFactory, Table<Vec<String>>);

    fn connector<T, C>(sink: MemoryTable<C>) -> TokenSinkFactory
    where
        MemoryTable<C>: IntoSink<T>,
    {
        let SinkSpec::Outbox { connector, .. } = sink.into_sink() else { panic!("not a level-2 sink") };
        connector
    }

    impl Outside for Target {
        fn connect(&self) -> Box<dyn TokenSink> {
            (self.0)().unwrap()
        }

        fn visible(&self) -> Vec<Vec<u8>> {
            self.1.snapshot().iter().map(|value| codec::encode(value).unwrap()).collect()
        }
    }

    fn rows<T: Serialize>(epoch: u64, values: &[T]) -> Rows {
        let mut builder = RowsBuilder::default();
        values.iter().for_each(|value| builder.push(|out| codec::encode_into(value, out)).unwrap());
        Rows::new(Epoch::new(epoch), builder.take().0)
    }

    #[test]
    fn keeps_the_contract_of_a_level_2_sink() {
        token_sink_conformance(|| {
            let (sink, table) = memory_table::<Vec<String>>();
            Target(connector::<String, _>(sink), table)
        })
        .unwrap();
    }

    #[test]
    fn a_map_holds_the_last_value_of_each_key_as_of_one_epoch() {
        let (sink, table) = memory_table::<BTreeMap<String, u64>>();
        let connector = connector::<(String, u64), _>(sink);
        let mut sink = connector().unwrap();
        sink.open(&context(1)).unwrap();
        assert_eq!(table.read(|rows, epoch| (rows.len(), epoch)), (0, Epoch::GENESIS));
        sink.apply(&EpochBatch::new(&[rows(1, &[("a", 1), ("b", 1)]), rows(4, &[("a", 2)])]).unwrap()).unwrap();
        assert_eq!(table.read(|rows, epoch| (rows["a"], rows["b"], epoch)), (2, 1, Epoch::new(4)));
    }

    #[test]
    fn whoever_waits_is_told_of_a_change_and_of_the_end() {
        let (sink, table) = memory_table::<Vec<u64>>();
        let connector = connector::<u64, _>(sink);
        std::thread::scope(|scope| {
            let two = scope.spawn(|| table.wait_until(|rows| rows.len() == 2));
            let never = scope.spawn(|| table.wait_until(|rows| rows.len() == 3));
            let mut sink = connector().unwrap();
            sink.open(&context(1)).unwrap();
            sink.apply(&EpochBatch::new(&[rows(1, &[1, 2])]).unwrap()).unwrap();
            drop((sink, connector));
            assert_eq!((two.join().unwrap(), never.join().unwrap()), (true, false));
        });
    }
}

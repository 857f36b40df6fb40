//! Sinks: where records go.
//!
//! Level 1, [`Sink`]: rows leave as they come, delivery at-least-once. Level 2, [`TokenSink`]: rows wait in the outbox,
//! which is part of the epoch's one atomic batch, and leave after the commit together with a token that lets the sink
//! recognise what it already has; delivery exactly-once.

mod delivery;
mod nodes;

use std::sync::Arc;
use std::time::Duration;

pub use self::delivery::{Delivery, DeliveryAnswer, DeliveryOrder, DeliveryStep};
pub use self::nodes::{DirectSink, OutboxSink};
use crate::error::BoxError;
pub use crate::guarantee::{Guarantee, SinkDeclaration};
use crate::id::{Attempt, Epoch, ShardId};
use crate::operator::{OpenContext, OutputMode};
pub use crate::rows::{Row, Rows, RowsBuilder};

/// What a sink is told when it opens.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// The pipeline's name.
    pub pipeline: String,
    /// The sink's name.
    pub sink: String,
    /// This copy of the daemon.
    pub shard: ShardId,
    /// The attempt that opens it.
    pub attempt: Attempt,
    /// What of its result the pipeline sends on; a sink of `Complete` replaces what it has by each epoch's rows.
    pub output_mode: OutputMode,
    /// Which subtask of the sink, for level 1; 0 for level 2, which has one delivery thread per shard.
    pub subtask: u16,
    /// The epoch of the first record that it writes, for level 1; each flush ends one, and the next has the next number.
    /// Genesis for level 2, whose batches say their epochs.
    pub first_epoch: Epoch,
}

impl SinkContext {
    /// What the sink of one subtask is told.
    pub fn of(open: &OpenContext) -> Self {
        Self {
            pipeline: open.pipeline.clone(),
            sink: open.name.clone(),
            shard: open.shard,
            attempt: open.attempt,
            output_mode: open.output_mode,
            subtask: open.subtask.index,
            first_epoch: open.restored.next(),
        }
    }
}

/// Level 1: at-least-once, lowest latency. Methods are called on the subtask's worker and must not block for long.
///
/// After a restart rows of the epochs that were not committed come again.
pub trait Sink<T>: 'static {
    /// Is called once per attempt and subtask, before any record.
    ///
    /// # Errors
    /// Fails the attempt.
    fn open(&mut self, context: &SinkContext) -> Result<(), BoxError> {
        let _ = context;
        Ok(())
    }

    /// Takes one record.
    ///
    /// # Errors
    /// Fails the attempt.
    fn write(&mut self, value: T) -> Result<(), BoxError>;

    /// Is called at the barrier, before the epoch can be committed: what was written must be durable outside.
    ///
    /// # Errors
    /// Fails the attempt; the epoch is not committed.
    fn flush(&mut self, epoch: Epoch) -> Result<(), BoxError> {
        let _ = epoch;
        Ok(())
    }
}

/// What an outside system durably says about us: every row before epoch `next` is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// The first epoch that is not in. The default, genesis, says that nothing is in.
    pub next: Epoch,
}

/// When a batch of committed epochs is worth delivering; either bound is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roll {
    /// Deliver when the oldest waiting epoch was committed this long ago. Zero: at once.
    pub interval: Duration,
    /// Deliver when this many bytes wait.
    pub bytes: usize,
}

impl Default for Roll {
    /// At once.
    fn default() -> Self {
        Self { interval: Duration::ZERO, bytes: 16 << 20 }
    }
}

/// Level 2: rows and token in one atomic step outside. Methods may block; they run on the sink's delivery thread.
pub trait TokenSink: Send + 'static {
    /// Shuts out older instances first, then reads the token. Called once per attempt, before any `apply`, and again
    /// after an unknown outcome on a new instance.
    ///
    /// # Errors
    /// See [`SinkErrorKind`].
    fn open(&mut self, context: &SinkContext) -> Result<Token, SinkError>;

    /// Delivers all rows of the batch and moves the token to the epoch after its last, all or nothing. Its bytes are a
    /// pure function of the batch, so that a repeat overwrites itself.
    ///
    /// # Errors
    /// See [`SinkErrorKind`].
    fn apply(&mut self, batch: &EpochBatch<'_>) -> Result<(), SinkError>;

    /// When to deliver; by default at once.
    fn roll(&self) -> Roll {
        Roll::default()
    }
}

/// Committed epochs of one sink, in order; `first` and `last` both have rows.
#[derive(Clone, Copy, Debug)]
pub struct EpochBatch<'a> {
    epochs: &'a [Rows],
}

impl<'a> EpochBatch<'a> {
    /// Makes a batch of epochs in rising order; nothing without epochs.
    pub fn new(epochs: &'a [Rows]) -> Option<Self> {
        (!epochs.is_empty()).then_some(Self { epochs })
    }

    /// The first epoch.
    pub fn first(&self) -> Epoch {
        self.epochs.first().map_or(Epoch::GENESIS, Rows::epoch)
    }

    /// The last epoch.
    pub fn last(&self) -> Epoch {
        self.epochs.last().map_or(Epoch::GENESIS, Rows::epoch)
    }

    /// All rows with their epoch and their place in it. Places count from 0 in the order of the committed bytes, so
    /// that a repeated delivery counts the same.
    pub fn rows(&self) -> impl Iterator<Item = Row<'a>> {
        self.epochs.iter().flat_map(Rows::iter)
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> usize {
        self.epochs.iter().map(Rows::bytes).sum()
    }
}

/// What went wrong with a level-2 sink; decides what the runtime does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SinkErrorKind {
    /// Nothing happened outside; try again after a pause.
    Retry,
    /// Whether it happened is not known: a new instance is opened and its token compared.
    Unknown,
    /// Another instance took over: the job stops, without a restart.
    Fenced,
    /// The sink has epochs that our store has not: the store is older than the sink. The job stops.
    SinkAhead,
    /// The sink has forgotten its token.
    TokenLost,
    /// Nothing that a new try would mend: the attempt fails.
    Fatal,
}

/// A failed operation of a level-2 sink.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct SinkError {
    /// What kind it is.
    pub kind: SinkErrorKind,
    /// What failed, where, and what to do.
    pub text: String,
    /// The cause.
    pub source: Option<BoxError>,
}

impl SinkError {
    /// Makes an error with a cause.
    pub fn new(kind: SinkErrorKind, text: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self { kind, text: text.into(), source: Some(source.into()) }
    }

    /// Makes an error without a further cause.
    pub fn plain(kind: SinkErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), source: None }
    }
}

/// Turns a record into the bytes of one row.
pub trait Encoder<T>: Send + Sync + 'static {
    /// Appends the row's bytes to `out`.
    ///
    /// # Errors
    /// Fails the attempt: the record cannot be expressed in this format.
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), BoxError>;
}

/// Makes the connector of a level-2 sink, once per attempt and after an unknown outcome.
pub type TokenSinkFactory = Arc<dyn Fn() -> Result<Box<dyn TokenSink>, BoxError> + Send + Sync>;

/// Makes the level-1 sink of one subtask.
pub type SinkFactory<T> = Arc<dyn Fn() -> Result<Box<dyn Sink<T>>, BoxError> + Send + Sync>;

/// A sink as the runtime wants it; made by [`IntoSink`].
pub enum SinkSpec<T> {
    /// Level 1, at-least-once.
    Direct(SinkFactory<T>),
    /// Level 2, exactly-once through the outbox.
    Outbox {
        /// How a record becomes a row; runs on the worker.
        encoder: Arc<dyn Encoder<T>>,
        /// Makes the connector; runs on the delivery thread.
        connector: TokenSinkFactory,
    },
}

impl<T> SinkSpec<T> {
    /// Its level: 1 for [`Sink`], 2 for [`TokenSink`].
    pub const fn level(&self) -> u8 {
        match self {
            Self::Direct(_) => 1,
            Self::Outbox { .. } => 2,
        }
    }

    /// How often a record has its effect outside, as its level has it and if the connector keeps its contract.
    pub const fn guarantee(&self) -> Guarantee {
        match self {
            Self::Direct(_) => Guarantee::AtLeastOnce,
            Self::Outbox { .. } => Guarantee::ExactlyOnce,
        }
    }
}

impl<T> std::fmt::Debug for SinkSpec<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Direct(_) => "SinkSpec::Direct",
            Self::Outbox { .. } => "SinkSpec::Outbox",
        })
    }
}

/// What `Stream::sink` takes: a connector's configuration.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no sink for records of type `{T}`",
    note = "implement `IntoSink<{T}>`, or choose a connector whose format fits: text lines need `Display`, msgpack needs `Serialize`"
)]
pub trait IntoSink<T> {
    /// Says what kind of sink it is, what its guarantee depends on and when a record is out, for `explain` and for tables.
    /// By default only its type's name.
    fn declaration(&self) -> SinkDeclaration {
        SinkDeclaration::of::<Self>()
    }

    /// Turns the configuration into a sink.
    fn into_sink(self) -> SinkSpec<T>;
}

impl<T> IntoSink<T> for SinkSpec<T> {
    fn into_sink(self) -> Self {
        self
    }
}

//! Calls `open`, `process` and `close` for each subtask and epoch.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use millstream_runtime::error::BoxError;
use millstream_runtime::id::Epoch;
use millstream_runtime::sink::{IntoSink, Sink, SinkContext, SinkDeclaration, SinkSpec};

/// Writes records somewhere, epoch by epoch, with `open` in front of an epoch's first record and `close` behind its last: the
/// life cycle of Spark's `ForeachWriter`. Made by the function that [`foreach`] is given, once per subtask and attempt.
///
/// ```text
/// (open (true process* | false) close(none | error))*        per subtask, one epoch after the other
/// ```
///
/// - An epoch without records has no `open`. A *partition* is a subtask of the sink.
/// - `close` comes whenever `open` has returned normally, also if it returned `false`: at the epoch's barrier, without an
///   error; after a failed `process`, with its error; and when the attempt ends in the middle of the epoch, with
///   [`ForeachError::Interrupted`]. Only a process that dies, or a panic, leaves it out.
/// - Methods run on the pipeline's worker and must not block for long.
///
/// # Delivery
/// At-least-once, **as processed**: `close` comes before the epoch is committed. After a restart the records of the epochs
/// that were not committed come again, in epochs of the same numbers that may be **cut in other places**. So `partition` and
/// `epoch` do not identify records, unlike in Spark's micro-batches: a writer that returns `false` for an epoch that it has
/// seen may lose some. Exactly-once needs a [`TokenSink`](millstream_runtime::sink::TokenSink).
pub trait ForeachWriter<T>: 'static {
    /// Is called before the first record of an epoch; make connections here. `false` skips the records of this epoch.
    ///
    /// # Errors
    /// Fails the attempt; `close` is not called.
    fn open(&mut self, partition: u16, epoch: Epoch) -> Result<bool, BoxError> {
        let _ = (partition, epoch);
        Ok(true)
    }

    /// Takes one record.
    ///
    /// # Errors
    /// Closes the epoch with this error and fails the attempt.
    fn process(&mut self, value: T) -> Result<(), BoxError>;

    /// Is called after the last record of an epoch. What was processed must be durable outside when it returns without having
    /// been given an error: the epoch is committed then.
    ///
    /// # Errors
    /// Fails the attempt; the epoch is not committed. Counts only where no error was given.
    fn close(&mut self, error: Option<&ForeachError>) -> Result<(), BoxError> {
        let _ = error;
        Ok(())
    }
}

/// A writer failed, or could not finish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForeachError {
    /// [`ForeachWriter::open`] failed.
    #[error("the foreach writer of partition {partition} cannot open epoch {epoch}")]
    Open {
        /// The subtask.
        partition: u16,
        /// The epoch.
        epoch: Epoch,
        /// What the writer returned.
        source: BoxError,
    },
    /// [`ForeachWriter::process`] failed.
    #[error("the foreach writer of partition {partition} cannot process a record of epoch {epoch}")]
    Process {
        /// The subtask.
        partition: u16,
        /// The epoch.
        epoch: Epoch,
        /// What the writer returned.
        source: BoxError,
    },
    /// [`ForeachWriter::close`] failed.
    #[error("the foreach writer of partition {partition} cannot close epoch {epoch}")]
    Close {
        /// The subtask.
        partition: u16,
        /// The epoch.
        epoch: Epoch,
        /// What the writer returned.
        source: BoxError,
    },
    /// The attempt ended in the middle of the epoch.
    #[error("the attempt ended before epoch {epoch} of partition {partition} did; its records come again")]
    Interrupted {
        /// The subtask.
        partition: u16,
        /// The epoch.
        epoch: Epoch,
    },
}

/// Makes a sink of writers. `make` is called once per subtask and attempt; it only configures, connections belong into
/// [`ForeachWriter::open`].
pub fn foreach<W, F>(make: F) -> Foreach<F>
where
    F: Fn() -> W + Send + Sync + 'static,
{
    Foreach { make: Arc::new(make) }
}

/// What [`foreach`] makes.
#[must_use]
pub struct Foreach<F> {
    make: Arc<F>,
}

impl<F> fmt::Debug for Foreach<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Foreach(..)")
    }
}

impl<T, W, F> IntoSink<T> for Foreach<F>
where
    T: 'static,
    W: ForeachWriter<T>,
    F: Fn() -> W + Send + Sync + 'static,
{
    fn declaration(&self) -> SinkDeclaration {
        SinkDeclaration::new("foreach")
            .form("the value itself, between `open` and `close` of its epoch")
            .after_restart("records of the epochs that were open come again, perhaps cut into epochs otherwise")
    }

    fn into_sink(self) -> SinkSpec<T> {
        SinkSpec::Direct(Arc::new(move || Ok(Box::new(EpochWriter::new((self.make)())))))
    }
}

/// Where a writer stands in the current epoch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No record yet.
    Closed,
    Open,
    /// `open` returned false.
    Skipping,
}

struct EpochWriter<T, W: ForeachWriter<T>> {
    writer: W,
    partition: u16,
    epoch: Epoch,
    stage: Stage,
    record: PhantomData<fn(T)>,
}

impl<T, W: ForeachWriter<T>> EpochWriter<T, W> {
    fn new(writer: W) -> Self {
        Self { writer, partition: 0, epoch: Epoch::GENESIS, stage: Stage::Closed, record: PhantomData }
    }
}

impl<T: 'static, W: ForeachWriter<T>> Sink<T> for EpochWriter<T, W> {
    fn open(&mut self, context: &SinkContext) -> Result<(), BoxError> {
        self.partition = context.subtask;
        self.epoch = context.first_epoch;
        Ok(())
    }

    fn write(&mut self, value: T) -> Result<(), BoxError> {
        let (partition, epoch) = (self.partition, self.epoch);
        if self.stage == Stage::Closed {
            let opened = self.writer.open(partition, epoch);
            let wanted = opened.map_err(|source| ForeachError::Open { partition, epoch, source })?;
            self.stage = if wanted { Stage::Open } else { Stage::Skipping };
        }
        if self.stage == Stage::Skipping {
            return Ok(());
        }
        let Err(source) = self.writer.process(value) else { return Ok(()) };
        let error = ForeachError::Process { partition, epoch, source };
        self.stage = Stage::Closed;
        if let Err(second) = self.writer.close(Some(&error)) {
            tracing::warn!(partition, %epoch, error = %second, "a foreach writer failed to close after an error");
        }
        Err(Box::new(error))
    }

    fn flush(&mut self, epoch: Epoch) -> Result<(), BoxError> {
        let partition = self.partition;
        let open = std::mem::replace(&mut self.stage, Stage::Closed) != Stage::Closed;
        self.epoch = epoch.next();
        if open {
            self.writer.close(None).map_err(|source| ForeachError::Close { partition, epoch, source })?;
        }
        Ok(())
    }
}

impl<T, W: ForeachWriter<T>> Drop for EpochWriter<T, W> {
    fn drop(&mut self) {
        // User code that panics while another panic unwinds would end the process.
        if self.stage == Stage::Closed || std::thread::panicking() {
            return;
        }
        let error = ForeachError::Interrupted { partition: self.partition, epoch: self.epoch };
        if let Err(second) = self.writer.close(Some(&error)) {
            tracing::warn!(%error, close = %second, "a foreach writer failed to close");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::testing::{DirectOutside, sink_conformance};

    type Calls = Arc<Mutex<Vec<String>>>;

    #[derive(Clone, Default)]
    struct Noting {
        calls: Calls,
        skips: bool,
        fails: &'static str,
    }

    impl Noting {
        fn note(&self, call: String) -> Result<(), BoxError> {
            let fails = !self.fails.is_empty() && call.starts_with(self.fails);
            self.calls.lock().unwrap().push(call);
            if fails { Err("no".into()) } else { Ok(()) }
        }
    }

    impl ForeachWriter<u64> for Noting {
        fn open(&mut self, partition: u16, epoch: Epoch) -> Result<bool, BoxError> {
            self.note(format!("open {partition} {epoch}")).map(|()| !self.skips)
        }

        fn process(&mut self, value: u64) -> Result<(), BoxError> {
            self.note(format!("process {value}"))
        }

        fn close(&mut self, error: Option<&ForeachError>) -> Result<(), BoxError> {
            self.note(error.map_or_else(|| "close".to_owned(), |error| format!("close: {error}")))
        }
    }

    /// Opens the sink of subtask 3 in an attempt whose first epoch is 7.
    fn sink(writer: &Noting) -> Box<dyn Sink<u64>> {
        let writer = writer.clone();
        let SinkSpec::Direct(factory) = foreach(move || writer.clone()).into_sink() else { panic!("not level 1") };
        let mut sink = factory().unwrap();
        let context = SinkContext { subtask: 3, first_epoch: Epoch::new(7), ..crate::testing::context(0) };
        sink.open(&context).unwrap();
        sink
    }

    fn calls(writer: &Noting) -> Vec<String> {
        std::mem::take(&mut writer.calls.lock().unwrap())
    }

    /// Buffers an epoch and hands it over in `close`.
    struct Epochs {
        rows: Vec<String>,
        out: Arc<Mutex<Vec<String>>>,
    }

    impl ForeachWriter<String> for Epochs {
        fn open(&mut self, _partition: u16, _epoch: Epoch) -> Result<bool, BoxError> {
            self.rows.clear();
            Ok(true)
        }

        fn process(&mut self, value: String) -> Result<(), BoxError> {
            self.rows.push(value);
            Ok(())
        }

        fn close(&mut self, error: Option<&ForeachError>) -> Result<(), BoxError> {
            if error.is_none() {
                self.out.lock().unwrap().append(&mut self.rows);
            }
            Ok(())
        }
    }

    struct Target(Arc<Mutex<Vec<String>>>);

    impl DirectOutside for Target {
        fn connect(&self) -> Box<dyn Sink<String>> {
            Box::new(EpochWriter::new(Epochs { rows: Vec::new(), out: Arc::clone(&self.0) }))
        }

        fn visible(&self) -> Vec<String> {
            self.0.lock().unwrap().clone()
        }
    }

    #[test]
    fn a_writer_that_hands_over_at_close_keeps_the_contract_of_a_level_1_sink() {
        sink_conformance(|| Target(Arc::default())).unwrap();
    }

    #[test]
    fn opens_and_closes_around_the_records_of_each_epoch_that_has_some() {
        let writer = Noting::default();
        let mut sink = sink(&writer);
        assert!(calls(&writer).is_empty());
        sink.write(1).unwrap();
        sink.write(2).unwrap();
        sink.flush(Epoch::new(7)).unwrap();
        sink.flush(Epoch::new(8)).unwrap();
        sink.write(3).unwrap();
        sink.flush(Epoch::new(9)).unwrap();
        drop(sink);
        assert_eq!(calls(&writer), ["open 3 7", "process 1", "process 2", "close", "open 3 9", "process 3", "close"]);
    }

    #[test]
    fn an_epoch_that_is_not_wanted_is_closed_without_its_records() {
        let writer = Noting { skips: true, ..Noting::default() };
        let mut sink = sink(&writer);
        sink.write(1).unwrap();
        sink.write(2).unwrap();
        sink.flush(Epoch::new(7)).unwrap();
        assert_eq!(calls(&writer), ["open 3 7", "close"]);
    }

    #[test]
    fn an_error_closes_the_epoch_with_it_once_and_fails_the_attempt() {
        let writer = Noting { fails: "process", ..Noting::default() };
        let mut failing = sink(&writer);
        let text = failing.write(1).unwrap_err().to_string();
        assert_eq!(text, "the foreach writer of partition 3 cannot process a record of epoch 7");
        drop(failing);
        assert_eq!(calls(&writer), ["open 3 7", "process 1", &format!("close: {text}")]);

        let writer = Noting { fails: "open", ..Noting::default() };
        let mut failing = sink(&writer);
        let text = failing.write(1).unwrap_err().to_string();
        assert_eq!(text, "the foreach writer of partition 3 cannot open epoch 7");
        drop(failing);
        assert_eq!(calls(&writer), ["open 3 7"]);

        let writer = Noting { fails: "close", ..Noting::default() };
        let mut failing = sink(&writer);
        failing.write(1).unwrap();
        let text = failing.flush(Epoch::new(7)).unwrap_err().to_string();
        assert_eq!(text, "the foreach writer of partition 3 cannot close epoch 7");
        drop(failing);
        assert_eq!(calls(&writer), ["open 3 7", "process 1", "close"]);
    }

    #[test]
    fn an_attempt_that_ends_in_the_middle_closes_the_epoch_as_interrupted() {
        let writer = Noting::default();
        let mut sink = sink(&writer);
        sink.write(1).unwrap();
        drop(sink);
        let close = "close: the attempt ended before epoch 7 of partition 3 did; its records come again";
        assert_eq!(calls(&writer), ["open 3 7", "process 1", close]);
    }
}

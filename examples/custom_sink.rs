//! Teaches how to write sinks of your own: at-least-once in a few lines, exactly-once with a token, and how to test the latter.
//!
//! ```sh
//! cargo run --example custom_sink
//! ```
//! The outside system is a toy in memory with transactions; the comments say what the steps are in SQL.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::ensure;
use millstream::connectors::codec::TextLine;
use millstream::connectors::testing::{Outside, token_sink_conformance};
use millstream::prelude::*;
use millstream::runtime::id::Epoch;
use millstream::runtime::sink::{
    EpochBatch, IntoSink, Sink, SinkContext, SinkDeclaration, SinkError, SinkErrorKind, SinkSpec, Token, TokenSink,
};

// Level 1: records leave as they are processed. After a restart those of the epochs that were not committed come again.

/// Appends records to a list when an epoch ends.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
}

/// One per subtask and attempt, on the subtask's own thread.
struct LogWriter {
    log: Log,
    waiting: Vec<String>,
}

impl Sink<String> for LogWriter {
    fn write(&mut self, value: String) -> Result<(), BoxError> {
        self.waiting.push(value);
        Ok(())
    }

    /// When this returns the epoch may be committed, so whatever was written must be out.
    fn flush(&mut self, _epoch: Epoch) -> Result<(), BoxError> {
        self.log.lines.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.waiting);
        Ok(())
    }
}

impl IntoSink<String> for Log {
    fn into_sink(self) -> SinkSpec<String> {
        SinkSpec::Direct(Arc::new(move || Ok(Box::new(LogWriter { log: self.clone(), waiting: Vec::new() }))))
    }
}

// Level 2: rows and a token in one transaction. The runtime delivers committed epochs until the token says that they are in.

#[derive(Default)]
struct Tables {
    /// `CREATE TABLE results (line BYTEA)`
    results: Vec<Vec<u8>>,
    /// `CREATE TABLE tokens (next BIGINT, fence BIGINT)`: one row per sink.
    next: Epoch,
    fence: u64,
}

/// The sink's configuration: which database.
#[derive(Clone, Default)]
struct Database {
    tables: Arc<Mutex<Tables>>,
}

struct Connection {
    database: Database,
    fence: u64,
}

impl TokenSink for Connection {
    fn open(&mut self, _context: &SinkContext) -> Result<Token, SinkError> {
        let mut tables = self.database.tables.lock().unwrap_or_else(PoisonError::into_inner);
        // UPDATE tokens SET fence = fence + 1 RETURNING next, fence
        // First shut out whoever was here before, then read the token; in one step, or in this order.
        tables.fence += 1;
        self.fence = tables.fence;
        Ok(Token { next: tables.next })
    }

    fn apply(&mut self, batch: &EpochBatch<'_>) -> Result<(), SinkError> {
        let mut tables = self.database.tables.lock().unwrap_or_else(PoisonError::into_inner);
        // BEGIN; UPDATE tokens SET next = $last + 1 WHERE fence = $mine -- 0 rows: somebody else opened
        if tables.fence != self.fence {
            return Err(SinkError::plain(SinkErrorKind::Fenced, "another instance has opened the database"));
        }
        tables.next = batch.last().next();
        // COPY results FROM STDIN; COMMIT -- an error without an answer here is SinkErrorKind::Unknown
        tables.results.extend(batch.rows().map(|row| row.bytes.to_vec()));
        Ok(())
    }
}

impl IntoSink<String> for Database {
    /// What `explain` shows.
    fn declaration(&self) -> SinkDeclaration {
        SinkDeclaration::new("Database").form("a row per record").after_restart("goes on where its token says")
    }

    fn into_sink(self) -> SinkSpec<String> {
        SinkSpec::Outbox {
            encoder: Arc::new(TextLine), // how a record becomes the bytes of a row
            connector: Arc::new(move || Ok(Box::new(Connection { database: self.clone(), fence: 0 }))),
        }
    }
}

/// What the conformance test needs: a connector, and what a reader sees.
impl Outside for Database {
    fn connect(&self) -> Box<dyn TokenSink> {
        Box::new(Connection { database: self.clone(), fence: 0 })
    }

    fn visible(&self) -> Vec<Vec<u8>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).results.clone()
    }
}

fn main() -> anyhow::Result<()> {
    // In your crate this is a test: kills at every call, second instances, regrouped epochs.
    token_sink_conformance(Database::default)?;

    let (log, database) = (Log::default(), Database::default());
    let pipeline = Pipeline::new("custom-sink");
    let lines = pipeline.source("numbers", Generator::new(Some(100), |n| n)).map(|n| format!("number {n}")).erase();
    lines.clone().sink("log", log.clone());
    lines.sink("database", database.clone());
    print!("{}", pipeline.explain());
    Runtime::builder().build()?.start(pipeline)?.join()?;

    let logged = log.lines.lock().unwrap_or_else(PoisonError::into_inner).len();
    let stored = database.visible().len();
    println!("{logged} lines were logged at least once, {stored} rows were stored exactly once");
    ensure!(logged == 100 && stored == 100, "100 were to come");
    Ok(())
}

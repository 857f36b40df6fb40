//! Sources and sinks for millstream pipelines: files, in-process channels and tables, callbacks, made-up records.
//!
//! It is a set of implementations of the runtime's [`Source`](millstream_runtime::source::Source),
//! [`Sink`](millstream_runtime::sink::Sink) and [`TokenSink`](millstream_runtime::sink::TokenSink), and nothing the
//! runtime depends on: a connector of your own stands on the same ground. It brings no client of any outside system.
//!
//! What each guarantees, by its own [declaration](millstream_runtime::sink::IntoSink::declaration):
//!
#![doc = include_str!("../guarantees.md")]
//!
//! [`testing`] has the contracts of both levels of sinks as tests, for sinks of your own.

#![forbid(unsafe_code)]

pub mod blackhole;
pub mod channel;
pub mod codec;
pub mod console;
mod dealt;
pub mod file;
pub mod foreach;
pub mod generator;
pub mod iter;
mod newest;
mod only_split;
mod pace;
pub mod rate;
pub mod socket;
pub mod stream;
pub mod table;
pub mod testing;
pub mod wal;

/// What most pipelines name: one `use` for all connectors.
pub mod prelude {
    pub use crate::blackhole::Blackhole;
    pub use crate::channel::{
        ChannelReceiver, ChannelSink, Collect, Collected, Feed, FeedSource, Receipt, channel_sink, feed, for_each,
        try_for_each,
    };
    pub use crate::console::Console;
    pub use crate::file::{
        CleanSource, FileIdentity, FileSink, InvalidText, Lines, MissingFiles, RecordFile, WatchedDirectory,
        read_committed,
    };
    #[cfg(unix)]
    pub use crate::file::{DataLoss, TailLines, TailStart};
    pub use crate::foreach::{ForeachError, ForeachWriter, foreach};
    pub use crate::generator::Generator;
    pub use crate::iter::IterSource;
    pub use crate::rate::{RateMicroBatch, RateRow, RateSource};
    pub use crate::socket::{SocketCounter, SocketCounts, SocketLines, SocketListener};
    pub use crate::stream::StreamSource;
    pub use crate::table::{MemoryTable, Table, memory_table};
    pub use crate::wal::WalSource;
}

//! Sources and sinks for millstream pipelines: files, in-process channels, made-up records.
//!
//! It is a set of implementations of the runtime's [`Source`](millstream_runtime::source::Source),
//! [`Sink`](millstream_runtime::sink::Sink) and [`TokenSink`](millstream_runtime::sink::TokenSink), and nothing the
//! runtime depends on: a connector of your own stands on the same ground. It brings no client of any outside system.
//!
//! | source | records | position | after a restart |
//! |---|---|---|---|
//! | [`file::Lines`] | lines of a file, or of all files below a directory | byte offset after the line, per file | replayable: exactly-once |
//! | [`generator::Generator`] | a function of the number | next number, per split | replayable: exactly-once |
//! | [`channel::feed()`] | what the process sends | number of records taken | at-most-once for the open epoch, with receipts |
//!
//! | sink | level | delivery | when a record is out | format |
//! |---|---|---|---|---|
//! | [`file::FileSink`] | 2 | exactly-once, for readers of its log | as committed, when a file is full or 10 s old | text lines, `Display` |
//! | [`file::RecordFile`] | 2 | exactly-once, for readers of its log | as committed, when a file is full or 10 s old | MessagePack, `Serialize` |
//! | [`channel::Collect`] | 2 | exactly-once while the process lives | as committed | the value, by way of MessagePack |
//! | [`channel::channel_sink()`] | 2 | exactly-once while the process lives | as committed | the value, by way of MessagePack |
//! | [`channel::for_each()`] | 1 | at-least-once | as processed | the value itself |
//! | [`console::Console`] | 1 | at-least-once | as processed | `Display` or `Debug` |
//! | [`blackhole::Blackhole`] | 1 | at-least-once, counted | as processed | none |
//!
//! *Exactly-once* counts effects: a record may be read or delivered again, and the end result is as if it had been
//! once. *As processed* is the lowest latency; *as committed* waits for the epoch's commit, so that nothing is shown
//! that a restart could take back.
//!
//! [`testing`] has the contract of a level-2 sink as a test, for sinks of your own.

#![forbid(unsafe_code)]

pub mod blackhole;
pub mod channel;
pub mod codec;
pub mod console;
pub mod file;
pub mod generator;
mod pace;
pub mod testing;

/// What most pipelines name: one `use` for all connectors.
pub mod prelude {
    pub use crate::blackhole::Blackhole;
    pub use crate::channel::{
        ChannelReceiver, ChannelSink, Collect, Collected, Feed, FeedSource, Receipt, channel_sink, feed, for_each,
        try_for_each,
    };
    pub use crate::console::Console;
    pub use crate::file::{FileSink, InvalidText, Lines, RecordFile, read_committed};
    pub use crate::generator::Generator;
}

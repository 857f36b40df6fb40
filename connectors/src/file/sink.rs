//! Exactly-once file sinks: their configuration.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millstream_runtime::sink::{Encoder, IntoSink, Roll, SinkDeclaration, SinkSpec};
use serde::Serialize;

use super::connector::{FileConnector, Layout};
use crate::codec::{Msgpack, TextLine};

macro_rules! roll_options {
    () => {
        /// Writes a file when the oldest waiting epoch was committed this long ago. Rows become visible to readers of
        /// the log then, so this bounds the visible latency; zero means one file per delivery, as small as epochs
        /// are. Default 10 s.
        pub fn roll_interval(mut self, interval: Duration) -> Self {
            self.layout.roll.interval = interval;
            self
        }

        /// Writes a file when this many bytes wait, even before the interval is over. Default 32 MiB.
        pub fn roll_bytes(mut self, bytes: usize) -> Self {
            self.layout.roll.bytes = bytes;
            self
        }
    };
}

/// Writes records as text lines, their `Display` form, into files below a directory. Delivery is **exactly-once** for
/// readers of its log: [`read_committed`](super::read_committed).
///
/// Rows wait in the pipeline's outbox until their epoch is committed and a file is worth writing; the layout is in
/// the [module's docs](super). After a restart the log tells what is in already; half-written files are removed, and
/// nothing but files with names of its own is ever touched. One sink of one pipeline per directory; several shards
/// may share it. The file system must have hard links and honest `fsync`.
///
/// A record whose text has a line break fails the attempt: [`TextLine`].
#[derive(Clone, Debug)]
#[must_use]
pub struct FileSink {
    layout: Layout,
}

impl FileSink {
    /// Writes below the directory `dir`, which is created if need be.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { layout: Layout::new(dir.into(), "txt", b"\n") }
    }

    roll_options!();

    /// Sets the files' extension, without the dot: letters, digits, `_` and `-`. Default `txt`.
    pub fn extension(mut self, extension: impl Into<String>) -> Self {
        self.layout.extension = extension.into();
        self
    }
}

impl<T: Display> IntoSink<T> for FileSink {
    fn declaration(&self) -> SinkDeclaration {
        declaration("FileSink", "text lines (Display)", self.layout.roll)
    }

    fn into_sink(self) -> SinkSpec<T> {
        spec(self.layout, TextLine)
    }
}

/// Writes records as MessagePack, their `Serialize` form, into files below a directory; otherwise as [`FileSink`].
///
/// Each file is a plain MessagePack stream: values one after the other, structs as maps with named fields.
/// [`CommittedFile::values`](super::CommittedFile::values) reads them back.
#[derive(Clone, Debug)]
#[must_use]
pub struct RecordFile {
    layout: Layout,
}

impl RecordFile {
    /// Writes below the directory `path`, which is created if need be. It is a directory also if its name looks like a
    /// file's, `counts.msgpack`: one file alone could not be extended atomically.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { layout: Layout::new(path.into(), "msgpack", b"") }
    }

    roll_options!();
}

impl<T: Serialize> IntoSink<T> for RecordFile {
    fn declaration(&self) -> SinkDeclaration {
        declaration("RecordFile", "MessagePack (Serialize)", self.layout.roll)
    }

    fn into_sink(self) -> SinkSpec<T> {
        spec(self.layout, Msgpack)
    }
}

fn declaration(connector: &'static str, form: &'static str, roll: Roll) -> SinkDeclaration {
    SinkDeclaration::new(connector)
        .form(form)
        .condition("for readers of its log")
        .waits(format!("in a file of {} or {:?}", size(roll.bytes), roll.interval))
        .after_restart("what its log does not name is written again; half-written files are removed")
}

/// Bytes as one reads them: whole MiB or KiB where they are.
fn size(bytes: usize) -> String {
    match bytes {
        0 => "0 bytes".to_owned(),
        mebi if mebi % (1 << 20) == 0 => format!("{} MiB", mebi >> 20),
        kibi if kibi % (1 << 10) == 0 => format!("{} KiB", kibi >> 10),
        bytes => format!("{bytes} bytes"),
    }
}

fn spec<T>(layout: Layout, encoder: impl Encoder<T>) -> SinkSpec<T> {
    SinkSpec::Outbox {
        encoder: Arc::new(encoder),
        connector: Arc::new(move || Ok(Box::new(FileConnector::new(layout.clone())))),
    }
}

impl Layout {
    fn new(dir: PathBuf, extension: &str, row_end: &'static [u8]) -> Self {
        let roll = Roll { interval: Duration::from_secs(10), bytes: 32 << 20 };
        Self { dir, extension: extension.into(), row_end, roll }
    }
}

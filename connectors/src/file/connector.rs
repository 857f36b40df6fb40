//! The delivery side of the file sinks: part file, then log entry, which is the commit.
//!
//! ```text
//! open    lock · read the log · append "I opened" · remove leftovers · unlock
//! apply   write .part.tmp · sync · link as part · sync directory
//!         write .entry.tmp · sync · link as entry · sync directory
//!                                   ^ the commit
//! ```
//!
//! Names are taken with hard links, which fail where a name exists, and never with a rename, which would replace: an
//! older instance that wakes up in the middle of its `apply` can neither overwrite a committed file nor take a log
//! number.

use std::fmt;
use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_runtime::id::Epoch;
use millstream_runtime::sink::{EpochBatch, Roll, SinkContext, SinkError, SinkErrorKind, Token, TokenSink};

use super::durable::{Failure, create_dirs, kind_of, not, remedy, sync_dir};
use super::log::{Entry, FileEntry, LogError, read_entry, read_log};
use super::names::{Names, temporary};

/// What the user asked for.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) dir: PathBuf,
    pub(super) extension: String,
    /// What follows each row.
    pub(super) row_end: &'static [u8],
    pub(super) roll: Roll,
}

/// A place in `open` or `apply` at which a test may stop the world or let an operation fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Locked,
    EntryCreated,
    EntrySynced,
    EntryLinked,
    LogSynced,
    LeftoverRemoved,
    PartCreated,
    PartWritten,
    PartSynced,
    PartLinked,
    DirectorySynced,
}

/// What a test does at a step.
pub(super) type Hook = Arc<dyn Fn(Step) -> io::Result<()> + Send + Sync>;

pub(super) struct FileConnector {
    layout: Layout,
    hook: Option<Hook>,
    opened: Option<Opened>,
}

/// What is known once the sink is open. Dropped as soon as the outcome of an `apply` is not known: the connector is
/// of no more use then.
struct Opened {
    names: Names,
    context: SinkContext,
    instance: String,
    /// The next log entry's number.
    number: u64,
    /// The token.
    next: Epoch,
    /// The part file that this instance linked but could not commit yet.
    linked: Option<FileEntry>,
    row_end: &'static [u8],
    hook: Option<Hook>,
}

impl FileConnector {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, hook: None, opened: None }
    }

    #[cfg(test)]
    pub(super) fn with_hook(layout: Layout, hook: Hook) -> Self {
        Self { layout, hook: Some(hook), opened: None }
    }
}

impl fmt::Debug for FileConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileConnector").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl TokenSink for FileConnector {
    fn open(&mut self, context: &SinkContext) -> Result<Token, SinkError> {
        let extension = &self.layout.extension;
        if extension.is_empty() || !extension.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        {
            let text = format!("\"{extension}\" is no file extension; use letters, digits, _ and - only");
            return Err(SinkError::plain(SinkErrorKind::Fatal, text));
        }
        let mut opened = Opened {
            names: Names::new(self.layout.dir.clone(), context.shard, extension.clone()),
            context: context.clone(),
            instance: instance(),
            number: 0,
            next: Epoch::GENESIS,
            linked: None,
            row_end: self.layout.row_end,
            hook: self.hook.clone(),
        };
        opened.open()?;
        let token = Token { next: opened.next };
        self.opened = Some(opened);
        Ok(token)
    }

    fn apply(&mut self, batch: &EpochBatch<'_>) -> Result<(), SinkError> {
        let Some(opened) = &mut self.opened else {
            return Err(SinkError::plain(
                SinkErrorKind::Fatal,
                "cannot deliver with a sink that is not open, or whose last outcome is unknown; open a new one",
            ));
        };
        let result = opened.apply(batch);
        if result.as_ref().is_err_and(|error| error.kind != SinkErrorKind::Retry) {
            self.opened = None;
        }
        result
    }

    fn roll(&self) -> Roll {
        self.layout.roll
    }
}

impl Opened {
    fn open(&mut self) -> Result<(), SinkError> {
        let log_dir = self.names.log_dir();
        create_dirs(self.names.dir(), &log_dir).map_err(|failure| self.sink_error(failure, "open"))?;
        // Held until the leftovers are gone. Without it a newer instance might open meanwhile and commit a file of the
        // same name as a leftover, and we would remove that.
        let _lock = self.lock(&log_dir)?;
        self.step(Step::Locked, &log_dir).map_err(|failure| self.sink_error(failure, "open"))?;
        let entries = self.append_opening(&log_dir)?;
        let committed: Vec<&str> =
            entries.iter().filter_map(|entry| entry.file.as_ref()).map(|file| file.name.as_str()).collect();
        let leftover = |name: &str| self.names.is_own_part(name) && !committed.contains(&name);
        self.remove(self.names.dir(), leftover)
            .and_then(|()| self.remove(&log_dir, Names::is_own_temporary_entry))
            .map_err(|failure| self.sink_error(failure, "open"))
    }

    fn lock(&self, log_dir: &Path) -> Result<File, SinkError> {
        let path = log_dir.join(".lock");
        let lock =
            File::create(&path).map_err(not("create", &path)).map_err(|failure| self.sink_error(failure, "open"))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(SinkError::plain(
                SinkErrorKind::Retry,
                format!(
                    "sink {} cannot open {}: another instance is opening it now",
                    self.context.sink,
                    path.display()
                ),
            )),
            Err(TryLockError::Error(source)) => Err(self.sink_error(not("lock", &path)(source), "open")),
        }
    }

    /// Appends the entry that shuts out older instances, and reads the log in front of it: nothing can come in between.
    fn append_opening(&mut self, log_dir: &Path) -> Result<Vec<Entry>, SinkError> {
        loop {
            let entries = read_log(log_dir, self.context.shard).map_err(|error| self.log_error(error))?;
            if let Some(newest) = entries.last() {
                self.check_owner(newest)?;
                self.next = newest.next;
            }
            self.number = entries.len() as u64;
            match self.append(None, self.next) {
                Ok(()) => return Ok(entries),
                // An older instance has just committed; no other can open, and it will fail at its next try.
                Err(Failure::Taken { .. }) => {}
                Err(failure) => return Err(self.sink_error(failure, "open")),
            }
        }
    }

    fn check_owner(&self, newest: &Entry) -> Result<(), SinkError> {
        if (&newest.pipeline, &newest.sink) == (&self.context.pipeline, &self.context.sink) {
            return Ok(());
        }
        let text = format!(
            "sink {} of pipeline {} cannot write to {}: it belongs to sink {} of pipeline {}; give each its own \
             directory",
            self.context.sink,
            self.context.pipeline,
            self.names.dir().display(),
            newest.sink,
            newest.pipeline
        );
        Err(SinkError::plain(SinkErrorKind::Fatal, text))
    }

    fn apply(&mut self, batch: &EpochBatch<'_>) -> Result<(), SinkError> {
        let what = format!("commit epochs {} to {}", batch.first(), batch.last());
        if batch.first() < self.next {
            let text = format!("cannot {what} to {}: epochs before {} are in", self.names.dir().display(), self.next);
            return Err(SinkError::plain(SinkErrorKind::Fatal, text));
        }
        // Asked first, so that an instance that was shut out long ago writes nothing.
        if self.names.entry(self.number).exists() {
            return Err(self.apply_error(Failure::Taken { path: self.names.entry(self.number) }, &what));
        }
        let committed = self.write_part(batch).and_then(|file| self.append(Some(file), batch.last().next()));
        if let Err(failure) = committed {
            return Err(self.apply_error(failure, &what));
        }
        self.next = batch.last().next();
        self.linked = None;
        Ok(())
    }

    fn write_part(&mut self, batch: &EpochBatch<'_>) -> Result<FileEntry, Failure> {
        let name = self.names.part(batch.first(), batch.last());
        let path = self.names.dir().join(&name);
        let hidden = self.names.dir().join(temporary(&name, self.context.attempt, &self.instance));
        // The last try may have come as far as the link. The bytes are a function of the batch, so the file is this
        // one.
        let file = match self.linked.clone().filter(|file| file.name == name) {
            Some(file) => file,
            None => {
                let file = self.write_hidden(&hidden, name, batch).inspect_err(|_| {
                    // Gives back the space that may be what is missing. If it fails too, the next opening does it.
                    let _ = std::fs::remove_file(&hidden);
                })?;
                std::fs::hard_link(&hidden, &path).map_err(|source| match source.kind() {
                    io::ErrorKind::AlreadyExists => Failure::Taken { path: path.clone() },
                    _ => not("link", &path)(source),
                })?;
                self.linked.insert(file).clone()
            }
        };
        self.step(Step::PartLinked, &path)?;
        // A second name of the same file by now; if it stays, the next opening removes it.
        let _ = std::fs::remove_file(&hidden);
        sync_dir(self.names.dir())?;
        self.step(Step::DirectorySynced, &path)?;
        Ok(file)
    }

    fn write_hidden(&self, hidden: &Path, name: String, batch: &EpochBatch<'_>) -> Result<FileEntry, Failure> {
        let file = File::create(hidden).map_err(not("create", hidden))?;
        self.step(Step::PartCreated, hidden)?;
        let (mut crc, mut bytes, mut rows) = (crc32fast::Hasher::new(), 0, 0);
        let mut out = BufWriter::with_capacity(256 << 10, file);
        for row in batch.rows() {
            for piece in [row.bytes, self.row_end] {
                out.write_all(piece).map_err(not("write", hidden))?;
                crc.update(piece);
                bytes += piece.len() as u64;
            }
            rows += 1;
        }
        let file = out.into_inner().map_err(|error| not("write", hidden)(error.into_error()))?;
        self.step(Step::PartWritten, hidden)?;
        file.sync_all().map_err(not("sync", hidden))?;
        self.step(Step::PartSynced, hidden)?;
        Ok(FileEntry { name, bytes, crc32: crc.finalize(), rows, first: batch.first(), last: batch.last() })
    }

    /// Appends an entry under the next number: the commit of what it says.
    fn append(&mut self, file: Option<FileEntry>, next: Epoch) -> Result<(), Failure> {
        let path = self.names.entry(self.number);
        let name = format!("{:012}", self.number);
        let hidden = self.names.log_dir().join(temporary(&name, self.context.attempt, &self.instance));
        let entry = Entry {
            format: 0,
            pipeline: self.context.pipeline.clone(),
            sink: self.context.sink.clone(),
            shard: self.context.shard,
            attempt: self.context.attempt,
            instance: self.instance.clone(),
            next,
            file,
        };
        let linked = self.write_entry(&hidden, &entry).and_then(|()| {
            std::fs::hard_link(&hidden, &path).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => Failure::Taken { path: path.clone() },
                // Refused before anything was done; every other error might have come after it, as on a network file
                // system.
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::NotFound => {
                    not("link", &path)(source)
                }
                _ => Failure::Maybe { path: path.clone(), source },
            })
        });
        // From here on the entry counts, so every failure is an unknown outcome.
        let linked = linked.and_then(|()| self.step(Step::EntryLinked, &path).map_err(Failure::into_maybe));
        let _ = std::fs::remove_file(&hidden);
        linked?;
        sync_dir(&self.names.log_dir()).map_err(Failure::into_maybe)?;
        self.step(Step::LogSynced, &path).map_err(Failure::into_maybe)?;
        self.number += 1;
        Ok(())
    }

    fn write_entry(&self, hidden: &Path, entry: &Entry) -> Result<(), Failure> {
        let line = entry.to_line().map_err(|error| not("write", hidden)(error.into()))?;
        let mut file = File::create(hidden).map_err(not("create", hidden))?;
        self.step(Step::EntryCreated, hidden)?;
        file.write_all(&line).and_then(|()| file.sync_all()).map_err(not("write", hidden))?;
        self.step(Step::EntrySynced, hidden)
    }

    /// Removes files whose names are leftovers.
    fn remove(&self, dir: &Path, leftover: impl Fn(&str) -> bool) -> Result<(), Failure> {
        for entry in std::fs::read_dir(dir).map_err(not("list", dir))? {
            let entry = entry.map_err(not("list", dir))?;
            let ours = entry.file_name().to_str().is_some_and(&leftover);
            if ours && entry.file_type().map_err(not("read", dir))?.is_file() {
                let path = entry.path();
                match std::fs::remove_file(&path) {
                    // Its writer, which we have shut out, may tidy up at the same time.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(not("remove", &path)(error)),
                    _ => self.step(Step::LeftoverRemoved, &path)?,
                }
            }
        }
        Ok(())
    }

    fn step(&self, step: Step, path: &Path) -> Result<(), Failure> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(step)).map_err(not("pass a test's step at", path))
    }

    fn log_error(&self, error: LogError) -> SinkError {
        let kind = match &error {
            LogError::Io { source, .. } => kind_of(source),
            _ => SinkErrorKind::Fatal,
        };
        SinkError::new(kind, format!("sink {} cannot open {}", self.context.sink, self.names.dir().display()), error)
    }

    /// Decides what a failed delivery means. Whatever it was, if our number in the log has another's name, we were
    /// shut out: that instance also removes our files, so the failure is most likely its doing.
    fn apply_error(&self, failure: Failure, what: &str) -> SinkError {
        match read_entry(&self.names.log_dir(), self.number) {
            Ok(Some(entry)) if entry.instance != self.instance => SinkError::plain(
                SinkErrorKind::Fenced,
                format!(
                    "sink {} cannot {what}: another instance (attempt {}) took over {}; only one may write there",
                    self.context.sink,
                    entry.attempt,
                    self.names.dir().display()
                ),
            ),
            _ => self.sink_error(failure, what),
        }
    }

    fn sink_error(&self, failure: Failure, what: &str) -> SinkError {
        let sink = &self.context.sink;
        match failure {
            Failure::Not { action, path, source } => {
                let kind = kind_of(&source);
                let text = format!(
                    "sink {sink} cannot {what}, nothing of it is in: cannot {action} {}{}",
                    path.display(),
                    remedy(source.kind())
                );
                SinkError::new(kind, text, source)
            }
            Failure::Taken { path } => SinkError::plain(
                SinkErrorKind::Unknown,
                format!("sink {sink} cannot {what}: {} is there already", path.display()),
            ),
            Failure::Maybe { path, source } => SinkError::new(
                SinkErrorKind::Unknown,
                format!("sink {sink} does not know whether it could {what}: cannot make {} durable", path.display()),
                source,
            ),
        }
    }
}

/// Returns a name for this opening that no other has: attempt numbers alone repeat between two stores.
fn instance() -> String {
    // The only random numbers in std: the keys of its hashers.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests;

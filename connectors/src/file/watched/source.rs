//! The source.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::source::{EpochLimits, Guarantee, Position, Reader, Source, SourceDeclaration, SplitId};
use millstream_runtime::state::store::{Durability, StateBackend};
use millstream_runtime::time::{SharedClock, SystemClock};

use super::super::reader::Settings;
use super::super::source::InvalidText;
use super::clean::CleanSource;
use super::counts::WatchedCounter;
use super::directory::Directory;
use super::error::WatchError;
use super::list::FileIdentity;
use super::reader::{MissingFiles, Place, WatchedReader};
use super::shared::{Config, Watched};

const SPLIT: &str = "files";

/// Reads files that appear in a directory while the pipeline runs, each once, each line as a `String`; as Spark's file
/// source of format `text` and its `textFileStream`.
///
/// **Files must appear whole**: write them elsewhere on the same file system, or under a name that begins with `.` or `_`,
/// and rename them. Names that begin so are never read. A file that is written where it can be seen is read as far as it goes
/// when its turn comes, and what is appended later is not read; where that is found out, it is counted
/// ([`WatchedCounts::changed`](super::WatchedCounts::changed)). Subdirectories are not searched, unless
/// [`directories`](Self::directories) says so. Links to files are followed; one that leads nowhere is no file yet.
///
/// **A file is read once**, by its path below the directory. What comes later under a path that is known is not read, be it
/// changed or new. Files that are found in one look at the directory are read in the order of their modification times, and
/// of their paths where those are equal; files of a later look come after them, whatever their times.
///
/// **The list of files** is a store of its own, kept as the state of a pipeline of that name would be. A file is written to it,
/// and synced, before its first line leaves. The **position** is the number of a file in it and a byte offset, so with
/// a checkpoint each line counts exactly once, also after a restart. The list and the pipeline's state belong together: one of
/// them alone deleted, or brought back from a copy, is refused by name where files would be read twice or not at all. The list
/// has an entry, also in memory, for each file that is in the directory, and for each that is gone and not older than
/// [`max_file_age`](Self::max_file_age): [`clean_source`](Self::clean_source) keeps it short.
///
/// **A directory that a [`FileSink`](super::super::FileSink) writes into** may be watched: only files that its log names as
/// committed are read, so that one pipeline goes on with what another has committed. They must not be cleaned away.
///
/// A **line** is what it is to [`Lines`](super::super::Lines). A file that was listed must not change, and must stay until it
/// is read and its epoch is committed. The source never ends; it is one split, read by one subtask.
#[must_use]
pub struct WatchedDirectory {
    path: PathBuf,
    watched: Watched,
    settings: Settings,
    directories: Option<String>,
    files: Vec<String>,
    interval: Duration,
    missing: MissingFiles,
    limits: EpochLimits,
}

impl WatchedDirectory {
    /// Watches the directory at `path`, and keeps the list of its files under the name `list` in `backend`. That name has to be
    /// another than those of the pipelines and write-ahead logs on that backend.
    pub fn at(path: impl Into<PathBuf>, list: impl Into<String>, backend: impl StateBackend + 'static) -> Self {
        let counter = WatchedCounter::default();
        let settings =
            Settings { invalid: InvalidText::default(), most_bytes: 1 << 20, skipped: counter.skipped.clone() };
        let config = Config {
            name: list.into(),
            backend: Arc::new(backend),
            durability: Durability::Synced,
            identity: FileIdentity::default(),
            max_age: Duration::from_secs(7 * 24 * 60 * 60),
            clean: CleanSource::default(),
            clock: Arc::new(SystemClock::new()),
            counter,
        };
        Self {
            path: path.into(),
            watched: Watched::new(config),
            settings,
            directories: None,
            files: Vec::new(),
            interval: Duration::from_secs(1),
            missing: MissingFiles::default(),
            limits: EpochLimits::default(),
        }
    }

    /// Reads only files whose names match one of these patterns, such as `["*.csv", "part-????.txt"]`: `*` stands for any
    /// characters, `?` for one, `[ab]`, `[a-z]` and `[!a]` for one of a set. Default: all files.
    pub fn files(mut self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.files = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// Looks for files in the subdirectories that match this pattern instead of in the directory itself: `*`, or `eu-*/2026-??`
    /// for those two levels down; each part is a pattern as for [`files`](Self::files). Subdirectories may come and go. Default:
    /// the directory itself.
    pub fn directories(mut self, pattern: impl Into<String>) -> Self {
        self.directories = Some(pattern.into());
        self
    }

    /// Sets how often the directory is looked at while all that was found is read. Default 1 s, at least 1 ms.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets how much older than the newest file so far a new one may be, by their modification times; older ones are left out
    /// and counted. What was found by the first look at the directory may have any age. So long, too, a file that is gone
    /// is remembered, so that its name is not read again. A file from the future counts as one of now. Spark's `maxFileAge`.
    /// Default 7 days; `Duration::MAX` for any age, then every name is remembered for ever.
    pub fn max_file_age(mut self, age: Duration) -> Self {
        self.watched.config.max_age = age;
        self
    }

    /// Sets by what a file is known. With [`FileIdentity::Name`], files of one name in several
    /// [`directories`](Self::directories) count as one: the first that is found is read, the others are counted. Spark's
    /// `fileNameOnly`. Default: [`FileIdentity::Path`].
    pub fn identity(mut self, identity: FileIdentity) -> Self {
        self.watched.config.identity = identity;
        self
    }

    /// Sets what becomes of a file when the epoch of its last line is committed: soon after, in the background, or when the
    /// pipeline is started again. A file that cannot be deleted or moved, or is not the one any more that was listed, stays and
    /// is counted. Spark's `cleanSource`. Default: [`CleanSource::Off`].
    pub fn clean_source(mut self, clean: CleanSource) -> Self {
        self.watched.config.clean = clean;
        self
    }

    /// Sets what happens with a file that was listed and is gone before it was read to its end. Default:
    /// [`MissingFiles::Fail`].
    pub fn missing_files(mut self, policy: MissingFiles) -> Self {
        self.missing = policy;
        self
    }

    /// Lets a micro-batch take at most so many files, at least 1, of each subtask that reads any, and whole ones as long as it does not
    /// have too many records; see [`EpochLimits::files`]. Spark's `maxFilesPerTrigger`. Default: no limit.
    pub fn max_files_per_epoch(mut self, files: u64) -> Self {
        self.limits.files = Some(files);
        self
    }

    /// Lets a micro-batch take files of at most so many bytes, at least 1; see [`EpochLimits::bytes`]. A file that has more is taken in
    /// several, where Spark's `maxBytesPerTrigger` takes it whole. Not together with [`max_files_per_epoch`](Self::max_files_per_epoch).
    /// Default: no limit.
    pub fn max_bytes_per_epoch(mut self, bytes: u64) -> Self {
        self.limits.bytes = Some(bytes);
        self
    }

    /// Sets what happens with a line that is not UTF-8. Default: [`InvalidText::Fail`].
    pub fn invalid_utf8(mut self, policy: InvalidText) -> Self {
        self.settings.invalid = policy;
        self
    }

    /// Sets how many bytes a line may have, without its end. A longer one fails the attempt before it is in memory as a
    /// whole. Default 1 MiB, at least 1.
    pub fn max_line_bytes(mut self, bytes: usize) -> Self {
        self.settings.most_bytes = bytes;
        self
    }

    /// Takes the time for [`interval`](Self::interval) from here. Default: [`SystemClock`].
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.watched.config.clock = clock;
        self
    }

    /// Returns a handle on the counts of files.
    pub fn counter(&self) -> WatchedCounter {
        self.watched.config.counter.clone()
    }
}

impl WatchedDirectory {
    /// Refuses options that make no sense.
    fn checked(&self) -> Result<Directory, WatchError> {
        if self.interval < Duration::from_millis(1) {
            return Err(WatchError::Zero { option: "interval", least: "1 ms" });
        }
        if self.settings.most_bytes == 0 {
            return Err(WatchError::Zero { option: "max_line_bytes", least: "1" });
        }
        self.watched.config.clean.check(&self.path)?;
        Directory::new(&self.path, self.directories.as_deref(), &self.files)
    }
}

impl fmt::Debug for WatchedDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedDirectory").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Source for WatchedDirectory {
    type Out = String;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        self.checked()?.check()?;
        self.watched.open()?;
        Ok(vec![SplitId::new(SPLIT)])
    }

    fn epoch_limits(&self) -> EpochLimits {
        self.limits
    }

    fn declaration(&self) -> SourceDeclaration {
        SourceDeclaration::new("WatchedDirectory")
            .records("lines of files that appear in a directory")
            .position("number of the file in a durable list, and byte offset after the line")
            .guarantee(Guarantee::ExactlyOnce, "for files that appear whole and stay until they are read")
            .after_restart("goes on with the first line of the epoch that was open, and with files that came meanwhile")
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<String>>, BoxError> {
        let known = |split: &SplitId| split.as_str() == SPLIT;
        let place = from.map_or(Some(Place::default()), Place::of).filter(|_| known(split));
        let at = place.ok_or_else(|| WatchError::Foreign {
            split: split.to_string(),
            position: from.map_or_else(String::new, Position::to_string),
        })?;
        let directory = self.checked()?;
        let reader = self.watched.begin(at.file, at.offset)?;
        Ok(Box::new(WatchedReader {
            watched: self.watched.clone(),
            reader,
            directory,
            settings: self.settings.clone(),
            missing: self.missing,
            interval: self.interval,
            at,
            file: None,
            look_at: None,
            is_full: false,
        }))
    }

    fn committed(&self, at: &[(SplitId, Position)]) {
        for (_, position) in at {
            if let Some(place) = Place::of(position) {
                self.watched.committed(place.file);
            }
        }
    }
}

#[cfg(test)]
impl WatchedDirectory {
    pub(super) fn set_durability(&mut self, durability: Durability) {
        self.watched.config.durability = durability;
    }
}

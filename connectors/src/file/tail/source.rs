//! The source.

use std::path::PathBuf;
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::source::{Guarantee, Position, Reader, Source, SourceDeclaration, SplitId};

use super::super::error::LinesError;
use super::super::line::Settings;
use super::super::source::InvalidText;
use super::super::tree;
use super::beside::{Log, directory};
use super::counts::TailCounter;
use super::error::TailError;
use super::followed::Followed;
use super::place::Place;
use super::reader::{Following, TailReader};
use crate::pace::LONGEST_SLEEP;

/// Follows a log file that grows, through rotation and truncation, as `tail -F`; each line as a `String`. It never ends.
///
/// A **line** is what it is to [`Lines`](super::super::Lines), but it needs its end: a last line without `\n` waits until that
/// is written. Lines come in the order of the file, and a file after the one before it.
///
/// **Rotation.** When the log's name leads to another file, the old one is read to its end first; it is looked at until the next
/// rotation, so that what a slow writer still puts there comes too. Then come the files that were rotated in between, by
/// their names: `app.log.3`, `app.log.2`, `app.log.1` (or upwards, where the highest number was written last), or by date,
/// `app.log-20261127`, `app.2026-11-27.log`. So several rotations may pass while nobody reads. A log that is copied and then cut
/// off (`copytruncate`) or removed is read on in its copy. The file is known again by its first and by its last bytes that were
/// read, whatever its name and inode. Files of other names (`app.log.bak`) are not read.
///
/// **Truncation.** If the file is cut off or overwritten, and nothing beside it has what was read, reading goes on at its
/// beginning, counted in [`TailCounts::truncations`](super::TailCounts::truncations). What was written and cut off
/// before anybody looked is lost, as it is to anyone.
///
/// The **position** is the file's inode, a checksum of what was read of it and the byte offset after the line, for the current
/// file and the one before, so with a checkpoint each line counts exactly once, also after a restart. If the file is not to be
/// found then, [`on_data_loss`](Self::on_data_loss) decides. What nobody can tell: a file of which nothing was read
/// yet, or nothing but a header, from another one that has got its inode and begins alike; and that files were rotated *and* removed
/// in between.
///
/// Compressed files are not read: rotate with a delay (`delaycompress`). A link is followed, also when it leads elsewhere later.
///
/// It is one split, read by one subtask. Unix only.
#[derive(Clone, Debug)]
#[must_use]
pub struct TailLines {
    following: Following,
    start: TailStart,
    must_exist: bool,
}

/// Where a pipeline begins in a log that it has never read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TailStart {
    /// With the first line of the file that bears the log's name; what was rotated before is not read. The default.
    #[default]
    Beginning,
    /// With the first line whose end is not written yet.
    End,
}

/// What to do when the file that was read is not to be found at a start, or the one after it is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataLoss {
    /// The attempt fails with an error that names the file. The default: somebody may be able to bring it back.
    #[default]
    Fail,
    /// Compressed files are passed over. If the file that was read is gone, reading goes on at the beginning of the one that bears
    /// the log's name: nobody can tell which of the rotated ones came before the one that is gone. Counted in
    /// [`TailCounts::lost_files`](super::TailCounts::lost_files).
    Continue,
}

impl TailLines {
    /// Follows the log at `path`. It need not exist yet; its directory must.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let counter = TailCounter::default();
        let settings =
            Settings { invalid: InvalidText::default(), most_bytes: 1 << 20, skipped: counter.skipped.clone() };
        let following = Following {
            log: Log { path: path.into() },
            settings,
            loss: DataLoss::default(),
            counter,
            pause: Duration::from_millis(10),
        };
        Self { following, start: TailStart::default(), must_exist: false }
    }

    /// Sets where to begin if the pipeline has not read this log before; one that has goes on where it was. Default:
    /// [`TailStart::Beginning`].
    pub fn start(mut self, start: TailStart) -> Self {
        self.start = start;
        self
    }

    /// Refuses a log that is not there when the pipeline begins with it, since that may be a slip of the pen. By default it
    /// is waited for.
    pub fn must_exist(mut self) -> Self {
        self.must_exist = true;
        self
    }

    /// Sets what to do when lines may be lost. Default: [`DataLoss::Fail`].
    pub fn on_data_loss(mut self, policy: DataLoss) -> Self {
        self.following.loss = policy;
        self
    }

    /// Sets what happens with a line that is not UTF-8. Default: [`InvalidText::Fail`].
    pub fn invalid_utf8(mut self, policy: InvalidText) -> Self {
        self.following.settings.invalid = policy;
        self
    }

    /// Sets how many bytes a line may have, without its end. A longer one fails the attempt before it is in memory as a
    /// whole. Default 1 MiB, at least 1.
    pub fn max_line_bytes(mut self, bytes: usize) -> Self {
        self.following.settings.most_bytes = bytes;
        self
    }

    /// Sets the pause after a look that found nothing: how late a line may come, against how much is looked. Default 10 ms, at
    /// most 50 ms.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.following.pause = interval;
        self
    }

    /// Returns a handle on what was read, and what became of the log.
    pub fn counter(&self) -> TailCounter {
        self.following.counter.clone()
    }

    /// Opens the log where a new pipeline begins.
    fn first(&self) -> Result<Option<Followed>, TailError> {
        let log = &self.following.log.path;
        let mut first = Followed::open(log)?;
        if self.must_exist && first.is_none() {
            return Err(TailError::Missing { path: log.clone() });
        }
        if let (Some(file), TailStart::End) = (&mut first, self.start) {
            file.skip_to_end()?;
        }
        Ok(first)
    }
}

impl Source for TailLines {
    type Out = String;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        let Following { log, settings, pause, .. } = &self.following;
        if settings.most_bytes == 0 {
            return Err(Box::new(LinesError::NoLineFits));
        }
        if *pause > LONGEST_SLEEP {
            return Err(Box::new(TailError::PollInterval { millis: pause.as_millis() }));
        }
        std::fs::read_dir(directory(&log.path)).map_err(TailError::directory(&log.path))?;
        // Its own name, so that its directory may be moved.
        Ok(vec![SplitId::new(tree::file_name(&log.path)?)])
    }

    fn declaration(&self) -> SourceDeclaration {
        SourceDeclaration::new("TailLines")
            .records("lines of a file that grows and is rotated")
            .position("the file, by its bytes, and the offset after the line")
            .guarantee(Guarantee::ExactlyOnce, "if what was rotated stays there, uncompressed, until it is read")
            .after_restart("goes on with the first line of the epoch that was open, in whatever file it is now")
    }

    fn reader(&self, _split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<String>>, BoxError> {
        let following = self.following.clone();
        let Some(position) = from else { return Ok(Box::new(TailReader::new(following, self.first()?))) };
        let foreign = || TailError::Foreign { path: following.log.path.clone(), position: position.to_string() };
        let place = Place::read(position).ok_or_else(foreign)?;
        Ok(Box::new(TailReader::resume(following, place)?))
    }
}

//! Reads the files of the list one after the other, and looks for more behind the last one.

use std::io;
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::source::{Batch, Polled, Position, Reader};
use millstream_runtime::time::Timestamp;

use super::super::error::LinesError;
use super::super::reader::{LinesReader, Settings};
use super::counts::Counted;
use super::directory::Directory;
use super::error::WatchError;
use super::list::Listed;
use super::shared::{Watched, is_full_disk};
use crate::pace::LONGEST_SLEEP;

/// What to do with a file that was listed and is gone before it was read to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissingFiles {
    /// The attempt fails with an error that names it. The default.
    #[default]
    Fail,
    /// What was not read of it is left out, and the file is counted: [`WatchedCounts::missing`](super::WatchedCounts::missing).
    Skip,
}

/// A place in the list: a file and a byte offset in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: u64,
    pub(super) offset: u64,
}

impl Place {
    pub(super) fn to_position(self) -> Position {
        let bytes = [self.file.to_be_bytes(), self.offset.to_be_bytes()].concat();
        Position::from_bytes(bytes).unwrap_or_default()
    }

    pub(super) fn of(position: &Position) -> Option<Self> {
        let (file, offset) = position.as_bytes().split_first_chunk()?;
        let offset = u64::from_be_bytes(offset.try_into().ok()?);
        Some(Self { file: u64::from_be_bytes(*file), offset })
    }
}

pub(super) struct WatchedReader {
    pub(super) watched: Watched,
    pub(super) reader: u64,
    pub(super) directory: Directory,
    pub(super) settings: Settings,
    pub(super) missing: MissingFiles,
    pub(super) interval: Duration,
    /// Behind what was handed out.
    pub(super) at: Place,
    pub(super) file: Option<(Listed, LinesReader)>,
    /// When to look at the directory again; at once before the first look.
    pub(super) look_at: Option<Timestamp>,
    /// The disk of the list was full: it is tried again when it is time for a look.
    pub(super) is_full: bool,
}

impl Reader<String> for WatchedReader {
    fn poll(&mut self, batch: &mut Batch<String>, limit: usize) -> Result<Polled, BoxError> {
        let now = self.watched.config.clock.now();
        if self.is_full && self.look_at.is_some_and(|at| now < at) {
            return Ok(self.pause(now));
        }
        let before = self.at.file;
        let polled = match self.step(batch, limit, now) {
            Err(error) if is_full_disk(&error) => {
                tracing::warn!(%error, "the disk of a list of files is full, it is tried again");
                self.is_full = true;
                self.look_at = Some(now.saturating_add(self.interval));
                Polled::Idle
            }
            polled => {
                self.is_full = false;
                polled?
            }
        };
        batch.end = self.at.to_position();
        // Of a file that is gone nothing more comes either.
        batch.files = self.at.file.saturating_sub(before);
        Ok(polled)
    }
}

impl WatchedReader {
    fn step(&mut self, batch: &mut Batch<String>, limit: usize, now: Timestamp) -> Result<Polled, BoxError> {
        // Not before a look at the directory has shown that its files may be taken away.
        if self.look_at.is_some() {
            self.watched.clean(self.reader, &self.directory)?;
        }
        match self.file.take() {
            Some((file, lines)) => self.read(file, lines, batch, limit),
            None => match self.watched.file(self.reader, self.at.file)? {
                Some(file) => self.open(file),
                None => self.look(now),
            },
        }
    }

    fn open(&mut self, file: Listed) -> Result<Polled, BoxError> {
        let path = self.directory.root.join(&*file.path);
        match LinesReader::new(path, self.at.offset, self.settings.clone(), None) {
            Ok(lines) => self.file = Some((file, lines)),
            Err(error) => self.failed(&file, error)?,
        }
        Ok(Polled::More)
    }

    fn read(
        &mut self,
        file: Listed,
        mut lines: LinesReader,
        batch: &mut Batch<String>,
        limit: usize,
    ) -> Result<Polled, BoxError> {
        let polled = match lines.poll(batch, limit) {
            Ok(polled) => polled,
            Err(error) => match error.downcast() {
                Ok(error) => return self.failed(&file, *error).map(|()| Polled::More),
                Err(error) => return Err(error),
            },
        };
        self.at.offset = batch.end.as_u64().unwrap_or_default();
        if polled == Polled::End {
            if self.directory.stamp(&file.path)?.is_some_and(|stamp| stamp != file.stamp) {
                self.watched.config.counter.add(Counted::Changed);
                tracing::warn!(
                    path = %file.path,
                    "a file was changed after it was listed, lines may be missing or cut: write elsewhere and rename"
                );
            }
            self.end_of_file();
        } else {
            self.file = Some((file, lines));
        }
        Ok(Polled::More)
    }

    fn end_of_file(&mut self) {
        self.at = Place { file: self.at.file + 1, offset: 0 };
        self.watched.config.counter.add(Counted::Read);
    }

    /// Passes over a file that is gone, where that is right.
    fn failed(&mut self, file: &Listed, error: LinesError) -> Result<(), BoxError> {
        let is_gone = match &error {
            LinesError::Gone { .. } => true,
            LinesError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        };
        if !is_gone {
            return Err(error.into());
        }
        // It was read to its end before, though the end was not known to be one.
        if self.at.offset >= file.stamp.bytes {
            self.end_of_file();
            return Ok(());
        }
        let path = self.directory.root.join(&*file.path);
        match self.missing {
            MissingFiles::Fail => Err(WatchError::Gone { path, offset: self.at.offset }.into()),
            MissingFiles::Skip => {
                tracing::warn!(path = %path.display(), offset = self.at.offset, "a listed file is gone, it is left out");
                self.watched.config.counter.add(Counted::Missing);
                self.at = Place { file: self.at.file + 1, offset: 0 };
                Ok(())
            }
        }
    }

    /// Gets more files, if it is time for a look at the directory.
    fn look(&mut self, now: Timestamp) -> Result<Polled, BoxError> {
        let is_time = self.look_at.is_none_or(|at| at <= now);
        if is_time {
            self.look_at = Some(now.saturating_add(self.interval));
        }
        match self.watched.list_more(self.reader, is_time.then_some(&mut self.directory))? {
            true => Ok(Polled::More),
            false if is_time => Ok(Polled::Idle),
            false => Ok(self.pause(now)),
        }
    }

    /// Waits for the time of the next look, for a while at most.
    fn pause(&self, now: Timestamp) -> Polled {
        let wait = self.look_at.map_or(LONGEST_SLEEP, |at| at.saturating_since(now));
        std::thread::sleep(wait.min(LONGEST_SLEEP));
        Polled::Idle
    }
}

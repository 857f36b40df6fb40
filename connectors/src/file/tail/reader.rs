//! Reads a log: the file that bears its name, and those that it was rotated to.

use std::path::PathBuf;
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::source::{Batch, Polled, Reader};

use super::super::line::Settings;
use super::beside::{Log, Next};
use super::counts::{Counted, TailCounter};
use super::error::TailError;
use super::fingerprint::Fingerprint;
use super::followed::{Followed, Taken};
use super::place::{FilePlace, Place};
use super::source::DataLoss;

/// How a log is followed.
#[derive(Clone, Debug)]
pub(super) struct Following {
    pub(super) log: Log,
    pub(super) settings: Settings,
    pub(super) loss: DataLoss,
    pub(super) counter: TailCounter,
    pub(super) pause: Duration,
}

/// Reads the lines of one log.
#[derive(Debug)]
pub(super) struct TailReader {
    following: Following,
    /// What is read; nothing until the log is there.
    current: Option<Followed>,
    /// The file before it, of which all was read that was there: a writer may not have noticed yet.
    previous: Option<Followed>,
    /// Whose turn it is to be read first, so that neither keeps the other waiting.
    previous_first: bool,
}

impl Reader<String> for TailReader {
    fn poll(&mut self, batch: &mut Batch<String>, limit: usize) -> Result<Polled, BoxError> {
        let moved = self.advance(batch, limit)?;
        self.following.counter.add(Counted::Line, batch.records.len() as u64);
        batch.end = self.place().position();
        if moved {
            return Ok(Polled::More);
        }
        if !self.following.pause.is_zero() {
            std::thread::sleep(self.following.pause);
        }
        Ok(Polled::Idle)
    }
}

impl TailReader {
    /// Begins with this file, or with the first that bears the log's name.
    pub(super) fn new(following: Following, current: Option<Followed>) -> Self {
        Self { following, current, previous: None, previous_first: false }
    }

    /// Goes on at a saved place.
    pub(super) fn resume(following: Following, place: Place) -> Result<Self, TailError> {
        let mut reader = Self::new(following, None);
        let Place::In { current, previous } = place else { return Ok(reader) };
        reader.current = reader.following.log.find(&current)?;
        if reader.current.is_none() {
            reader.lost(&current)?;
            // Cut off, and maybe rotated since.
            reader.current = reader.following.log.with_inode(current.inode)?;
        }
        // Of a file of which nothing was read, the inode alone says too little: it may be another file's by now.
        if let Some(previous) = previous.filter(|place| place.fingerprint != Fingerprint::default()) {
            // Whoever put it back in the log's place wants it to be read as the log.
            let others = [reader.current.as_ref().map(|file| file.id), reader.following.log.id()?];
            reader.previous = reader.following.log.find(&previous)?.filter(|file| !others.contains(&Some(file.id)));
        }
        Ok(reader)
    }

    fn place(&self) -> Place {
        let previous = self.previous.as_ref().map(Followed::place);
        self.current.as_ref().map_or(Place::Nowhere, |current| Place::In { current: current.place(), previous })
    }

    /// Takes lines, or goes on in another file. Says whether either happened.
    fn advance(&mut self, batch: &mut Batch<String>, limit: usize) -> Result<bool, TailError> {
        if self.current.is_none() {
            self.current = Followed::open(&self.following.log.path)?;
            if self.current.is_none() {
                return Ok(false);
            }
        }
        self.previous_first = !self.previous_first;
        let mut moved = false;
        for of_previous in [self.previous_first, !self.previous_first] {
            let left = limit - batch.records.len().min(limit);
            if left > 0 {
                moved |= if of_previous { self.read_previous(batch, left)? } else { self.read_current(batch, left)? };
            }
        }
        if moved { Ok(true) } else { self.go_on() }
    }

    fn read_current(&mut self, batch: &mut Batch<String>, limit: usize) -> Result<bool, TailError> {
        if self.reconsider()? {
            return Ok(true);
        }
        let Some(current) = &mut self.current else { return Ok(false) };
        match current.take_lines(&self.following.settings, limit, &mut batch.records)? {
            Taken::Lines(count) => Ok(count > 0),
            Taken::Changed => {
                self.changed()?;
                Ok(true)
            }
        }
    }

    fn read_previous(&mut self, batch: &mut Batch<String>, limit: usize) -> Result<bool, TailError> {
        let Some(previous) = &mut self.previous else { return Ok(false) };
        match previous.take_lines(&self.following.settings, limit, &mut batch.records)? {
            Taken::Lines(0) if previous.is_deleted()? => self.leave_previous(),
            Taken::Lines(count) => return Ok(count > 0),
            // All that was there had been read.
            Taken::Changed => self.previous = None,
        }
        Ok(true)
    }

    /// The current file was cut off or overwritten. Goes on in a copy of what it was, or else at its beginning.
    fn changed(&mut self) -> Result<(), TailError> {
        let Self { following, current: Some(current), .. } = self else { return Ok(()) };
        let place = current.place();
        let log = following.log.path.display();
        if let Some(copy) = following.log.find(&place)? {
            tracing::info!(%log, copy = %copy.path.display(), offset = place.offset, "the log was cut off; its copy is read on");
            *current = copy;
            return Ok(());
        }
        tracing::warn!(%log, offset = place.offset, "the log was cut off or overwritten; it is read from its beginning");
        following.counter.add(Counted::Truncation, 1);
        current.begin_anew()
    }

    /// Looks whether the log has gone on in another file. All of the current and the previous one was read.
    fn go_on(&mut self) -> Result<bool, TailError> {
        let Some(current) = &self.current else { return Ok(false) };
        let next = self.following.log.next(current, self.previous.as_ref().map(|file| file.id))?;
        // What was written before the rotation comes before it, though nobody had written it when this one was looked at.
        for file in self.previous.iter().chain(&self.current) {
            if !matches!(next, Next::Nothing) && file.has_news()? {
                return Ok(true);
            }
        }
        match next {
            Next::Nothing => return Ok(false),
            Next::SameContent(file) => self.current = Some(file),
            Next::File { file, compressed } => {
                for path in compressed {
                    self.pass_over(path)?;
                }
                tracing::info!(from = %current.path.display(), to = %file.path.display(), "the log was rotated");
                self.following.counter.add(Counted::Rotation, 1);
                self.leave_previous();
                self.previous = self.current.replace(file);
            }
        }
        Ok(true)
    }

    /// Before the first line of a file, looks whether it still is the one that comes after the previous. It may have been copied and
    /// cut off since, and of a file of which nothing was read nobody can tell that by its bytes.
    fn reconsider(&mut self) -> Result<bool, TailError> {
        let (Some(current), Some(previous)) = (&self.current, &self.previous) else { return Ok(false) };
        if current.offset > 0 || !current.has_news()? {
            return Ok(false);
        }
        let Next::File { file, compressed } = self.following.log.next(previous, None)? else { return Ok(false) };
        // A copy lies between them. The log itself comes behind this one: the previous is gone, and does not say what came after it.
        let is_copy = file.id != current.id && file.path != self.following.log.path;
        // What was passed over on the way here was counted.
        if is_copy || self.following.loss == DataLoss::Fail {
            compressed.into_iter().try_for_each(|path| self.pass_over(path))?;
        }
        if is_copy {
            self.current = Some(file);
        }
        Ok(is_copy)
    }

    /// Reads the previous file no more.
    fn leave_previous(&mut self) {
        let Some(previous) = self.previous.take() else { return };
        if previous.is_within_line {
            let (file, offset) = (previous.path.display(), previous.offset);
            tracing::warn!(%file, offset, "the last line of a rotated log has no end and is dropped");
            self.following.counter.add(Counted::PartialLine, 1);
        }
    }

    /// A file cannot be read that lies between two that can.
    fn pass_over(&self, path: PathBuf) -> Result<(), TailError> {
        if self.following.loss == DataLoss::Fail {
            return Err(TailError::Compressed { path });
        }
        tracing::warn!(file = %path.display(), "a rotated log is compressed and is left out");
        self.following.counter.add(Counted::LostFile, 1);
        Ok(())
    }

    /// No file has what was read up to the saved place.
    fn lost(&self, place: &FilePlace) -> Result<(), TailError> {
        let (path, offset) = (&self.following.log.path, place.offset);
        let what = match self.following.log.id()? {
            Some(id) if id.inode == place.inode => "it was cut off or overwritten",
            Some(_) => "it was rotated, and the file that was read is gone or compressed",
            None => "it is gone",
        };
        if self.following.loss == DataLoss::Fail {
            return Err(TailError::Lost { path: path.clone(), offset, what });
        }
        tracing::warn!(log = %path.display(), offset, what, "lines of the log may be lost; it is read on where there is a beginning");
        self.following.counter.add(Counted::LostFile, 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::super::source::InvalidText;
    use super::*;

    /// Reads a log that gets a line and is rotated between a look into it and one for the next file.
    fn lines(previous_first: bool) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let log = Log { path: dir.path().join("app.log") };
        let counter = TailCounter::default();
        let settings = Settings { invalid: InvalidText::default(), most_bytes: 100, skipped: counter.skipped.clone() };
        let mut writer = std::fs::File::create(&log.path).unwrap();
        let first = Followed::open(&log.path).unwrap();
        let following = Following { log: log.clone(), settings, loss: DataLoss::Fail, counter, pause: Duration::ZERO };
        let mut reader = TailReader::new(following, first);
        let mut batch = Batch::default();
        assert!(!reader.read_current(&mut batch, 9).unwrap());
        writer.write_all(b"1\n").unwrap();
        std::fs::rename(&log.path, dir.path().join("app.log.1")).unwrap();
        std::fs::write(&log.path, "2\n").unwrap();
        assert!(reader.go_on().unwrap());
        reader.previous_first = previous_first;
        while reader.poll(&mut batch, 9).unwrap() == Polled::More {}
        batch.records.into_iter().map(|record| record.value).collect()
    }

    #[test]
    fn what_is_written_between_a_look_and_the_rotation_comes_before_the_next_file() {
        assert_eq!([lines(true), lines(false)], [["1", "2"], ["1", "2"]]);
    }
}

//! One file that is followed: open, whatever happens to its name.

use std::fs::{File, Metadata};
use std::io::{self, BufReader, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use millstream_runtime::record::Record;

use super::super::error::io_error;
use super::super::line::Settings;
use super::error::TailError;
use super::fingerprint::{Fingerprint, Window};
use super::place::FilePlace;

/// A batch is closed at this many bytes of text, so that long lines do not pile up in memory.
const MOST_BATCH_BYTES: u64 = 1 << 20;

/// Which file it is, as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    pub(super) inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Length and time of the last change.
type Stamp = (u64, Option<SystemTime>);

/// What a look into a file brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// So many lines, maybe none, of which some may have been left out.
    Lines(usize),
    /// What was read of it is not in front of the place any more: it was cut off, or written anew. Nothing was taken.
    Changed,
}

/// A file, and how far it was read. The place never stands within a line.
#[derive(Debug)]
pub(super) struct Followed {
    /// The name it was opened by; it may have another now.
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    pub(super) offset: u64,
    /// Whether there is a last line without an end.
    pub(super) is_within_line: bool,
    file: BufReader<File>,
    beginning: Fingerprint,
    window: Window,
    /// When there was no whole line: until that changes the file need not be read again.
    quiet: Option<Stamp>,
}

impl Followed {
    /// Opens a file at its beginning; nothing if there is none.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, TailError> {
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(io_error("read", path)(error).into()),
        };
        // Opening a pipe would wait for somebody who writes into it.
        let what = match (metadata.is_file(), metadata.is_dir()) {
            (true, _) => None,
            (_, true) => Some("a directory: name a file in it, or read all of them with Lines or WatchedDirectory"),
            _ => Some("a pipe, a socket or a device, which cannot be read again: read a regular file"),
        };
        if let Some(what) = what {
            return Err(TailError::NoFile { path: path.to_owned(), what });
        }
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(io_error("open", path)(error).into()),
        };
        let metadata = file.metadata().map_err(io_error("read", path))?;
        Ok(Some(Self {
            path: path.to_owned(),
            id: FileId::of(&metadata),
            beginning: Fingerprint::of_beginning(&metadata),
            offset: 0,
            is_within_line: false,
            file: BufReader::with_capacity(64 << 10, file),
            window: Window::default(),
            quiet: None,
        }))
    }

    /// Opens a file at a place; nothing if there is none, or if it does not have what was read in front of the place.
    pub(super) fn open_at(path: &Path, place: &FilePlace) -> Result<Option<Self>, TailError> {
        let Some(mut opened) = Self::open(path)? else { return Ok(None) };
        if opened.metadata()?.len() < place.offset {
            return Ok(None);
        }
        opened.start(place.offset)?;
        Ok((opened.place().fingerprint == place.fingerprint).then_some(opened))
    }

    /// Goes to the beginning of the line that is being written now.
    pub(super) fn skip_to_end(&mut self) -> Result<(), TailError> {
        let mut block = [0; 8 << 10];
        let mut end = self.metadata()?.len();
        while end > 0 {
            let length = end.min(block.len() as u64);
            let begin = end - length;
            let part = block.get_mut(..length as usize).unwrap_or_default();
            self.file.get_ref().read_exact_at(part, begin).map_err(io_error("read", &self.path))?;
            if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
                return self.start(begin + at as u64 + 1);
            }
            end = begin;
        }
        self.start(0)
    }

    /// Begins anew at the file's beginning.
    pub(super) fn begin_anew(&mut self) -> Result<(), TailError> {
        self.start(0)
    }

    fn start(&mut self, offset: u64) -> Result<(), TailError> {
        self.window = Window::read(self.file.get_ref(), offset).map_err(io_error("read", &self.path))?;
        self.offset = offset;
        self.quiet = None;
        self.is_within_line = false;
        self.file.seek(SeekFrom::Start(offset)).map_err(io_error("read", &self.path))?;
        Ok(())
    }

    /// Appends up to `limit` whole lines to `records`, and moves on behind them.
    pub(super) fn take_lines(
        &mut self,
        settings: &Settings,
        limit: usize,
        records: &mut Vec<Record<String>>,
    ) -> Result<Taken, TailError> {
        let now = self.stamp()?;
        let mut lines = Vec::new();
        if self.quiet != Some(now) {
            lines = self.cut(settings, limit)?;
            self.quiet = lines.is_empty().then_some(now);
        }
        // Behind the reading, so that what was read is known to go on from what was read before.
        if !self.is_intact()? {
            return Ok(Taken::Changed);
        }
        let count = lines.len();
        for line in lines {
            let length = line.len() as u64;
            self.window.advance(&line);
            records.extend(settings.text(line, &self.path, self.offset)?.map(Record::new));
            self.offset += length;
        }
        Ok(Taken::Lines(count))
    }

    /// Reads whole lines, with their ends.
    fn cut(&mut self, settings: &Settings, limit: usize) -> Result<Vec<Vec<u8>>, TailError> {
        let (mut lines, mut offset) = (Vec::new(), self.offset);
        self.is_within_line = false;
        while lines.len() < limit && offset - self.offset < MOST_BATCH_BYTES {
            let line = settings.cut(&mut self.file, &self.path)?;
            if line.last() == Some(&b'\n') {
                offset += line.len() as u64;
                lines.push(line);
                continue;
            }
            if line.len() > settings.most_bytes.saturating_add(1) {
                // Its end, should one come, comes too late. This says so.
                settings.text(line, &self.path, offset)?;
                break;
            }
            self.is_within_line = !line.is_empty();
            // What was read of it is read again: who cuts off half a line may write another.
            self.file.seek(SeekFrom::Start(offset)).map_err(io_error("read", &self.path))?;
            break;
        }
        Ok(lines)
    }

    /// Says whether the file was changed since a look found no whole line in it.
    pub(super) fn has_news(&self) -> Result<bool, TailError> {
        Ok(self.quiet != Some(self.stamp()?))
    }

    fn stamp(&self) -> Result<Stamp, TailError> {
        let metadata = self.metadata()?;
        Ok((metadata.len(), metadata.modified().ok()))
    }

    /// Says whether what was read is still in front of the place.
    fn is_intact(&self) -> Result<bool, TailError> {
        if self.metadata()?.len() < self.offset {
            return Ok(false);
        }
        Ok(self.window.is_before(self.file.get_ref(), self.offset).map_err(io_error("read", &self.path))?)
    }

    /// Says whether no name leads to the file any more, so that nobody will open it to write.
    pub(super) fn is_deleted(&self) -> Result<bool, TailError> {
        Ok(self.metadata()?.nlink() == 0)
    }

    pub(super) fn place(&self) -> FilePlace {
        let fingerprint = if self.offset == 0 { self.beginning } else { self.window.fingerprint() };
        FilePlace { inode: self.id.inode, offset: self.offset, fingerprint }
    }

    fn metadata(&self) -> Result<Metadata, TailError> {
        Ok(self.file.get_ref().metadata().map_err(io_error("read", &self.path))?)
    }
}

/// Says whether there is nothing under a name: then there may be later.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

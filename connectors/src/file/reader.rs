//! Reads one file line by line.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millstream_runtime::error::BoxError;
use millstream_runtime::record::Record;
use millstream_runtime::source::{Batch, Polled, Position, Reader};

use super::error::{LinesError, io_error};
pub(super) use super::line::Settings;
use crate::pace::Pace;

/// A batch is closed at this many bytes of text, so that long lines do not pile up in memory.
const MOST_BATCH_BYTES: usize = 1 << 20;

/// Most files that the readers of a source keep open between two polls. A directory may have more than a process may open.
pub(super) const MOST_OPEN: usize = 256;

/// How many files the readers of a source have open.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenFiles(Arc<AtomicUsize>);

impl OpenFiles {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// An open file, which counts as one.
#[derive(Debug)]
struct Opened {
    file: BufReader<File>,
    open: OpenFiles,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.open.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads the lines of one file.
#[derive(Debug)]
pub(super) struct LinesReader {
    path: PathBuf,
    offset: u64,
    // Opened by a poll and closed at the end, or at once where too many are open.
    file: Option<Opened>,
    open: OpenFiles,
    settings: Settings,
    pace: Option<Pace>,
}

impl Reader<String> for LinesReader {
    fn poll(&mut self, batch: &mut Batch<String>, limit: usize) -> Result<Polled, BoxError> {
        let limit = self.pace.as_mut().map_or(limit, |pace| pace.wait(limit));
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        let (mut bytes, mut count) = (0, 0);
        let mut polled = if limit == 0 { Polled::Idle } else { Polled::More };
        while count < limit && bytes < MOST_BATCH_BYTES {
            let Some((length, text)) = self.line(&mut file.file)? else {
                polled = Polled::End;
                break;
            };
            self.offset += length;
            bytes += usize::try_from(length).unwrap_or(usize::MAX);
            count += 1;
            batch.records.extend(text.map(Record::new));
        }
        batch.end = Position::from_u64(self.offset);
        batch.bytes += bytes as u64;
        batch.files += u64::from(polled == Polled::End);
        if let Some(pace) = &mut self.pace {
            pace.issued(count);
        }
        if polled != Polled::End && self.open.count() <= MOST_OPEN {
            self.file = Some(file);
        }
        Ok(polled)
    }
}

impl LinesReader {
    /// Makes a reader that begins at `offset`, which must be the file's beginning or end or that of a line.
    pub(super) fn new(path: PathBuf, offset: u64, settings: Settings, pace: Option<Pace>) -> Result<Self, LinesError> {
        check_place(&path, offset)?;
        Ok(Self { path, offset, file: None, open: OpenFiles::default(), settings, pace })
    }

    /// Shares the bound on open files with others.
    pub(super) fn sharing(mut self, open: OpenFiles) -> Self {
        self.open = open;
        self
    }

    fn open(&self) -> Result<Opened, LinesError> {
        let mut file = File::open(&self.path).map_err(io_error("open", &self.path))?;
        file.seek(SeekFrom::Start(self.offset)).map_err(io_error("read", &self.path))?;
        self.open.0.fetch_add(1, Ordering::Relaxed);
        Ok(Opened { file: BufReader::with_capacity(64 << 10, file), open: self.open.clone() })
    }

    /// Reads one line: how many bytes it takes up in the file, and its text unless it is skipped. Nothing at the end.
    fn line(&self, file: &mut BufReader<File>) -> Result<Option<(u64, Option<String>)>, LinesError> {
        let line = self.settings.cut(file, &self.path)?;
        if line.is_empty() {
            return Ok(None);
        }
        let length = line.len() as u64;
        Ok(Some((length, self.settings.text(line, &self.path, self.offset)?)))
    }
}

/// Refuses an offset that is no line's beginning or end: the file is not the one that the position was saved for.
fn check_place(path: &Path, offset: u64) -> Result<(), LinesError> {
    let mut file = File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => LinesError::Gone { path: path.to_owned(), offset },
        _ => io_error("open", path)(source),
    })?;
    let length = file.metadata().map_err(io_error("read", path))?.len();
    if offset > length {
        return Err(LinesError::Shorter { path: path.to_owned(), offset, length });
    }
    if offset == 0 || offset == length {
        return Ok(());
    }
    let mut before = [0];
    file.seek(SeekFrom::Start(offset - 1)).map_err(io_error("read", path))?;
    file.read_exact(&mut before).map_err(io_error("read", path))?;
    if before == *b"\n" { Ok(()) } else { Err(LinesError::Changed { path: path.to_owned(), offset }) }
}

//! Lines of text files, from where the last epoch left off.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream_runtime::error::BoxError;
use millstream_runtime::source::{EpochLimits, Guarantee, Position, Reader, Source, SourceDeclaration, SplitId};
use millstream_runtime::time::{SharedClock, SystemClock};

use super::error::{LinesError, io_error};
use super::reader::{LinesReader, OpenFiles, Settings};
use super::tree;
use crate::pace::{Pace, check_rate};

/// Reads the lines of one file, or of every file below a directory, each line as a `String`.
///
/// A **split** is one file: its name, or its path below the directory with `/` between the parts. Splits are sorted
/// by name; lines come in the order of their file; between files there is no order. Names that begin with `.` or `_`
/// are left out, as Spark does (they are temporary files and logs, our own among them), and directories that are
/// symbolic links are not entered. A file that is named itself is read whatever its name.
///
/// A **line** ends at `\n` or `\r\n`, which are not part of it; the last line needs no end. Everything else stays as
/// it is: a byte-order mark, a lone `\r`, NUL. Files are UTF-8.
///
/// The **position** is the byte offset after the line, so the source is replayable: with a checkpoint each line
/// counts exactly once, also after a restart. Files must not change while a pipeline reads them; what was appended
/// behind a line end is read in the next attempt, other changes are found where they can be (the file is gone, is
/// shorter, or has no line end in front of the saved position) and named. The source ends when all files have been
/// read; it does not wait for more.
#[derive(Clone, Debug)]
#[must_use]
pub struct Lines {
    path: PathBuf,
    suffixes: Option<Vec<String>>,
    settings: Settings,
    per_second: Option<f64>,
    clock: SharedClock,
    open: OpenFiles,
    limits: EpochLimits,
}

/// What to do with a line that is not UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidText {
    /// The attempt fails with an error that names file and offset and shows the first 64 bytes, escaped. The default.
    #[default]
    Fail,
    /// The line is left out and counted: [`Lines::skipped`].
    Skip,
}

/// How many lines were left out, over all readers of one [`Lines`] in this process; a line that was read again after a
/// restart counts again.
#[derive(Clone, Debug, Default)]
pub struct SkippedLines(Arc<AtomicU64>);

impl SkippedLines {
    /// Returns the number now.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Lines {
    /// Reads the file, or every file below the directory, at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            suffixes: None,
            settings: Settings {
                invalid: InvalidText::default(),
                most_bytes: 1 << 20,
                skipped: SkippedLines::default(),
            },
            per_second: None,
            clock: Arc::new(SystemClock::new()),
            open: OpenFiles::default(),
            limits: EpochLimits::default(),
        }
    }

    /// Reads only files below the directory whose names end in a dot and one of these, such as `["rs", "md"]`. A file
    /// that is named itself is read in any case. Default: all files.
    pub fn suffixes(mut self, suffixes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.suffixes = Some(suffixes.into_iter().map(|suffix| format!(".{}", suffix.into())).collect());
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

    /// Lets a micro-batch take at most so many files, at least 1, of each subtask that reads any, and whole ones as long as it does not
    /// have too many records; see [`EpochLimits::files`]. The files of a subtask are read one after the other then. Spark's
    /// `maxFilesPerTrigger`. Default: no limit.
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

    /// Lets each reader hand out at most this many lines per second. For demos and load shaping, not a limit to rely
    /// on: up to a second's worth is made up for at once after back pressure. Default: no limit.
    pub fn pace(mut self, lines_per_second: f64) -> Self {
        self.per_second = Some(lines_per_second);
        self
    }

    /// Takes the time for [`Lines::pace`] from here. Default: [`SystemClock`].
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Returns a handle on the count of lines that [`InvalidText::Skip`] left out.
    pub fn skipped(&self) -> SkippedLines {
        self.settings.skipped.clone()
    }

    fn is_directory(&self) -> Result<bool, LinesError> {
        Ok(std::fs::metadata(&self.path).map_err(io_error("read", &self.path))?.is_dir())
    }

    /// The split of a single file: its own name, so that its directory may be moved.
    fn name(&self) -> Result<String, LinesError> {
        tree::file_name(&self.path)
    }
}

impl Source for Lines {
    type Out = String;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        check_rate(self.per_second)?;
        if self.settings.most_bytes == 0 {
            return Err(Box::new(LinesError::NoLineFits));
        }
        if !self.is_directory()? {
            return Ok(vec![SplitId::new(self.name()?)]);
        }
        Ok(tree::files_below(&self.path, self.suffixes.as_deref())?.into_iter().map(SplitId::new).collect())
    }

    fn concurrent_splits(&self) -> usize {
        if self.limits.files.is_some() { 1 } else { usize::MAX }
    }

    fn epoch_limits(&self) -> EpochLimits {
        self.limits
    }

    fn declaration(&self) -> SourceDeclaration {
        SourceDeclaration::new("Lines")
            .records("lines of a file, or of all files below a directory")
            .position("byte offset after the line, per file")
            .guarantee(Guarantee::ExactlyOnce, "")
            .after_restart("goes on with the first line of the epoch that was open")
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<String>>, BoxError> {
        let path = if self.is_directory()? { self.path.join(split.as_str()) } else { self.path.clone() };
        let from = match from {
            None => 0,
            Some(position) => position
                .as_u64()
                .ok_or_else(|| LinesError::ForeignPosition { path: path.clone(), position: position.to_string() })?,
        };
        let pace = self.per_second.map(|rate| Pace::new(rate, Arc::clone(&self.clock)));
        Ok(Box::new(LinesReader::new(path, from, self.settings.clone(), pace)?.sharing(self.open.clone())))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use millstream_runtime::record::Record;
    use millstream_runtime::source::{Batch, Polled};
    use tempfile::TempDir;

    use super::super::reader::MOST_OPEN;
    use super::*;
    use crate::pace::tests::StillClock;

    fn file(bytes: &[u8]) -> (TempDir, Lines) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.txt");
        std::fs::write(&path, bytes).unwrap();
        (dir, Lines::at(path))
    }

    fn one(source: &Lines, from: Option<u64>) -> Result<Box<dyn Reader<String>>, BoxError> {
        source.reader(&source.splits().unwrap()[0], from.map(Position::from_u64).as_ref())
    }

    /// Reads to the end in batches of `limit`; also returns every batch's end.
    fn read(source: &Lines, from: Option<u64>, limit: usize) -> Result<(Vec<String>, Vec<u64>), BoxError> {
        let mut reader = one(source, from)?;
        let (mut lines, mut ends) = (Vec::new(), Vec::new());
        loop {
            let mut batch = Batch::default();
            let polled = reader.poll(&mut batch, limit)?;
            assert!(batch.records.len() <= limit);
            lines.extend(batch.records.into_iter().map(|record| record.value));
            ends.push(batch.end.as_u64().unwrap());
            if polled == Polled::End {
                return Ok((lines, ends));
            }
        }
    }

    #[test]
    fn reads_lines_with_either_end_and_a_last_one_without() {
        let (_dir, source) = file("a\r\nb\n\nlone\rcr\nü".as_bytes());
        let (lines, ends) = read(&source, None, 2).unwrap();
        assert_eq!(lines, ["a", "b", "", "lone\rcr", "ü"]);
        assert_eq!(ends, [5, 14, 16]);
    }

    #[test]
    fn goes_on_behind_any_line() {
        let text = "one\ntwo\r\n\nthree\nend";
        let (_dir, source) = file(text.as_bytes());
        let (all, ends) = read(&source, None, 1).unwrap();
        assert_eq!(all.len(), 5);
        for (index, end) in ends.iter().enumerate().take(5) {
            assert_eq!(read(&source, Some(*end), 1).unwrap().0, all[index + 1..], "from {end}");
        }
    }

    #[test]
    fn an_empty_file_ends_at_once() {
        let (_dir, source) = file(b"");
        assert_eq!(read(&source, None, 10).unwrap(), (vec![], vec![0]));
    }

    #[test]
    fn reads_everything_below_a_directory_in_splits_sorted_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.md", "a/z.rs", "a/y.txt", "a/deep/x.rs", ".hidden.rs", "_log/0.rs", "a/_tmp.rs"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{name}\n")).unwrap();
        }
        let names = |source: Lines| -> Vec<String> {
            source.splits().unwrap().iter().map(|split| split.as_str().to_owned()).collect()
        };
        assert_eq!(names(Lines::at(dir.path())), ["a/deep/x.rs", "a/y.txt", "a/z.rs", "b.md"]);
        let source = Lines::at(dir.path()).suffixes(["rs", "md"]);
        assert_eq!(names(source.clone()), ["a/deep/x.rs", "a/z.rs", "b.md"]);
        for split in source.splits().unwrap() {
            let mut batch = Batch::default();
            source.reader(&split, None).unwrap().poll(&mut batch, 9).unwrap();
            assert_eq!(batch.records, [Record::new(split.to_string())]);
        }
    }

    #[test]
    fn names_file_offset_and_bytes_of_a_line_that_is_not_utf8() {
        let (_dir, source) = file(b"good\nb\xffd\nlast\n");
        let error = read(&source, None, 9).unwrap_err().to_string();
        assert!(error.contains("in.txt") && error.contains("byte 5") && error.contains("b\\xffd"), "{error}");
    }

    #[test]
    fn skips_and_counts_bad_lines_when_told_to() {
        let (_dir, source) = file(b"good\nb\xffd\nlast\n");
        let source = source.invalid_utf8(InvalidText::Skip);
        let skipped = source.skipped();
        let (lines, ends) = read(&source, None, 1).unwrap();
        assert_eq!((lines, skipped.count()), (vec!["good".to_owned(), "last".to_owned()], 1));
        assert_eq!(ends, [5, 9, 14, 14]);
    }

    #[test]
    fn refuses_a_line_above_the_limit_and_takes_one_at_it() {
        for end in ["", "\n", "\r\n"] {
            let (_dir, source) = file(format!("12345678{end}").as_bytes());
            assert_eq!(read(&source.clone().max_line_bytes(8), None, 9).unwrap().0, ["12345678"]);
            let error = read(&source.max_line_bytes(7), None, 9).unwrap_err().to_string();
            assert!(error.contains("in.txt") && error.contains("7 bytes"), "{error}");
        }
    }

    #[test]
    fn does_not_read_an_endless_line_into_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endless");
        // Sparse: a gibibyte of zeros without a line end.
        File::create(&path).unwrap().set_len(1 << 30).unwrap();
        let error = read(&Lines::at(&path), None, 9).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(LinesError::TooLong { offset: 0, .. })), "{error}");
    }

    #[test]
    fn names_what_is_wrong_with_a_saved_position() {
        let (dir, source) = file(b"one\ntwo\n");
        let error = |from| one(&source, Some(from)).err().unwrap();
        assert!(matches!(error(9).downcast_ref(), Some(LinesError::Shorter { offset: 9, length: 8, .. })));
        assert!(matches!(error(5).downcast_ref(), Some(LinesError::Changed { offset: 5, .. })));
        let split = source.splits().unwrap().remove(0);
        let foreign = Position::from_bytes(vec![1]).unwrap();
        let error = source.reader(&split, Some(&foreign)).err().unwrap();
        assert!(matches!(error.downcast_ref(), Some(LinesError::ForeignPosition { .. })));
        let below = Lines::at(dir.path());
        std::fs::remove_file(dir.path().join("in.txt")).unwrap();
        let error = below.reader(&split, Some(&Position::from_u64(4))).err().unwrap();
        assert!(matches!(error.downcast_ref(), Some(LinesError::Gone { offset: 4, .. })));
        assert!(Lines::at(dir.path().join("none")).splits().is_err());
    }

    #[test]
    fn hands_out_lines_at_the_pace_it_was_given() {
        let (_dir, source) = file(b"1\n2\n3\n4\n5\n");
        let clock = Arc::new(StillClock::default());
        let mut reader = one(&source.pace(100.0).clock(clock.clone()), None).unwrap();
        let mut polled = |count: usize| {
            let mut batch = Batch::default();
            let polled = reader.poll(&mut batch, 9).unwrap();
            assert_eq!(batch.records.len(), count);
            polled
        };
        assert_eq!(polled(1), Polled::More);
        assert_eq!(polled(0), Polled::Idle);
        clock.advance(Duration::from_millis(20));
        assert_eq!(polled(2), Polled::More);
        clock.advance(Duration::from_secs(1));
        assert_eq!(polled(2), Polled::End);
    }

    #[test]
    fn keeps_no_more_files_open_than_a_process_may_have_and_reads_them_all() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..MOST_OPEN + 50 {
            std::fs::write(dir.path().join(number.to_string()), "1\n2\n3\n").unwrap();
        }
        let source = Lines::at(dir.path());
        let splits = source.splits().unwrap();
        let mut readers: Vec<_> = splits.iter().map(|split| source.reader(split, None).unwrap()).collect();
        for line in ["1", "2", "3"] {
            for reader in &mut readers {
                let mut batch = Batch::default();
                assert_eq!(reader.poll(&mut batch, 1).unwrap(), Polled::More);
                assert_eq!(batch.records, [Record::new(line.to_owned())]);
            }
            assert_eq!(source.open.count(), MOST_OPEN);
        }
        for reader in &mut readers {
            assert_eq!(reader.poll(&mut Batch::default(), 1).unwrap(), Polled::End);
        }
        assert_eq!(source.open.count(), 0);
    }

    #[test]
    fn refuses_options_that_make_no_sense() {
        let (_dir, source) = file(b"x");
        assert!(source.clone().pace(0.0).splits().is_err());
        assert!(source.max_line_bytes(0).splits().is_err());
    }
}

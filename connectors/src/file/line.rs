//! Cuts lines out of a file, in bounded memory, and makes text of them.

use std::io::{BufRead, Read};
use std::path::Path;

use super::error::{LinesError, io_error};
use super::source::{InvalidText, SkippedLines};
use crate::codec::escaped;

/// How lines are read.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) invalid: InvalidText,
    pub(super) most_bytes: usize,
    pub(super) skipped: SkippedLines,
}

impl Settings {
    /// Reads up to the next line end, which stays on the line, or to the end of the file; nothing is left there. What is longer
    /// than a line may be is not read to its end: [`Settings::text`] refuses it.
    pub(super) fn cut(&self, file: &mut impl BufRead, path: &Path) -> Result<Vec<u8>, LinesError> {
        let mut line = Vec::new();
        // Two more bytes for the line's end: what is still without one then is too long.
        let most = (self.most_bytes as u64).saturating_add(2);
        file.take(most).read_until(b'\n', &mut line).map_err(io_error("read", path))?;
        Ok(line)
    }

    /// Returns the text of the line that begins at `offset`, without its end; nothing if it is skipped.
    pub(super) fn text(&self, mut line: Vec<u8>, path: &Path, offset: u64) -> Result<Option<String>, LinesError> {
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        let most = self.most_bytes;
        if line.len() > most {
            return Err(LinesError::TooLong { path: path.to_owned(), offset, most, start: escaped(&line) });
        }
        match String::from_utf8(line) {
            Ok(text) => Ok(Some(text)),
            Err(_) if self.invalid == InvalidText::Skip => {
                self.skipped.add_one();
                Ok(None)
            }
            Err(error) => Err(LinesError::NotText {
                path: path.to_owned(),
                offset,
                length: error.as_bytes().len(),
                start: escaped(error.as_bytes()),
            }),
        }
    }
}

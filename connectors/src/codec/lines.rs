//! Text lines: the `Display` form of a record.

use std::fmt::Display;
use std::io::Write as _;

use millstream_runtime::error::BoxError;
use millstream_runtime::sink::Encoder;

/// Writes a record as its `Display` text, one record to a line. The row itself has no line end; the sink adds it.
///
/// A text with a line break in it (`\n` or `\r`) is refused rather than escaped: a reader of the lines could not tell
/// an escape of ours from the user's own backslash, and a row that silently becomes two is a wrong result. Records
/// with free text belong into [`Msgpack`](super::Msgpack), or are escaped by their own `Display`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextLine;

/// A record's text has a line break in it. The record is at fault; the attempt fails, and will again on the same input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot write the record as one line: its text has a line break at byte {at}, near \"{near}\"; escape it in the \
     record's Display, or write msgpack"
)]
#[non_exhaustive]
pub struct LineBreakError {
    /// Where in the text.
    pub at: usize,
    /// The text around it, at most 64 bytes, escaped.
    pub near: String,
}

impl<T: Display> Encoder<T> for TextLine {
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), BoxError> {
        let start = out.len();
        write!(out, "{value}")?;
        let text = out.get(start..).unwrap_or_default();
        let Some(at) = text.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else { return Ok(()) };
        let near = escaped(text.get(at.saturating_sub(32)..).unwrap_or_default());
        out.truncate(start);
        Err(Box::new(LineBreakError { at, near }))
    }
}

/// Returns the first 64 bytes for an error text: printable ASCII as it is, everything else escaped.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    bytes.get(..64).unwrap_or(bytes).escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_display_form_and_appends() {
        let mut out = b"before".to_vec();
        TextLine.encode(&21.5f64, &mut out).unwrap();
        assert_eq!(out, b"before21.5");
    }

    #[test]
    fn refuses_a_line_break_and_leaves_nothing_behind() {
        for text in ["a\nb", "a\r", "\n"] {
            let mut out = b"kept".to_vec();
            let error = TextLine.encode(&text, &mut out).unwrap_err().to_string();
            assert!(error.contains("has a line break at byte") && !error.contains('\n'), "{error}");
            assert_eq!(out, b"kept");
        }
    }

    #[test]
    fn shows_at_most_64_bytes_of_a_bad_text() {
        assert_eq!(escaped(&[0xff; 100]), "\\xff".repeat(64));
        assert_eq!(escaped("a\"é".as_bytes()), "a\\\"\\xc3\\xa9");
    }
}

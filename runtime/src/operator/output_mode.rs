//! What of a pipeline's result is sent on.

use std::fmt;
use std::str::FromStr;

/// What of its result a grouping operator sends on. One for the whole pipeline, as in Spark Structured Streaming (a query's `outputMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputMode {
    /// Rows that are final: a row that was sent never changes.
    #[default]
    Append,
    /// Rows that are new or changed since they were last sent. Without a grouping operator the same as `Append`.
    Update,
    /// The whole result at the end of every epoch that had data; a sink replaces what it has.
    Complete,
}

impl fmt::Display for OutputMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Append => "append",
            Self::Update => "update",
            Self::Complete => "complete",
        })
    }
}

/// A text that names no output mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("E-MODE-04: unknown output mode {0:?}; use append, update or complete")]
pub struct UnknownOutputMode(pub String);

impl FromStr for OutputMode {
    type Err = UnknownOutputMode;

    /// Reads a mode's name, in any case.
    fn from_str(text: &str) -> Result<Self, UnknownOutputMode> {
        let modes = [Self::Append, Self::Update, Self::Complete];
        let found = modes.into_iter().find(|mode| mode.to_string().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownOutputMode(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-MODE-12
    #[test]
    fn a_mode_is_read_from_its_name_and_an_unknown_one_is_refused() {
        let read = |text: &str| text.parse::<OutputMode>();
        assert_eq!(read("append"), Ok(OutputMode::Append));
        assert_eq!(read("Update"), Ok(OutputMode::Update));
        assert_eq!(read("COMPLETE"), Ok(OutputMode::Complete));
        let error = read("foo").unwrap_err().to_string();
        assert_eq!(error, "E-MODE-04: unknown output mode \"foo\"; use append, update or complete");
    }
}

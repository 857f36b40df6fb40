//! Records that user code panics on, how the next attempt knows them again, and where they came from.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::id::Epoch;
use crate::position::{Position, SplitId};
use crate::time::Timestamp;

/// Origins that are written out; the others are counted.
const SHOWN: usize = 3;

/// What a record is known by where its position in the source is not known: the same operator gets the same bytes with the same
/// event time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Poison {
    /// The operator whose code panicked on it.
    pub operator: Arc<str>,
    /// Its event time.
    pub time: Timestamp,
    /// The record, encoded.
    pub bytes: Vec<u8>,
}

impl Poison {
    /// Names a record.
    pub const fn new(operator: Arc<str>, time: Timestamp, bytes: Vec<u8>) -> Self {
        Self { operator, time, bytes }
    }
}

/// A stretch of a split in which a record lies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// The source.
    pub source: Arc<str>,
    /// The split.
    pub split: SplitId,
    /// It lies behind this position; nothing for the beginning of the split.
    pub after: Option<Position>,
    /// It ends at this position or before; nothing where that is not known.
    pub until: Option<Position>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "source {} split {} ", self.source, self.split)?;
        match &self.after {
            Some(after) => write!(f, "behind position {after}")?,
            None => f.write_str("from its beginning")?,
        }
        self.until.as_ref().map_or(Ok(()), |until| write!(f, " up to {until}"))
    }
}

/// Where a record came from, as near as that is known: it lies in one of these stretches.
///
/// In the task of its source that is one: the batch that the source's reader gave, of at most 256 records. Behind an exchange it
/// is one per split that was not read to its end when the attempt began, of all sources that the operator is fed by, each from
/// where the attempt went on in it. What an operator with state in between has emitted may owe its content to
/// earlier records, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Arc<[Origin]>);

impl FromIterator<Origin> for Origins {
    fn from_iter<I: IntoIterator<Item = Origin>>(origins: I) -> Self {
        Self(origins.into_iter().collect())
    }
}

impl Deref for Origins {
    type Target = [Origin];

    fn deref(&self) -> &[Origin] {
        &self.0
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, origin) in self.iter().take(SHOWN).enumerate() {
            write!(f, "{}{origin}", if number > 0 { ", or " } else { "" })?;
        }
        match self.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, ", or one of {more} more splits"),
        }
    }
}

/// The error of an operator whose code panicked on a record that it can name.
#[derive(Debug, thiserror::Error)]
#[error("it panicked: {message}")]
pub struct Poisoned {
    /// The record.
    pub record: Poison,
    /// The panic's message.
    pub message: String,
}

/// A record in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quarantined {
    /// The record.
    pub record: Poison,
    /// Where it came from.
    pub origins: Origins,
    /// The epoch in which it failed for the second time.
    pub epoch: Epoch,
    /// The message of its second panic.
    pub message: String,
}

//! How the values of a state become bytes.
//!
//! ```text
//! value = [MessagePack]                                                        version 1, no write time
//!       | [c1][flags u8][version u32, if flags & 1][written i64, if flags & 2][MessagePack]
//! ```
//! No MessagePack begins with `c1`, so every element says by itself what it is: a state may get a new version or a time to live
//! while its old elements stay as they are until they are written again. Integers are big-endian; `written` is in microseconds.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, CodecError};
use crate::error::BoxError;
use crate::time::Timestamp;

/// What may be a state's value.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept as state",
    note = "state is written to the checkpoint: derive `serde::Serialize` and `serde::Deserialize`, own the data (no borrows)"
)]
pub trait StateValue: Serialize + DeserializeOwned + Send + 'static {}

impl<V: Serialize + DeserializeOwned + Send + 'static> StateValue for V {}

/// Bytes that are no value of a state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormError {
    /// They are not of the state's type.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// They are damaged: their head is of no form.
    #[error("a value's head is damaged")]
    Head,
    /// They are of another version of the type, and the state was not told how to read it.
    #[error("a value is of version {stored}, the state is of version {declared} and does not migrate it")]
    Version {
        /// What wrote the value.
        stored: u32,
        /// What the operator declares.
        declared: u32,
    },
    /// The state's migration failed.
    #[error("a value of version {stored} cannot be migrated to version {declared}")]
    Migration {
        /// What wrote the value.
        stored: u32,
        /// What the operator declares.
        declared: u32,
        /// What the migration returned.
        source: BoxError,
    },
}

/// How the values of a state are written and read. What it writes is on disk.
pub trait Form<V>: 'static {
    /// Appends the bytes of a value to `out`, which is left as it was on an error.
    ///
    /// # Errors
    /// [`CodecError`] when the value's `Serialize` fails.
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Returns the value of these bytes.
    ///
    /// # Errors
    /// [`FormError`] when there is none.
    fn decode(&self, bytes: &[u8]) -> Result<V, FormError>;
}

/// The value in MessagePack, and nothing besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl<V: StateValue> Form<V> for Plain {
    #[inline]
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
        codec::encode_into(value, out)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, FormError> {
        Ok(codec::decode(bytes)?)
    }
}

/// The version of a state's type, and how values that older versions wrote become values of this one.
///
/// Values are migrated as they are read; those that nothing changes stay as they were on disk. What a newer version wrote is
/// refused before a record is read.
#[derive(Clone, Copy, Debug)]
pub struct Versioned<F> {
    /// The version, at least 1. A state without a version is of version 1.
    pub version: u32,
    /// Makes a value of an older one: is given its version and its MessagePack, for [`codec::decode`](crate::codec::decode).
    pub migrate: F,
}

/// A value with what has to be known of its age.
#[derive(Clone, Debug)]
pub(crate) struct Kept<V> {
    pub(crate) value: V,
    /// When it was written last; [`Timestamp::MIN`] where that does not matter.
    pub(crate) written: Timestamp,
    /// When it is looked at to see whether it has expired. Not stored.
    pub(crate) queued: Timestamp,
}

type Migrate<V> = Box<dyn Fn(u32, &[u8]) -> Result<V, BoxError>>;

/// How the states of a user's operator are written: see the module.
pub(crate) struct KeptForm<V> {
    version: u32,
    migrate: Option<Migrate<V>>,
}

impl<V> KeptForm<V> {
    /// Values of version 1.
    pub(crate) fn first() -> Self {
        Self { version: 1, migrate: None }
    }

    pub(crate) fn versioned(version: u32, migrate: impl Fn(u32, &[u8]) -> Result<V, BoxError> + 'static) -> Self {
        Self { version, migrate: Some(Box::new(migrate)) }
    }

    pub(crate) const fn version(&self) -> u32 {
        self.version
    }

    pub(crate) const fn migrates(&self) -> bool {
        self.migrate.is_some()
    }
}

impl<V> fmt::Debug for KeptForm<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptForm").field("version", &self.version).finish_non_exhaustive()
    }
}

const HEAD: u8 = 0xc1;
const HAS_VERSION: u8 = 1;
const HAS_WRITTEN: u8 = 2;

/// Takes the head apart: version, write time, MessagePack.
fn split_head(bytes: &[u8]) -> Option<(u32, Timestamp, &[u8])> {
    let Some((&HEAD, rest)) = bytes.split_first() else { return Some((1, Timestamp::MIN, bytes)) };
    let (flags, mut rest) = rest.split_first()?;
    let (mut version, mut written) = (1, Timestamp::MIN);
    if flags & !(HAS_VERSION | HAS_WRITTEN) != 0 {
        return None;
    }
    if flags & HAS_VERSION != 0 {
        let (number, after) = rest.split_first_chunk()?;
        (version, rest) = (u32::from_be_bytes(*number), after);
    }
    if flags & HAS_WRITTEN != 0 {
        let (micros, after) = rest.split_first_chunk()?;
        (written, rest) = (Timestamp::from_micros(i64::from_be_bytes(*micros)), after);
    }
    Some((version, written, rest))
}

impl<V: StateValue> Form<Kept<V>> for KeptForm<V> {
    fn encode(&self, kept: &Kept<V>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = out.len();
        let has_version = if self.version > 1 { HAS_VERSION } else { 0 };
        let has_written = if kept.written > Timestamp::MIN { HAS_WRITTEN } else { 0 };
        if has_version | has_written != 0 {
            out.extend_from_slice(&[HEAD, has_version | has_written]);
        }
        if has_version != 0 {
            out.extend_from_slice(&self.version.to_be_bytes());
        }
        if has_written != 0 {
            out.extend_from_slice(&kept.written.as_micros().to_be_bytes());
        }
        codec::encode_into(&kept.value, out).inspect_err(|_| out.truncate(start))
    }

    fn decode(&self, bytes: &[u8]) -> Result<Kept<V>, FormError> {
        let (stored, written, bytes) = split_head(bytes).ok_or(FormError::Head)?;
        let declared = self.version;
        let value = match &self.migrate {
            _ if stored == declared => codec::decode(bytes)?,
            Some(migrate) if stored < declared => {
                migrate(stored, bytes).map_err(|source| FormError::Migration { stored, declared, source })?
            }
            _ => return Err(FormError::Version { stored, declared }),
        };
        Ok(Kept { value, written, queued: Timestamp::MIN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(value: u64, written: Timestamp) -> Kept<u64> {
        Kept { value, written, queued: Timestamp::MIN }
    }

    fn written<V: StateValue>(form: &KeptForm<V>, kept: &Kept<V>) -> Vec<u8> {
        let mut bytes = Vec::new();
        form.encode(kept, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_first_version_without_a_time_to_live_is_plain_messagepack() {
        let first = KeptForm::first();
        assert_eq!(written(&first, &kept(7, Timestamp::MIN)), codec::encode(&7u64).unwrap());
        let timed = written(&first, &kept(7, Timestamp::from_micros(5)));
        assert_eq!(timed, [0xc1, 2, 0, 0, 0, 0, 0, 0, 0, 5, 7]);
        let read = first.decode(&timed).unwrap();
        assert_eq!((read.value, read.written), (7, Timestamp::from_micros(5)));
    }

    #[test]
    fn an_older_version_is_migrated_and_anything_else_refused_by_name() {
        let second = KeptForm::<u64>::versioned(2, |version, bytes| {
            assert_eq!(version, 1);
            Ok(codec::decode::<String>(bytes)?.parse()?)
        });
        let old = KeptForm::<String>::first();
        let timed = Timestamp::from_micros(9);
        let bytes = written(&old, &Kept { value: "42".to_owned(), written: timed, queued: timed });
        let read = second.decode(&bytes).unwrap();
        assert_eq!((read.value, read.written), (42, timed));
        let new = written(&second, &read);
        assert_eq!(&new[..6], [0xc1, 3, 0, 0, 0, 2]);
        assert_eq!(second.decode(&new).unwrap().value, 42);

        let words = written(&old, &Kept { value: "x".to_owned(), written: timed, queued: timed });
        assert!(matches!(second.decode(&words), Err(FormError::Migration { stored: 1, declared: 2, .. })));
        assert!(matches!(KeptForm::<u64>::first().decode(&new), Err(FormError::Version { stored: 2, declared: 1 })));
        for cut in 1..6 {
            assert!(matches!(second.decode(&new[..cut]), Err(FormError::Head)), "cut at {cut}");
        }
    }
}

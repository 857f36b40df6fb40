//! How small durable records stand on disk: magic, format, checksum, body.
//!
//! ```text
//! [magic 4 bytes][format u16][crc32 of magic, format and body u32][body: rmp-serde, named fields]
//! ```
//! Integers are big-endian.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, CodecError};

/// The format that this build writes; it reads this one and all before it.
pub const FORMAT: u16 = 1;

const HEADER: usize = 10;

/// A durable record could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The bytes end inside the header: damage.
    #[error("it is cut off after {length} bytes")]
    Short {
        /// How many bytes there were.
        length: usize,
    },
    /// The bytes are something else: damage, or they were not written by this library.
    #[error("it does not begin with `{}`", String::from_utf8_lossy(expected))]
    Magic {
        /// What it should begin with.
        expected: [u8; 4],
    },
    /// The bytes changed since they were written: damage.
    #[error("its checksum is {stored:08x} where its bytes give {computed:08x}")]
    Checksum {
        /// What stands in the record.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A newer build wrote it.
    #[error(
        "it was written by format {found}, this build reads up to {FORMAT}; use the build that wrote it or a newer one"
    )]
    TooNew {
        /// The record's format.
        found: u16,
    },
    /// The checksum holds and the body is not what it should be: a bug in the build that wrote it or in this one.
    #[error("its body cannot be read")]
    Body(#[source] CodecError),
}

impl FrameError {
    /// Says whether the bytes are damaged, rather than written by another build.
    pub const fn is_corruption(&self) -> bool {
        matches!(self, Self::Short { .. } | Self::Magic { .. } | Self::Checksum { .. })
    }
}

/// Returns the framed record and its checksum.
///
/// # Errors
/// [`CodecError::Encode`] when the body's `Serialize` fails.
pub(crate) fn write<T: Serialize>(magic: [u8; 4], body: &T) -> Result<(Vec<u8>, u32), CodecError> {
    let body = codec::encode(body)?;
    let crc = checksum(magic, FORMAT.to_be_bytes(), &body);
    let mut framed = Vec::with_capacity(HEADER + body.len());
    framed.extend_from_slice(&magic);
    framed.extend_from_slice(&FORMAT.to_be_bytes());
    framed.extend_from_slice(&crc.to_be_bytes());
    framed.extend_from_slice(&body);
    Ok((framed, crc))
}

/// Reads a framed record that fills `bytes`, and its checksum.
///
/// # Errors
/// See [`FrameError`].
pub(crate) fn read<T: DeserializeOwned>(magic: [u8; 4], bytes: &[u8]) -> Result<(T, u32), FrameError> {
    let header = || {
        let (found, rest) = bytes.split_first_chunk::<4>()?;
        let (format, rest) = rest.split_first_chunk::<2>()?;
        let (crc, body) = rest.split_first_chunk::<4>()?;
        Some((*found, *format, u32::from_be_bytes(*crc), body))
    };
    let (found, format, stored, body) = header().ok_or(FrameError::Short { length: bytes.len() })?;
    if found != magic {
        return Err(FrameError::Magic { expected: magic });
    }
    // The checksum comes first: a flipped bit in the format is damage, not a newer build.
    let computed = checksum(found, format, body);
    if stored != computed {
        return Err(FrameError::Checksum { stored, computed });
    }
    let format = u16::from_be_bytes(format);
    if format > FORMAT {
        return Err(FrameError::TooNew { found: format });
    }
    Ok((codec::decode(body).map_err(FrameError::Body)?, stored))
}

fn checksum(magic: [u8; 4], format: [u8; 2], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&magic);
    hasher.update(&format);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 4] = *b"test";

    #[test]
    fn every_flipped_byte_and_every_cut_is_damage() {
        let (framed, crc) = write(MAGIC, &("some body", 7u32)).unwrap();
        assert_eq!(read::<(String, u32)>(MAGIC, &framed).unwrap(), (("some body".to_owned(), 7), crc));
        for at in 0..framed.len() {
            for bit in 0..8 {
                let mut flipped = framed.clone();
                flipped[at] ^= 1 << bit;
                assert!(read::<(String, u32)>(MAGIC, &flipped).unwrap_err().is_corruption(), "bit {bit} of byte {at}");
            }
            assert!(read::<(String, u32)>(MAGIC, &framed[..at]).unwrap_err().is_corruption(), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_its_number() {
        let body = codec::encode(&7u32).unwrap();
        let mut framed = MAGIC.to_vec();
        framed.extend_from_slice(&7u16.to_be_bytes());
        framed.extend_from_slice(&checksum(MAGIC, 7u16.to_be_bytes(), &body).to_be_bytes());
        framed.extend_from_slice(&body);
        let error = read::<u32>(MAGIC, &framed).unwrap_err();
        assert!(error.to_string().contains("written by format 7, this build reads up to 1"), "{error}");
        assert!(!error.is_corruption());
    }
}

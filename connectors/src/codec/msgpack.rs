//! MessagePack: the `Serialize` form of a record.

use millstream_runtime::codec;
use millstream_runtime::error::BoxError;
use millstream_runtime::sink::Encoder;
use serde::Serialize;

/// Writes a record as one MessagePack value; structs are maps with named fields.
///
/// Rows written one after the other are a plain MessagePack stream, which every MessagePack library reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Msgpack;

impl<T: Serialize> Encoder<T> for Msgpack {
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(codec::encode_into(value, out)?)
    }
}

/// Bytes are not a stream of whole MessagePack values: they are damaged, cut off, or something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read MessagePack at byte {at}: {what}")]
#[non_exhaustive]
pub struct MsgpackError {
    /// Where the value begins that is at fault.
    pub at: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Splits a stream into its values, each as its own bytes. Allocates only the list.
///
/// # Errors
/// [`MsgpackError`] when the last value is cut off or a reserved byte stands in place of one.
pub fn split_values(bytes: &[u8]) -> Result<Vec<&[u8]>, MsgpackError> {
    let mut values = Vec::new();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let length = value_length(rest).map_err(|what| MsgpackError { at, what })?;
        values.extend(rest.get(..length));
        at += length;
    }
    Ok(values)
}

/// Returns the length of the first value. Iterative: how deep a value nests cannot overflow the stack.
fn value_length(bytes: &[u8]) -> Result<usize, &'static str> {
    const CUT: &str = "the value is cut off";
    let number = |at: usize, width: usize| -> Result<usize, &'static str> {
        let digits = at.checked_add(width).and_then(|end| bytes.get(at..end)).ok_or(CUT)?;
        Ok(digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit)))
    };
    let (mut at, mut open) = (0usize, 1u64);
    while open > 0 {
        let mark = *bytes.get(at).ok_or(CUT)?;
        let low = |mask: u8| usize::from(mark & mask);
        // How many bytes follow the mark, and how many values follow those.
        let (skip, values) = match mark {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0),
            0x80..=0x8f => (0, 2 * low(0x0f)),
            0x90..=0x9f => (0, low(0x0f)),
            0xa0..=0xbf => (low(0x1f), 0),
            0xc1 => return Err("byte 0xc1 begins no value"),
            0xc4 | 0xd9 => (1 + number(at + 1, 1)?, 0),
            0xc5 | 0xda => (2 + number(at + 1, 2)?, 0),
            0xc6 | 0xdb => (4 + number(at + 1, 4)?, 0),
            0xc7 => (2 + number(at + 1, 1)?, 0),
            0xc8 => (3 + number(at + 1, 2)?, 0),
            0xc9 => (5 + number(at + 1, 4)?, 0),
            0xcc | 0xd0 => (1, 0),
            0xcd | 0xd1 | 0xd4 => (2, 0),
            0xd5 => (3, 0),
            0xca | 0xce | 0xd2 => (4, 0),
            0xd6 => (5, 0),
            0xcb | 0xcf | 0xd3 => (8, 0),
            0xd7 => (9, 0),
            0xd8 => (17, 0),
            0xdc => (2, number(at + 1, 2)?),
            0xdd => (4, number(at + 1, 4)?),
            0xde => (2, 2 * number(at + 1, 2)?),
            0xdf => (4, 2 * number(at + 1, 4)?),
        };
        at = at.saturating_add(1).saturating_add(skip);
        open = (open - 1).saturating_add(values as u64);
    }
    if at > bytes.len() { Err(CUT) } else { Ok(at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Row {
        name: String,
        list: Vec<f64>,
        none: Option<i64>,
        blob: (u8, i16, i64, char),
    }

    #[test]
    fn finds_every_value_of_a_stream() {
        let mut stream = Vec::new();
        let mut ends = vec![0];
        for n in [0usize, 1, 15, 16, 40, 300, 70_000] {
            let row =
                Row { name: "x".repeat(n), list: vec![0.5; n], none: None, blob: (n as u8, -300, i64::MIN, 'é') };
            Msgpack.encode(&row, &mut stream).unwrap();
            ends.push(stream.len());
            Encoder::<Vec<(u32, bool)>>::encode(&Msgpack, &vec![(n as u32, true); n], &mut stream).unwrap();
            ends.push(stream.len());
        }
        let values = split_values(&stream).unwrap();
        let expected: Vec<&[u8]> = ends.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        assert_eq!(values, expected);
        assert_eq!(split_values(b"").unwrap().len(), 0);
    }

    #[test]
    fn refuses_a_value_that_is_cut_off_wherever_it_is_cut() {
        let mut bytes = vec![7];
        let row = Row { name: "abc".repeat(20), list: vec![1.0; 20], none: Some(9), blob: (1, 2, 3, 'x') };
        Msgpack.encode(&row, &mut bytes).unwrap();
        for end in 2..bytes.len() {
            assert_eq!(split_values(&bytes[..end]), Err(MsgpackError { at: 1, what: "the value is cut off" }), "{end}");
        }
    }

    #[test]
    fn refuses_hostile_lengths_and_reserved_bytes_without_allocating_for_them() {
        for hostile in [&[0xdb, 0xff, 0xff, 0xff, 0xff][..], &[0xdf, 0xff, 0xff, 0xff, 0xff], &[0xc1], &[0x91; 9999]] {
            assert!(split_values(hostile).is_err());
        }
    }
}

//! The one door to rmp-serde: how state, output and manifests become bytes.
//!
//! Structs are written as maps with named fields, so that fields may be added and reordered. Decoding is strict: bounded
//! nesting, and every byte must be used (rmp-serde by itself ignores what follows a value, and its own depth limit can
//! overflow a thread's stack: `docs/reliability.md`).

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Deepest nesting that is decoded.
const MAX_DEPTH: usize = 64;
/// Longest value that is written or read, in bytes: far below what the length fields of entries and rows can tell.
const MAX_BYTES: usize = 256 << 20;

/// A value could not be turned into bytes, or bytes into a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The value's `Serialize` failed. The type is at fault; nothing was written.
    #[error("cannot encode a {type_name}")]
    Encode {
        /// The Rust type.
        type_name: &'static str,
        /// What serde said.
        source: rmp_serde::encode::Error,
    },
    /// The bytes are not a value of the type: it changed since they were written, or they are damaged.
    #[error(
        "cannot decode a {type_name} from {length} bytes; if the type changed, give the state a new name or migrate it"
    )]
    Decode {
        /// The Rust type.
        type_name: &'static str,
        /// How many bytes there were.
        length: usize,
        /// What serde said.
        source: rmp_serde::decode::Error,
    },
    /// The value has more bytes than any may have. Keep it in parts: in a map or a list, every element is a value of its own.
    #[error("a {type_name} of {length} bytes is too large, a value has at most {MAX_BYTES}")]
    TooLarge {
        /// The Rust type.
        type_name: &'static str,
        /// How many bytes it has.
        length: usize,
    },
    /// The value ended before the bytes did.
    #[error("cannot decode a {type_name}: {left} of {length} bytes are left over")]
    Trailing {
        /// The Rust type.
        type_name: &'static str,
        /// Bytes that no value claimed.
        left: usize,
        /// How many bytes there were.
        length: usize,
    },
}

/// Appends the bytes of `value` to `out`, which is left as it was on an error.
///
/// # Errors
/// [`CodecError::Encode`] when the value's `Serialize` fails, [`CodecError::TooLarge`] when it has more than 256 MiB.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    let mut serializer = rmp_serde::Serializer::new(&mut *out).with_struct_map();
    value.serialize(&mut serializer).map_err(|source| {
        out.truncate(start);
        CodecError::Encode { type_name: std::any::type_name::<T>(), source }
    })?;
    check_size::<T>(out.len() - start).inspect_err(|_| out.truncate(start))
}

fn check_size<T: ?Sized>(length: usize) -> Result<(), CodecError> {
    if length > MAX_BYTES {
        return Err(CodecError::TooLarge { type_name: std::any::type_name::<T>(), length });
    }
    Ok(())
}

/// Returns the bytes of `value`.
///
/// # Errors
/// As [`encode_into`].
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    encode_into(value, &mut out)?;
    Ok(out)
}

/// Reads one value that fills `bytes` exactly.
///
/// # Errors
/// [`CodecError::Decode`] for bytes that are no `T`, [`CodecError::Trailing`] where bytes are left over,
/// [`CodecError::TooLarge`] where there are more than 256 MiB.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    check_size::<T>(bytes.len())?;
    let mut deserializer = rmp_serde::Deserializer::new(bytes);
    deserializer.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut deserializer).map_err(|source| CodecError::Decode {
        type_name: std::any::type_name::<T>(),
        length: bytes.len(),
        source,
    })?;
    let left = deserializer.get_ref().len();
    if left > 0 {
        return Err(CodecError::Trailing { type_name: std::any::type_name::<T>(), left, length: bytes.len() });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Reading {
        sensor: u32,
        celsius: f64,
    }

    #[test]
    fn reads_what_it_wrote_and_nothing_else() {
        let reading = Reading { sensor: 7, celsius: 21.5 };
        let mut bytes = encode(&reading).unwrap();
        assert_eq!(decode::<Reading>(&bytes).unwrap(), reading);
        bytes.push(0);
        assert!(matches!(decode::<Reading>(&bytes), Err(CodecError::Trailing { left: 1, .. })));
        assert!(matches!(decode::<Reading>(&bytes[..3]), Err(CodecError::Decode { .. })));
    }

    #[test]
    fn refuses_a_value_that_is_too_large() {
        struct Large;
        impl serde::Serialize for Large {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&vec![0; MAX_BYTES])
            }
        }
        let mut out = vec![1];
        assert!(matches!(encode_into(&Large, &mut out), Err(CodecError::TooLarge { .. })));
        assert_eq!(out, [1]);
    }

    #[test]
    fn refuses_deep_nesting_instead_of_overflowing_the_stack() {
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        struct Nested(Vec<Nested>);
        let bytes = vec![0x91; 10_000];
        assert!(matches!(decode::<Nested>(&bytes), Err(CodecError::Decode { .. })));
    }
}

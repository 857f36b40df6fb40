//! A key as its canonical bytes, small ones in place.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use crate::state::cell::Element;
use crate::state::key_group::{StreamKey, StreamKeyRef, hash_bytes};

/// Longest key that needs no memory of its own.
const SHORT: usize = 22;

/// The canonical bytes of some [`StreamKey`], without its type: where it lies and what is stored is the same.
///
/// Up to 22 bytes lie in place, so that integers, short strings and pairs of them are copied without allocating.
#[derive(Clone)]
pub struct PackedKey(Form);

#[derive(Clone)]
enum Form {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

impl PackedKey {
    /// Packs a key. `scratch` is overwritten.
    pub fn of<K: StreamKeyRef + ?Sized>(key: &K, scratch: &mut Vec<u8>) -> Self {
        scratch.clear();
        key.write_key(scratch);
        Self::from_bytes(scratch)
    }

    /// Packs canonical bytes.
    pub fn from_bytes(key: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(key);
                Self(Form::Short { length, bytes })
            }
            _ => Self(Form::Long(key.into())),
        }
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or(bytes),
            Form::Long(bytes) => bytes,
        }
    }

    /// Returns the key; nothing if these are not the bytes of a `K`.
    pub fn unpack<K: StreamKey>(&self) -> Option<K> {
        K::read_key(self.as_bytes())
    }
}

impl fmt::Debug for PackedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PackedKey").field(&self.as_bytes()).finish()
    }
}

impl PartialEq for PackedKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for PackedKey {}

impl PartialOrd for PackedKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PackedKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for PackedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl StreamKey for PackedKey {
    type Borrowed = Self;

    fn read_key(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_bytes(bytes))
    }
}

impl StreamKeyRef for PackedKey {
    type Owned = Self;

    fn write_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn to_key(&self) -> Self {
        self.clone()
    }

    fn key_hash(&self, _scratch: &mut Vec<u8>) -> u32 {
        hash_bytes(self.as_bytes())
    }
}

/// The key of a map's entry.
impl Element for PackedKey {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lies_where_the_key_lies_and_sorts_as_its_bytes_do() {
        let mut scratch = Vec::new();
        let mut last: Option<PackedKey> = None;
        for length in [0, 1, 21, 22, 23, 255, 256, 300] {
            let key = "k".repeat(length);
            let packed = PackedKey::of(key.as_str(), &mut scratch);
            assert_eq!(packed.key_hash(&mut Vec::new()), key.as_str().key_hash(&mut Vec::new()));
            assert_eq!((packed.unpack::<String>(), packed.as_bytes()), (Some(key.clone()), key.as_bytes()));
            assert!(last.as_ref().is_none_or(|last| *last < packed), "length {length}");
            last = Some(packed);
        }
        assert_eq!(PackedKey::of(&7u32, &mut scratch).unpack::<u64>(), None);
        assert_eq!(size_of::<PackedKey>(), 24);
    }
}

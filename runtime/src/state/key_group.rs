//! Where a key lives: its canonical bytes, their hash, its key group, and the subtask that owns the group.
//!
//! ```text
//! key --write_key--> bytes --murmur2, top bit off--> hash --% count--> key group --* parallelism / count--> subtask
//! ```
//! All of it but the last step is an on-disk format: rows carry the key group and the canonical bytes. The hash is the one of
//! Kafka's Java client, so that a key group lies wholly in one Kafka partition wherever the partition count divides
//! [`KeyGroups::DEFAULT_COUNT`]; `fixtures/murmur2.csv` holds vectors made by that client.

use std::borrow::Borrow;
use std::num::NonZeroU16;
use std::ops::Range;

mod optional;

/// Something that records are keyed by.
///
/// A key has canonical bytes, by which it is placed and stored: strings and byte vectors are their own raw bytes, integers
/// are big-endian in their own width, `bool` is one byte, `char` is its code point in four, tuples are their fields, each
/// behind its length, `None` is nothing and `Some` a 1 and the key. Two keys are equal exactly when their bytes are. `usize` and `isize` are no keys since their width
/// depends on the machine, nor are floats, since `-0.0 == 0.0` and NaN differs from itself while their bytes say otherwise.
///
/// # Examples
/// ```
/// use millstream_runtime::state::key_group::{StreamKey, StreamKeyRef};
///
/// let mut bytes = Vec::new();
/// "sensor".write_key(&mut bytes);
/// assert_eq!(bytes, b"sensor");
/// assert_eq!(String::read_key(&bytes).as_deref(), Some("sensor"));
/// // A tuple's fields are length-prefixed, so ("a", "bc") and ("ab", "c") differ.
/// bytes.clear();
/// ("ab".to_string(), 7_u16).write_key(&mut bytes);
/// assert_eq!(bytes, [0, 0, 0, 2, b'a', b'b', 0, 0, 0, 2, 0, 7]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of a stream",
    label = "not a stream key",
    note = "keys are integers of a fixed width (u8 to u128, i8 to i128), `bool`, `char`, `String`, `Vec<u8>`, `Option` \
            and tuples of two to four of these",
    note = "floats are not keys: NaN is not equal to itself and -0.0 equals 0.0; key by an integer, for example by thousandths",
    note = "`usize` is not a key: its width depends on the machine; use `u64`. For a `&str` use `key_by_ref`, or `String`",
    note = "implement `StreamKey` and `StreamKeyRef` for a type of your own; its bytes are an on-disk format"
)]
pub trait StreamKey: Clone + Eq + Send + 'static + Borrow<Self::Borrowed> {
    /// What a look-up needs: `str` for `String`, `[u8]` for `Vec<u8>`, else the key itself. So a look-up allocates nothing.
    type Borrowed: StreamKeyRef<Owned = Self> + ?Sized;

    /// Returns the key whose canonical bytes these are, or nothing where no key has them: the exact inverse of
    /// [`StreamKeyRef::write_key`].
    fn read_key(bytes: &[u8]) -> Option<Self>;
}

/// The borrowed form of a [`StreamKey`].
pub trait StreamKeyRef: Eq {
    /// The key that owns its bytes.
    type Owned: StreamKey<Borrowed = Self>;

    /// Appends the key's canonical bytes to `out`.
    fn write_key(&self, out: &mut Vec<u8>);

    /// Returns the key as a value of its own.
    fn to_key(&self) -> Self::Owned;

    /// Returns the hash that places the key, below 2³¹. `scratch` is overwritten by keys whose bytes are not at hand, such as
    /// tuples; strings, byte strings and integers do not touch it.
    fn key_hash(&self, scratch: &mut Vec<u8>) -> u32 {
        scratch.clear();
        self.write_key(scratch);
        hash_bytes(scratch)
    }
}

/// How many key groups a pipeline has, and who owns which.
///
/// The count is fixed when a store is created and stands in its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyGroups {
    count: NonZeroU16,
}

impl KeyGroups {
    /// 960, which all of 1–6, 8, 10, 12, 15, 16, 20, 24, 30, 32, 40, 48, 60, 64, 80 and 96 divide.
    pub const DEFAULT_COUNT: NonZeroU16 = NonZeroU16::MIN.saturating_add(959);

    /// Makes `count` key groups, numbered from 0. Group `0xffff` never occurs: its rows are those of state without a key.
    pub const fn new(count: NonZeroU16) -> Self {
        Self { count }
    }

    /// How many there are.
    pub const fn count(self) -> u16 {
        self.count.get()
    }

    /// The key group of a key with this hash, made by [`StreamKeyRef::key_hash`].
    pub const fn group(self, hash: u32) -> u16 {
        // The remainder of a division by a u16 is one.
        (hash % self.count.get() as u32) as u16
    }

    /// The key groups of subtask `index` of `parallelism`: contiguous, in the order of the subtasks, sizes differ by at most
    /// one, empty for some where there are more subtasks than groups. An index of `parallelism` or above has none; a
    /// parallelism of 0 counts as 1.
    pub fn range(self, index: u16, parallelism: u16) -> Range<u16> {
        self.first_of(index, parallelism)..self.first_of(index.saturating_add(1), parallelism)
    }

    /// The subtask that owns `group`: the one whose [`Self::range`] contains it.
    ///
    /// # Panics
    /// In debug builds, for a group that there is not.
    pub fn owner(self, group: u16, parallelism: u16) -> u16 {
        debug_assert!(group < self.count(), "key group {group} of {}", self.count());
        // Flink's KeyGroupRangeAssignment. Below parallelism, so it fits.
        (u32::from(group) * u32::from(parallelism.max(1)) / u32::from(self.count())) as u16
    }

    /// The first group of subtask `index`: the least g with g * parallelism / count >= index.
    fn first_of(self, index: u16, parallelism: u16) -> u16 {
        let parallelism = u32::from(parallelism.max(1));
        let index = u32::from(index).min(parallelism);
        // At most count, since index is at most parallelism.
        (index * u32::from(self.count())).div_ceil(parallelism) as u16
    }
}

impl Default for KeyGroups {
    /// 960 key groups.
    fn default() -> Self {
        Self::new(Self::DEFAULT_COUNT)
    }
}

/// Returns the hash that places a key with these canonical bytes: murmur2 without its top bit, as Kafka's partitioner.
pub fn hash_bytes(bytes: &[u8]) -> u32 {
    murmur2(bytes) & 0x7fff_ffff
}

/// Returns the 32-bit MurmurHash2 (Austin Appleby) of `bytes` with the seed of Kafka's Java client.
pub fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let (words, tail) = bytes.as_chunks::<4>();
    // The length wraps at 2³² as Java's would at 2³¹; no key is that long.
    let mut hash = SEED ^ bytes.len() as u32;
    for word in words {
        let mixed = u32::from_le_bytes(*word).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (mixed ^ (mixed >> 24)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0, |last, byte| (last << 8) | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

macro_rules! integer_keys {
    ($($int:ty),+) => {$(
        impl StreamKey for $int {
            type Borrowed = Self;

            fn read_key(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_be_bytes)
            }
        }

        impl StreamKeyRef for $int {
            type Owned = Self;

            fn write_key(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }

            fn to_key(&self) -> Self {
                *self
            }

            fn key_hash(&self, _scratch: &mut Vec<u8>) -> u32 {
                hash_bytes(&self.to_be_bytes())
            }
        }
    )+};
}

integer_keys!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128);

/// `bool` and `char` are written as the integer that they are.
macro_rules! keys_as_integers {
    ($($key:ty as $int:ty, $read:expr;)+) => {$(
        impl StreamKey for $key {
            type Borrowed = Self;

            fn read_key(bytes: &[u8]) -> Option<Self> {
                <$int>::read_key(bytes).and_then($read)
            }
        }

        impl StreamKeyRef for $key {
            type Owned = Self;

            fn write_key(&self, out: &mut Vec<u8>) {
                <$int>::from(*self).write_key(out);
            }

            fn to_key(&self) -> Self {
                *self
            }

            fn key_hash(&self, scratch: &mut Vec<u8>) -> u32 {
                <$int>::from(*self).key_hash(scratch)
            }
        }
    )+};
}

keys_as_integers! {
    bool as u8, |byte| match byte { 0 => Some(false), 1 => Some(true), _ => None };
    char as u32, char::from_u32;
}

impl StreamKey for String {
    type Borrowed = str;

    fn read_key(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(Self::from)
    }
}

impl StreamKeyRef for str {
    type Owned = String;

    fn write_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn to_key(&self) -> String {
        self.to_owned()
    }

    fn key_hash(&self, _scratch: &mut Vec<u8>) -> u32 {
        hash_bytes(self.as_bytes())
    }
}

impl StreamKey for Vec<u8> {
    type Borrowed = [u8];

    fn read_key(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

impl StreamKeyRef for [u8] {
    type Owned = Vec<u8>;

    fn write_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn to_key(&self) -> Vec<u8> {
        self.to_owned()
    }

    fn key_hash(&self, _scratch: &mut Vec<u8>) -> u32 {
        hash_bytes(self)
    }
}

macro_rules! tuple_keys {
    ($(($($field:ident $name:ident),+))+) => {$(
        impl<$($field: StreamKey),+> StreamKey for ($($field,)+) {
            type Borrowed = Self;

            fn read_key(bytes: &[u8]) -> Option<Self> {
                let mut rest = bytes;
                let key = ($(read_field::<$field>(&mut rest)?,)+);
                rest.is_empty().then_some(key)
            }
        }

        impl<$($field: StreamKey),+> StreamKeyRef for ($($field,)+) {
            type Owned = Self;

            fn write_key(&self, out: &mut Vec<u8>) {
                let ($($name,)+) = self;
                $(write_field($name, out);)+
            }

            fn to_key(&self) -> Self {
                self.clone()
            }
        }
    )+};
}

tuple_keys! {
    (A a, B b)
    (A a, B b, C c)
    (A a, B b, C c, D d)
}

fn write_field<K: StreamKey>(field: &K, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    // Named, since a tuple is its own borrowed form and `field.borrow()` alone leaves the type open.
    <K as Borrow<K::Borrowed>>::borrow(field).write_key(out);
    let written = out.len() - at - 4;
    debug_assert!(u32::try_from(written).is_ok(), "a key of {written} bytes");
    if let Some(length) = out.get_mut(at..at + 4) {
        length.copy_from_slice(&(written as u32).to_be_bytes());
    }
}

fn read_field<K: StreamKey>(rest: &mut &[u8]) -> Option<K> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (field, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *rest = after;
    K::read_key(field)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written<K: StreamKeyRef + ?Sized>(key: &K) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.write_key(&mut bytes);
        bytes
    }

    #[test]
    fn hashes_as_the_java_client_does() {
        let fixture = include_str!("../../fixtures/murmur2.csv");
        let mut vectors = 0;
        for line in fixture.lines().filter(|line| !line.starts_with('#')) {
            let (hex, hash) = line.split_once(',').unwrap();
            let bytes: Vec<u8> =
                (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
            assert_eq!(murmur2(&bytes), hash.parse::<u32>().unwrap(), "of {hex}");
            vectors += 1;
        }
        assert_eq!(vectors, 256);
    }

    #[test]
    fn writes_the_bytes_that_are_on_disk() {
        let table: [(Vec<u8>, &[u8]); 12] = [
            (written("é"), &[0xc3, 0xa9]),
            (written(""), &[]),
            (written(&[1_u8, 2][..]), &[1, 2]),
            (written(&1_u8), &[1]),
            (written(&-2_i16), &[0xff, 0xfe]),
            (written(&1_u32), &[0, 0, 0, 1]),
            (written(&i64::MIN), &[0x80, 0, 0, 0, 0, 0, 0, 0]),
            (written(&1_u128), &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            (written(&true), &[1]),
            (written(&'A'), &[0, 0, 0, 0x41]),
            (written(&("a".to_owned(), 1_u16)), &[0, 0, 0, 1, b'a', 0, 0, 0, 2, 0, 1]),
            (written(&((true, false), 'A')), &[0, 0, 0, 10, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 4, 0, 0, 0, 0x41]),
        ];
        for (bytes, expected) in table {
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn refuses_bytes_of_no_key() {
        assert_eq!(u64::read_key(&[0; 7]), None);
        assert_eq!(bool::read_key(&[2]), None);
        assert_eq!(char::read_key(&[0, 0, 0xd8, 0]), None, "a surrogate");
        assert_eq!(String::read_key(&[0xff]), None);
        let mut bytes = written(&("a".to_owned(), 1_u16));
        bytes.push(0);
        assert_eq!(<(String, u16)>::read_key(&bytes), None, "a byte is left over");
        assert_eq!(<(String, u16)>::read_key(&bytes[..bytes.len() - 2]), None, "a byte is missing");
    }

    #[test]
    fn leaves_the_scratch_alone_where_the_bytes_are_at_hand() {
        let mut scratch = Vec::new();
        "key".key_hash(&mut scratch);
        b"key"[..].key_hash(&mut scratch);
        7_u64.key_hash(&mut scratch);
        'k'.key_hash(&mut scratch);
        assert_eq!(scratch.capacity(), 0);
        scratch.extend_from_slice(b"of the last key");
        let pair = ("a".to_owned(), 1_u16);
        assert_eq!(pair.key_hash(&mut scratch), hash_bytes(&written(&pair)));
    }

    fn holds_for<K: StreamKey + std::fmt::Debug>(key: K) -> Result<(), TestCaseError> {
        let borrowed: &K::Borrowed = key.borrow();
        let bytes = written(borrowed);
        prop_assert_eq!(K::read_key(&bytes), Some(key.clone()));
        prop_assert!(borrowed.to_key() == key);
        prop_assert_eq!(borrowed.key_hash(&mut vec![1]), murmur2(&bytes) & 0x7fff_ffff);
        Ok(())
    }

    proptest! {
        #[test]
        fn reads_the_key_it_wrote(
            text: String, bytes: Vec<u8>, letter: char, flag: bool, small: u8, signed: i32, long: i64, wide: u128
        ) {
            holds_for(text.clone())?;
            holds_for(bytes.clone())?;
            holds_for(letter)?;
            holds_for(flag)?;
            holds_for(small)?;
            holds_for(signed)?;
            holds_for(long)?;
            holds_for(wide)?;
            holds_for((text.clone(), long))?;
            holds_for((bytes.clone(), text.clone(), letter))?;
            holds_for((flag, (text, small), bytes, wide))?;
        }

        #[test]
        fn different_pairs_have_different_bytes(a: (String, String), b: (String, String)) {
            prop_assert_eq!(a == b, written(&a) == written(&b));
        }

        #[test]
        fn every_group_has_the_owner_whose_range_contains_it(count in 1_u16..=960, parallelism in 1_u16..=64) {
            covers(count, parallelism)?;
        }

        #[test]
        fn a_group_lies_in_one_partition_where_the_partitions_divide_the_groups(hash in 0_u32..1 << 31) {
            let groups = KeyGroups::default();
            for partitions in [1_u32, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96] {
                prop_assert_eq!(u32::from(groups.group(hash)) % partitions, hash % partitions);
            }
        }
    }

    #[test]
    fn the_largest_counts_do_not_overflow() {
        for (count, parallelism) in [(u16::MAX, u16::MAX), (u16::MAX, 1), (1, u16::MAX), (960, 64), (960, 960)] {
            covers(count, parallelism).unwrap();
        }
    }

    fn covers(count: u16, parallelism: u16) -> Result<(), TestCaseError> {
        let groups = KeyGroups::new(NonZeroU16::new(count).unwrap());
        let mut next = 0;
        for index in 0..parallelism {
            let range = groups.range(index, parallelism);
            prop_assert_eq!(range.start, next, "ranges are contiguous and in order");
            let above_fair = (range.end - range.start).checked_sub(count / parallelism);
            prop_assert!(matches!(above_fair, Some(0 | 1)), "{:?} is out of balance", range);
            next = range.end;
            for group in range {
                prop_assert_eq!(groups.owner(group, parallelism), index);
            }
        }
        prop_assert_eq!(next, count);
        prop_assert!(groups.range(parallelism, parallelism).is_empty());
        Ok(())
    }
}

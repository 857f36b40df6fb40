//! The form of one state entry in a delta and of one row: the row's key is the operator and the entry's key.
//!
//! ```text
//! entry = [key length u32][entry key][value length u32, or ffff_ffff for a tombstone][value]
//! entry key = [state u16][key group u16][key length u32][key][element]      element: empty for a value state
//! row key = [operator u32][entry key]
//! timer element = [kind u8][time i64, sign bit flipped]
//! timer by time = [operator u32][0xfff1][timer element][key group u16][key]
//! ```
//! Integers are big-endian. The form is on disk: it may only change with the format number of the manifest.

use crate::id::OperatorId;
use crate::time::Timestamp;

const TOMBSTONE: u32 = u32::MAX;
/// A chunk of entries is closed when it has reached this size. A compaction of the log holds a chunk of each of its inputs, up to twenty
/// and more: with chunks of a megabyte that was a quarter of all memory where there is little.
pub(crate) const CHUNK_BYTES: usize = 128 << 10;

/// The state number of every operator's timers: entries of their keys, the time is the element.
pub const TIMERS: u16 = 0xFFF0;
/// The state number of the rows that find timers by their time. Made by a fold from the timers' entries; never in a delta.
pub const TIMER_INDEX: u16 = 0xFFF1;
/// Bytes of a timer's element.
pub const TIMER_ELEMENT_BYTES: usize = 9;

/// One entry, read from a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// State, key group, key and element as on disk.
    pub key: &'a [u8],
    /// The encoded value; nothing for a tombstone.
    pub value: Option<&'a [u8]>,
}

/// The parts of an entry key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryKey<'a> {
    /// Number of the state within its operator, by the manifest's name table.
    pub state: u16,
    /// The key's group.
    pub group: u16,
    /// The key's canonical bytes.
    pub key: &'a [u8],
    /// Which element of the key's state; empty for a value.
    pub element: &'a [u8],
}

impl<'a> EntryKey<'a> {
    /// Takes an entry key apart; nothing if it is damaged.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (state, rest) = bytes.split_first_chunk::<2>()?;
        let (group, rest) = rest.split_first_chunk::<2>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (key, element) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        Some(Self { state: u16::from_be_bytes(*state), group: u16::from_be_bytes(*group), key, element })
    }
}

/// Appends one entry. `key` writes the key's canonical bytes, `element` those that tell its elements apart, `value` the encoded
/// value; without one it is a tombstone.
///
/// # Errors
/// What `value` returns; `out` is then as before.
pub fn append<E>(
    out: &mut Vec<u8>,
    state: u16,
    group: u16,
    key: impl FnOnce(&mut Vec<u8>),
    element: impl FnOnce(&mut Vec<u8>),
    value: Option<impl FnOnce(&mut Vec<u8>) -> Result<(), E>>,
) -> Result<(), E> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&state.to_be_bytes());
    out.extend_from_slice(&group.to_be_bytes());
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    key(out);
    patch_length(out, length_at);
    element(out);
    patch_length(out, start);
    let value_at = out.len();
    match value {
        None => out.extend_from_slice(&TOMBSTONE.to_be_bytes()),
        Some(value) => {
            out.extend_from_slice(&[0; 4]);
            if let Err(error) = value(out) {
                out.truncate(start);
                return Err(error);
            }
            patch_length(out, value_at);
        }
    }
    Ok(())
}

fn patch_length(out: &mut [u8], at: usize) {
    let length = u32::try_from(out.len() - at - 4).unwrap_or(TOMBSTONE - 1);
    if let Some(slot) = out.get_mut(at..at + 4) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
}

/// Returns the key of an entry's row.
pub fn row_key(operator: OperatorId, entry_key: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + entry_key.len());
    key.extend_from_slice(&operator.number().to_be_bytes());
    key.extend_from_slice(entry_key);
    key
}

/// Returns the element of a timer of this kind and time; elements of a kind are in the order of their times.
pub fn timer_element(kind: u8, time: Timestamp) -> [u8; TIMER_ELEMENT_BYTES] {
    let [a, b, c, d, e, f, g, h] = (time.as_micros() ^ i64::MIN).to_be_bytes();
    [kind, a, b, c, d, e, f, g, h]
}

/// Takes a timer's element apart; nothing if it is damaged.
pub fn parse_timer_element(element: &[u8]) -> Option<(u8, Timestamp)> {
    let (kind, time) = element.split_first_chunk::<1>()?;
    let time = i64::from_be_bytes(time.try_into().ok()?) ^ i64::MIN;
    Some((kind[0], Timestamp::from_micros(time)))
}

/// Returns the key, behind the operator, of the row that finds a timer by its time.
pub fn timer_index(key: &EntryKey<'_>) -> Vec<u8> {
    let mut index = TIMER_INDEX.to_be_bytes().to_vec();
    index.extend_from_slice(key.element);
    index.extend_from_slice(&key.group.to_be_bytes());
    index.extend_from_slice(key.key);
    index
}

/// Takes the whole key of such a row apart; nothing for any other row.
pub fn parse_timer_index(row_key: &[u8]) -> Option<EntryKey<'_>> {
    let (_, rest) = row_key.split_first_chunk::<4>()?;
    let (state, rest) = rest.split_first_chunk::<2>()?;
    if u16::from_be_bytes(*state) != TIMER_INDEX {
        return None;
    }
    let (element, rest) = rest.split_at_checked(TIMER_ELEMENT_BYTES)?;
    let (group, key) = rest.split_first_chunk::<2>()?;
    Some(EntryKey { state: TIMER_INDEX, group: u16::from_be_bytes(*group), key, element })
}

/// Reads the entries of one chunk in order.
pub fn entries(chunk: &[u8]) -> Entries<'_> {
    Entries { rest: chunk, damaged: false }
}

/// Reads the entry that begins at `offset`; nothing if none does.
pub(crate) fn at(chunk: &[u8], offset: usize) -> Option<Entry<'_>> {
    split_entry(chunk.get(offset..)?).map(|(entry, _)| entry)
}

/// Iterator over the entries of a chunk; a damaged chunk ends early and [`Entries::is_damaged`] says so.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
    damaged: bool,
}

impl Entries<'_> {
    /// Says whether the chunk ended inside an entry.
    pub const fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// How many bytes of the chunk are left.
    pub(crate) const fn left(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((entry, rest)) = split_entry(self.rest) else {
            self.damaged = true;
            self.rest = &[];
            return None;
        };
        self.rest = rest;
        Some(entry)
    }
}

fn split_entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (key, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length);
    if length == TOMBSTONE {
        return Some((Entry { key, value: None }, rest));
    }
    let (value, rest) = rest.split_at_checked(length as usize)?;
    Some((Entry { key, value: Some(value) }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    type NoValue = fn(&mut Vec<u8>) -> Result<(), ()>;

    #[test]
    fn reads_what_it_wrote() {
        let mut chunk = Vec::new();
        let value = |out: &mut Vec<u8>| {
            out.push(9);
            Ok::<_, ()>(())
        };
        append(
            &mut chunk,
            1,
            959,
            |out| out.extend_from_slice(b"key"),
            |out| out.extend_from_slice(b"el"),
            Some(value),
        )
        .unwrap();
        append(&mut chunk, 2, 0, |_| (), |_| (), None::<NoValue>).unwrap();
        let before = chunk.clone();
        assert_eq!(append(&mut chunk, 2, 0, |_| (), |_| (), Some(|_: &mut Vec<u8>| Err(()))), Err(()));
        assert_eq!(chunk, before);

        let read: Vec<_> = entries(&chunk).collect();
        let first = EntryKey::parse(read[0].key).unwrap();
        assert_eq!(first, EntryKey { state: 1, group: 959, key: b"key", element: b"el" });
        assert_eq!((read[0].value, read[1].value, read.len()), (Some(&[9u8][..]), None, 2));
    }

    #[test]
    fn says_so_when_a_chunk_is_cut_anywhere() {
        let mut chunk = Vec::new();
        append(&mut chunk, 1, 2, |out| out.push(3), |_| (), None::<NoValue>).unwrap();
        for cut in 1..chunk.len() {
            let mut entries = entries(&chunk[..cut]);
            assert!(entries.next().is_none() && entries.is_damaged(), "cut at {cut}");
        }
    }
}

//! By what a file is known again, whatever its name and inode: the bytes that were read of it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::UNIX_EPOCH;

/// How many bytes are looked at, at the file's head and before the place.
const MOST: usize = 256;

/// Checksums of a file's first bytes and of those before a place in it, at most 256 each. At its beginning, where there are none,
/// it is the time when the file was made, in nanoseconds; zero where nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) head: u32,
    pub(super) tail: u32,
}

impl Fingerprint {
    /// Returns that of a place at a file's beginning.
    pub(super) fn of_beginning(metadata: &Metadata) -> Self {
        let made = metadata.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
        let nanos = made.map_or(0, |made| made.as_nanos() as u64);
        Self { head: (nanos >> 32) as u32, tail: nanos as u32 }
    }
}

/// The bytes that a fingerprint is made of; moves along with the place.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    head: Vec<u8>,
    /// Ends with the bytes before the place; may begin earlier than needed, so that not every line moves it.
    recent: Vec<u8>,
}

impl Window {
    /// Reads what lies in front of `offset`, which must not be beyond the end.
    pub(super) fn read(file: &File, offset: u64) -> io::Result<Self> {
        let length = usize::try_from(offset).unwrap_or(usize::MAX).min(MOST);
        let (mut head, mut recent) = (vec![0; length], vec![0; length]);
        file.read_exact_at(&mut head, 0)?;
        file.read_exact_at(&mut recent, offset - length as u64)?;
        Ok(Self { head, recent })
    }

    /// Moves on behind these bytes.
    pub(super) fn advance(&mut self, bytes: &[u8]) {
        let room = MOST.saturating_sub(self.head.len());
        self.head.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let kept = bytes.len().saturating_sub(MOST);
        self.recent.extend_from_slice(bytes.get(kept..).unwrap_or_default());
        if self.recent.len() > 16 * MOST {
            self.recent.drain(..self.recent.len() - MOST);
        }
    }

    /// Returns the bytes before the place.
    fn tail(&self) -> &[u8] {
        self.recent.get(self.recent.len().saturating_sub(MOST)..).unwrap_or_default()
    }

    /// Says whether the file still has these bytes in front of `offset`.
    pub(super) fn is_before(&self, file: &File, offset: u64) -> io::Result<bool> {
        let tail = self.tail();
        let Some(start) = offset.checked_sub(tail.len() as u64) else { return Ok(false) };
        let mut now = [0; MOST];
        let Some(now) = now.get_mut(..tail.len()) else { return Ok(false) };
        match file.read_exact_at(now, start) {
            Ok(()) => Ok(*now == *tail),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the checksums.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint { head: crc32fast::hash(&self.head), tail: crc32fast::hash(self.tail()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_along_gives_what_reading_anew_does() {
        let bytes: Vec<u8> = (0..40_000_u32).map(|n| (n * 7 % 251) as u8).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        std::fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        let (mut window, mut offset) = (Window::default(), 0);
        for length in [0, 1, 100, 154, 1, 1, 255, 256, 257, 9_000, 3, 5_000].into_iter().cycle().take(30) {
            let Some(next) = bytes.get(offset..offset + length) else { break };
            window.advance(next);
            offset += length;
            let read = Window::read(&file, offset as u64).unwrap();
            assert_eq!(window.fingerprint(), read.fingerprint(), "at {offset}");
            assert!(window.is_before(&file, offset as u64).unwrap());
            assert!(offset == 0 || !window.is_before(&file, offset as u64 + 1).unwrap());
        }
        assert!(offset > 20_000);
        assert!(!window.is_before(&file, 1 << 40).unwrap(), "beyond the end");
    }
}

//! The mark: how far a store has got at least, kept in a file of its own beside the database.
//!
//! A flipped bit in the last record of the database's WAL looks like a torn tail, which every crash may leave: the database
//! opens without a word and lacks what was synced last. Nothing inside it can tell, so something outside has to.
//!
//! ```text
//! EPOCH.millstream = 2 slots of 512 bytes, written in turn: [length u16][framed record: epoch, attempt][zeros]
//! ```
//! A slot is overwritten in place, which needs no room on a full disk, and is whole or torn by itself: the other one is
//! there still, and a mark that is too low is only a weaker one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::lock::io_error;
use super::{Mark, StoreError, StoreErrorKind};
use crate::checkpoint::{FrameError, frame};

const MARK_FILE: &str = "EPOCH.millstream";
const MAGIC: [u8; 4] = *b"mMRK";
/// A sector: a disk writes it wholly or not at all.
const SLOT: usize = 512;
const SLOTS: usize = 2;

/// The file of a store's mark.
#[derive(Debug)]
pub(super) struct MarkFile {
    path: PathBuf,
    known: Option<Mark>,
    /// Where the next one goes: not over the newest.
    next: usize,
}

impl MarkFile {
    /// Reads the mark of a directory; there is none in a new one, nor in one of a version that did not write any.
    ///
    /// # Errors
    /// [`StoreErrorKind::Corrupt`] when the file is there and neither slot can be read.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(MARK_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self { path, known: None, next: 0 }),
            Err(error) => return Err(io_error("read the mark", directory, error)),
        };
        let slots: Vec<_> = bytes.chunks(SLOT).take(SLOTS).map(read_slot).collect();
        let newest = slots.iter().enumerate().filter_map(|(slot, read)| Some((*read.as_ref().ok()?, slot))).max();
        let Some((mark, slot)) = newest else {
            let reason =
                slots.into_iter().find_map(Result::err).map_or_else(|| "it is empty".into(), |e| e.to_string());
            let reason = format!(
                "{MARK_FILE} cannot be read: {reason}; restore the directory from a copy, or, if the rest of it is known \
                 to be good, remove that file to go on without what it guards against"
            );
            return Err(StoreError::new(StoreErrorKind::Corrupt, "open the store", directory, reason));
        };
        Ok(Self { path, known: Some(mark), next: (slot + 1) % SLOTS })
    }

    /// The newest mark.
    pub(super) const fn get(&self) -> Option<Mark> {
        self.known
    }

    /// Writes and syncs a mark; does nothing if it is not above the known one.
    pub(super) fn set(&mut self, mark: Mark) -> io::Result<()> {
        let Some(known) = self.known else { return self.create(mark) };
        let mark = Mark { epoch: mark.epoch.max(known.epoch), attempt: mark.attempt.max(known.attempt) };
        if mark == known {
            return Ok(());
        }
        let mut file = OpenOptions::new().write(true).open(&self.path)?;
        file.seek(SeekFrom::Start((self.next * SLOT) as u64))?;
        file.write_all(&slot_bytes(mark)?)?;
        file.sync_data()?;
        self.known = Some(mark);
        self.next = (self.next + 1) % SLOTS;
        Ok(())
    }

    /// Makes the file, whole or not at all.
    fn create(&mut self, mark: Mark) -> io::Result<()> {
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        for _ in 0..SLOTS {
            file.write_all(&slot_bytes(mark)?)?;
        }
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        self.known = Some(mark);
        self.next = 0;
        Ok(())
    }
}

fn slot_bytes(mark: Mark) -> io::Result<Vec<u8>> {
    let (framed, _) = frame::write(MAGIC, &mark).map_err(io::Error::other)?;
    let length = u16::try_from(framed.len()).map_err(io::Error::other)?;
    let mut slot = length.to_be_bytes().to_vec();
    slot.extend_from_slice(&framed);
    slot.resize(SLOT, 0);
    Ok(slot)
}

fn read_slot(slot: &[u8]) -> Result<Mark, FrameError> {
    let cut = || FrameError::Short { length: slot.len() };
    let (length, rest) = slot.split_first_chunk::<2>().ok_or_else(cut)?;
    let framed = rest.get(..usize::from(u16::from_be_bytes(*length))).ok_or_else(cut)?;
    Ok(frame::read(MAGIC, framed)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Attempt, Epoch};

    fn mark(epoch: u64, attempt: u64) -> Mark {
        Mark { epoch: Epoch::new(epoch), attempt: Attempt::new(attempt) }
    }

    #[test]
    fn rises_only_and_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let reopened = || MarkFile::open(directory.path()).unwrap();
        assert_eq!(reopened().get(), None);
        let mut file = reopened();
        for (set, kept) in [((3, 1), (3, 1)), ((5, 2), (5, 2)), ((4, 3), (5, 3)), ((9, 1), (9, 3))] {
            file.set(mark(set.0, set.1)).unwrap();
            assert_eq!((file.get(), reopened().get()), (Some(mark(kept.0, kept.1)), Some(mark(kept.0, kept.1))));
        }
        reopened().set(mark(10, 3)).unwrap();
        assert_eq!(reopened().get(), Some(mark(10, 3)));
    }

    #[test]
    fn a_damaged_slot_leaves_the_one_before_and_two_are_refused_with_advice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(MARK_FILE);
        let mut file = MarkFile::open(directory.path()).unwrap();
        for epoch in 1..=4 {
            file.set(mark(epoch, 1)).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        let length = slot_bytes(mark(4, 1)).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for at in (0..SLOTS).flat_map(|slot| slot * SLOT..slot * SLOT + length) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x04;
            fs::write(&path, &flipped).unwrap();
            let found = MarkFile::open(directory.path()).unwrap().get().unwrap();
            assert!(found == mark(3, 1) || found == mark(4, 1), "byte {at}: {found:?}");
        }
        for damaged in [Vec::new(), vec![0; 2 * SLOT], whole[..length - 1].to_vec(), vec![0xFF; 2 * SLOT]] {
            fs::write(&path, damaged).unwrap();
            let error = MarkFile::open(directory.path()).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt);
            assert!(error.source.to_string().contains("remove that file"), "{}", error.source);
        }
    }
}

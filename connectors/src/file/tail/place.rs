//! Where a reader of a log stands.

use millstream_runtime::source::Position;

use super::fingerprint::Fingerprint;

/// Format of the position.
const FORMAT: u8 = 1;

/// A place in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FilePlace {
    /// Where to look first. Without the device: all files lie in the log's directory, and devices get other numbers when a
    /// machine starts anew.
    pub(super) inode: u64,
    /// Behind the last line that was read.
    pub(super) offset: u64,
    /// What lies in front of it.
    pub(super) fingerprint: Fingerprint,
}

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The log's first file is not there yet.
    Nowhere,
    /// In a file, and in the one before it, to which somebody may still write.
    In { current: FilePlace, previous: Option<FilePlace> },
}

impl Place {
    /// `[format u8]` and per file `[inode u64][offset u64][head crc32][tail crc32]`, big-endian: at most 49 bytes.
    pub(super) fn position(self) -> Position {
        let mut bytes = vec![FORMAT];
        if let Self::In { current, previous } = self {
            for file in [Some(current), previous].into_iter().flatten() {
                bytes.extend(file.inode.to_be_bytes());
                bytes.extend(file.offset.to_be_bytes());
                bytes.extend(file.fingerprint.head.to_be_bytes());
                bytes.extend(file.fingerprint.tail.to_be_bytes());
            }
        }
        Position::from_bytes(bytes).unwrap_or_default()
    }

    /// Returns the place, or nothing if it is none of a log.
    pub(super) fn read(position: &Position) -> Option<Self> {
        let (format, rest) = position.as_bytes().split_first()?;
        if *format != FORMAT {
            return None;
        }
        let (files, rest) = rest.as_chunks::<24>();
        let mut files = files.iter().map(|file| {
            Some(FilePlace {
                inode: u64::from_be_bytes(*file.first_chunk()?),
                offset: u64::from_be_bytes(*file.get(8..)?.first_chunk()?),
                fingerprint: Fingerprint {
                    head: u32::from_be_bytes(*file.get(16..)?.first_chunk()?),
                    tail: u32::from_be_bytes(*file.last_chunk()?),
                },
            })
        });
        let place = match files.next() {
            None => Self::Nowhere,
            Some(current) => Self::In { current: current?, previous: files.next().flatten() },
        };
        (files.next().is_none() && rest.is_empty()).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_was_written_and_nothing_else_is() {
        let file = |inode| FilePlace {
            inode,
            offset: u64::MAX - inode,
            fingerprint: Fingerprint { head: 0xfedc_ba98, tail: 7 },
        };
        let places = [
            Place::Nowhere,
            Place::In { current: file(1), previous: None },
            Place::In { current: file(2), previous: Some(file(3)) },
        ];
        for place in places {
            let position = place.position();
            assert!(position.as_bytes().len() <= Position::MAX_BYTES);
            assert_eq!(Place::read(&position), Some(place));
            for length in 0..position.as_bytes().len() {
                let cut = Position::from_bytes(position.as_bytes()[..length].to_vec()).unwrap();
                assert_ne!(Place::read(&cut), Some(place));
            }
        }
        for bytes in [vec![], vec![0], vec![2], vec![1; 2], vec![1; 24], vec![1; 26], vec![1; 50]] {
            assert_eq!(Place::read(&Position::from_bytes(bytes).unwrap()), None);
        }
        assert_eq!(Place::read(&Position::from_u64(7)), None);
    }
}

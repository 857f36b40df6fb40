//! What becomes of files that were read.

use std::io;
use std::path::{Path, PathBuf};

use super::directory::{Directory, Stamp};
use super::error::WatchError;

/// What becomes of a file when the epoch of its last line is committed; Spark's `cleanSource`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CleanSource {
    /// It stays. The default.
    #[default]
    Off,
    /// It is deleted.
    Delete,
    /// It is moved into this directory, under the path that it had below the watched one. The directory is created if it is
    /// missing, and has to be on the same file system. A file that is there already is not replaced.
    Archive(PathBuf),
}

/// Why a file stays where it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotCleaned {
    #[error("it was changed after it was listed")]
    Changed,
    #[error("there is a file of that name in the archive")]
    Taken,
    #[error(transparent)]
    Look(#[from] WatchError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl CleanSource {
    /// Refuses an archive whose files would be found and read again.
    pub(super) fn check(&self, root: &Path) -> Result<(), WatchError> {
        let Self::Archive(archive) = self else { return Ok(()) };
        let absolute = |path: &Path| {
            // What does not exist yet lies where its nearest parent that does exist lies.
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            let there = path.ancestors().find_map(|there| Some((there, there.canonicalize().ok()?)));
            match there {
                Some((there, real)) => path.strip_prefix(there).map_or_else(|_| real.clone(), |rest| real.join(rest)),
                None => path,
            }
        };
        let is_inside = absolute(archive).strip_prefix(absolute(root)).is_ok_and(|below| {
            let first = below.components().next().map(|part| part.as_os_str().as_encoded_bytes().to_vec());
            first.is_none_or(|name| !name.starts_with(b".") && !name.starts_with(b"_"))
        });
        match is_inside {
            true => Err(WatchError::Archive { archive: archive.clone(), path: root.to_owned() }),
            false => Ok(()),
        }
    }

    /// Deletes or moves a file, if it is there and is the one that was listed. Says whether it did.
    pub(super) fn clean(&self, directory: &Directory, path: &str, listed: Stamp) -> Result<bool, NotCleaned> {
        match directory.stamp(path)? {
            None => return Ok(false),
            // It has more in it than was read, or is another file.
            Some(stamp) if stamp != listed => return Err(NotCleaned::Changed),
            Some(_) => {}
        }
        let from = directory.root.join(path);
        match self {
            Self::Off => return Ok(false),
            Self::Delete => std::fs::remove_file(from)?,
            Self::Archive(archive) => {
                let to = archive.join(path);
                if let Some(parent) = to.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                if to.try_exists()? {
                    return Err(NotCleaned::Taken);
                }
                std::fs::rename(from, to)?;
            }
        }
        Ok(true)
    }
}

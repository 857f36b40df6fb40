//! Tries a store's directory before anything is opened in it, so that what is wrong with it is said in plain words.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::lock::{io_error, io_kind};
use super::{StoreError, StoreErrorKind};

const PROBE_FILE: &str = "PROBE.millstream";
const RENAMED: &str = "PROBE.millstream.renamed";
const CONTENT: &[u8] = b"millstream tries whether it can write here\n";

/// Makes the directory if it is not there.
///
/// # Errors
/// [`StoreError`] for a path that is something else, or that may not be made.
pub(super) fn make(directory: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(directory).map_err(|error| refused(directory, error))
}

/// Writes, syncs, renames and reads a small file. The store's lock is held, so nobody else does the same.
///
/// # Errors
/// [`StoreError`] says what could not be done, and why as far as can be told.
pub(super) fn check(directory: &Path) -> Result<(), StoreError> {
    let (written, renamed) = (directory.join(PROBE_FILE), directory.join(RENAMED));
    let probe = || -> io::Result<Vec<u8>> {
        let mut file = File::create(&written)?;
        file.write_all(CONTENT)?;
        file.sync_all()?;
        fs::rename(&written, &renamed)?;
        let found = fs::read(&renamed)?;
        fs::remove_file(&renamed)?;
        Ok(found)
    };
    let found = probe().inspect_err(|_| {
        // On a full disk its room is wanted; whatever stays behind is overwritten by the next probe.
        let _ = fs::remove_file(&written);
        let _ = fs::remove_file(&renamed);
    });
    if found.map_err(|error| refused(directory, error))? == CONTENT {
        return Ok(());
    }
    let reason = "a file that was just written there is read back with another content; the disk cannot be trusted, \
                  choose another one";
    Err(StoreError::new(StoreErrorKind::Io, "use the store's directory", directory, reason))
}

/// Says in plain words why a directory cannot be used.
pub(super) fn refused(directory: &Path, error: io::Error) -> StoreError {
    let Some(advice) = advice(directory, &error) else {
        return io_error("use the store's directory", directory, error);
    };
    StoreError::new(io_kind(error.kind()), "use the store's directory", directory, format!("{error}: {advice}"))
}

/// What can be done about it, where that is known.
fn advice(directory: &Path, error: &io::Error) -> Option<String> {
    use io::ErrorKind as Kind;
    let text = match error.kind() {
        Kind::ReadOnlyFilesystem => "mount the file system for writing, or choose another directory".to_owned(),
        Kind::StorageFull | Kind::QuotaExceeded => {
            "free some space there and start again; what was committed is intact".to_owned()
        }
        Kind::NotADirectory | Kind::AlreadyExists => {
            let file = directory.ancestors().find(|path| path.exists() && !path.is_dir()).unwrap_or(directory);
            format!("{} is not a directory; move it away, or choose another directory", file.display())
        }
        Kind::PermissionDenied => permissions(directory),
        _ => return None,
    };
    Some(text)
}

#[cfg(unix)]
fn permissions(directory: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    // The nearest one that is there and that we may look at.
    let found = directory.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?)));
    // The owner of a process's entry there is its effective user; without /proc the text says less.
    let us = fs::metadata("/proc/self").map(|ours| ours.uid());
    match (found, us) {
        (Some((path, there)), Ok(us)) => format!(
            "{} belongs to user {} with mode {:03o}, this process runs as user {us}; run it as the owner, or change the \
             owner with `chown -R`",
            path.display(),
            there.uid(),
            there.mode() & 0o777
        ),
        _ => "let this process's user write there".to_owned(),
    }
}

#[cfg(not(unix))]
fn permissions(_: &Path) -> String {
    "let this process's user write there".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_directory_passes_and_nothing_stays_behind() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a/b");
        make(&directory).unwrap();
        // Left by a process that died in its probe.
        fs::write(directory.join(RENAMED), b"half").unwrap();
        check(&directory).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("state");
        fs::write(&file, b"").unwrap();
        for directory in [file.clone(), file.join("p/0")] {
            let error = make(&directory).unwrap_err();
            let text = format!("{error}: {}", error.source);
            assert!(text.contains(&format!("{} is not a directory; move it away", file.display())), "{text}");
        }
    }
}

//! The lock of a store's directory: ours, taken before a database's own, whose error does not say who holds it.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

use super::{StoreError, StoreErrorKind, probe};
use crate::time::{Clock, SystemClock, Timestamp};

const LOCK_FILE: &str = "LOCK.millstream";

/// The lock, held until it is dropped, at the latest until the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that another thread of the host has forked and that has not called exec yet
        // has the same open file, and would hold the lock for a moment longer, in which the store is to be opened anew.
        let _ = self.0.unlock();
    }
}

/// Takes the lock.
///
/// # Errors
/// [`StoreErrorKind::Locked`] says who has it.
pub(super) fn take(directory: &Path) -> Result<Held, StoreError> {
    let path = directory.join(LOCK_FILE);
    // The first file that is opened for writing there: what is wrong with the directory shows here.
    let io = |error| probe::refused(directory, error);
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => (),
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // The text is for people: it may be of an owner that just left, or not be there yet.
            let _ = file.read_to_string(&mut owner);
            let ours = format!("pid {} ", std::process::id());
            let owner = match owner.trim_end() {
                "" => "another process".to_owned(),
                // Two containers may both have this pid; then it says too much, and the advice is the same.
                owner if owner.starts_with(&ours) => format!("{owner}, which is this process: another job of it"),
                owner => owner.to_owned(),
            };
            let reason = format!("in use by {owner}; stop it first, or choose another pipeline name or directory");
            return Err(StoreError::new(StoreErrorKind::Locked, "open the store", directory, reason));
        }
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    let owner = format!("pid {} since {}\n", std::process::id(), utc(SystemClock::new().now()));
    file.set_len(0).and_then(|()| file.write_all(owner.as_bytes())).map_err(io)?;
    Ok(Held(file))
}

/// `2026-01-31T23:59:59Z`; days to a date as in Howard Hinnant, "chrono-compatible low-level date algorithms".
fn utc(time: Timestamp) -> String {
    let seconds = time.as_micros().div_euclid(1_000_000);
    let (days, second) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Turns an error of the operating system into the store's.
pub(super) fn io_error(action: &'static str, directory: &Path, error: io::Error) -> StoreError {
    StoreError::new(io_kind(error.kind()), action, directory, error)
}

/// What an error of the operating system means for the store.
pub(super) const fn io_kind(kind: io::ErrorKind) -> StoreErrorKind {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
        _ => StoreErrorKind::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_free_after_the_drop_although_a_forked_child_has_the_file_open() {
        let directory = tempfile::tempdir().unwrap();
        let held = take(directory.path()).unwrap();
        // The same open file, as a child has it between fork and exec.
        let inherited = held.0.try_clone().unwrap();
        assert_eq!(take(directory.path()).unwrap_err().kind, StoreErrorKind::Locked);
        drop(held);
        drop(take(directory.path()).unwrap());
        drop(inherited);
    }

    #[test]
    fn times_are_written_as_dates() {
        assert_eq!(utc(Timestamp::from_millis(0)), "1970-01-01T00:00:00Z");
        assert_eq!(utc(Timestamp::from_millis(1_709_210_096_000)), "2024-02-29T12:34:56Z");
    }
}

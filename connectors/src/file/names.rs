//! Names in a sink's directory, and which of them are ours.

use std::path::{Path, PathBuf};

use millstream_runtime::id::{Attempt, Epoch, ShardId};

/// What all temporary names end in.
const TEMPORARY: &str = ".tmp";

/// The names of one shard's files. Numbers have leading zeros, so that lists sort as numbers do.
#[derive(Clone, Debug)]
pub(super) struct Names {
    dir: PathBuf,
    shard: ShardId,
    extension: String,
}

impl Names {
    pub(super) fn new(dir: PathBuf, shard: ShardId, extension: String) -> Self {
        Self { dir, shard, extension }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn log_dir(&self) -> PathBuf {
        metadata_dir(&self.dir).join(format!("{:04}", self.shard.number()))
    }

    pub(super) fn part(&self, first: Epoch, last: Epoch) -> String {
        format!("part-{:04}-{:012}-{:012}.{}", self.shard.number(), first.number(), last.number(), self.extension)
    }

    pub(super) fn entry(&self, number: u64) -> PathBuf {
        entry_path(&self.log_dir(), number)
    }

    /// Whether the sink of this shard may remove a file of this name from its directory if no entry names it: only what
    /// it could have written itself.
    pub(super) fn is_own_part(&self, name: &str) -> bool {
        let name = match name.strip_prefix('.') {
            Some(hidden) => match hidden.strip_suffix(TEMPORARY).and_then(strip_instance) {
                Some(name) => name,
                None => return false,
            },
            None => name,
        };
        let numbers = || {
            let stem = name.strip_prefix("part-")?.strip_suffix(self.extension.as_str())?.strip_suffix('.')?;
            let (shard, epochs) = stem.split_once('-')?;
            let (first, last) = epochs.split_once('-')?;
            Some((digits(shard)?, digits(first)?, digits(last)?))
        };
        numbers().is_some_and(|(shard, first, last)| {
            // Compared with the name made anew: `part-0-1-2.txt` is somebody else's.
            shard == u64::from(self.shard.number()) && self.part(Epoch::new(first), Epoch::new(last)) == name
        })
    }

    /// Whether a file in the log's directory is a temporary of ours.
    pub(super) fn is_own_temporary_entry(name: &str) -> bool {
        let stem = name.strip_prefix('.').and_then(|name| name.strip_suffix(TEMPORARY));
        stem.and_then(strip_instance).is_some_and(|number| entry_number(number).is_some())
    }
}

/// Returns the log's directory over all shards.
pub(super) fn metadata_dir(dir: &Path) -> PathBuf {
    dir.join("_metadata")
}

/// Returns the path of an entry.
pub(super) fn entry_path(log_dir: &Path, number: u64) -> PathBuf {
    log_dir.join(format!("{number:012}"))
}

/// Returns the number of an entry with this name; nothing if it is no entry's name.
pub(super) fn entry_number(name: &str) -> Option<u64> {
    digits(name).filter(|number| format!("{number:012}") == name)
}

/// Returns the shard whose log has this name; nothing if it is none.
pub(super) fn log_shard(name: &str) -> Option<ShardId> {
    let number = u32::try_from(digits(name)?).ok()?;
    (format!("{number:04}") == name).then_some(ShardId::new(number))
}

/// Returns the name under which an instance writes a file before it is whole. It carries attempt and instance, so that
/// two that run at once never write into the same file.
pub(super) fn temporary(name: &str, attempt: Attempt, instance: &str) -> String {
    format!(".{name}.{attempt}-{instance}{TEMPORARY}")
}

/// Takes `.{attempt}-{instance}` off the end.
fn strip_instance(name: &str) -> Option<&str> {
    let (name, writer) = name.rsplit_once('.')?;
    let (attempt, instance) = writer.split_once('-')?;
    digits(attempt)?;
    (!instance.is_empty() && instance.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
}

/// Parses digits only: `str::parse` would also take a sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new("out".into(), ShardId::new(3), "txt".into())
    }

    #[test]
    fn recognises_its_own_names_only() {
        let names = names();
        let part = names.part(Epoch::new(7), Epoch::new(12));
        assert_eq!(part, "part-0003-000000000007-000000000012.txt");
        let hidden = temporary(&part, Attempt::new(4), "00ff");
        assert_eq!(hidden, ".part-0003-000000000007-000000000012.txt.4-00ff.tmp");
        for own in [part.as_str(), &hidden] {
            assert!(names.is_own_part(own), "{own}");
        }
        for foreign in [
            "part-0004-000000000007-000000000012.txt",
            "part-0003-000000000007-000000000012.csv",
            "part-0003-7-12.txt",
            "part-0003-00000000000x-000000000012.txt",
            "part-0003-+00000000007-000000000012.txt",
            ".part-0003-000000000007-000000000012.txt",
            ".part-0003-000000000007-000000000012.txt.tmp",
            "part-0003-000000000007-000000000012.txt.4-00ff.tmp",
            "part.txt",
            "notes.txt",
            "",
        ] {
            assert!(!names.is_own_part(foreign), "{foreign}");
        }
    }

    #[test]
    fn entries_and_their_temporaries_have_names_of_their_own() {
        assert_eq!(names().entry(5), Path::new("out/_metadata/0003/000000000005"));
        assert_eq!(entry_number("000000000005"), Some(5));
        assert_eq!(
            (entry_number("5"), entry_number("00000000005x"), log_shard("0003")),
            (None, None, Some(ShardId::new(3)))
        );
        assert!(Names::is_own_temporary_entry(&temporary("000000000005", Attempt::new(1), "ab")));
        assert!(!Names::is_own_temporary_entry(".gitkeep.tmp"));
        assert!(!Names::is_own_temporary_entry("000000000005"));
    }
}

//! What the names of rotated files say: which of them came after which.

use std::cmp::Ordering;
use std::time::SystemTime;

/// Ends of names of files that cannot be read as they are.
const COMPRESSED: &[&str] = &[".gz", ".bz2", ".xz", ".zst", ".lz4", ".Z", ".zip"];

/// What a rotated file has in its name besides the log's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// A number of at most five digits: `app.log.1`.
    Number(u32),
    /// A date or time, as its numbers: `app.log-20261127`, `app.2026-11-27.log`, with a counter behind it or none.
    Dated(Vec<u64>),
}

/// What can be told from a name that begins as the log's does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// Nothing for names as `app.log.bak`: nobody can tell what comes after it.
    pub(super) rank: Option<Rank>,
    pub(super) compressed: bool,
}

impl Name {
    /// Reads the name of a file beside the log `log`; nothing if it does not look like one of its own.
    pub(super) fn read(name: &str, log: &str) -> Option<Self> {
        let original = COMPRESSED.iter().find_map(|end| name.strip_suffix(end));
        let (name, compressed) = (original.unwrap_or(name), original.is_some());
        // `app.log.1`, and `app.1.log` or `app-20261127.log`.
        let behind = name.strip_prefix(log).or_else(|| {
            let dot = log.rfind('.').filter(|dot| *dot > 0)?;
            let (stem, extension) = log.split_at_checked(dot)?;
            name.strip_prefix(stem)?.strip_suffix(extension)
        })?;
        // Another log may begin with the same letters: `app.log` and `app.logger`.
        behind.starts_with(['.', '-', '_', '~']).then(|| Self { rank: Rank::read(behind), compressed })
    }
}

impl Rank {
    fn read(behind: &str) -> Option<Self> {
        let text = behind.get(1..)?;
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        if digits == text.len() && (1..=5).contains(&digits) {
            return text.parse().ok().map(Self::Number);
        }
        let is_date = |byte: u8| byte.is_ascii_digit() || b"-_.:T+Z".contains(&byte);
        if digits < 6 || !text.bytes().all(is_date) {
            return None;
        }
        let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
        numbers.map(|part| part.parse().ok()).collect::<Option<_>>().map(Self::Dated)
    }

    /// Compares by age; nothing between a number and a date. `up` says that numbers count upwards.
    fn cmp_age(&self, other: &Self, up: bool) -> Option<Ordering> {
        match (self, other) {
            (Self::Number(one), Self::Number(two)) if up => Some(one.cmp(two)),
            (Self::Number(one), Self::Number(two)) => Some(two.cmp(one)),
            (Self::Dated(one), Self::Dated(two)) => Some(one.cmp(two)),
            _ => None,
        }
    }
}

/// A rotated file: its rank, when it was made, and when it was last written.
#[derive(Clone, Debug)]
pub(super) struct Ranked {
    pub(super) rank: Rank,
    pub(super) made: Option<SystemTime>,
    pub(super) written: Option<SystemTime>,
}

/// Returns which of `files` came after `own`, oldest first.
///
/// Dates rise. The lowest number is the newest, as logrotate and most libraries count, unless the highest was both made and
/// written last: a writer that has not noticed a rotation makes an old file look new by one, and moving the directory by the other.
pub(super) fn after(own: &Ranked, files: &[Ranked]) -> Vec<usize> {
    let numbers = files.iter().chain([own]).filter_map(|file| match file.rank {
        Rank::Number(number) => Some((number, file.made, file.written)),
        Rank::Dated(_) => None,
    });
    let (lowest, highest) = (numbers.clone().min(), numbers.max());
    let rises = |low: Option<SystemTime>, high| low.zip(high).is_some_and(|(low, high)| low < high);
    let up = lowest.zip(highest).is_some_and(|(low, high)| rises(low.1, high.1) && rises(low.2, high.2));
    let is_newer = |rank: &Rank| rank.cmp_age(&own.rank, up) == Some(Ordering::Greater);
    let mut newer: Vec<_> = files.iter().enumerate().filter(|(_, file)| is_newer(&file.rank)).collect();
    newer.sort_by(|(_, one), (_, two)| one.rank.cmp_age(&two.rank, up).unwrap_or(Ordering::Equal));
    newer.into_iter().map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn knows_what_belongs_to_a_log() {
        let number = |n| Some((Some(Rank::Number(n)), false));
        let dated = |numbers: &[u64]| Some((Some(Rank::Dated(numbers.to_vec())), false));
        let table = [
            ("app.log.1", number(1)),
            ("app.log-12", number(12)),
            ("app.2.log", number(2)),
            ("app.log.3.gz", Some((Some(Rank::Number(3)), true))),
            ("app.log-20261127", dated(&[20_261_127])),
            ("app.log-20261127.2", dated(&[20_261_127, 2])),
            ("app.2026-11-27T10:00.log", dated(&[2026, 11, 27, 10, 0])),
            ("app.log-20261127.zst", Some((Some(Rank::Dated(vec![20_261_127])), true))),
            ("app.log.bak", Some((None, false))),
            ("app.log~", Some((None, false))),
            ("app.log.", Some((None, false))),
            ("app-errors.log", Some((None, false))),
            ("app.log.123456789012345678901234567890", Some((None, false))),
            ("app.log", None),
            ("app.logger", None),
            ("other.log.1", None),
            ("app.log.gz", None),
            ("app", None),
        ];
        for (name, expected) in table {
            let read = Name::read(name, "app.log").map(|name| (name.rank, name.compressed));
            assert_eq!(read, expected, "{name}");
        }
        let rank = |name, log| Name::read(name, log).and_then(|name| name.rank);
        assert_eq!(rank("messages.1", "messages"), Some(Rank::Number(1)));
        assert_eq!(rank("messages-20261127", "messages"), Some(Rank::Dated(vec![20_261_127])));
        assert_eq!(rank("odd.gz.1", "odd.gz"), Some(Rank::Number(1)));
        assert_eq!(rank(".hidden.1", ".hidden"), Some(Rank::Number(1)));
    }

    fn at(rank: Rank, made: u64, written: u64) -> Ranked {
        let time = |minute: u64| Some(UNIX_EPOCH + Duration::from_secs(60 * minute));
        Ranked { rank, made: time(made), written: time(written) }
    }

    #[test]
    fn files_follow_each_other_by_number_downwards_unless_they_were_made_and_written_the_other_way() {
        let numbers = |own: u32, made: fn(u32) -> u64, written: fn(u32) -> u64| {
            let at = |n: u32| at(Rank::Number(n), made(n), written(n));
            let files: Vec<_> = [3, 1, 10, 2].map(at).to_vec();
            let after = after(&at(own), &files);
            let number = |index: usize| match files[index].rank {
                Rank::Number(number) => number,
                Rank::Dated(_) => unreachable!("only numbers"),
            };
            after.into_iter().map(number).collect::<Vec<_>>()
        };
        let (down, up, at_once) = (|n| u64::from(100 - n), |n| u64::from(n), |_| 5);
        assert_eq!(numbers(3, down, down), [2, 1]);
        assert!(numbers(1, down, down).is_empty());
        assert_eq!(numbers(2, at_once, at_once), [1]);
        assert_eq!(numbers(2, down, up), [1], "written by one who did not notice");
        assert_eq!(numbers(2, up, down), [1], "moved to another disk");
        assert_eq!(numbers(2, up, up), [3, 10]);
        assert!(numbers(10, up, up).is_empty());
    }

    #[test]
    fn dates_rise_and_have_nothing_to_do_with_numbers() {
        let dated = |name: &str| Name::read(name, "a.log").unwrap().rank.unwrap();
        let names = ["a.log-20261201", "a.log-20261127.2", "a.log-20261127.10", "a.log.1", "a.log-20261126"];
        // Written in any order: dates say more.
        let files: Vec<_> =
            names.iter().zip([1, 9, 4, 7, 8]).map(|(name, minute)| at(dated(name), minute, minute)).collect();
        let found = after(&at(dated("a.log-20261127"), 5, 5), &files);
        assert_eq!(
            found.into_iter().map(|index| names[index]).collect::<Vec<_>>(),
            ["a.log-20261127.2", "a.log-20261127.10", "a.log-20261201"]
        );
    }
}

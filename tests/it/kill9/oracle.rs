//! Knows the input, reads the sink as a stranger would, and says what is lost, doubled or out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use millstream::connectors::file::{CommittedFile, read_committed};

use super::input::{self, Booking, PARTITIONS};

/// What is counted, and with it what the rows have to look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Bookings per account.
    Ledger,
    /// Words of files.
    Words,
    /// Bookings per account between two pauses, by windows and by group state.
    Spans,
}

/// Follows the committed rows of one store. Lives in the test's process, so that no kill restarts it.
pub(crate) struct Oracle {
    books: Books,
    /// What was committed at the last look; it never changes or goes away.
    seen: Vec<CommittedFile>,
    rows: u64,
}

enum Books {
    Ledger {
        seed: u64,
        /// Per account and partition, the numbers in the partition that are still to come, in order.
        expected: BTreeMap<(u64, u32), std::vec::IntoIter<u64>>,
        /// Per account the last running number and sum.
        balances: BTreeMap<u64, (u64, i64)>,
    },
    Words {
        expected: BTreeMap<String, u64>,
        counts: BTreeMap<String, u64>,
    },
    Spans {
        /// Rows that are still to come.
        expected: BTreeSet<String>,
        came: BTreeSet<String>,
    },
}

impl Oracle {
    /// Expects the bookings `0..records` of the seed.
    pub(crate) fn ledger(seed: u64, records: u64) -> Self {
        let mut expected: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        for Booking { partition, seq, account, .. } in (0..records).map(|number| input::booking(seed, number)) {
            expected.entry((account, partition)).or_default().push(seq);
        }
        let expected = expected.into_iter().map(|(key, seqs)| (key, seqs.into_iter())).collect();
        Self::new(Books::Ledger { seed, expected, balances: BTreeMap::new() })
    }

    /// Expects every word of the text.
    pub(crate) fn words<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut expected = BTreeMap::new();
        for word in lines.flat_map(|line| line.split(' ')) {
            *expected.entry(word.to_owned()).or_default() += 1;
        }
        Self::new(Books::Words { expected, counts: BTreeMap::new() })
    }

    /// Expects the spans of the bookings `0..records` of the seed.
    pub(crate) fn spans(seed: u64, records: u64) -> Self {
        let mut accounts: BTreeMap<u64, Vec<(i64, i64)>> = BTreeMap::new();
        for booking in (0..records).map(|number| input::booking(seed, number)) {
            accounts.entry(booking.account).or_default().push((input::value_date(&booking), booking.amount));
        }
        let mut expected = BTreeSet::new();
        for (account, mut bookings) in accounts {
            bookings.sort_unstable();
            for span in bookings.chunk_by(|one, next| next.0 - one.0 <= input::GAP_MICROS as i64) {
                let sum: i64 = span.iter().map(|(_, amount)| amount).sum();
                let row = format!("{account} {} {} {} {sum}", span[0].0, span[span.len() - 1].0, span.len());
                if input::comes_from_one_partition(account) {
                    expected.insert(format!("group {row}"));
                }
                expected.insert(format!("window {row}"));
            }
        }
        Self::new(Books::Spans { expected, came: BTreeSet::new() })
    }

    fn new(books: Books) -> Self {
        Self { books, seen: Vec::new(), rows: 0 }
    }

    /// Rows that were committed at the last look.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The last epoch that was visible at the last look.
    pub(crate) fn last_epoch(&self) -> u64 {
        self.seen.last().map_or(0, |file| file.last.number())
    }

    /// Reads what was committed since the last look: per key it goes on exactly where it was, nothing is doubled, nothing
    /// is from the future, nothing that was visible has changed or gone.
    pub(crate) fn look(&mut self, out: &Path) -> Result<(), String> {
        if !out.exists() {
            return if self.seen.is_empty() { Ok(()) } else { Err("lost: the sink's directory is gone".to_owned()) };
        }
        let files = read_committed(out).map_err(|error| format!("damaged: {error}"))?;
        if !files.starts_with(&self.seen) {
            return Err(format!("lost: what was committed has changed, from {:?} to {files:?}", self.seen));
        }
        let mut last = self.last_epoch();
        for file in &files[self.seen.len()..] {
            if file.first.number() <= last {
                return Err(format!("doubled: epoch {} is in a second file, {}", file.first, file.path.display()));
            }
            last = file.last.number();
            for row in file.lines().map_err(|error| format!("damaged: {error}"))? {
                self.books.enter(&row).map_err(|text| format!("{text}: row {row:?} of {}", file.path.display()))?;
                self.rows += 1;
            }
        }
        self.seen = files;
        Ok(())
    }

    /// Looks once more after the end of the input, when everything has to be in.
    pub(crate) fn judge(&mut self, out: &Path) -> Result<(), String> {
        self.look(out)?;
        // From the beginning, so that also the checksums of old files are compared again.
        for file in &self.seen {
            file.content().map_err(|error| format!("damaged: {error}"))?;
        }
        self.books.close()
    }
}

impl Books {
    fn enter(&mut self, row: &str) -> Result<(), String> {
        match self {
            Self::Ledger { seed, expected, balances } => {
                let fields: Vec<i64> = row.split(' ').filter_map(|field| field.parse().ok()).collect();
                let [account, bookings, sum, partition, seq, amount] = *fields.as_slice() else {
                    return Err("damaged".to_owned());
                };
                let (account, partition, seq) = (account as u64, partition as u32, seq as u64);
                let next = expected.get_mut(&(account, partition)).and_then(Iterator::next);
                match next {
                    None => return Err("doubled or invented, no such booking is left".to_owned()),
                    Some(next) if next < seq => {
                        return Err(format!("lost, booking {next} of the partition comes first"));
                    }
                    Some(next) if next > seq => {
                        return Err(format!("doubled, booking {next} of the partition is next"));
                    }
                    Some(_) => {}
                }
                let booking = input::booking(*seed, seq * u64::from(PARTITIONS) + u64::from(partition));
                let balance = balances.entry(account).or_default();
                *balance = (balance.0 + 1, balance.1 + booking.amount);
                let (last, total) = *balance;
                if (booking.amount, total) != (amount, sum) || bookings != last as i64 {
                    return Err(format!("wrong state, running number {last} and sum {total} were expected"));
                }
            }
            Self::Words { expected, counts } => {
                let Some((word, count)) =
                    row.rsplit_once(' ').and_then(|(word, count)| Some((word, count.parse::<u64>().ok()?)))
                else {
                    return Err("damaged".to_owned());
                };
                let last = counts.entry(word.to_owned()).or_default();
                *last += 1;
                if count != *last {
                    let what = if count < *last { "doubled" } else { "lost" };
                    return Err(format!("{what}, running number {last} was expected"));
                }
                if expected.get(word).is_none_or(|total| count > *total) {
                    return Err("doubled or invented, the input has fewer".to_owned());
                }
            }
            Self::Spans { expected, came } => match expected.take(row) {
                Some(row) => drop(came.insert(row)),
                None if came.contains(row) => return Err("doubled".to_owned()),
                None => return Err("wrong state, or invented".to_owned()),
            },
        }
        Ok(())
    }

    fn close(&self) -> Result<(), String> {
        match self {
            Self::Ledger { expected, .. } => {
                let lost: usize = expected.values().map(ExactSizeIterator::len).sum();
                if lost > 0 { Err(format!("lost: {lost} bookings are not in the books")) } else { Ok(()) }
            }
            Self::Spans { expected, .. } => match expected.first() {
                None => Ok(()),
                Some(row) => Err(format!("lost: {} rows, the first is {row:?}", expected.len())),
            },
            Self::Words { expected, counts } if expected == counts => Ok(()),
            Self::Words { expected, counts } => {
                let wrong = expected.iter().filter(|(word, count)| counts.get(*word) != Some(count)).count();
                Err(format!("lost: {wrong} words were counted too low"))
            }
        }
    }
}

#[test]
fn the_oracle_tells_lost_doubled_and_wrong_rows_apart() {
    let row = |bookings, sum, number| {
        let Booking { partition, seq, account, amount } = input::booking(7, number);
        format!("{account} {bookings} {sum} {partition} {seq} {amount}")
    };
    let of = |account| (0..9_000).filter(|number| input::booking(7, *number).account == account).collect::<Vec<u64>>();
    // An account with two bookings of one partition.
    let twice = |same: &Vec<u64>| same.iter().skip(1).any(|number| number % 4 == same[0] % 4);
    let same = (0..9_000).map(|number| of(input::booking(7, number).account)).find(twice).unwrap();
    let sum = |upto: usize| same[..upto].iter().map(|number| input::booking(7, *number).amount).sum::<i64>();
    let verdict = |rows: &[String]| {
        let mut oracle = Oracle::ledger(7, 9_000);
        rows.iter().try_for_each(|row| oracle.books.enter(row)).and_then(|()| oracle.books.close())
    };
    let [first, second] = [row(1, sum(1), same[0]), row(2, sum(2), same[1])];
    assert!(verdict(&[first.clone(), second.clone()]).unwrap_err().contains("not in the books"));
    assert!(verdict(&[first.clone(), first.clone()]).unwrap_err().contains("doubled"));
    let next_of_partition = same.iter().position(|number| number % 4 == same[0] % 4 && *number > same[0]).unwrap();
    let skipped = row(1, input::booking(7, same[next_of_partition]).amount, same[next_of_partition]);
    assert!(verdict(&[skipped]).unwrap_err().contains("lost"));
    assert!(verdict(&[first, row(3, sum(2), same[1])]).unwrap_err().contains("wrong state"));

    let spans = |change: fn(&mut Vec<String>)| {
        let mut oracle = Oracle::spans(7, 3_000);
        let Books::Spans { expected, .. } = &oracle.books else { unreachable!() };
        let mut rows: Vec<String> = expected.iter().cloned().collect();
        change(&mut rows);
        rows.iter().try_for_each(|row| oracle.books.enter(row)).and_then(|()| oracle.books.close())
    };
    assert_eq!(spans(|_| ()), Ok(()));
    assert!(spans(|rows| rows.push(rows[5].clone())).unwrap_err().contains("doubled"));
    assert!(spans(|rows| drop(rows.pop())).unwrap_err().contains("lost: 1 rows"));
    assert!(spans(|rows| rows[5].push('1')).unwrap_err().contains("wrong state"));

    let verdict = |rows: &[&str]| {
        let mut oracle = Oracle::words(["a b a"].into_iter());
        rows.iter().try_for_each(|row| oracle.books.enter(row)).and_then(|()| oracle.books.close())
    };
    assert_eq!(verdict(&["a 1", "b 1", "a 2"]), Ok(()));
    assert!(verdict(&["a 1", "a 1"]).unwrap_err().contains("doubled"));
    assert!(verdict(&["a 2"]).unwrap_err().contains("lost"));
    assert!(verdict(&["a 1", "b 1", "b 2"]).unwrap_err().contains("doubled"));
    assert!(verdict(&["a 1", "b 1"]).unwrap_err().contains("lost"));
}

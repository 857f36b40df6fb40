//! The judge: reads what is committed as a stranger would, and compares it with a count of his own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use millstream::connectors::file::CommittedFile;
use millstream::prelude::*;
use millstream::runtime::fault::{NoFaults, SharedFaults};
use millstream::runtime::id::ShardId;
use millstream::runtime::state::key_group::KeyGroups;
use millstream::runtime::state::log::{CommitLog, Identity, LogLimits, StartFrom};
use millstream::runtime::state::store::{StateBackend, StoreShare};

use crate::child::{Layout, PIPELINE};
use crate::input::Text;
use crate::journal::Entries;

/// Follows the committed files: per word the rows must be 1, 2, 3 …
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// The last running number of each word.
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) rows: u64,
    pub(crate) files: Vec<CommittedFile>,
    /// Rows that do not go on where their word was, and the first of them.
    pub(crate) wrong: u64,
    pub(crate) first_wrong: Option<String>,
}

impl Rows {
    /// Reads what was committed since the last look.
    pub(crate) fn look(&mut self, dir: &Path) -> anyhow::Result<()> {
        let out = Layout(dir).out();
        if !out.exists() {
            return Ok(());
        }
        let files = read_committed(&out)?;
        if !files.starts_with(&self.files) {
            self.note(|| "what was committed has changed".to_owned());
        }
        for file in files.iter().skip(self.files.len()) {
            for row in file.lines()? {
                let (word, count) = row.rsplit_once(' ').with_context(|| format!("no word and number: {row}"))?;
                let count: u64 = count.parse().with_context(|| format!("no word and number: {row}"))?;
                let last = self.counts.entry(word.to_owned()).or_default();
                let expected = *last + 1;
                // Goes on from what the row says, so that one fault is counted once.
                *last = count;
                self.rows += 1;
                if count != expected {
                    self.note(|| format!("\"{row}\" in {}, {expected} was due", file.path.display()));
                }
            }
        }
        self.files = files;
        Ok(())
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        self.wrong += 1;
        self.first_wrong.get_or_insert_with(text);
    }
}

/// What the store holds after the kill.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) epoch: u64,
    /// Per file of the input where it stands, and whether it was at its end.
    positions: BTreeMap<String, (u64, bool)>,
}

impl Saved {
    /// Reads the store that the killed child left behind.
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Self> {
        let shard = ShardId::default();
        let store = RocksDb::at(Layout(dir).state()).open(PIPELINE, shard, false)?;
        let identity = Identity { pipeline: PIPELINE.to_owned(), shard, key_groups: KeyGroups::DEFAULT_COUNT.get() };
        let alone = (Arc::new(NoFaults) as SharedFaults, StoreShare::default());
        let log = CommitLog::open(store, identity, StartFrom::Resume, LogLimits::default(), alone)?;
        let restored = log.restore()?;
        let positions = restored.positions.into_iter().map(|at| {
            let bytes = at.position.as_u64().context("a position that is no byte offset")?;
            Ok((at.split.to_string(), (bytes, at.ended)))
        });
        Ok(Self { epoch: restored.epoch.number(), positions: positions.collect::<anyhow::Result<_>>()? })
    }
}

/// One thing that was looked at.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) good: bool,
    pub(crate) text: String,
}

/// What is known when everything is over.
pub(crate) struct Case<'a> {
    pub(crate) text: &'a Text,
    pub(crate) rows: &'a Rows,
    pub(crate) saved: &'a Saved,
    /// The last epoch that the first life said was committed.
    pub(crate) said: u64,
    /// The epoch that the second life said it went on from.
    pub(crate) restored: Option<u64>,
    pub(crate) first: &'a Entries,
    pub(crate) second: &'a Entries,
}

impl Case<'_> {
    /// Looks at everything.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        vec![self.chain(), self.totals(), self.epoch(), self.positions(), self.read_again()]
    }

    fn chain(&self) -> Finding {
        let Rows { counts, rows, files, wrong, first_wrong, .. } = self.rows;
        let words = counts.len();
        match first_wrong {
            None => good(format!(
                "every word's rows are 1, 2, 3 ..., each exactly once: {rows} rows of {words} words in {} files",
                files.len()
            )),
            Some(first) => bad(format!("{wrong} rows are not the next of their word, the first: {first}")),
        }
    }

    fn totals(&self) -> Finding {
        let Text { words, records, .. } = self.text;
        if *words == self.rows.counts {
            return good(format!("totals equal a count made without the runtime: {records} words"));
        }
        let differ = words.iter().filter(|(word, count)| self.rows.counts.get(*word) != Some(count)).count();
        bad(format!(
            "{differ} words have another total than in a count made without the runtime ({} rows, {records} words)",
            self.rows.rows
        ))
    }

    fn epoch(&self) -> Finding {
        let (saved, said) = (self.saved.epoch, self.said);
        match self.restored {
            Some(restored) if restored > 0 && restored == saved && restored >= said => good(format!(
                "the second life went on from epoch {restored}, the store's last; {said} was the last reported"
            )),
            restored => bad(format!(
                "the second life went on from epoch {restored:?}, the store's last was {saved}, the last reported {said}"
            )),
        }
    }

    fn positions(&self) -> Finding {
        let mut wrong = Vec::new();
        let mut exact = 0;
        for (split, opened) in &self.second.opened {
            // What has no saved position begins at the beginning; what had ended is not opened again.
            let expected = self.saved.positions.get(split).copied().unwrap_or_default();
            if expected.1 || *opened != [expected.0] {
                wrong.push(format!("{split} at {opened:?} and not at {}", expected.0));
            } else {
                exact += 1;
            }
        }
        for (split, (at, ended)) in &self.saved.positions {
            if !ended && !self.second.opened.contains_key(split) {
                wrong.push(format!("{split} was not opened at {at}"));
            }
            if self.first.committed.get(split).is_some_and(|said| said > at) {
                wrong.push(format!("{split} is saved at {at}, before what the first life was told"));
            }
        }
        match wrong.first() {
            None => {
                let ended = self.saved.positions.values().filter(|(_, ended)| *ended).count();
                good(format!("it began exactly at that epoch's positions: {exact} files opened, {ended} were done"))
            }
            Some(first) => {
                bad(format!("{} files did not begin at their saved position, the first: {first}", wrong.len()))
            }
        }
    }

    fn read_again(&self) -> Finding {
        let total = self.text.lines;
        let again = (self.first.lines + self.second.lines).saturating_sub(total);
        let share = again as f64 * 100.0 / total.max(1) as f64;
        Finding {
            good: share < 20.0,
            text: format!("it read {again} of {total} lines a second time: {share:.1} %, limit 20 %"),
        }
    }
}

fn good(text: String) -> Finding {
    Finding { good: true, text }
}

fn bad(text: String) -> Finding {
    Finding { good: false, text }
}

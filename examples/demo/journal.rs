//! What a life of the child did with its input, in a file that outlives it: a killed process keeps what it wrote.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

/// Writes the journal of one life.
pub(crate) struct Journal {
    file: Mutex<File>,
}

/// What the journal of one life says. Splits are files of the input, positions are bytes in them.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// Where readers were opened; 0 is the beginning.
    pub(crate) opened: BTreeMap<String, Vec<u64>>,
    /// Lines that were read.
    pub(crate) lines: u64,
    /// What the runtime last said is durable.
    pub(crate) committed: BTreeMap<String, u64>,
}

fn path(dir: &Path, life: u32) -> PathBuf {
    dir.join(format!("life-{life}.journal"))
}

impl Journal {
    pub(crate) fn create(dir: &Path, life: u32) -> anyhow::Result<Self> {
        let path = path(dir, life);
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { file: Mutex::new(file) })
    }

    pub(crate) fn opened(&self, split: &str, at: u64) -> std::io::Result<()> {
        self.write(format!("opened\t{split}\t{at}\n"))
    }

    pub(crate) fn read(&self, split: &str, lines: usize) -> std::io::Result<()> {
        self.write(format!("read\t{split}\t{lines}\n"))
    }

    pub(crate) fn committed(&self, split: &str, at: u64) -> std::io::Result<()> {
        self.write(format!("committed\t{split}\t{at}\n"))
    }

    /// In one call, so that a kill leaves whole lines.
    fn write(&self, line: String) -> std::io::Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes())
    }
}

impl Entries {
    pub(crate) fn read(dir: &Path, life: u32) -> anyhow::Result<Self> {
        let path = path(dir, life);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut entries = Self::default();
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let fields: Vec<&str> = line.split('\t').collect();
            let [what, split, number] = *fields.as_slice() else { anyhow::bail!("a broken journal: {line}") };
            let number: u64 = number.parse().with_context(|| format!("a broken journal: {line}"))?;
            match what {
                "opened" => entries.opened.entry(split.to_owned()).or_default().push(number),
                "read" => entries.lines += number,
                _ => drop(entries.committed.insert(split.to_owned(), number)),
            }
        }
        Ok(entries)
    }
}

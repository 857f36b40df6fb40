//! The list of files: which number means which file, and which names are known.
//!
//! | space | key | value (MessagePack) |
//! |---|---|---|
//! | meta | `files` | format, the next number, the newest modification time of any file so far |
//! | log | a file's number | its path, modification time and length when it was listed |
//!
//! Files are listed in synced writes, and whatever is found when the list is opened is made durable first: an epoch that is
//! durable must not name a file that is not. What is removed need not be synced: lost, it is there once more.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use millstream_runtime::codec;
use millstream_runtime::state::store::{Durability, Space, Store, StoreError, WriteBatch};
use millstream_runtime::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::directory::{Found, Stamp};

const HEAD: &[u8] = b"files";
const FORMAT: u32 = 1;

/// By what a file is known, so that it is read once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileIdentity {
    /// By its path below the watched directory. The default.
    #[default]
    Path,
    /// By its name alone, whatever directory it is in; Spark's `fileNameOnly`.
    Name,
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    next: u64,
    newest: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    path: String,
    time: Timestamp,
    bytes: u64,
}

/// A file of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) path: Arc<str>,
    pub(super) stamp: Stamp,
    /// The last look at the directory that has seen it.
    seen: u64,
}

/// What the list says about a path that is in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: it is new.
    No,
    /// It is known, and was there before.
    Yes,
    /// It is known, and was gone for a while.
    Back,
    /// Another one of the same name is known.
    Other,
}

/// What keeps a list from being used.
#[derive(Debug)]
pub(super) enum Failure {
    Store(StoreError),
    /// What is wrong with its content.
    Content(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The list as it is in the store.
#[derive(Debug)]
pub(super) struct FileList {
    identity: FileIdentity,
    files: BTreeMap<u64, Listed>,
    /// By what is known of them.
    numbers: HashMap<Arc<str>, u64>,
    next: u64,
    newest: Option<Timestamp>,
    /// Counts the looks at the directory.
    look: u64,
}

impl FileList {
    /// Reads the list, and makes what it has read durable.
    pub(super) fn open(store: &mut dyn Store, identity: FileIdentity) -> Result<Self, Failure> {
        let (files, numbers) = (BTreeMap::new(), HashMap::new());
        let mut list = Self { identity, files, numbers, next: 0, newest: None, look: 1 };
        if let Some(head) = store.multi_get(Space::Meta, &[HEAD.to_vec()])?.pop().flatten() {
            let head: Head =
                codec::decode(&head).map_err(|error| Failure::Content(format!("its head cannot be read: {error}")))?;
            if head.format != FORMAT {
                let text = format!("its format is {}, and this version reads {FORMAT}", head.format);
                return Err(Failure::Content(text));
            }
            (list.next, list.newest) = (head.next, head.newest);
        }
        let mut damage = None;
        store.scan(Space::Log, &[], None, &mut |key, value| {
            damage = list.found(key, value).err();
            if damage.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(what) = damage {
            return Err(Failure::Content(what));
        }
        store.write(WriteBatch::default(), Durability::Synced)?;
        Ok(list)
    }

    fn found(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let number = key.try_into().map(u64::from_be_bytes).map_err(|_| "it has a row that is no file's".to_owned())?;
        if number >= self.next {
            return Err(format!("it has a file {number} behind its end at {}", self.next));
        }
        let row: Row = codec::decode(value).map_err(|error| format!("file {number} cannot be read: {error}"))?;
        self.insert(number, row);
        Ok(())
    }

    fn insert(&mut self, number: u64, Row { path, time, bytes }: Row) {
        let path: Arc<str> = path.into();
        let identity = match self.identity {
            FileIdentity::Path => Arc::clone(&path),
            FileIdentity::Name => file_name(&path).into(),
        };
        self.numbers.insert(identity, number);
        self.files.insert(number, Listed { path, stamp: Stamp { time, bytes }, seen: self.look });
    }

    /// Adds files, in this order. After an error nobody knows whether they are in: open the list anew.
    pub(super) fn append(
        &mut self,
        store: &mut dyn Store,
        found: Vec<Found>,
        now: Timestamp,
        durability: Durability,
    ) -> Result<(), Failure> {
        // A file from the future must not make all others too old.
        let newest = found.iter().map(|found| found.stamp.time.min(now)).chain(self.newest).max();
        let rows = found.into_iter().map(|Found { path, stamp: Stamp { time, bytes } }| Row { path, time, bytes });
        let rows: Vec<(u64, Row)> = (self.next..).zip(rows).collect();
        let next = self.next.saturating_add(rows.len() as u64);
        let mut batch = WriteBatch::default();
        for (number, row) in &rows {
            batch.put(Space::Log, number.to_be_bytes(), encode(row)?);
        }
        batch.put(Space::Meta, HEAD, encode(&Head { format: FORMAT, next, newest })?);
        store.write(batch, durability)?;
        (self.next, self.newest) = (next, newest);
        rows.into_iter().for_each(|(number, row)| self.insert(number, row));
        Ok(())
    }

    /// Removes what is known of files below number `committed` that are older than `oldest` and are gone: the look that has
    /// just ended did not see them.
    pub(super) fn forget(
        &mut self,
        store: &mut dyn Store,
        committed: u64,
        oldest: Timestamp,
    ) -> Result<(), StoreError> {
        let look = self.look;
        let gone: Vec<u64> = self
            .files
            .range(..committed)
            .filter(|(_, file)| file.seen < look && file.stamp.time < oldest)
            .map(|(number, _)| *number)
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        gone.iter().for_each(|number| batch.delete(Space::Log, number.to_be_bytes()));
        store.write(batch, Durability::Buffered)?;
        for number in gone {
            let Some(file) = self.files.remove(&number) else { continue };
            let identity = self.identity_of(&file.path).to_owned();
            // Another one may have taken the name since: only after a change of the identity.
            if self.numbers.get(identity.as_str()) == Some(&number) {
                self.numbers.remove(identity.as_str());
            }
        }
        Ok(())
    }

    /// Begins a look at the directory: [`FileList::see`] is then called with every path in it.
    pub(super) fn begin_look(&mut self) {
        self.look += 1;
    }

    /// Takes note that this path is in the directory, and says what is known of it.
    pub(super) fn see(&mut self, path: &str) -> Known {
        let look = self.look;
        let known = self.numbers.get(self.identity_of(path)).and_then(|number| self.files.get_mut(number));
        let Some(file) = known else { return Known::No };
        let before = std::mem::replace(&mut file.seen, look);
        if *file.path != *path {
            return Known::Other;
        }
        if before + 1 < look { Known::Back } else { Known::Yes }
    }

    /// Takes note that a file is not in the directory any more.
    pub(super) fn cleaned(&mut self, number: u64) {
        if let Some(file) = self.files.get_mut(&number) {
            file.seen = 0;
        }
    }

    pub(super) fn file(&self, number: u64) -> Option<&Listed> {
        self.files.get(&number)
    }

    /// Returns the file that is known by a path.
    pub(super) fn by_path(&self, path: &str) -> Option<&Listed> {
        self.file(*self.numbers.get(self.identity_of(path))?)
    }

    /// Returns the files with `from` ≤ number < `to`.
    pub(super) fn range(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, &Listed)> {
        self.files.range(from..to.max(from)).map(|(number, file)| (*number, file))
    }

    /// Returns the first file from `number` on that is not in the list, though it was.
    pub(super) fn first_forgotten(&self, number: u64) -> Option<u64> {
        let there = self.files.range(number..).map(|(number, _)| *number);
        (number..self.next)
            .zip(there.map(Some).chain(std::iter::repeat(None)))
            .find_map(|(wanted, there)| (there != Some(wanted)).then_some(wanted))
    }

    /// The number of the next file.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The newest modification time of all files so far, none of which counts as later than when it was listed.
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Returns by what a path is known.
    pub(super) fn identity_of<'a>(&self, path: &'a str) -> &'a str {
        match self.identity {
            FileIdentity::Path => path,
            FileIdentity::Name => file_name(path),
        }
    }
}

fn encode(row: &impl Serialize) -> Result<Vec<u8>, Failure> {
    codec::encode(row).map_err(|error| Failure::Content(format!("a row cannot be written: {error}")))
}

fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

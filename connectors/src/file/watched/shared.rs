//! The list of files with the directory, as the readers of all attempts share them.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::id::ShardId;
use millstream_runtime::state::store::{Durability, StateBackend, Store};
use millstream_runtime::time::SharedClock;

use super::clean::CleanSource;
use super::counts::{Counted, WatchedCounter};
use super::directory::{Directory, Found, oldest};
use super::error::WatchError;
use super::list::{Failure, FileIdentity, FileList, Known, Listed};
use crate::newest::Newest;

/// Most files of one write into the list.
const MOST_LISTED: usize = 1_000;
/// Most files that are cleaned away between two batches.
const MOST_CLEANED: usize = 64;

/// What was set.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) name: String,
    pub(super) backend: Arc<dyn StateBackend>,
    pub(super) durability: Durability,
    pub(super) identity: FileIdentity,
    pub(super) max_age: Duration,
    pub(super) clean: CleanSource,
    pub(super) clock: SharedClock,
    pub(super) counter: WatchedCounter,
}

/// What may be done with the list. Clones have the same list.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) config: Config,
    state: Arc<Newest<State>>,
    /// The first file that is not committed.
    committed: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    /// Nothing before the first attempt, and after an error: a handle that failed must not be used again.
    open: Option<(Box<dyn Store>, FileList)>,
    /// Found and not listed yet, oldest first.
    found: VecDeque<Found>,
    /// Files that are there, were left out, and are counted.
    left_out: HashSet<String>,
    /// The first file that was not tried to be cleaned away.
    cleaned: u64,
}

impl Watched {
    pub(super) fn new(config: Config) -> Self {
        Self { config, state: Arc::new(Newest::new(State::default())), committed: Arc::default() }
    }

    /// Opens the list if it is not open.
    pub(super) fn open(&self) -> Result<(), WatchError> {
        self.list(&mut self.state.any().state.open).map(|_| ())
    }

    /// Makes the only reader from now on, which goes on at byte `offset` of a file, and returns its number.
    pub(super) fn begin(&self, file: u64, offset: u64) -> Result<u64, WatchError> {
        let (reader, mut inner) = self.state.claim();
        // That may have been long ago.
        inner.state.found.clear();
        let (_, list) = self.list(&mut inner.state.open)?;
        let (name, next) = (self.config.name.clone(), list.next());
        if file > next || (file == next && offset > 0) {
            return Err(WatchError::Behind { name, wanted: file, next });
        }
        if let Some(wanted) = list.first_forgotten(file) {
            return Err(WatchError::Forgotten { name, wanted });
        }
        self.committed(file);
        Ok(reader)
    }

    /// Hears that all files before this one are committed.
    pub(super) fn committed(&self, file: u64) {
        self.committed.fetch_max(file, Ordering::AcqRel);
    }

    /// Returns a file of the list; nothing behind its end.
    pub(super) fn file(&self, reader: u64, number: u64) -> Result<Option<Listed>, BoxError> {
        let mut inner = self.state.get(reader)?;
        let (_, list) = self.list(&mut inner.state.open)?;
        Ok(list.file(number).cloned())
    }

    /// Lists more files: those that were found before, or else what is in the directory now, if one is given. Says whether
    /// there were any.
    pub(super) fn list_more(&self, reader: u64, look_at: Option<&mut Directory>) -> Result<bool, BoxError> {
        let mut inner = self.state.get(reader)?;
        let state = &mut inner.state;
        if state.found.is_empty()
            && let Some(directory) = look_at
        {
            self.look(state, directory)?;
        }
        let count = state.found.len().min(MOST_LISTED);
        if count == 0 {
            return Ok(false);
        }
        let found: Vec<Found> = state.found.drain(..count).collect();
        let now = self.config.clock.now();
        let (store, list) = self.list(&mut state.open)?;
        if let Err(failure) = list.append(store, found, now, self.config.durability) {
            // The rest is found again, what has reached the list is read from it.
            state.found.clear();
            state.open = None;
            return Err(self.failed(failure).into());
        }
        (0..count).for_each(|_| self.config.counter.add(Counted::Listed));
        Ok(true)
    }

    /// Looks for new files, and forgets old ones that are gone.
    fn look(&self, state: &mut State, directory: &mut Directory) -> Result<(), WatchError> {
        let State { open, found, left_out, .. } = state;
        let (store, list) = self.list(open)?;
        let oldest = oldest(list.newest(), self.config.max_age);
        list.begin_look();
        let (mut back, mut others) = (HashSet::new(), Vec::new());
        let mut new = directory.list(&mut |path| match list.see(path) {
            Known::No => true,
            Known::Yes => false,
            Known::Back => back.insert(path.to_owned()),
            Known::Other => {
                others.push(path.to_owned());
                false
            }
        })?;
        if self.config.clean != CleanSource::Off
            && let Some(path) = directory.of_a_sink()
        {
            return Err(WatchError::SinkOutput { path: path.to_owned() });
        }
        let before = std::mem::take(left_out);
        let mut leave_out = |path: String, counted, why: &str| {
            if !before.contains(&path) {
                self.config.counter.add(counted);
                tracing::warn!(list = %self.config.name, %path, "a file is left out: {why}");
            }
            left_out.insert(path);
        };
        for path in others {
            leave_out(path, Counted::SameName, "one of the same name in another directory is known");
        }
        new.sort_unstable_by(|one, other| (one.stamp.time, &one.path).cmp(&(other.stamp.time, &other.path)));
        let mut names = HashSet::new();
        for file in new {
            if back.contains(&file.path) {
                if list.by_path(&file.path).is_some_and(|listed| listed.stamp != file.stamp) {
                    leave_out(file.path, Counted::KnownName, "one of this name was read before; use new names");
                }
            } else if file.stamp.time < oldest {
                leave_out(file.path, Counted::TooOld, "it is older than the newest one by more than max_file_age");
            } else if !names.insert(list.identity_of(&file.path).to_owned()) {
                leave_out(file.path, Counted::SameName, "one of the same name in another directory is known");
            } else {
                found.push_back(file);
            }
        }
        if let Err(error) = list.forget(store, self.committed.load(Ordering::Acquire), oldest) {
            *open = None;
            return Err(self.failed(Failure::Store(error)));
        }
        Ok(())
    }

    /// Cleans away some of the files that are committed. What does not work is counted and said, and left at that.
    pub(super) fn clean(&self, reader: u64, directory: &Directory) -> Result<(), BoxError> {
        if self.config.clean == CleanSource::Off {
            return Ok(());
        }
        let mut inner = self.state.get(reader)?;
        let State { open, cleaned, .. } = &mut inner.state;
        let (_, list) = self.list(open)?;
        let committed = self.committed.load(Ordering::Acquire);
        let files: Vec<(u64, Listed)> =
            list.range(*cleaned, committed).take(MOST_CLEANED).map(|(number, file)| (number, file.clone())).collect();
        *cleaned = match files.last() {
            Some((last, _)) if files.len() == MOST_CLEANED => last + 1,
            _ => committed,
        };
        for (number, Listed { path, stamp, .. }) in files {
            match self.config.clean.clean(directory, &path, stamp) {
                Ok(true) => self.config.counter.add(Counted::Cleaned),
                // It is gone already.
                Ok(false) => {}
                Err(error) => {
                    self.config.counter.add(Counted::NotCleaned);
                    tracing::warn!(list = %self.config.name, %path, %error, "a file that was read stays");
                    continue;
                }
            }
            list.cleaned(number);
        }
        Ok(())
    }

    /// Returns the store and the list in it, opened if it is not open.
    fn list<'a>(
        &self,
        open: &'a mut Option<(Box<dyn Store>, FileList)>,
    ) -> Result<(&'a mut (dyn Store + 'static), &'a mut FileList), WatchError> {
        let (store, list) = match open {
            Some(open) => open,
            none => {
                let config = &self.config;
                let opened = config.backend.open(&config.name, ShardId::default(), true);
                let mut store = opened.map_err(|error| self.failed(error.into()))?;
                let list = FileList::open(store.as_mut(), config.identity).map_err(|error| self.failed(error))?;
                none.insert((store, list))
            }
        };
        Ok((store.as_mut(), list))
    }

    fn failed(&self, failure: Failure) -> WatchError {
        let name = self.config.name.clone();
        match failure {
            Failure::Content(what) => WatchError::Damaged { name, what },
            Failure::Store(source) => {
                let place = self.config.backend.describe(&name, ShardId::default());
                WatchError::List { name, place, source }
            }
        }
    }
}

/// Says whether an error is that of a disk without room for the list: it is tried again.
pub(super) fn is_full_disk(error: &BoxError) -> bool {
    matches!(error.downcast_ref(), Some(WatchError::List { source, .. }) if source.is_retryable())
}

//! Looks for a log's files: the log itself, and what lies beside it.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::error::io_error;
use super::error::TailError;
use super::followed::{FileId, Followed, is_absent};
use super::names::{self, Name, Ranked};
use super::place::FilePlace;

/// How many lists are made until two are equal. A rotation takes milliseconds.
const MOST_LISTS: usize = 100;

/// The path of a log.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) path: PathBuf,
}

/// A file in the log's directory whose name begins with the log's.
#[derive(Debug)]
struct Beside {
    path: PathBuf,
    id: FileId,
    length: u64,
    made: Option<SystemTime>,
    written: Option<SystemTime>,
    name: Name,
}

impl Beside {
    fn ranked(&self) -> Option<Ranked> {
        // A compressed file was made when it was compressed.
        let made = self.made.filter(|_| !self.name.compressed);
        Some(Ranked { rank: self.name.rank.clone()?, made, written: self.written })
    }
}

/// What comes after a file.
#[derive(Debug)]
pub(super) enum Next {
    /// It is still the log's file, or there is no other yet.
    Nothing,
    /// It was removed, and another file has its content: somebody copies the log here, and replaces it each time, or rotates it
    /// by copying and removing it.
    SameContent(Followed),
    /// Another file. The compressed ones lie between.
    File { file: Followed, compressed: Vec<PathBuf> },
}

impl Log {
    /// Says which file bears the log's name now.
    pub(super) fn id(&self) -> Result<Option<FileId>, TailError> {
        match std::fs::metadata(&self.path) {
            Ok(metadata) => Ok(Some(FileId::of(&metadata))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(io_error("read", &self.path)(error).into()),
        }
    }

    /// Opens the file that has what was read up to the place, whatever its name. One with that inode goes first, then the log
    /// itself, then what was rotated, then the longest.
    pub(super) fn find(&self, place: &FilePlace) -> Result<Option<Followed>, TailError> {
        let beside = self.at_rest()?.ok_or_else(|| TailError::Restless { path: self.path.clone() })?;
        self.with_content(&beside, place, &[])
    }

    fn with_content(
        &self,
        beside: &[Beside],
        place: &FilePlace,
        except: &[Option<FileId>],
    ) -> Result<Option<Followed>, TailError> {
        let mut beside: Vec<_> = beside.iter().filter(|file| !file.name.compressed).collect();
        beside.sort_by_key(|file| std::cmp::Reverse((file.name.rank.is_some(), file.length)));
        let log = self.id()?.map(|id| (&self.path, id));
        let files = log.into_iter().chain(beside.into_iter().map(|file| (&file.path, file.id)));
        let files: Vec<_> = files.filter(|(_, id)| !except.contains(&Some(*id))).collect();
        for (path, _) in files.iter().filter(|(_, id)| id.inode == place.inode) {
            if let Some(file) = Followed::open_at(path, place)? {
                return Ok(Some(file));
            }
        }
        // As long as nothing was read of a file, nothing but its inode is known.
        let others = files.iter().filter(|(_, id)| id.inode != place.inode && place.offset > 0);
        // One that cannot be read is none of ours.
        Ok(others.filter_map(|(path, _)| Followed::open_at(path, place).ok().flatten()).next())
    }

    /// Opens the file that has this inode, whatever is in it.
    pub(super) fn with_inode(&self, inode: u64) -> Result<Option<Followed>, TailError> {
        let log = self.id()?.map(|id| (self.path.clone(), id));
        let beside = self.beside()?.into_iter().filter(|file| !file.name.compressed).map(|file| (file.path, file.id));
        let found = log.into_iter().chain(beside).find(|(_, id)| id.inode == inode);
        found.map_or(Ok(None), |(path, _)| Followed::open(&path))
    }

    /// Opens the file that comes after `current`, of which everything was read. `previous` came before.
    pub(super) fn next(&self, current: &Followed, previous: Option<FileId>) -> Result<Next, TailError> {
        let log = self.id()?;
        if log == Some(current.id) {
            return Ok(Next::Nothing);
        }
        let Some(files) = self.at_rest()? else { return Ok(Next::Nothing) };
        let own = files.iter().find(|file| file.id == current.id).and_then(Beside::ranked);
        // Whoever bears the name of a rotated file was rotated, though the next one may begin with the same lines.
        if own.is_none()
            && current.offset > 0
            && let Some(file) = self.with_content(&files, &current.place(), &[Some(current.id), previous])?
        {
            return Ok(Next::SameContent(file));
        }
        let is_other = |file: &&Beside| ![Some(current.id), previous, log].contains(&Some(file.id));
        let others: Vec<_> = files.iter().filter(is_other).filter_map(|file| Some((file, file.ranked()?))).collect();
        let ranks: Vec<_> = others.iter().map(|(_, ranked)| ranked.clone()).collect();
        let after = own.map(|own| names::after(&own, &ranks)).unwrap_or_default();
        let after: Vec<_> = after.into_iter().filter_map(|index| others.get(index)).map(|(file, _)| *file).collect();

        let mut compressed = Vec::new();
        for file in &after {
            let is_twice = |other: &&Beside| !other.name.compressed && other.name.rank == file.name.rank;
            match (file.name.compressed, after.iter().any(is_twice)) {
                (false, _) => return self.open(&file.path, file.id, compressed),
                // Being compressed just now: the original is still there.
                (true, true) => {}
                (true, false) => compressed.push(file.path.clone()),
            }
        }
        log.map_or(Ok(Next::Nothing), |log| self.open(&self.path, log, compressed))
    }

    /// Opens the file that was seen under this name. If it is another one by now, things have moved on: look again.
    fn open(&self, path: &Path, id: FileId, compressed: Vec<PathBuf>) -> Result<Next, TailError> {
        let file = Followed::open(path)?.filter(|file| file.id == id);
        Ok(file.map_or(Next::Nothing, |file| Next::File { file, compressed }))
    }

    /// Lists the files when nobody renames them: who rotates moves one after the other, and a list that is made meanwhile may lack
    /// one. Nothing if they do not come to rest; look again.
    fn at_rest(&self) -> Result<Option<Vec<Beside>>, TailError> {
        let mut last = self.beside()?;
        for _ in 0..MOST_LISTS {
            let files = self.beside()?;
            let is_same = |(one, two): (&Beside, &Beside)| one.id == two.id && one.path == two.path;
            if files.len() == last.len() && files.iter().zip(&last).all(is_same) {
                return Ok(Some(files));
            }
            last = files;
        }
        Ok(None)
    }

    /// Lists the files beside the log, and beside what it leads to if it is a link.
    fn beside(&self) -> Result<Vec<Beside>, TailError> {
        let mut logs = vec![self.path.clone()];
        if self.path.is_symlink() {
            logs.extend(self.path.canonicalize());
        }
        let mut files: Vec<Beside> = Vec::new();
        for log in logs {
            let name = log.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let directory = directory(&log);
            let entries = match std::fs::read_dir(&directory) {
                Ok(entries) => entries,
                // Away for now, as the log is.
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(TailError::directory(&self.path)(error)),
            };
            for entry in entries {
                let entry = entry.map_err(TailError::directory(&self.path))?;
                let Some(name) = entry.file_name().to_str().and_then(|other| Name::read(other, name)) else { continue };
                // What is renamed or removed in this moment is seen the next time.
                let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
                files.extend(file_of(entry.path(), &metadata, name));
            }
        }
        files.sort_by(|one, two| one.path.cmp(&two.path));
        Ok(files)
    }
}

fn file_of(path: PathBuf, metadata: &Metadata, name: Name) -> Option<Beside> {
    metadata.is_file().then(|| Beside {
        path,
        id: FileId::of(metadata),
        length: metadata.len(),
        made: metadata.created().ok(),
        written: metadata.modified().ok(),
        name,
    })
}

/// The directory that a path lies in.
pub(super) fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

//! Which files are read, in which order, and what is said about the others.

use millstream_runtime::id::{Attempt, Epoch, ShardId};
use millstream_runtime::state::store::Memory;

use super::*;
use crate::file::log::{Entry, FileEntry};
use crate::file::names::{entry_path, metadata_dir};
use crate::file::{InvalidText, LinesError};

/// An empty directory, and a pipeline that watches it.
fn watched() -> (TempDir, Pipeline) {
    let dir = TempDir::new().unwrap();
    let pipeline = Pipeline::of(dir.path(), Memory::new());
    (dir, pipeline)
}

#[test]
fn reads_files_in_the_order_of_their_times_and_of_their_names_where_those_are_equal() {
    let (dir, mut pipeline) = watched();
    for (name, modified) in [("c", 1), ("a", 2), ("b", 2), ("z", 0), ("_y", 0), (".x", 0), ("d/w", 0)] {
        appear(dir.path(), name, &format!("{name}1\n{name}2"), NOW + modified);
    }
    assert_eq!(pipeline.all(), ["z1", "z2", "c1", "c2", "a1", "a2", "b1", "b2"]);
    // One with an older time and a smaller name than any that was read.
    appear(dir.path(), "0", "0", NOW - 5 * DAY);
    assert_eq!(pipeline.all(), ["0"]);
    assert_eq!((pipeline.counts().listed, pipeline.counts().read), (5, 5));
}

#[test]
fn reads_a_file_once_whatever_becomes_of_it() {
    let (dir, mut pipeline) = watched();
    appear(dir.path(), "a", "one\n", NOW);
    assert_eq!(pipeline.all(), ["one"]);
    appear(dir.path(), "a", "one\ntwo\n", NOW + 1);
    assert!(pipeline.all().is_empty());
    std::fs::remove_file(dir.path().join("a")).unwrap();
    assert!(pipeline.all().is_empty());
    appear(dir.path(), "a", "three\n", NOW + 2);
    assert!(pipeline.all().is_empty() && pipeline.all().is_empty());
    // In another life, too.
    pipeline.commit();
    pipeline.fail();
    assert!(pipeline.all().is_empty());
    assert_eq!(pipeline.counts().known_name, 1, "what came back changed is counted once");
}

#[test]
fn reads_what_the_patterns_match() {
    let dir = TempDir::new().unwrap();
    for path in
        ["eu/1/a.csv", "eu/2/b.csv", "us/1/c.csv", "us/1/d.txt", "us/1/_e.csv", "us/_1/f.csv", "us/g.csv", "h.csv"]
    {
        appear(dir.path(), path, path, NOW);
    }
    let read = |options: fn(WatchedDirectory) -> WatchedDirectory| {
        let mut pipeline = Pipeline::of(dir.path(), Memory::new()).with(options);
        pipeline.all()
    };
    assert_eq!(read(|source| source.directories("*/?").files(["*.csv"])), ["eu/1/a.csv", "eu/2/b.csv", "us/1/c.csv"]);
    assert_eq!(read(|source| source.directories("us/[!2]")), ["us/1/c.csv", "us/1/d.txt"]);
    assert_eq!(read(|source| source.directories("us").files(["x", "g*"])), ["us/g.csv"]);
    assert_eq!(read(|source| source.files(["*.csv"])), ["h.csv"]);
    assert!(read(|source| source.directories("asia")).is_empty());
}

#[test]
fn by_name_alone_files_of_several_directories_count_as_one() {
    let (dir, pipeline) = watched();
    let mut pipeline = pipeline.with(|source| source.directories("*").identity(FileIdentity::Name));
    appear(dir.path(), "1/a", "a of 1", NOW + 1);
    appear(dir.path(), "2/a", "a of 2", NOW);
    assert_eq!(pipeline.all(), ["a of 2"]);
    appear(dir.path(), "3/a", "a of 3", NOW);
    appear(dir.path(), "3/b", "b of 3", NOW);
    assert_eq!(pipeline.all(), ["b of 3"]);
    assert!(pipeline.all().is_empty());
    assert_eq!(pipeline.counts().same_name, 2);
}

#[test]
fn leaves_out_and_counts_files_that_are_too_old() {
    let (dir, pipeline) = watched();
    let mut pipeline = pipeline.with(|source| source.max_file_age(Duration::from_secs(200)));
    appear(dir.path(), "old", "the first look takes any", 0);
    appear(dir.path(), "new", "new", NOW - 1_000);
    assert_eq!(pipeline.all(), ["the first look takes any", "new"]);
    appear(dir.path(), "at the limit", "at the limit", NOW - 1_200);
    appear(dir.path(), "too old", "too old", NOW - 1_201);
    assert_eq!(pipeline.all(), ["at the limit"]);
    assert!(pipeline.all().is_empty());
    assert_eq!(pipeline.counts().too_old, 1);
    // One from the future counts as one of now, and shuts nobody out.
    appear(dir.path(), "future", "future", NOW + 9 * DAY);
    assert_eq!(pipeline.all(), ["future"]);
    appear(dir.path(), "now", "now", NOW - 100);
    assert_eq!(pipeline.all(), ["now"]);
}

#[test]
fn forgets_a_name_when_it_is_committed_and_gone_and_too_old() {
    let (dir, mut pipeline) = watched();
    let again = |pipeline: &mut Pipeline, what: &str, modified| {
        std::fs::remove_file(dir.path().join("a")).unwrap();
        pipeline.all();
        appear(dir.path(), "a", what, modified);
        pipeline.all()
    };
    appear(dir.path(), "a", "first", NOW - 9 * DAY);
    assert_eq!(pipeline.all(), ["first"]);
    pipeline.commit();
    assert!(again(&mut pipeline, "not old enough", NOW).is_empty());
    appear(dir.path(), "newer", "newer", NOW);
    assert_eq!(pipeline.all(), ["newer"]);
    pipeline.commit();
    assert_eq!(again(&mut pipeline, "second", NOW), ["second"]);
    // What a pipeline that begins anew would have to read is not there any more.
    pipeline.reader = None;
    pipeline.position = None;
    let error = pipeline.step(1).unwrap_err().to_string();
    assert!(error.contains("cannot go on with file 0") && error.contains("list has forgotten it"), "{error}");
    let text = error_of(&pipeline, Place { file: 4, offset: 0 });
    assert!(text.contains("ends before file 3"), "{text}");
    assert!(error_of(&pipeline, Place { file: 3, offset: 1 }).contains("ends before file 3"));
    let foreign = pipeline.source.reader(&SplitId::new("files"), Some(&Position::from_u64(7))).err().unwrap();
    assert!(foreign.to_string().contains("cannot go on in split files at 7"), "{foreign}");
}

fn error_of(pipeline: &Pipeline, at: Place) -> String {
    let error = pipeline.source.reader(&SplitId::new("files"), Some(&at.to_position())).err().unwrap();
    error.to_string()
}

#[test]
fn a_listed_file_that_is_gone_is_an_error_or_is_counted() {
    let list = Memory::new();
    let dir = TempDir::new().unwrap();
    let mut pipeline = Pipeline::of(dir.path(), list.clone());
    appear(dir.path(), "a", "1\n2\n3\n", NOW);
    appear(dir.path(), "b", "4\n", NOW + 1);
    while pipeline.seen.len() < 2 {
        pipeline.step(1).unwrap();
    }
    pipeline.commit();
    std::fs::remove_file(dir.path().join("a")).unwrap();
    pipeline.restart(WatchedDirectory::at(dir.path(), "list", list.clone()));
    let error = pipeline.try_all().unwrap_err().to_string();
    assert!(error.contains("byte 4 of ") && error.contains("missing_files(MissingFiles::Skip)"), "{error}");
    let skip = WatchedDirectory::at(dir.path(), "list", list).missing_files(MissingFiles::Skip);
    pipeline.restart(skip);
    assert_eq!(pipeline.all(), ["4"]);
    assert_eq!(pipeline.counts().missing, 1);
}

#[test]
fn a_file_that_was_read_to_its_end_need_not_be_there_any_more() {
    let (dir, mut pipeline) = watched();
    appear(dir.path(), "a", "1\n", NOW);
    appear(dir.path(), "empty", "", NOW + 1);
    while pipeline.seen.is_empty() {
        pipeline.step(1).unwrap();
    }
    pipeline.commit();
    std::fs::remove_file(dir.path().join("a")).unwrap();
    std::fs::remove_file(dir.path().join("empty")).unwrap();
    pipeline.fail();
    assert!(pipeline.all().is_empty());
    appear(dir.path(), "b", "2\n", NOW);
    assert_eq!(pipeline.all(), ["2"]);
}

#[test]
fn a_file_that_is_written_where_it_can_be_seen_is_counted_and_not_cleaned_away() {
    let (dir, pipeline) = watched();
    let mut pipeline = pipeline.with(|source| source.clean_source(CleanSource::Delete));
    appear(dir.path(), "a", "one\ntw", NOW);
    pipeline.step(1).unwrap();
    std::fs::write(dir.path().join("a"), "one\ntwo\n").unwrap();
    assert_eq!(pipeline.all(), ["one", "two"]);
    pipeline.commit();
    assert!(pipeline.all().is_empty());
    assert_eq!((pipeline.counts().changed, pipeline.counts().not_cleaned), (1, 1));
    assert!(dir.path().join("a").exists());
}

#[test]
fn what_is_committed_is_cleaned_away_and_nothing_else() {
    let (dir, list) = (TempDir::new().unwrap(), Memory::new());
    let open = || WatchedDirectory::at(dir.path(), "list", list.clone());
    let archive = || open().clean_source(CleanSource::Archive(dir.path().join("_done")));
    let mut pipeline = Pipeline::of(dir.path(), list.clone());
    pipeline.restart(archive());
    for (name, modified) in [("a", 0), ("b", 1), ("c", 2)] {
        appear(dir.path(), name, "1\n2\n", NOW + modified);
    }
    // The second file is not committed as a whole.
    while pipeline.seen.len() < 3 {
        pipeline.step(1).unwrap();
    }
    pipeline.commit();
    pipeline.all();
    let is_there = |name: &str| dir.path().join(name).exists();
    assert_eq!([is_there("a"), is_there("b"), is_there("_done/a"), is_there("_done/b")], [false, true, true, false]);
    // The process ends before it has cleaned; a new file has come under a name that is known.
    pipeline.commit();
    appear(dir.path(), "b", "another\n", NOW + 9);
    appear(dir.path(), "_done/c", "not ours\n", NOW);
    pipeline.restart(archive());
    // Not before the first look.
    assert!(pipeline.all().is_empty() && pipeline.all().is_empty());
    assert_eq!((pipeline.counts().cleaned, pipeline.counts().not_cleaned), (0, 2), "b is changed, c is taken");
    assert!(is_there("b") && is_there("c"));
    assert_eq!(std::fs::read_to_string(dir.path().join("_done/c")).unwrap(), "not ours\n");
    pipeline.restart(open().clean_source(CleanSource::Delete));
    assert!(pipeline.all().is_empty() && pipeline.all().is_empty());
    assert_eq!((pipeline.counts().cleaned, is_there("b"), is_there("c")), (1, true, false));
}

#[test]
fn lists_and_reads_more_files_than_fit_into_one_write() {
    let (dir, mut pipeline) = watched();
    let mut expected: Vec<String> = (0..2_500).map(|number| format!("{number:05}")).collect();
    for name in &expected {
        std::fs::write(dir.path().join(name), format!("{name}\n")).unwrap();
    }
    while pipeline.seen.len() < 1_234 {
        pipeline.step(100).unwrap();
    }
    pipeline.commit();
    pipeline.fail();
    pipeline.all();
    pipeline.seen.sort_unstable();
    expected.sort_unstable();
    assert!(pipeline.seen == expected);
}

#[test]
fn waits_for_room_on_a_full_disk_and_reads_on_then() {
    let (dir, disk) = (TempDir::new().unwrap(), SimDisk::new());
    let mut pipeline = Pipeline::of(dir.path(), disk.clone());
    assert_eq!(pipeline.step(1).unwrap(), Polled::Idle);
    appear(dir.path(), "a", "1", NOW);
    disk.fail_next(StoreErrorKind::Full, 2);
    assert_eq!([pipeline.step(1).unwrap(), pipeline.step(1).unwrap()], [Polled::Idle, Polled::Idle]);
    assert_eq!(pipeline.all(), ["1"]);
}

#[test]
fn names_a_line_that_cannot_be_read_and_never_holds_an_endless_one() {
    let (dir, pipeline) = watched();
    let mut pipeline = pipeline.with(|source| source.max_line_bytes(100));
    std::fs::write(dir.path().join("bad"), b"\xef\xbb\xbfgood\r\nb\xffd\n").unwrap();
    let error = pipeline.try_all().unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(LinesError::NotText { offset: 9, .. })), "{error}");
    pipeline.fail();
    pipeline = pipeline.with(|source| source.invalid_utf8(InvalidText::Skip));
    assert_eq!(pipeline.all(), ["\u{feff}good"], "a byte-order mark stays, as with Lines");
    assert_eq!(pipeline.counts().invalid_lines, 1);
    // Sparse: a gibibyte of zeros without a line end.
    File::create(dir.path().join("endless")).unwrap().set_len(1 << 30).unwrap();
    let error = pipeline.try_all().unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(LinesError::TooLong { offset: 0, .. })), "{error}");
}

#[test]
fn an_older_reader_takes_nothing_any_more() {
    let (dir, mut pipeline) = watched();
    assert_eq!(pipeline.step(1).unwrap(), Polled::Idle);
    let mut older = pipeline.reader.take().unwrap();
    assert_eq!(pipeline.step(1).unwrap(), Polled::Idle);
    appear(dir.path(), "a", "1", NOW);
    assert!(older.poll(&mut Batch::default(), 1).unwrap_err().is::<crate::newest::Replaced>());
    assert_eq!(pipeline.all(), ["1"]);
}

#[cfg(unix)]
#[test]
fn takes_links_to_files_and_refuses_names_that_are_no_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let (dir, mut pipeline) = watched();
    let outside = TempDir::new().unwrap();
    appear(outside.path(), "linked", "linked", NOW);
    std::os::unix::fs::symlink(outside.path().join("linked"), dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("nowhere"), dir.path().join("dangling")).unwrap();
    std::fs::write(dir.path().join(OsStr::from_bytes(b"_\xff")), "hidden").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    assert_eq!(pipeline.all(), ["linked"]);
    std::fs::write(dir.path().join(OsStr::from_bytes(b"\xff")), "no text").unwrap();
    let error = pipeline.try_all().unwrap_err().to_string();
    assert!(error.contains("its name is no UTF-8 text; rename it"), "{error}");
    // Where only others are asked for, it is one of those that are not.
    pipeline.fail();
    pipeline = pipeline.with(|source| source.files(["l*"]));
    assert_eq!(pipeline.all(), ["linked"]);
}

#[test]
fn refuses_what_cannot_be_watched() {
    let (dir, _) = watched();
    let path = dir.path();
    std::fs::write(path.join("file"), "").unwrap();
    let at = |path: &Path| WatchedDirectory::at(path, "list", Memory::new());
    let text = |source: WatchedDirectory| source.splits().unwrap_err().to_string();
    let table = [
        (at(&path.join("missing")), "; create it, or correct the path"),
        (at(&path.join("file")), "it is a file: name its directory"),
        (at(path).interval(Duration::ZERO), "interval is 0; give at least 1 ms"),
        (at(path).max_line_bytes(0), "max_line_bytes is 0; give at least 1"),
        (at(path).files(["a/*"]), "\"a/*\" is no pattern for files: a name has no /"),
        (at(path).files([""]), "it is empty; * matches any name"),
        (at(path).files([".*"]), "names that begin with . or _ are hidden"),
        (at(path).files(["[a"]), "\"[a\" is no pattern for files: "),
        (at(path).directories("a/**"), "\"**\" is no pattern for directories: "),
        (at(path).directories("../a"), "\"..\" is no pattern for directories: "),
        (at(path).clean_source(CleanSource::Archive(path.join("done"))), "choose a directory outside, or one whose"),
        (at(path).clean_source(CleanSource::Archive(path.to_owned())), "cannot archive to "),
    ];
    for (source, part) in table {
        let text = text(source);
        assert!(text.contains(part), "{text}");
    }
    for archive in [path.join("_done/x"), path.join(".done"), path.join("../done")] {
        at(path).clean_source(CleanSource::Archive(archive)).splits().unwrap();
    }
    std::fs::create_dir(path.join("_spark_metadata")).unwrap();
    let error = Pipeline::of(path, Memory::new()).try_all().unwrap_err().to_string();
    assert!(error.contains("it is the output of Spark's file sink, whose log"), "{error}");
}

/// Commits a file as a sink would.
fn commit(dir: &Path, number: u64, name: &str) {
    let log_dir = metadata_dir(dir).join("0000");
    std::fs::create_dir_all(&log_dir).unwrap();
    let entry = Entry {
        format: 1,
        pipeline: "before".into(),
        sink: "out".into(),
        shard: ShardId::new(0),
        attempt: Attempt::new(1),
        instance: "ab".into(),
        next: Epoch::new(number + 1),
        file: Some(FileEntry {
            name: name.into(),
            bytes: 1,
            crc32: 0,
            rows: 1,
            first: Epoch::new(number),
            last: Epoch::new(number),
        }),
    };
    std::fs::write(entry_path(&log_dir, number), entry.to_line().unwrap()).unwrap();
}

#[test]
fn where_a_sink_writes_only_what_it_has_committed_is_read() {
    let (dir, mut pipeline) = watched();
    appear(dir.path(), "part-0", "0", NOW);
    appear(dir.path(), "part-1", "never committed", NOW);
    commit(dir.path(), 0, "part-0");
    assert_eq!(pipeline.all(), ["0"]);
    appear(dir.path(), "part-2", "2", NOW);
    assert!(pipeline.all().is_empty());
    commit(dir.path(), 1, "part-2");
    assert_eq!(pipeline.all(), ["2"]);
    pipeline.commit();
    pipeline.fail();
    commit(dir.path(), 2, "part-3");
    appear(dir.path(), "part-3", "3", NOW);
    assert_eq!(pipeline.all(), ["3"]);
    // They are not to be taken away, and a log with a gap is not passed over.
    let mut cleaning = Pipeline::of(dir.path(), Memory::new()).with(|source| source.clean_source(CleanSource::Delete));
    let error = cleaning.try_all().unwrap_err().to_string();
    assert!(error.contains("a file sink writes them") && error.contains("leave clean_source off"), "{error}");
    std::fs::remove_file(entry_path(&metadata_dir(dir.path()).join("0000"), 1)).unwrap();
    let error = Pipeline::of(dir.path(), Memory::new()).try_all().unwrap_err().to_string();
    assert!(error.contains("has no entry 1, but has entry 2"), "{error}");
}

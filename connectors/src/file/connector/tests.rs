//! Walks the crash table: a stop and every kind of failure at each step, two instances, other people's files.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millstream_runtime::id::ShardId;
use millstream_runtime::sink::{IntoSink, Rows, RowsBuilder, SinkSpec};
use tempfile::TempDir;

use super::*;
use crate::codec::split_values;
use crate::file::{FileSink, RecordFile, read_committed};
use crate::testing::{AtStep, Outside, token_sink_conformance};

fn layout(dir: &Path, row_end: &'static [u8]) -> Layout {
    Layout { dir: dir.join("out"), extension: "txt".into(), row_end, roll: Roll::default() }
}

fn context(shard: u32) -> SinkContext {
    let (pipeline, sink) = ("p".into(), "s".into());
    SinkContext { pipeline, sink, shard: ShardId::new(shard), ..crate::testing::context(1) }
}

/// Each epoch has one row, its number.
fn rows(epochs: &[u64]) -> Vec<Rows> {
    let rows = |epoch: &u64| {
        let mut builder = RowsBuilder::default();
        builder.push(|out| out.write_all(epoch.to_string().as_bytes())).unwrap();
        Rows::new(Epoch::new(*epoch), builder.take().0)
    };
    epochs.iter().map(rows).collect()
}

fn apply(sink: &mut FileConnector, epochs: &[u64]) -> Result<(), SinkError> {
    sink.apply(&EpochBatch::new(&rows(epochs)).unwrap())
}

fn open(layout: &Layout) -> FileConnector {
    let mut sink = FileConnector::new(layout.clone());
    sink.open(&context(0)).unwrap();
    sink
}

fn committed(layout: &Layout) -> Vec<String> {
    read_committed(&layout.dir).unwrap().iter().flat_map(|file| file.lines().unwrap()).collect()
}

fn names(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Does `act` at the `at`-th step and nothing at the others; notes which steps were passed.
fn at_step(at: usize, act: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> (Hook, Arc<Mutex<Vec<Step>>>) {
    let passed = Arc::new(Mutex::new(Vec::new()));
    let (count, seen) = (AtomicUsize::new(0), Arc::clone(&passed));
    let hook = move |step| {
        seen.lock().unwrap().push(step);
        if count.fetch_add(1, Ordering::Relaxed) == at { act() } else { Ok(()) }
    };
    (Arc::new(hook), passed)
}

#[derive(Clone, Copy)]
enum Stop {
    /// The process dies: nothing after the step happens, no tidying up either.
    Dies,
    Fails(io::ErrorKind),
}

impl Stop {
    fn act(self) -> io::Result<()> {
        match self {
            // Unwinds without a message from the panic hook.
            Self::Dies => std::panic::resume_unwind(Box::new("stopped")),
            Self::Fails(kind) => Err(kind.into()),
        }
    }
}

struct Target {
    dir: TempDir,
    stop: Stop,
}

impl Target {
    fn layout(&self) -> Layout {
        layout(self.dir.path(), b"")
    }
}

impl Outside for Target {
    fn connect(&self) -> Box<dyn TokenSink> {
        Box::new(FileConnector::new(self.layout()))
    }

    fn connect_at(&self, step: usize, act: AtStep) -> Option<Box<dyn TokenSink>> {
        let act = move || {
            act();
            Ok(())
        };
        Some(Box::new(FileConnector::with_hook(self.layout(), at_step(step, act).0)))
    }

    fn connect_failing(&self, step: usize) -> Option<Box<dyn TokenSink>> {
        let stop = self.stop;
        Some(Box::new(FileConnector::with_hook(self.layout(), at_step(step, move || stop.act()).0)))
    }

    fn visible(&self) -> Vec<Vec<u8>> {
        let files = read_committed(self.layout().dir).unwrap();
        let contents: Vec<Vec<u8>> = files.iter().map(|file| file.content().unwrap()).collect();
        contents.iter().flat_map(|content| split_values(content).unwrap()).map(<[u8]>::to_vec).collect()
    }
}

fn conforms(stop: Stop) {
    token_sink_conformance(|| Target { dir: tempfile::tempdir().unwrap(), stop }).unwrap();
}

#[test]
fn commits_exactly_once_when_it_dies_at_any_step() {
    conforms(Stop::Dies);
}

#[test]
fn commits_exactly_once_when_the_disk_is_full_at_any_step() {
    conforms(Stop::Fails(io::ErrorKind::StorageFull));
}

#[test]
fn commits_exactly_once_when_any_step_fails_for_good() {
    conforms(Stop::Fails(io::ErrorKind::Other));
}

#[test]
fn passes_every_step_so_that_the_crash_tests_mean_something() {
    let dir = tempfile::tempdir().unwrap();
    let (hook, passed) = at_step(usize::MAX, || Ok(()));
    let mut sink = FileConnector::with_hook(layout(dir.path(), b"\n"), hook);
    sink.open(&context(0)).unwrap();
    apply(&mut sink, &[1]).unwrap();
    let opening = [Step::Locked, Step::EntryCreated, Step::EntrySynced, Step::EntryLinked, Step::LogSynced];
    let part = [Step::PartCreated, Step::PartWritten, Step::PartSynced, Step::PartLinked, Step::DirectorySynced];
    let all: Vec<Step> = [&opening[..], &part, &opening[1..]].concat();
    assert_eq!(*passed.lock().unwrap(), all);
}

#[test]
fn a_full_disk_is_a_retry_until_the_entry_is_linked_and_leaves_no_temporary_files() {
    for step in 5..14 {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path(), b"\n");
        let (hook, passed) = at_step(step, || Err(io::ErrorKind::StorageFull.into()));
        let mut sink = FileConnector::with_hook(layout.clone(), hook);
        sink.open(&context(0)).unwrap();
        let error = apply(&mut sink, &[1]).unwrap_err();
        let last = *passed.lock().unwrap().last().unwrap();
        let expected = match last {
            Step::EntryLinked | Step::LogSynced => SinkErrorKind::Unknown,
            _ => SinkErrorKind::Retry,
        };
        assert_eq!(error.kind, expected, "{last:?}: {error}");
        let hidden = names(&layout.dir).into_iter().filter(|name| name.starts_with('.')).count();
        assert_eq!(hidden, usize::from(last == Step::PartLinked), "{last:?}");
        if expected == SinkErrorKind::Unknown {
            // Never repeated on the same connector, whose number is stale now.
            assert_eq!(apply(&mut sink, &[1]).unwrap_err().kind, SinkErrorKind::Fatal);
        } else {
            apply(&mut sink, &[1]).unwrap();
        }
        assert_eq!(committed(&layout), ["1"], "{last:?}");
    }
}

#[test]
fn a_newer_instance_shuts_out_an_older_one_in_the_middle_of_its_apply() {
    // The newer one opens and commits other rows of the same epoch while the older one stands at each step of its
    // apply.
    for step in 5..14 {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path(), b"\n");
        let inner = layout.clone();
        let (hook, passed) = at_step(step, move || {
            let mut newer = open(&Layout { row_end: b" of the newer\n", ..inner.clone() });
            let (token, newest) = (newer.opened.as_ref().unwrap().next, if step < 12 { 1 } else { 2 });
            assert_eq!(token, Epoch::new(if step < 12 { 0 } else { 2 }));
            apply(&mut newer, &[newest]).unwrap();
            Ok(())
        });
        let mut older = FileConnector::with_hook(layout.clone(), hook);
        older.open(&context(0)).unwrap();
        let result = apply(&mut older, &[1]);
        let last = *passed.lock().unwrap().last().unwrap();
        if step < 12 {
            let error = result.unwrap_err();
            assert_eq!(error.kind, SinkErrorKind::Fenced, "{last:?}: {error}");
            assert!(error.to_string().contains("another instance"), "{error}");
            assert_eq!(committed(&layout), ["1 of the newer"], "{last:?}");
        } else {
            // It had committed before it was shut out, and learns of it at its next try.
            result.unwrap();
            assert_eq!(apply(&mut older, &[2]).unwrap_err().kind, SinkErrorKind::Fenced);
            assert_eq!(committed(&layout), ["1", "2 of the newer"]);
        }
    }
}

#[test]
fn a_part_file_that_appears_from_nowhere_is_an_unknown_outcome_and_mends_itself() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), b"\n");
    let mut sink = open(&layout);
    let part = layout
        .dir
        .join(Names::new(layout.dir.clone(), ShardId::new(0), "txt".into()).part(Epoch::new(1), Epoch::new(1)));
    std::fs::write(&part, "a zombie's").unwrap();
    assert_eq!(apply(&mut sink, &[1]).unwrap_err().kind, SinkErrorKind::Unknown);
    let mut sink = open(&layout);
    assert!(!part.exists());
    apply(&mut sink, &[1]).unwrap();
    assert_eq!(committed(&layout), ["1"]);
}

#[test]
fn removes_its_own_leftovers_and_touches_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), b"\n");
    apply(&mut open(&layout), &[1, 4]).unwrap();
    let own = ["part-0000-000000000005-000000000009.txt", ".part-0000-000000000005-000000000009.txt.1-ab.tmp"];
    let foreign = [
        "part-0001-000000000005-000000000009.txt",
        "part-0000-000000000005-000000000009.csv",
        ".part-0001-000000000005-000000000009.txt.1-ab.tmp",
        "part-0000-old.txt",
        "notes.md",
        ".tmp",
    ];
    for name in own.iter().chain(&foreign) {
        std::fs::write(layout.dir.join(name), "x").unwrap();
    }
    std::fs::create_dir(layout.dir.join("part-0000-000000000007-000000000007.txt")).unwrap();
    let log_dir = layout.dir.join("_metadata/0000");
    for name in [".000000000002.1-ab.tmp", "README"] {
        std::fs::write(log_dir.join(name), "x").unwrap();
    }
    open(&layout);
    let left = names(&log_dir);
    assert!(left.contains("README") && !left.contains(".000000000002.1-ab.tmp"), "{left:?}");
    let left = names(&layout.dir);
    assert!(own.iter().all(|name| !left.contains(*name)), "{left:?}");
    assert!(foreign.iter().all(|name| left.contains(*name)), "{left:?}");
    assert_eq!(left.len(), foreign.len() + 3, "{left:?}");
    assert_eq!(committed(&layout), ["1", "4"]);
}

#[test]
fn shards_share_a_directory_without_seeing_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), b"\n");
    let mut sinks = [FileConnector::new(layout.clone()), FileConnector::new(layout.clone())];
    for (shard, sink) in (0u32..).zip(&mut sinks) {
        assert_eq!(sink.open(&context(shard)).unwrap(), Token::default());
    }
    for sink in &mut sinks {
        apply(sink, &[3]).unwrap();
    }
    assert_eq!(committed(&layout), ["3", "3"]);
}

#[test]
fn refuses_a_directory_that_belongs_to_another_sink_without_shutting_it_out() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), b"\n");
    let mut first = open(&layout);
    let other = SinkContext { sink: "other".into(), ..context(0) };
    let error = FileConnector::new(layout.clone()).open(&other).unwrap_err();
    assert_eq!(error.kind, SinkErrorKind::Fatal);
    assert!(error.to_string().contains("belongs to sink s of pipeline p"), "{error}");
    apply(&mut first, &[1]).unwrap();
}

#[test]
fn waits_while_another_instance_is_opening() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), b"\n");
    let inner = layout.clone();
    let (hook, _) = at_step(0, move || {
        let error = FileConnector::new(inner.clone()).open(&context(0)).unwrap_err();
        assert_eq!(error.kind, SinkErrorKind::Retry, "{error}");
        Ok(())
    });
    FileConnector::with_hook(layout, hook).open(&context(0)).unwrap();
}

#[test]
fn refuses_epochs_that_are_in_and_extensions_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut layout = layout(dir.path(), b"\n");
    let mut sink = open(&layout);
    apply(&mut sink, &[1, 2]).unwrap();
    assert_eq!(apply(&mut sink, &[2]).unwrap_err().kind, SinkErrorKind::Fatal);
    for extension in ["", "a/b", "..", "x.tmp"] {
        layout.extension = extension.into();
        assert_eq!(FileConnector::new(layout.clone()).open(&context(0)).unwrap_err().kind, SinkErrorKind::Fatal);
    }
}

#[test]
fn a_damaged_log_or_file_is_named_and_nothing_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), b"\n");
    apply(&mut open(&layout), &[1]).unwrap();
    let file = read_committed(&layout.dir).unwrap().remove(0);
    assert_eq!((file.rows, file.bytes, file.first, file.last), (1, 2, Epoch::new(1), Epoch::new(1)));
    std::fs::write(&file.path, "2\n").unwrap();
    assert!(file.lines().unwrap_err().to_string().contains("checksum"));
    std::fs::write(&file.path, "22\n").unwrap();
    assert!(read_committed(&layout.dir).unwrap_err().to_string().contains("3 bytes, the log says 2"));
    std::fs::remove_file(layout.dir.join("_metadata/0000/000000000000")).unwrap();
    let error = FileConnector::new(layout.clone()).open(&context(0)).unwrap_err();
    assert_eq!(error.kind, SinkErrorKind::Fatal);
    assert!(error.source.unwrap().to_string().contains("no entry 0"));
    assert!(file.path.exists());
    assert!(read_committed(dir.path().join("nowhere")).is_err());
}

#[test]
fn the_public_sinks_write_what_the_readers_read() {
    fn deliver<T: 'static>(sink: impl IntoSink<T>, values: &[T]) -> Roll {
        let SinkSpec::Outbox { encoder, connector } = sink.into_sink() else { panic!("not a level-2 sink") };
        let mut builder = RowsBuilder::default();
        for value in values {
            builder.push(|out| encoder.encode(value, out)).unwrap();
        }
        let mut sink = connector().unwrap();
        sink.open(&context(0)).unwrap();
        let rows = [Rows::new(Epoch::new(1), builder.take().0)];
        sink.apply(&EpochBatch::new(&rows).unwrap()).unwrap();
        sink.roll()
    }
    let dir = tempfile::tempdir().unwrap();
    let (text, records) = (dir.path().join("text"), dir.path().join("counts.msgpack"));
    let roll = deliver(FileSink::at(&text).extension("csv").roll_interval(Duration::from_secs(1)), &["a,1", "", "b,2"]);
    assert_eq!(roll, Roll { interval: Duration::from_secs(1), bytes: 32 << 20 });
    let files = read_committed(&text).unwrap();
    assert_eq!(files[0].lines().unwrap(), ["a,1", "", "b,2"]);
    assert_eq!(files[0].path.file_name().unwrap(), "part-0000-000000000001-000000000001.csv");
    let values = [("x".to_owned(), 1u64), ("y".to_owned(), u64::MAX)];
    let roll = deliver(RecordFile::at(&records).roll_bytes(5), &values);
    assert_eq!(roll, Roll { interval: Duration::from_secs(10), bytes: 5 });
    assert_eq!(read_committed(&records).unwrap()[0].values::<(String, u64)>().unwrap(), values);
}

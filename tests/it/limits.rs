//! What a micro-batch takes of a source at most: files and bytes. Records are in `micro_batch`.

use std::time::{Duration, UNIX_EPOCH};

use millstream::prelude::*;
use millstream::runtime::source::Source;
use tempfile::TempDir;

/// Files of so many lines of ten bytes, which are numbered; each is older than the one before it.
fn files(lines: &[usize]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (number, lines) in lines.iter().enumerate() {
        let path = directory.path().join(format!("{number}.txt"));
        std::fs::write(&path, format!("{number:09}\n").repeat(*lines)).unwrap();
        let written = UNIX_EPOCH + Duration::from_secs(1_600_000_000 - 60 * number as u64);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(written).unwrap();
    }
    directory
}

/// The pipeline, and the lines that there were behind each micro-batch.
fn pipeline(source: impl Source<Out = String>) -> (Pipeline, Collected<Vec<String>>) {
    let (sink, collected) = Collect::new();
    let pipeline = Pipeline::new("lines").parallelism(1).trigger(Trigger::AvailableNow);
    let pipeline = pipeline.output_mode(OutputMode::Update);
    let all = CollectList::of(|line: &String| line.trim_start_matches('0').to_owned());
    pipeline.source("files", source).aggregate("all", all).sink("out", sink);
    (pipeline, collected)
}

/// How many lines each micro-batch took, and of which files.
fn batches(source: impl Source<Out = String>) -> Vec<(usize, String)> {
    let (pipeline, collected) = pipeline(source);
    Runtime::builder().workers(1).build().unwrap().start(pipeline).unwrap().join().unwrap();
    let mut before = 0;
    let of = |mut lines: Vec<String>| {
        let mut new = lines.split_off(before);
        before += new.len();
        let count = new.len();
        // Without a limit in files they are read in turns.
        new.sort();
        new.dedup();
        (count, new.join(" "))
    };
    collected.take().into_iter().map(of).collect()
}

fn told(batches: &[(usize, &str)]) -> Vec<(usize, String)> {
    batches.iter().map(|(count, files)| (*count, (*files).to_owned())).collect()
}

#[test]
fn a_batch_takes_so_many_whole_files_however_many_reads_they_need() {
    let directory = files(&[300, 1, 700, 0, 5]);
    let source = |files| Lines::at(directory.path()).max_files_per_epoch(files);
    let each = told(&[(300, ""), (1, "1"), (700, "2"), (5, "4")]);
    assert_eq!(batches(source(1)), each);
    assert_eq!(batches(source(2)), told(&[(301, " 1"), (700, "2"), (5, "4")]));
    assert_eq!(batches(source(5)), told(&[(1_006, " 1 2 4")]));
    // A limit in records goes before: a file is taken in two, and an empty one counts.
    let records = batches(source(2).with_max_records_per_epoch(512));
    assert_eq!(records, told(&[(301, " 1"), (512, "2"), (188, "2"), (5, "4")]));
}

#[test]
fn files_of_a_watched_directory_are_taken_oldest_first() {
    let directory = files(&[300, 1, 2]);
    let source = WatchedDirectory::at(directory.path(), "list", Memory::new()).max_files_per_epoch(1);
    assert_eq!(batches(source), told(&[(2, "2"), (1, "1"), (300, "")]));
}

#[test]
fn a_file_of_more_bytes_than_a_batch_may_take_is_taken_in_several() {
    let directory = files(&[600, 2]);
    let source = |bytes| Lines::at(directory.path()).max_bytes_per_epoch(bytes);
    assert_eq!(batches(source(6_020)), told(&[(602, " 1")]));
    let taken = batches(source(1));
    assert!(taken.len() > 2 && taken.iter().map(|(lines, _)| lines).sum::<usize>() == 602, "{taken:?}");
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let refused = |files: Option<u64>, bytes: Option<u64>| {
        let lines = Lines::at("in");
        let lines = files.map_or(lines.clone(), |files| lines.max_files_per_epoch(files));
        let lines = bytes.map_or(lines.clone(), |bytes| lines.max_bytes_per_epoch(bytes));
        pipeline(lines).0.validate().unwrap_err().to_string()
    };
    let both = refused(Some(1), Some(1));
    assert!(both.contains("E-SRC-03: \"files\" at ") && both.contains("max_files_per_epoch"), "{both}");
    let none = refused(Some(0), None);
    assert!(
        none.contains("max_files_per_epoch is 0 for the source \"files\" at ") && none.contains("at least 1"),
        "{none}"
    );
    let none = refused(None, Some(0));
    assert!(none.contains("max_bytes_per_epoch is 0 for the source \"files\" at "), "{none}");
}

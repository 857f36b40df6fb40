//! What a file may hold that is no line of text, and files that cannot be read: read once and read while they appear.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::source::Source;

use crate::stored::chain;

fn start<S: Source<Out = String>>(source: S) -> (Runtime, JobHandle, Collected<String>) {
    let (sink, collected) = Collect::new();
    let pipeline = Pipeline::new("p").epoch_interval(Duration::from_millis(5));
    pipeline.source("in", source).sink("out", sink);
    let runtime = Runtime::builder().workers(1).restart(RestartPolicy::never()).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    (runtime, job, collected)
}

fn watch(dir: &Path) -> WatchedDirectory {
    WatchedDirectory::at(dir, "files", Memory::new()).interval(Duration::from_millis(1))
}

#[test]
fn a_file_that_is_no_text_is_named_with_the_place_and_the_remedy() {
    type Make = fn(&Path) -> io::Result<()>;
    let mut table: Vec<(&str, Make, Vec<&str>)> = vec![
        (
            "not UTF-8",
            |path| fs::write(path, b"good\r\nb\xffd\n"),
            vec![
                "the line at byte 6 of ",
                "/file is not UTF-8: 3 bytes, beginning \"b\\xffd\"",
                "convert the file, or skip such lines with invalid_utf8(InvalidText::Skip)",
            ],
        ),
        (
            // Sparse, and more than fits into any memory.
            "a tebibyte without a line end",
            |path| File::create(path)?.set_len(1 << 40),
            vec![
                "the line at byte 0 of ",
                "/file is longer than 1048576 bytes, beginning \"\\x00",
                "is this a text file? if so, raise max_line_bytes",
            ],
        ),
    ];
    #[cfg(target_os = "linux")]
    table.push((
        // Nothing is mapped at address 0.
        "a failing disk",
        |path| std::os::unix::fs::symlink("/proc/self/mem", path),
        vec!["cannot read ", "/file", "Input/output error"],
    ));
    #[cfg(unix)]
    table.push((
        "a file of others",
        |path| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::write(path, "secret")?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o000))
        },
        vec!["cannot open ", "/file; let this process read it", "Permission denied"],
    ));
    for (case, make, parts) in table {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        make(&path).unwrap();
        if case == "a file of others" && File::open(&path).is_ok() {
            println!("skipped, root may read anything: {case}");
            continue;
        }
        for (kind, (_runtime, job, _)) in [("once", start(Lines::at(&path))), ("watched", start(watch(dir.path())))] {
            let text = chain(&job.join().expect_err("it was read"));
            println!("  {case}, {kind}: {text}");
            for part in &parts {
                assert!(text.contains(part), "{case}, {kind}, lacks {part:?}: {text}");
            }
        }
    }
}

#[test]
fn a_carriage_return_goes_with_the_line_end_and_a_byte_order_mark_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, b"\xef\xbb\xbfone\r\nb\xffd\n\r\nlone\rcr\nlast").unwrap();
    let (once, watched) = (Lines::at(&path), watch(dir.path()));
    let (skipped, counter) = (once.skipped(), watched.counter());
    let once = start(once.invalid_utf8(InvalidText::Skip));
    let watched = start(watched.invalid_utf8(InvalidText::Skip));
    for (_runtime, job, collected) in [once, watched] {
        collected.wait_for(4).unwrap();
        job.stop_blocking(Duration::from_secs(10)).unwrap();
        assert_eq!(collected.snapshot(), ["\u{feff}one", "", "lone\rcr", "last"]);
    }
    assert_eq!((skipped.count(), counter.counts().invalid_lines), (1, 1));
}

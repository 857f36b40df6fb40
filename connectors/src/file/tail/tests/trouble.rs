//! Lines that cannot be taken.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::file::{InvalidText, LinesError, TailError};

#[test]
fn names_a_line_that_is_no_text_once_it_is_whole() {
    let mut bench = plain();
    bench.write("app.log", b"good\nb\xff");
    bench.assert_reads(["good"]);
    bench.write("app.log", b"d\n");
    let text = bench.refusal();
    assert!(text.contains("the line at byte 5 of") && text.contains("app.log") && text.contains("b\\xffd"), "{text}");
}

#[test]
fn skips_and_counts_lines_that_are_no_text_when_told_to() {
    let mut bench = Bench::new(|source| source.invalid_utf8(InvalidText::Skip));
    bench.write("app.log", b"good\nb\xffd\nlast\n");
    bench.assert_reads(["good", "last"]);
    assert_eq!((bench.counts().invalid_lines, bench.counts().lines), (1, 2));
    bench.stop();
    bench.write("app.log", b"\xff\n\xff\n\xff\n\xff\nnext\n");
    bench.assert_reads(["next"]);
}

#[test]
fn a_line_may_be_as_long_as_said_whatever_its_end_and_no_longer() {
    for end in ["\n", "\r\n"] {
        for length in [7, 8, 9] {
            let mut bench = Bench::new(|source| source.max_line_bytes(8));
            let line = "1".repeat(length);
            // The line's end comes piece by piece.
            bench.write("app.log", &line);
            let mut read = bench.read();
            for byte in end.chars() {
                bench.write("app.log", byte.to_string());
                read = read.and_then(|_| bench.read());
            }
            match read {
                Ok(lines) => assert!(length <= 8 && lines == [line]),
                Err(error) => assert!(length == 9 && error.to_string().contains("8 bytes"), "{error}"),
            }
        }
    }
}

#[test]
fn does_not_read_an_endless_line_into_memory() {
    let mut bench = plain();
    // Sparse: a gibibyte of zeros without a line end, as a writer leaves it that goes on where it was in a file that was cut off.
    bench.write("app.log", "one\n");
    bench.open("app.log").set_len(1 << 30).unwrap();
    let error = bench.read().unwrap_err();
    let is_named = matches!(error.downcast_ref(), Some(TailError::Lines(LinesError::TooLong { offset: 4, .. })));
    assert!(is_named, "{error}");
}

#[test]
fn a_file_that_may_not_be_read_is_named() {
    let mut bench = plain();
    bench.write("app.log", "1\n");
    fs::set_permissions(bench.path("app.log"), fs::Permissions::from_mode(0o000)).unwrap();
    match bench.read() {
        Err(error) => {
            assert!(error.to_string().contains("cannot open") && error.to_string().contains("app.log"), "{error}")
        }
        // Root may.
        Ok(lines) => assert_eq!(lines, ["1"]),
    }
}

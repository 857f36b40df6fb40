//! The tables of guarantees, in the README and in the connectors' documentation, are made of the connectors' own declarations.
//!
//! `make pages` writes them anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::pin::Pin;
use std::task::{Context, Poll};

use millstream::prelude::*;
use millstream::runtime::sink::{Guarantee, IntoSink, SinkDeclaration};
use millstream::runtime::source::{Source, SourceDeclaration};

use crate::generated::{keep, path, with_part};

/// A sink's declaration, its level, and what follows from that.
struct Sink(SinkDeclaration, u8, Guarantee);

fn sink<T>(sink: impl IntoSink<T>) -> Sink {
    let declaration = sink.declaration();
    let spec = sink.into_sink();
    Sink(declaration, spec.level(), spec.guarantee())
}

fn sources() -> Vec<SourceDeclaration> {
    vec![
        Lines::at("in").declaration(),
        WatchedDirectory::at("in", "in-files", Memory::new()).declaration(),
        TailLines::at("in.log").declaration(),
        Generator::new(None, |number| number).declaration(),
        RateSource::per_second(1).declaration(),
        RateMicroBatch::rows_per_batch(1).declaration(),
        IterSource::new(0..10).declaration(),
        feed::<u64>(1).1.declaration(),
        StreamSource::new(Never).declaration(),
        SocketLines::connect("localhost:9999").declaration(),
        SocketListener::at("localhost:9999").declaration(),
        WalSource::new("log", SocketListener::at("localhost:9999"), Memory::new()).declaration(),
    ]
}

fn sinks() -> Vec<Sink> {
    vec![
        sink::<String>(FileSink::at("out")),
        sink::<u64>(RecordFile::at("out")),
        sink::<u64>(Collect::new().0),
        sink::<u64>(channel_sink(1).0),
        sink::<u64>(for_each(|_| {})),
        sink::<u64>(foreach(|| Nowhere)),
        sink::<u64>(memory_table::<Vec<u64>>().0),
        sink::<u64>(Console::display()),
        sink::<u64>(Console::debug()),
        sink::<u64>(Console::json()),
        sink::<u64>(Blackhole::new()),
    ]
}

/// A stream of which only the type counts.
struct Never;

impl futures_core::Stream for Never {
    type Item = u64;

    fn poll_next(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<u64>> {
        Poll::Pending
    }
}

struct Nowhere;

impl ForeachWriter<u64> for Nowhere {
    fn process(&mut self, _value: u64) -> Result<(), BoxError> {
        Ok(())
    }
}

/// Joins what is said, leaving out what is not.
fn phrase(parts: &[&str]) -> String {
    parts.iter().copied().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn tables() -> String {
    let mut text =
        String::from("| source | records | position | guarantee | after a restart |\n|---|---|---|---|---|\n");
    for SourceDeclaration { connector, records, position, guarantee, condition, after_restart, .. } in sources() {
        let guarantee = phrase(&[&guarantee.to_string(), &condition]);
        let _ = writeln!(text, "| `{connector}` | {records} | {position} | {guarantee} | {after_restart} |");
    }
    text.push_str("\n| sink | records leave as | level | guarantee | a record is out | after a restart |\n");
    text.push_str("|---|---|---|---|---|---|\n");
    for Sink(SinkDeclaration { connector, form, condition, waits, after_restart, .. }, level, guarantee) in sinks() {
        let guarantee = phrase(&[&guarantee.to_string(), &condition]);
        let out = phrase(&[if level == 1 { "as processed" } else { "as committed" }, &waits]);
        let _ = writeln!(text, "| `{connector}` | {form} | {level} | {guarantee} | {out} | {after_restart} |");
    }
    text.push_str(
        "\n*Exactly-once* counts effects: a record may be read or delivered again, and the end result is as if it had been once. \
         *As processed* is the lowest latency; *as committed* waits for the commit of the record's epoch, so that nothing is shown \
         that a restart could take back.\n",
    );
    text
}

#[test]
fn the_tables_are_those_of_the_connectors_declarations() {
    let readme = fs::read_to_string(path("README.md")).unwrap();
    keep("README.md", &with_part(&readme, "guarantees", &tables()));
    keep("connectors/guarantees.md", &tables());
}

#[test]
fn every_connector_says_all_of_it() {
    for source in sources() {
        let SourceDeclaration { connector, records, position, guarantee, after_restart, .. } = &source;
        let said = [connector, records, position, after_restart].iter().all(|text| !text.is_empty());
        assert!(said && *guarantee != Guarantee::Undeclared, "{source:?}");
    }
    for Sink(declared, level, _) in sinks() {
        let SinkDeclaration { connector, form, after_restart, .. } = &declared;
        assert!([connector, form, after_restart].iter().all(|text| !text.is_empty()), "{declared:?}");
        assert!(level == 2 || declared.condition.is_empty(), "{declared:?}: at-least-once has no condition");
    }
    let rows = tables()
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.matches('|').count())
        .collect::<Vec<_>>();
    assert!(rows.iter().all(|bars| [6, 7].contains(bars)), "{rows:?}");
}

#[test]
fn no_connector_is_missing() {
    let mut implementations = BTreeSet::new();
    let mut files = vec![path("connectors/src")];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        if path.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        // Tests stand at the foot of a file, or in one of their own, and implement both for their own.
        let text = text.split("#[cfg(test)]").next().unwrap();
        for line in text.lines().filter(|line| line.starts_with("impl")) {
            let found = line.split_once(" Source for ").or_else(|| line.split_once(" IntoSink<T> for "));
            implementations.extend(found.map(|(_, name)| name.trim_end_matches([' ', '{']).to_owned()));
        }
    }
    let listed = sources().len() + sinks().len();
    assert_eq!(implementations.len(), listed, "the lists at the head of this file lack some of {implementations:?}");
}

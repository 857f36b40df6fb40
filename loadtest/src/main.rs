//! The load tester of millstream: measures latency and throughput from outside, against intended send times.
//!
//! It is a shell so far: it knows its name and says what is missing. What is measured today is in the benches of the root
//! package, `make bench`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

/// What is measured today, and what is not.
const STATE: &str = "\
The load tester is not written yet: no schedules, no workloads, no reports. It measures nothing.

What is measured today, with `make bench`:
  closing_an_epoch   processed latency in open loop while epochs with a million dirty keys close, against no epochs
  keyed_count        records per second of a keyed count, against a hand-written loop and timely (`make peers`)";

/// Measures pipelines from outside, against intended send times. Not written yet.
#[derive(Debug, Parser)]
#[command(name = "millstream-loadtest", version, after_help = STATE)]
struct Arguments {}

fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    eprintln!("{STATE}");
    // Whoever runs it in a script must not take silence for a result.
    ExitCode::FAILURE
}

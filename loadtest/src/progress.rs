//! What is shown while a run goes on: one line that is written anew on a terminal, else a line every ten seconds.

use std::io::{IsTerminal as _, Write as _};

use crate::report::time;
use crate::steady::Second;

/// Writes to stderr, so that results on stdout stay clean.
#[derive(Debug)]
pub(crate) struct Progress {
    quiet: bool,
    terminal: bool,
    seconds: u64,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet, terminal: std::io::stderr().is_terminal(), seconds: 0 }
    }

    /// Shows one second of a phase.
    pub(crate) fn second(&mut self, phase: &str, second: &Second) {
        self.seconds += 1;
        if self.quiet || (!self.terminal && !self.seconds.is_multiple_of(10)) {
            return;
        }
        let line = format!(
            "{phase:<8} {:>4} s  due {:>9}/s  out {:>9}/s  backlog {:>8}  p50 {:>9}  p99 {:>9}  max {:>9}",
            self.seconds,
            second.scheduled,
            second.completed,
            second.backlog,
            time(second.p50_ns),
            time(second.p99_ns),
            time(second.max_ns),
        );
        let mut out = std::io::stderr().lock();
        // A terminal that is gone must not end a measurement. The control sequence clears the rest of the line.
        let _ = if self.terminal { write!(out, "\r{line}\x1b[K") } else { writeln!(out, "{line}") };
        let _ = out.flush();
    }

    /// Leaves the line.
    pub(crate) fn end(&mut self) {
        self.seconds = 0;
        if !self.quiet && self.terminal {
            eprintln!();
        }
    }

    /// Says something in between.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            eprintln!("{}{text}", if self.terminal { "\r\x1b[K" } else { "" });
        }
    }
}

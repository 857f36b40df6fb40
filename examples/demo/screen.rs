//! What is shown while the child runs: a table in a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use millstream::prelude::Timestamp;

use crate::child::Report;
use crate::watched::Latency;

/// Words in the table.
const TOP: usize = 8;
/// Time between plain lines.
const PLAIN: Duration = Duration::from_secs(1);

/// Draws over itself in a terminal.
pub(crate) struct Screen {
    terminal: bool,
    /// Lines of the table that is on the screen.
    drawn: usize,
    total: u64,
    /// Progress at the last drawing: when, records, and records per second up to it.
    last: Option<(Timestamp, u64, f64)>,
}

impl Screen {
    pub(crate) fn new(total: u64) -> Self {
        Self { terminal: std::io::stdout().is_terminal(), drawn: 0, total, last: None }
    }

    /// Writes a line that stays.
    pub(crate) fn say(&mut self, line: &str) {
        self.drawn = 0;
        self.last = None;
        self.print(&format!("{line}\n"));
    }

    /// Writes a line that stays, green or red.
    pub(crate) fn judge(&mut self, good: bool, line: &str) {
        match (self.terminal, good) {
            (true, true) => self.say(&format!("\x1b[32m{line}\x1b[0m")),
            (true, false) => self.say(&format!("\x1b[31m{line}\x1b[0m")),
            _ => self.say(line),
        }
    }

    /// Shows how far a life is; `before` lines of the input were committed when it began.
    pub(crate) fn show(&mut self, now: Timestamp, report: &Report, before: u64, words: &BTreeMap<String, u64>) {
        let Report::Progress { lines, records, epoch, processed, durable } = report else { return };
        if let Some((then, ..)) = self.last
            && !self.terminal
            && now.saturating_since(then) < PLAIN
        {
            return;
        }
        let rate = match self.last {
            Some((then, seen, rate)) => {
                let seconds = now.saturating_since(then).as_secs_f64();
                let current = records.saturating_sub(seen) as f64 / seconds.max(0.001);
                // Smooth, or nobody can read it.
                if rate > 0.0 { rate * 0.7 + current * 0.3 } else { current }
            }
            // Nothing to compare with yet.
            None => return self.last = Some((now, *records, 0.0)),
        };
        self.last = Some((now, *records, rate));
        let share = (before + lines) * 100 / self.total.max(1);
        let figures = format!("{:3} % of input  {rate:7.0} records/s  epoch {epoch:4}", share.min(100));
        let latencies = format!("  processed {}  durable {}", latency(processed), latency(durable));
        if !self.terminal {
            return self.print(&format!("{figures}{latencies}\n"));
        }
        let mut top: Vec<(&String, &u64)> = words.iter().collect();
        top.sort_by_key(|(word, count)| (std::cmp::Reverse(**count), *word));
        let mut table = String::new();
        if self.drawn > 0 {
            let _ = write!(table, "\x1b[{}A\x1b[J", self.drawn);
        }
        // Short lines: one that the terminal wraps would not be drawn over.
        let _ = writeln!(table, "{figures}\n{latencies} (median/99 %)");
        let _ = writeln!(table, "  top words in committed files, of {}:", words.len());
        let most = top.first().map_or(1, |(_, count)| **count).max(1);
        for (word, count) in top.iter().take(TOP) {
            let bar = "#".repeat(usize::try_from(**count * 40 / most).unwrap_or_default());
            let _ = writeln!(table, "  {word:12} {count:6} {bar}");
        }
        self.print(&table);
        self.drawn = 3 + top.len().min(TOP);
    }

    fn print(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // A closed terminal is no reason to leave the child and its files behind.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// Half of the records were faster than the first figure, 99 of 100 than the second.
fn latency(Latency { p50, p99 }: &Latency) -> String {
    let millis = |micros: u64| micros as f64 / 1_000.0;
    format!("{:.2}/{:.2} ms", millis(*p50), millis(*p99))
}

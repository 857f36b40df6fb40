//! What a socket source took and what it dropped, by reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A handle on the counts of one socket source, over all attempts in this process.
#[derive(Clone, Debug, Default)]
pub struct SocketCounter(Arc<Counters>);

/// What a socket source has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketCounts {
    /// Lines that went into the pipeline.
    pub lines: u64,
    /// Connections that were made or accepted.
    pub connections: u64,
    /// Connections that are open now.
    pub open: u64,
    /// Connections that were closed at once because `max_connections` were open.
    pub refused: u64,
    /// Connections that were closed at once because `max_connections_per_address` were open from their address.
    pub refused_address: u64,
    /// Connections that ended with an error of the system: reset by the peer, for example.
    pub broken: u64,
    /// Connections that were closed because nothing came for `idle_timeout`.
    pub silent: u64,
    /// Connections that were closed because a line was not complete after `line_timeout`.
    pub slow: u64,
    /// Lines that were dropped because the connection ended within them.
    pub partial_lines: u64,
    /// Lines that were dropped because they are longer than `max_line_bytes`.
    pub too_long_lines: u64,
    /// Lines that were dropped because they are not UTF-8.
    pub invalid_lines: u64,
}

#[derive(Debug, Default)]
struct Counters {
    lines: AtomicU64,
    connections: AtomicU64,
    ended: AtomicU64,
    refused: AtomicU64,
    refused_address: AtomicU64,
    broken: AtomicU64,
    silent: AtomicU64,
    slow: AtomicU64,
    partial_lines: AtomicU64,
    too_long_lines: AtomicU64,
    invalid_lines: AtomicU64,
}

/// What is counted one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Line,
    Connection,
    /// A connection is closed, for whatever reason.
    Ended,
    Refused,
    RefusedAddress,
    Broken,
    Silent,
    Slow,
    PartialLine,
    TooLongLine,
    InvalidLine,
}

impl SocketCounter {
    /// Returns the counts now.
    pub fn counts(&self) -> SocketCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // In this order: one that ended was counted as a connection before.
        let ended = read(&self.0.ended);
        let connections = read(&self.0.connections);
        SocketCounts {
            lines: read(&self.0.lines),
            connections,
            open: connections.saturating_sub(ended),
            refused: read(&self.0.refused),
            refused_address: read(&self.0.refused_address),
            broken: read(&self.0.broken),
            silent: read(&self.0.silent),
            slow: read(&self.0.slow),
            partial_lines: read(&self.0.partial_lines),
            too_long_lines: read(&self.0.too_long_lines),
            invalid_lines: read(&self.0.invalid_lines),
        }
    }

    pub(super) fn add(&self, counted: Counted) {
        let counter = match counted {
            Counted::Line => &self.0.lines,
            Counted::Connection => &self.0.connections,
            Counted::Ended => &self.0.ended,
            Counted::Refused => &self.0.refused,
            Counted::RefusedAddress => &self.0.refused_address,
            Counted::Broken => &self.0.broken,
            Counted::Silent => &self.0.silent,
            Counted::Slow => &self.0.slow,
            Counted::PartialLine => &self.0.partial_lines,
            Counted::TooLongLine => &self.0.too_long_lines,
            Counted::InvalidLine => &self.0.invalid_lines,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

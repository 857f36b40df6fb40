//! One connection: its bytes, its line in work, and since when it keeps us waiting.

use std::io::{self, Read as _};
use std::time::Duration;

use millstream_runtime::time::Timestamp;
use mio::net::TcpStream;
use socket2::{SockRef, TcpKeepalive};

use super::counts::{Counted, SocketCounter};
use super::cutter::{Cut, LineCutter};

/// Bytes that are read at once, so that every peer has its turn.
const CHUNK: usize = 16 << 10;

/// A peer that has sent nothing for so long is asked by the system whether it is there.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long until it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Without an answer to so many questions the connection is broken.
const QUESTIONS: u32 = 3;

/// Limits that a peer is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerLimits {
    pub(super) line_bytes: usize,
    pub(super) idle: Duration,
    pub(super) line_time: Duration,
}

/// How a turn of a connection ended.
#[derive(Debug)]
pub(super) enum Turn {
    /// There may be more at once.
    Again,
    /// The peer has sent no more: the system tells when it has.
    Dry,
    /// The peer has closed.
    Closed,
    /// The connection broke.
    Broken(io::Error),
}

/// A connection that is open. Counted as ended, and its partial line as dropped, when it goes away.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    cutter: LineCutter,
    counter: SocketCounter,
    limits: PeerLimits,
    /// When something came last.
    heard: Timestamp,
    /// When the line in work began.
    line_since: Option<Timestamp>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, limits: PeerLimits, counter: SocketCounter, now: Timestamp) -> Self {
        counter.add(Counted::Connection);
        let ask = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(ASK_AGAIN).with_retries(QUESTIONS);
        if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&ask) {
            tracing::debug!(%error, "a connection has no keep-alive: a peer that is gone without a word is not found out by it");
        }
        Self { stream, cutter: LineCutter::new(limits.line_bytes), counter, limits, heard: now, line_since: None }
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Adds lines until there are `limit`, reading at most once. It reads only when it has no whole line left, so what a
    /// peer sends beyond that stays in the system's buffers, and TCP holds the peer back.
    pub(super) fn turn(&mut self, lines: &mut Vec<String>, limit: usize, now: Timestamp) -> Turn {
        if self.cut(lines, limit) {
            return Turn::Again;
        }
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) => Turn::Closed,
            Ok(length) => {
                self.heard = now;
                self.cutter.push(chunk.get(..length).unwrap_or_default());
                self.cut(lines, limit);
                if self.cutter.is_inside_line() {
                    self.line_since.get_or_insert(now);
                }
                Turn::Again
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Turn::Dry,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Turn::Again,
            Err(error) => Turn::Broken(error),
        }
    }

    /// Whether the peer has kept us waiting for too long; and for which reason.
    pub(super) fn overdue(&self, now: Timestamp) -> Option<Counted> {
        let over = |since: Timestamp, limit: Duration| now.saturating_since(since) >= limit;
        if self.line_since.is_some_and(|since| over(since, self.limits.line_time)) {
            return Some(Counted::Slow);
        }
        over(self.heard, self.limits.idle).then_some(Counted::Silent)
    }

    /// Cuts whole lines; returns whether it stopped for the limit.
    fn cut(&mut self, lines: &mut Vec<String>, limit: usize) -> bool {
        while lines.len() < limit {
            let Some(cut) = self.cutter.cut() else { return false };
            self.line_since = None;
            match cut {
                Cut::Line(line) => {
                    self.counter.add(Counted::Line);
                    lines.push(line);
                }
                Cut::NotText => self.counter.add(Counted::InvalidLine),
                Cut::TooLong => self.counter.add(Counted::TooLongLine),
            }
        }
        true
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.cutter.forget() {
            self.counter.add(Counted::PartialLine);
        }
        self.counter.add(Counted::Ended);
    }
}

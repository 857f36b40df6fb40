//! What both kinds of sockets have in common: one split, a count of lines.

use std::sync::Arc;
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::record::Record;
use millstream_runtime::source::{Batch, Polled, Position, Reader, SplitId};
use millstream_runtime::time::SharedClock;

use super::connection::PeerLimits;
use super::error::SocketError;
use crate::newest::Newest;

/// The only split.
pub(super) fn split() -> SplitId {
    SplitId::new("socket")
}

/// A socket, and the number of lines that were taken from it in the life of the pipeline.
pub(super) struct Taken<S> {
    pub(super) taken: u64,
    /// Nothing before the first attempt.
    pub(super) socket: Option<S>,
}

/// What lives over all attempts.
pub(super) type Shared<S> = Newest<Taken<S>>;

/// Makes what lives over all attempts.
pub(super) fn shared<S>() -> Arc<Shared<S>> {
    Arc::new(Newest::new(Taken { taken: 0, socket: None }))
}

/// A socket that gives lines.
pub(super) trait Socket: Send {
    /// Adds at most `limit` lines; waits for the first one, at most 50 ms.
    fn poll(&mut self, lines: &mut Vec<String>, limit: usize) -> Result<Polled, SocketError>;
}

/// Reads the socket as long as no newer attempt does.
pub(super) struct SocketReader<S> {
    shared: Arc<Shared<S>>,
    reader: u64,
    /// The clock for the records' times, if they are to have any.
    clock: Option<SharedClock>,
}

impl<S: Socket + 'static> SocketReader<S> {
    pub(super) fn boxed(shared: Arc<Shared<S>>, reader: u64, clock: Option<SharedClock>) -> Box<dyn Reader<String>> {
        Box::new(Self { shared, reader, clock })
    }
}

impl<S: Socket> Reader<String> for SocketReader<S> {
    fn poll(&mut self, batch: &mut Batch<String>, limit: usize) -> Result<Polled, BoxError> {
        let mut shared = self.shared.get(self.reader)?;
        let Taken { taken, socket } = &mut shared.state;
        let mut lines = Vec::new();
        let polled = match socket {
            Some(socket) => socket.poll(&mut lines, limit)?,
            None => Polled::Idle,
        };
        *taken += lines.len() as u64;
        let now = self.clock.as_ref().map(|clock| clock.now());
        batch.records.extend(lines.into_iter().map(|line| match now {
            Some(now) => Record::at(line, now),
            None => Record::new(line),
        }));
        batch.end = Position::from_u64(*taken);
        Ok(polled)
    }
}

/// Where to begin to count.
pub(super) fn start(given: &SplitId, from: Option<&Position>) -> Result<u64, SocketError> {
    let from = from.map_or(Some(0), Position::as_u64).filter(|_| *given == split());
    from.ok_or_else(|| SocketError::Foreign { split: given.to_string() })
}

/// Refuses limits under which nothing could be read.
pub(super) fn check_limits(limits: &PeerLimits) -> Result<(), SocketError> {
    if limits.line_bytes == 0 {
        return Err(SocketError::Zero { option: "max_line_bytes", least: "1" });
    }
    for (option, time) in [("idle_timeout", limits.idle), ("line_timeout", limits.line_time)] {
        if time == Duration::ZERO {
            return Err(SocketError::Zero { option, least: "some milliseconds, or Duration::MAX for no limit" });
        }
    }
    Ok(())
}

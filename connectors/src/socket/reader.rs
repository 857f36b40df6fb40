//! What both kinds of sockets have in common: one split, a count of lines.

use std::sync::Arc;
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::record::Record;
use millstream_runtime::source::{Batch, Polled, Position, Reader, SplitId};
use millstream_runtime::time::{SharedClock, SystemClock};

use super::connection::PeerLimits;
use super::counts::SocketCounter;
use super::error::SocketError;
use crate::newest::Newest;
use crate::only_split::OnlySplit;

pub(super) const SPLIT: OnlySplit = OnlySplit("socket");

/// A socket, and the number of lines that were taken from it in the life of the pipeline.
pub(super) struct Taken<S> {
    pub(super) taken: u64,
    /// Nothing before the first attempt.
    pub(super) socket: Option<S>,
}

/// What both kinds of sources are told, and what lives over all attempts.
pub(super) struct Intake<S> {
    pub(super) arrival_times: bool,
    pub(super) clock: SharedClock,
    pub(super) counter: SocketCounter,
    pub(super) newest: Arc<Newest<Taken<S>>>,
}

impl<S> Default for Intake<S> {
    fn default() -> Self {
        Self {
            arrival_times: false,
            clock: Arc::new(SystemClock::new()),
            counter: SocketCounter::default(),
            newest: Arc::new(Newest::new(Taken { taken: 0, socket: None })),
        }
    }
}

impl<S: Socket + 'static> Intake<S> {
    /// Makes the one reader that may take lines from now on, once `prepare` has been at the socket.
    pub(super) fn reader(
        &self,
        split: &SplitId,
        from: Option<&Position>,
        prepare: impl FnOnce(&mut Option<S>) -> Result<(), SocketError>,
    ) -> Result<Box<dyn Reader<String>>, BoxError> {
        let from = SPLIT.start(split, from).ok_or_else(|| SocketError::Foreign { split: split.to_string() })?;
        let (reader, mut newest) = self.newest.claim();
        newest.state.taken = from;
        prepare(&mut newest.state.socket)?;
        let clock = self.arrival_times.then(|| Arc::clone(&self.clock));
        Ok(Box::new(SocketReader { newest: Arc::clone(&self.newest), reader, clock }))
    }
}

/// A socket that gives lines.
pub(super) trait Socket: Send {
    /// Adds at most `limit` lines; waits for the first one, at most 50 ms.
    fn poll(&mut self, lines: &mut Vec<String>, limit: usize) -> Result<Polled, SocketError>;
}

/// Reads the socket as long as no newer attempt does.
struct SocketReader<S> {
    newest: Arc<Newest<Taken<S>>>,
    reader: u64,
    /// The clock for the records' times, if they are to have any.
    clock: Option<SharedClock>,
}

impl<S: Socket> Reader<String> for SocketReader<S> {
    fn poll(&mut self, batch: &mut Batch<String>, limit: usize) -> Result<Polled, BoxError> {
        let mut newest = self.newest.get(self.reader)?;
        let Taken { taken, socket } = &mut newest.state;
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

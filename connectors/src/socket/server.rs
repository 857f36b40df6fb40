//! Many peers, on the one thread of the reader that polls.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use millstream_runtime::source::Polled;
use millstream_runtime::time::{SharedClock, Timestamp};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use super::connection::{Connection, PeerLimits, Turn};
use super::counts::{Counted, SocketCounter};
use super::error::SocketError;
use super::reader::Socket;

/// How long a poll waits for a peer.
pub(super) const WAIT: Duration = Duration::from_millis(50);
/// How often peers are looked at that keep silent, and a listener that could not accept.
const LOOK: Duration = Duration::from_millis(250);
/// The listener's token; connections count from 1.
const LISTENER: Token = Token(0);
/// Most connections that one poll accepts or refuses, so that a flood does not starve those who are in.
const ACCEPTS: usize = 64;

/// A listener and its connections. They live as long as the source does, over all attempts.
pub(super) struct Server {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    /// There may be peers who wait to be accepted.
    knocking: bool,
    peers: BTreeMap<usize, Peer>,
    /// Tokens of peers who may have more, in the order of their turns.
    ready: VecDeque<usize>,
    next_token: usize,
    next_look: Timestamp,
    most: Most,
    limits: PeerLimits,
    clock: SharedClock,
    counter: SocketCounter,
}

/// How many connections may be open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub(super) connections: usize,
    pub(super) per_address: usize,
}

struct Peer {
    connection: Connection,
    address: IpAddr,
    /// It stands in `ready`.
    ready: bool,
}

impl Server {
    pub(super) fn new(
        listener: std::net::TcpListener,
        most: Most,
        limits: PeerLimits,
        clock: SharedClock,
        counter: SocketCounter,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1_024),
            listener,
            knocking: true,
            peers: BTreeMap::new(),
            ready: VecDeque::new(),
            next_token: 1,
            next_look: Timestamp::MIN,
            most,
            limits,
            clock,
            counter,
        })
    }

    fn listen(&mut self, wait: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &self.events {
            let Token(token) = event.token();
            if event.token() == LISTENER {
                self.knocking = true;
            } else if let Some(peer) = self.peers.get_mut(&token)
                && !std::mem::replace(&mut peer.ready, true)
            {
                self.ready.push_back(token);
            }
        }
        Ok(())
    }

    fn accept(&mut self, now: Timestamp) {
        for _ in 0..ACCEPTS {
            if !self.knocking {
                return;
            }
            let (stream, address) = match self.listener.accept() {
                // The same peer by both protocols.
                Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The peer was gone before its turn.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    self.knocking = false;
                    if error.kind() != io::ErrorKind::WouldBlock {
                        // Too many open files, mostly. They wait in the system's queue: it is tried again in `look`.
                        tracing::warn!(%error, "cannot accept connections at the moment");
                        self.next_look = now.saturating_add(LOOK);
                    }
                    return;
                }
            };
            if self.peers.len() >= self.most.connections {
                self.counter.add(Counted::Refused);
                continue;
            }
            if self.has_enough_of(address) {
                self.counter.add(Counted::RefusedAddress);
                continue;
            }
            let token = self.next_token;
            self.next_token = self.next_token.wrapping_add(1).max(1);
            let mut connection = Connection::new(stream, self.limits, self.counter.clone(), now);
            match self.poll.registry().register(connection.stream(), Token(token), Interest::READABLE) {
                // What it has sent before it was registered is found by its first turn.
                Ok(()) => {
                    self.peers.insert(token, Peer { connection, address, ready: true });
                    self.ready.push_back(token);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot watch a connection, it is closed");
                    self.counter.add(Counted::Broken);
                }
            }
        }
    }

    fn has_enough_of(&self, address: IpAddr) -> bool {
        let most = self.most.per_address;
        // More than there may be at all: nobody has to count.
        most < self.most.connections && self.peers.values().filter(|peer| peer.address == address).count() >= most
    }

    fn turn(&mut self, token: usize, lines: &mut Vec<String>, limit: usize, now: Timestamp) {
        let Some(peer) = self.peers.get_mut(&token) else { return };
        match peer.connection.turn(lines, limit, now) {
            Turn::Again => self.ready.push_back(token),
            Turn::Dry => peer.ready = false,
            Turn::Closed => self.close(token, None),
            Turn::Broken(_) => self.close(token, Some(Counted::Broken)),
        }
    }

    /// Closes connections whose peers are silent or slow. Those who are ready are heard first: what held them up may have
    /// been us.
    fn look(&mut self, now: Timestamp) {
        if now < self.next_look {
            return;
        }
        self.next_look = now.saturating_add(LOOK);
        self.knocking = true;
        let waiting = self.peers.iter().filter(|(_, peer)| !peer.ready);
        let overdue: Vec<_> =
            waiting.filter_map(|(token, peer)| Some((*token, peer.connection.overdue(now)?))).collect();
        for (token, reason) in overdue {
            self.close(token, Some(reason));
        }
    }

    fn close(&mut self, token: usize, reason: Option<Counted>) {
        let Some(mut peer) = self.peers.remove(&token) else { return };
        if let Some(reason) = reason {
            self.counter.add(reason);
        }
        // Closing takes it from the registry by itself; this is for systems where it does not.
        let _ = self.poll.registry().deregister(peer.connection.stream());
    }
}

impl Socket for Server {
    fn poll(&mut self, lines: &mut Vec<String>, limit: usize) -> Result<Polled, SocketError> {
        let wait = if self.knocking || !self.ready.is_empty() { Duration::ZERO } else { WAIT };
        self.listen(wait).map_err(|source| SocketError::Wait { source })?;
        let now = self.clock.now();
        self.accept(now);
        for _ in 0..self.ready.len() {
            if lines.len() >= limit {
                break;
            }
            let Some(token) = self.ready.pop_front() else { break };
            self.turn(token, lines, limit, now);
        }
        self.look(now);
        Ok(if lines.is_empty() && self.ready.is_empty() { Polled::Idle } else { Polled::More })
    }
}

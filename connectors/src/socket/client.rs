//! One peer that is called, and called again when it is gone.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use millstream_runtime::source::Polled;
use millstream_runtime::time::{SharedClock, Timestamp};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::connection::{Connection, PeerLimits, Turn};
use super::counts::{Counted, SocketCounter};
use super::error::SocketError;
use super::reader::Socket;
use super::server::WAIT;

/// The longest pause between two calls.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long one address has to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What a client is told.
#[derive(Clone, Debug)]
pub(super) struct ClientOptions {
    /// `host:port`
    pub(super) address: String,
    pub(super) limits: PeerLimits,
    pub(super) give_up_after: Duration,
    /// The source ends when the peer closes.
    pub(super) ends_with_peer: bool,
}

/// A client and its connection. They live as long as the source does, over all attempts.
pub(super) struct Client {
    options: ClientOptions,
    poll: Poll,
    events: Events,
    link: Link,
    pause: Duration,
    /// Since when there is no connection.
    down_since: Timestamp,
    clock: SharedClock,
    counter: SocketCounter,
}

enum Link {
    /// To be called at this time.
    Down(Timestamp),
    /// These addresses are to be tried.
    Trying(VecDeque<SocketAddr>),
    Calling {
        stream: TcpStream,
        since: Timestamp,
        others: VecDeque<SocketAddr>,
    },
    Up(Connection),
    /// The peer has closed, and the source ends with it.
    Ended,
}

impl Client {
    pub(super) fn new(options: ClientOptions, clock: SharedClock, counter: SocketCounter) -> io::Result<Self> {
        let (poll, now) = (Poll::new()?, clock.now());
        let events = Events::with_capacity(8);
        let link = Link::Down(Timestamp::MIN);
        Ok(Self { options, poll, events, link, pause: FIRST_PAUSE, down_since: now, clock, counter })
    }

    /// Begins anew to count the time for which it may be without a connection: an attempt begins.
    pub(super) fn begin(&mut self) {
        self.down_since = self.clock.now();
    }

    /// Waits until something happens to the socket, or 50 ms.
    fn wait(&mut self) -> Result<(), SocketError> {
        let now = self.clock.now();
        let wait = match &self.link {
            Link::Down(until) => until.saturating_since(now).min(WAIT),
            _ => WAIT,
        };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(SocketError::Wait { source: error }),
            _ => Ok(()),
        }
    }

    fn step(&mut self, lines: &mut Vec<String>, limit: usize) -> Result<(), SocketError> {
        let now = self.clock.now();
        self.link = match std::mem::replace(&mut self.link, Link::Down(now)) {
            Link::Down(until) if now < until => Link::Down(until),
            Link::Down(_) => match self.options.address.to_socket_addrs() {
                Ok(addresses) => Link::Trying(addresses.collect()),
                Err(error) => self.failed(error, VecDeque::new(), now)?,
            },
            Link::Trying(mut addresses) => match addresses.pop_front() {
                Some(address) => match self.call(address) {
                    Ok(stream) => Link::Calling { stream, since: now, others: addresses },
                    Err(error) => self.failed(error, addresses, now)?,
                },
                None => self.failed(io::ErrorKind::AddrNotAvailable.into(), addresses, now)?,
            },
            Link::Calling { stream, since, others } => match answered(&stream) {
                Ok(true) => {
                    tracing::info!(address = %self.options.address, "connected");
                    Link::Up(Connection::new(stream, self.options.limits, self.counter.clone(), now))
                }
                Ok(false) if now.saturating_since(since) < ANSWER => Link::Calling { stream, since, others },
                Ok(false) => self.failed(io::ErrorKind::TimedOut.into(), others, now)?,
                Err(error) => self.failed(error, others, now)?,
            },
            Link::Up(connection) => self.hear(connection, lines, limit, now)?,
            Link::Ended => Link::Ended,
        };
        Ok(())
    }

    fn call(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        self.poll.registry().register(&mut stream, Token(0), Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }

    fn hear(
        &mut self,
        mut connection: Connection,
        lines: &mut Vec<String>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Link, SocketError> {
        loop {
            let turn = connection.turn(lines, limit, now);
            if !lines.is_empty() {
                // Not when it answered: one that answers and closes, again and again, is called less and less often.
                self.pause = FIRST_PAUSE;
            }
            let error = match turn {
                Turn::Again if lines.len() < limit => continue,
                Turn::Again => return Ok(Link::Up(connection)),
                Turn::Dry => match connection.overdue(now) {
                    None => return Ok(Link::Up(connection)),
                    Some(reason) => {
                        self.counter.add(reason);
                        io::ErrorKind::TimedOut.into()
                    }
                },
                Turn::Closed if self.options.ends_with_peer => return Ok(Link::Ended),
                Turn::Closed => io::ErrorKind::UnexpectedEof.into(),
                Turn::Broken(error) => {
                    self.counter.add(Counted::Broken);
                    error
                }
            };
            drop(connection);
            tracing::warn!(address = %self.options.address, %error, "the connection is lost, it is made anew");
            self.down_since = now;
            return Ok(self.pause(now));
        }
    }

    /// An address could not be reached: takes the next one, or pauses, or gives up.
    fn failed(&mut self, error: io::Error, others: VecDeque<SocketAddr>, now: Timestamp) -> Result<Link, SocketError> {
        if !others.is_empty() {
            return Ok(Link::Trying(others));
        }
        let down = now.saturating_since(self.down_since);
        if down >= self.options.give_up_after {
            return Err(SocketError::Unreachable { address: self.options.address.clone(), down, source: error });
        }
        tracing::debug!(address = %self.options.address, %error, "cannot connect, it is tried again");
        Ok(self.pause(now))
    }

    fn pause(&mut self, now: Timestamp) -> Link {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        Link::Down(now.saturating_add(pause))
    }
}

impl Socket for Client {
    fn poll(&mut self, lines: &mut Vec<String>, limit: usize) -> Result<Polled, SocketError> {
        self.step(lines, limit)?;
        let waits = lines.is_empty() && !matches!(self.link, Link::Ended | Link::Trying(_));
        if waits {
            self.wait()?;
            self.step(lines, limit)?;
        }
        Ok(match (&self.link, lines.is_empty()) {
            (Link::Ended, _) => Polled::End,
            (_, false) => Polled::More,
            (_, true) => Polled::Idle,
        })
    }
}

/// Whether a call was answered: a socket is writable then, and has a peer.
fn answered(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        // EINPROGRESS, where the system says it this way.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

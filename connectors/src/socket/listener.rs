//! Lines of peers who call.

use std::fmt;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::source::{Guarantee, Position, Reader, Source, SourceDeclaration, SplitId};
use millstream_runtime::time::SharedClock;

use super::connection::PeerLimits;
use super::counts::SocketCounter;
use super::error::SocketError;
use super::lines::check_address;
use super::reader::{Intake, SPLIT, check_limits};
use super::server::{Most, Server};

/// Listens, and hands out the lines that its peers send, each as a `String`. Never ends by itself.
///
/// Lines of one connection come in their order; between connections there is none. What a **line** is, and which are
/// dropped and counted, is as for [`SocketLines`](super::SocketLines).
///
/// Peers are not trusted: there are bounds on their number, on the length of a line, on how long a peer may be silent, and
/// on how long it may take over one line. Whoever is beyond them is closed and counted ([`SocketListener::counter`]); the
/// others do not notice. There is no encryption and no check of who a peer is: listen at an address that only those reach
/// who may send.
///
/// **At-most-once:** nothing is acknowledged, so a peer cannot know what to send again. The connections outlive the attempts
/// of a job, and what was not taken from them yet is read by the next attempt, but what an attempt had taken and not
/// committed when it failed is lost, never doubled; and the process's end loses also what lay in the system's buffers. Behind a
/// [`WalSource`](crate::wal::WalSource) only the latter is lost.
/// The **position** counts the lines that were taken.
#[must_use]
pub struct SocketListener {
    listen: Listen,
    most: usize,
    most_per_address: usize,
    limits: PeerLimits,
    intake: Intake<Server>,
}

/// What is listened at.
enum Listen {
    At(String),
    On(TcpListener),
}

impl SocketListener {
    /// Listens at `address`, an IP address or host name of this machine and a port, from the start of the job until its
    /// end, over all attempts.
    pub fn at(address: impl Into<String>) -> Self {
        Self::new(Listen::At(address.into()))
    }

    /// Takes connections from a listener that was made elsewhere: with options of its own, by systemd, or at port 0.
    pub fn on(listener: TcpListener) -> Self {
        Self::new(Listen::On(listener))
    }

    fn new(listen: Listen) -> Self {
        Self {
            listen,
            most: 1_024,
            most_per_address: usize::MAX,
            limits: PeerLimits {
                line_bytes: 64 << 10,
                idle: Duration::from_secs(60),
                line_time: Duration::from_secs(10),
            },
            intake: Intake::default(),
        }
    }

    /// Sets how many connections may be open at a time; more are closed at once. The process needs as many open files.
    /// Default 1,024, at least 1.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.most = connections;
        self
    }

    /// Sets how many connections from one IP address may be open at a time; more are closed at once, so that one peer cannot
    /// take the room of all others. Peers behind a proxy or a NAT have one address in common. Default: no limit but that of
    /// all connections; at least 1.
    pub fn max_connections_per_address(mut self, connections: usize) -> Self {
        self.most_per_address = connections;
        self
    }

    /// Sets how many bytes a line may have, without its end. Every connection may hold as many in memory. Default 64 KiB,
    /// at least 1.
    pub fn max_line_bytes(mut self, bytes: usize) -> Self {
        self.limits.line_bytes = bytes;
        self
    }

    /// Closes connections through which nothing came for so long. Default 1 minute; `Duration::MAX` for never: those of peers
    /// that are gone without a word end all the same, after 90 s, by TCP's keep-alive.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle = timeout;
        self
    }

    /// Closes connections on which a line was not complete for so long after its first byte, although it was waited for.
    /// Default 10 s; `Duration::MAX` for never.
    pub fn line_timeout(mut self, timeout: Duration) -> Self {
        self.limits.line_time = timeout;
        self
    }

    /// Gives each record the time at which it was read as its event time. Default: records have none.
    pub fn arrival_times(mut self) -> Self {
        self.intake.arrival_times = true;
        self
    }

    /// Takes the time from here. Default: [`SystemClock`](millstream_runtime::time::SystemClock).
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.intake.clock = clock;
        self
    }

    /// Returns a handle on what was taken and dropped, and on how many connections there are.
    pub fn counter(&self) -> SocketCounter {
        self.intake.counter.clone()
    }

    fn serve(&self) -> Result<Server, SocketError> {
        let error = |address: &str| {
            let address = address.to_owned();
            move |source| SocketError::Listen { address, source }
        };
        let (listener, address) = match &self.listen {
            Listen::At(address) => (TcpListener::bind(address).map_err(error(address))?, address.clone()),
            Listen::On(listener) => (listener.try_clone().map_err(error("the given listener"))?, String::new()),
        };
        let (clock, counter) = (Arc::clone(&self.intake.clock), self.intake.counter.clone());
        let most = Most { connections: self.most, per_address: self.most_per_address };
        Server::new(listener, most, self.limits, clock, counter).map_err(error(&address))
    }
}

impl fmt::Debug for SocketListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketListener").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Source for SocketListener {
    type Out = String;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        if let Listen::At(address) = &self.listen {
            check_address(address, 0)?;
        }
        check_limits(&self.limits)?;
        for (option, most) in [("max_connections", self.most), ("max_connections_per_address", self.most_per_address)] {
            if most == 0 {
                return Err(Box::new(SocketError::Zero { option, least: "1" }));
            }
        }
        // Here, so that an address that is taken fails the start and not the first poll.
        let mut newest = self.intake.newest.any();
        if newest.state.socket.is_none() {
            newest.state.socket = Some(self.serve()?);
        }
        Ok(SPLIT.list())
    }

    fn declaration(&self) -> SourceDeclaration {
        SourceDeclaration::new("SocketListener")
            .records("lines of peers who connect")
            .position("number of lines taken")
            .guarantee(Guarantee::AtMostOnce, "")
            .after_restart("what was taken and not committed is lost, with the process also what was not taken")
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<String>>, BoxError> {
        self.intake.reader(split, from, |_| Ok(()))
    }
}

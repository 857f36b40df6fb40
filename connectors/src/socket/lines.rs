//! Lines of a server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::source::{Guarantee, Position, Reader, Source, SourceDeclaration, SplitId};
use millstream_runtime::time::SharedClock;

use super::client::{Client, ClientOptions};
use super::connection::PeerLimits;
use super::counts::SocketCounter;
use super::error::SocketError;
use super::reader::{Intake, SPLIT, check_limits};

/// Connects to a server and hands out the lines that it sends, each as a `String`; Spark's `socket` source.
///
/// A **line** ends at `\n` or `\r\n`, which are not part of it, and is UTF-8. Lines that are not, that are longer than
/// [`max_line_bytes`](SocketLines::max_line_bytes), or that the connection ends within are dropped and counted
/// ([`SocketLines::counter`]): from outside nobody can tell a line without its end from the half of one.
///
/// A connection that ends, breaks or cannot be made is made anew after a pause of 100 ms, which doubles up to 10 s and is
/// short again when a line has come. Looking up a name may take longer than a poll should.
///
/// **At-most-once:** the server will not send again what it has sent. The connection outlives the attempts of a job, so what
/// was not taken from it yet is read by the next attempt, but what an attempt had taken and not committed when it failed
/// is lost, never doubled; and the process's end loses also what lay in the system's buffers. Behind a
/// [`WalSource`](crate::wal::WalSource) only the latter is lost. The **position** counts
/// the lines that were taken.
#[must_use]
pub struct SocketLines {
    options: ClientOptions,
    intake: Intake<Client>,
}

impl SocketLines {
    /// Connects to `address`: a host name or IP address and a port, such as `localhost:9999` or `[::1]:9999`. All
    /// addresses of a name are tried.
    pub fn connect(address: impl Into<String>) -> Self {
        let limits = PeerLimits { line_bytes: 1 << 20, idle: Duration::MAX, line_time: Duration::MAX };
        let give_up_after = Duration::from_secs(60);
        Self {
            options: ClientOptions { address: address.into(), limits, give_up_after, ends_with_peer: false },
            intake: Intake::default(),
        }
    }

    /// Sets how many bytes a line may have, without its end. Default 1 MiB, at least 1.
    pub fn max_line_bytes(mut self, bytes: usize) -> Self {
        self.options.limits.line_bytes = bytes;
        self
    }

    /// Makes the connection anew when nothing has come for so long: a server that hangs is found out by nothing else (one whose
    /// machine is gone without a word is, after 90 s, by TCP's keep-alive). What it sends in between is lost, so this
    /// should be longer than it ever keeps silent. Default: never, `Duration::MAX`.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.options.limits.idle = timeout;
        self
    }

    /// Fails the attempt when there was no connection for so long; zero fails it at the first try that fails. Each attempt
    /// begins to count anew. Default 1 minute; `Duration::MAX` tries for ever.
    pub fn give_up_after(mut self, time: Duration) -> Self {
        self.options.give_up_after = time;
        self
    }

    /// Ends the source when the server closes the connection in order. Default: it is made anew.
    pub fn end_with_peer(mut self) -> Self {
        self.options.ends_with_peer = true;
        self
    }

    /// Gives each record the time at which it was read as its event time; Spark's `includeTimestamp`. Default: records
    /// have none.
    pub fn arrival_times(mut self) -> Self {
        self.intake.arrival_times = true;
        self
    }

    /// Takes the time from here. Default: [`SystemClock`](millstream_runtime::time::SystemClock).
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.intake.clock = clock;
        self
    }

    /// Returns a handle on what was taken and dropped.
    pub fn counter(&self) -> SocketCounter {
        self.intake.counter.clone()
    }
}

impl fmt::Debug for SocketLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketLines").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Source for SocketLines {
    type Out = String;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        check_address(&self.options.address, 1)?;
        check_limits(&self.options.limits)?;
        Ok(SPLIT.list())
    }

    fn declaration(&self) -> SourceDeclaration {
        SourceDeclaration::new("SocketLines")
            .records("lines of a server")
            .position("number of lines taken")
            .guarantee(Guarantee::AtMostOnce, "")
            .after_restart("what was taken and not committed is lost, with the process also what was not taken")
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<String>>, BoxError> {
        let Intake { clock, counter, .. } = &self.intake;
        let made = || Client::new(self.options.clone(), Arc::clone(clock), counter.clone());
        self.intake.reader(split, from, |client| {
            let client = match client {
                Some(client) => client,
                none => none.insert(made().map_err(|source| SocketError::Wait { source })?),
            };
            client.begin();
            Ok(())
        })
    }
}

/// Refuses what no look-up could turn into an address.
pub(super) fn check_address(address: &str, least_port: u16) -> Result<(), SocketError> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse().ok());
    match port {
        Some::<u16>(port) if port >= least_port => Ok(()),
        _ => Err(SocketError::Address { address: address.to_owned() }),
    }
}

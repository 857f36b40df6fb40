//! What can keep a socket from being read.

use std::io;
use std::time::Duration;

/// A socket source cannot start, or not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The address is not a host and a port.
    #[error("\"{address}\" is no address: give host:port, such as localhost:9999, where the port is 1 to 65535")]
    Address {
        /// What was given.
        address: String,
    },
    /// The address cannot be listened at.
    #[error("cannot listen at {address}{}", remedy(source.kind()))]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The peer could not be reached for longer than allowed. The attempt fails; the next one tries again.
    #[error(
        "cannot connect to {address}, tried for {down:?}; is the server there up? give_up_after says for how long it \
         is tried"
    )]
    Unreachable {
        /// The address.
        address: String,
        /// For how long there was no connection.
        down: Duration,
        /// What the system said to the last try.
        source: io::Error,
    },
    /// The system cannot wait for sockets, or has no more of them.
    #[error("cannot wait for sockets{}", remedy(source.kind()))]
    Wait {
        /// What the system said.
        source: io::Error,
    },
    /// An option is zero that must not be.
    #[error("{option} is 0, so nothing could ever be read; give at least {least}")]
    Zero {
        /// The option.
        option: &'static str,
        /// The least it may be.
        least: &'static str,
    },
    /// The saved split or position was made by another kind of source under the same name.
    #[error("cannot go on in split {split}: it is no socket's; was this source of another kind? give it a new name")]
    Foreign {
        /// The split.
        split: String,
    },
}

/// What to do about it, as the end of the text; empty where nobody knows.
fn remedy(error: io::ErrorKind) -> &'static str {
    match error {
        io::ErrorKind::AddrInUse => {
            "; another process, or another source of this one, listens there: end it, or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this machine has no such address: give one of its own, or 0.0.0.0 for all"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: choose another, or grant it",
        _ => "",
    }
}

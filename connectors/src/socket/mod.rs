//! Lines that come through TCP: from a server that is called, or from peers that call.
//!
//! A peer that sends lines does not send them again, so a socket is at-most-once by nature: see [`SocketLines`] and
//! [`SocketListener`] for what is lost and when. All of it happens on the reader's thread, which reads a connection only when it
//! has no whole line of it left: what the pipeline does not take stays in the system's buffers, and TCP holds the peer
//! back.
//!
//! Most memory: connections × (`max_line_bytes` + 16 KiB). What is dropped is counted by reason: [`SocketCounter`].

mod client;
mod connection;
mod counts;
mod cutter;
mod error;
mod lines;
mod listener;
mod reader;
mod server;
#[cfg(test)]
mod tests;

pub use self::counts::{SocketCounter, SocketCounts};
pub use self::error::SocketError;
pub use self::lines::SocketLines;
pub use self::listener::SocketListener;

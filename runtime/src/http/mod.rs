//! A small HTTP server for what a runtime tells of itself. The one door to hyper.
//!
//! It listens only where it was asked to, on a thread of its own, `millstream-http`, which it shares with nobody: a slow client
//! delays no record. Requests are read, answered and the connection is closed; none may take longer than half a minute, and of
//! more than [`server::MOST_CONNECTIONS`] the oldest is closed. So clients that are slow, silent or too many cost a bounded amount
//! of memory and shut nobody out for long.

mod server;

pub(crate) use self::server::HttpServer;

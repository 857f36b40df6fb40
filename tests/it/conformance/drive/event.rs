//! What is read.

use std::time::Duration;

use millstream::runtime::time::Timestamp;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::conformance) struct Event {
    pub(in crate::conformance) key: String,
    pub(in crate::conformance) time: Timestamp,
    pub(in crate::conformance) number: i64,
    /// What an operator is to do, where it listens.
    pub(in crate::conformance) says: String,
}

/// A time in seconds.
pub(in crate::conformance) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

/// A time in whole seconds.
pub(in crate::conformance) fn seconds(time: Timestamp) -> i64 {
    time.as_micros().div_euclid(1_000_000)
}

pub(in crate::conformance) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A record of a key at so many seconds.
pub(in crate::conformance) fn on(key: &str, seconds: i64) -> Event {
    number(key, seconds, 1)
}

/// A record with a number.
pub(in crate::conformance) fn number(key: &str, seconds: i64, number: i64) -> Event {
    Event { key: key.to_owned(), time: at(seconds), number, says: String::new() }
}

/// A record that says what is to be done.
pub(in crate::conformance) fn says(key: &str, seconds: i64, says: &str) -> Event {
    Event { says: says.to_owned(), ..on(key, seconds) }
}

/// A record at so many microseconds.
pub(in crate::conformance) fn micros(key: &str, micros: i64) -> Event {
    Event { time: Timestamp::from_micros(micros), ..on(key, 0) }
}

/// A record without event time.
pub(in crate::conformance) fn untimed(key: &str) -> Event {
    Event { time: Timestamp::MIN, ..on(key, 0) }
}

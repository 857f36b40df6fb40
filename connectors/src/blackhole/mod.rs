//! Nowhere: for measuring what comes before.

mod sink;

pub use self::sink::{Blackhole, BlackholeCount};

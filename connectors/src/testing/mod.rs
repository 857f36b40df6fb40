//! The contracts of sinks as tests: for the sinks of this crate, and for yours.
//!
//! [`token_sink_conformance`] is that of a level-2 sink, [`sink_conformance`] that of a level-1 sink. Both kill the sink between
//! and in its calls, as a process dies: nothing is dropped, no destructor runs.

mod direct;
mod token;
#[cfg(test)]
mod wrong;

pub use self::direct::{DirectOutside, sink_conformance};
pub use self::token::{AtStep, Outside, token_sink_conformance};
use millstream_runtime::id::{Attempt, Epoch, ShardId};
use millstream_runtime::operator::OutputMode;
use millstream_runtime::sink::SinkContext;

/// What a sink did wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sink breaks its contract, {case}: {what}")]
#[non_exhaustive]
pub struct Nonconformance {
    /// Which row of the crash table.
    pub case: String,
    /// What was seen and what was expected.
    pub what: String,
}

/// What a sink is told by the tests.
pub(crate) fn context(attempt: u64) -> SinkContext {
    SinkContext {
        pipeline: "conformance".into(),
        sink: "out".into(),
        shard: ShardId::new(0),
        attempt: Attempt::new(attempt),
        output_mode: OutputMode::Append,
        subtask: 0,
        first_epoch: Epoch::GENESIS,
    }
}

fn wrong(case: &str, what: String) -> Nonconformance {
    Nonconformance { case: case.into(), what }
}

/// Ends a sink as `kill -9` would: what it has not done by now it never does.
fn kill<S: ?Sized>(sink: Box<S>) {
    std::mem::forget(sink);
}

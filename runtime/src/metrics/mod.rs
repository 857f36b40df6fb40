//! What the runtime counts of itself: every metric's name once, the counters, and how they are read out.
//!
//! ```text
//!   subtask, channel, job machine --plain adds--> cells (one writer each)
//!                                                   │ read when somebody asks
//!                      Collect ──► MetricsHub ──► samples ──► the facade's recorder ─┐
//!                                 (what earlier               own text ──────────────┴─► Prometheus text
//!                                  attempts counted)
//! ```
//! Whoever counts adds to a cell of its own: an integer in its own cache line, stored without a lock once per frame. Nothing is
//! computed, and no memory is taken, until somebody collects; so a process that nobody scrapes stays as it is.
//!
//! Cells begin at zero with every attempt. The `MetricsHub` keeps what earlier ones came to, so that what it shows only
//! rises while the process lives.

mod buckets;
#[cfg(feature = "prometheus")]
mod exporter;
mod hub;
mod level;
pub mod names;
mod operator;
mod sample;
mod task;
#[cfg(feature = "prometheus")]
mod text;
mod window;

use std::sync::Arc;

use self::buckets::SharedMeans;
pub use self::buckets::{BOUNDS_MICROS, Buckets, SharedBuckets};
pub use self::hub::PipelineState;
pub(crate) use self::hub::{MetricsHub, PipelineMetrics};
pub use self::level::MetricsLevel;
pub(crate) use self::operator::SinkLatency;
pub use self::operator::{Counter, OperatorMeter, OutputMeter};
pub(crate) use self::sample::{Collect, Label};
pub use self::sample::{Sample, Samples, Summary, Value};
pub use self::task::{TaskMeter, TimeSplit, TimeState};
pub use self::window::Recent;

/// What a runtime's jobs count. Cheap to clone; may outlive its [`Runtime`](crate::runtime::Runtime), and then shows which state its
/// pipelines ended in.
#[derive(Clone, Debug)]
pub struct Metrics {
    hub: Arc<MetricsHub>,
}

impl Metrics {
    /// The content type of [`Metrics::render`], for an HTTP server of your own.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    pub(crate) const fn new(hub: Arc<MetricsHub>) -> Self {
        Self { hub }
    }

    /// Reads all series now. Takes no lock that a record waits for.
    pub fn collect(&self) -> Samples {
        self.hub.collect()
    }

    /// Reads all series and writes them as Prometheus text: the whole answer to a scrape. About a millisecond per thousand series, on
    /// the caller's thread.
    #[cfg(feature = "prometheus")]
    pub fn render(&self) -> String {
        exporter::render(&self.collect())
    }
}

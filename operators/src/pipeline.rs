//! The description of a pipeline.

use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream_runtime::graph::{BuildError, BuildErrors, Graph, SourceOf, VertexId, VertexKind};
use millstream_runtime::operator::OutputMode;
use millstream_runtime::source::Source;
use millstream_runtime::trigger::Trigger;

use crate::stream::Stream;

/// A graph that is being described, shared by the pipeline and its streams.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    graph: Arc<Mutex<Graph>>,
    frozen: Arc<Mutex<bool>>,
}

impl Shared {
    /// Changes the graph; notes a mistake instead if it was started already.
    #[track_caller]
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Graph) -> R) -> R {
        let frozen = *self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
        if frozen {
            graph.add_error(BuildError::Frozen { at: BuildError::place(Location::caller()) });
        }
        change(&mut graph)
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.graph, &other.graph)
    }
}

/// A pipeline: its sources, operators and sinks. Start it with `Runtime::start`.
///
/// Its name names its store: two pipelines of one name cannot run on one state directory at the same time, and a pipeline goes on
/// where the one of its name stopped.
#[derive(Debug)]
pub struct Pipeline {
    shared: Shared,
}

impl Pipeline {
    /// Begins a description. The name is 1 to 64 characters of `a-z A-Z 0-9 _ . -`.
    pub fn new(name: impl Into<String>) -> Self {
        let graph = Arc::new(Mutex::new(Graph::new(name)));
        Self { shared: Shared { graph, frozen: Arc::default() } }
    }

    /// Sets how many subtasks each task has. Default: as many as the runtime has workers; range 1 to 960. It may change from
    /// one start to the next: state is kept per key group.
    #[must_use]
    pub fn parallelism(self, parallelism: u16) -> Self {
        self.shared.change(|graph| graph.set_parallelism(parallelism));
        self
    }

    /// Sets the time between barriers. Default: that of the runtime, 100 ms; at least 1 ms. It is the delay until a record is
    /// durable, and until exactly-once output is visible. 10 ms is supported, less is experimental.
    #[must_use]
    pub fn epoch_interval(self, interval: Duration) -> Self {
        self.shared.change(|graph| graph.set_epoch_interval(interval));
        self
    }

    /// Sets when epochs begin, and with it how records pass: one by one as they come ([`Trigger::Continuous`]), or in planned
    /// micro-batches of which each is one epoch. Default: continuous, every [`Pipeline::epoch_interval`]. It may change from one start to
    /// the next, and while the job runs: see `JobHandle::set_trigger`.
    #[must_use]
    pub fn trigger(self, trigger: Trigger) -> Self {
        self.shared.change(|graph| graph.set_trigger(trigger));
        self
    }

    /// Sets whether micro-batches without records are run where the watermark has risen, so that windows close, or a
    /// processing-time timer is due. Default true.
    #[must_use]
    pub fn no_data_epochs(self, run: bool) -> Self {
        self.shared.change(|graph| graph.set_no_data_epochs(run));
        self
    }

    /// Sets what of its result the pipeline sends on: see [`OutputMode`]. Default: [`OutputMode::Append`]. It concerns operators that
    /// group, as windows do; others send every result. Which operators fit which mode is checked before anything runs.
    #[must_use]
    pub fn output_mode(self, mode: OutputMode) -> Self {
        self.shared.change(|graph| graph.set_output_mode(mode));
        self
    }

    /// Adds a source. Its positions are kept under `name`.
    #[track_caller]
    pub fn source<S: Source>(&self, name: &str, source: S) -> Stream<S::Out> {
        let kind = VertexKind::Source(Arc::new(SourceOf::new(source)));
        let vertex = self.add(name, kind, Location::caller());
        Stream::of(self.shared.clone(), vertex)
    }

    /// Looks for mistakes in the description.
    ///
    /// # Errors
    /// [`BuildErrors`] has all of them, each with the line that made it.
    pub fn validate(&self) -> Result<(), BuildErrors> {
        self.shared.change(|graph| graph.validate())
    }

    /// Describes the pipeline as text: its tasks, exchanges and states, and what its sources and sinks guarantee. What it shows
    /// may change between versions.
    pub fn explain(&self) -> String {
        self.shared.change(|graph| graph.explain())
    }

    /// Draws the pipeline in the DOT language.
    pub fn to_dot(&self) -> String {
        self.shared.change(|graph| graph.to_dot())
    }

    fn add(&self, name: &str, kind: VertexKind, at: &'static Location<'static>) -> VertexId {
        self.shared.change(|graph| graph.add_vertex(Some(name), kind, at))
    }
}

impl From<Pipeline> for Graph {
    fn from(pipeline: Pipeline) -> Self {
        *pipeline.shared.frozen.lock().unwrap_or_else(PoisonError::into_inner) = true;
        std::mem::take(&mut *pipeline.shared.graph.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

//! [`Runtime`]: starts pipelines. A value, not a global: two of them at once know nothing of each other.

use std::fmt;
#[cfg(feature = "http")]
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError};

use crate::actor::{self, JobLink, JobList, JobSetup, RuntimeConfig};
use crate::fault::SharedFaults;
use crate::graph::Graph;
use crate::handle::JobHandle;
#[cfg(feature = "http")]
use crate::http::HttpServer;
use crate::job::OpenStore;
use crate::metrics::{Metrics, MetricsHub};
use crate::plan::Plan;
use crate::state::log::StartFrom;
use crate::state::store::{StateBackend, open_within};
#[cfg(feature = "status")]
use crate::status::Status;
use crate::time::SharedClock;

mod builder;
mod error;
#[cfg(feature = "http")]
mod listen;
mod until;

pub use self::builder::RuntimeBuilder;
pub use self::error::{RuntimeError, StartError};
pub use self::until::RunError;

/// Starts pipelines, each as a job with threads of its own, named `millstream-*`.
///
/// Works wherever it is called: plain threads, any tokio runtime, a `LocalSet`, inside an actix System. It neither needs
/// nor touches the executor of its caller.
///
/// **Dropping** it ends its jobs at once and without another commit, as a crash would: their next start goes on from the
/// last committed epoch. It does not wait; handles then answer [`JobError::Gone`](crate::job::JobError::Gone). Stop or drain
/// what should end in order.
pub struct Runtime {
    config: RuntimeConfig,
    backend: Arc<dyn StateBackend>,
    clock: SharedClock,
    faults: SharedFaults,
    jobs: JobList,
    metrics: Arc<MetricsHub>,
    #[cfg(feature = "http")]
    http: Option<HttpServer>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("config", &self.config).field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Begins with the defaults.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::new()
    }

    /// Starts a pipeline: checks it, opens its store and starts its threads. Reading the state back and opening the
    /// sources happen on those threads; what fails there is told by [`JobHandle::wait`].
    ///
    /// Opening a store on disk blocks the caller: milliseconds as a rule, longer after a crash.
    ///
    /// # Errors
    /// [`StartError::Build`] has all mistakes of the pipeline together. [`StartError::Store`] when the store cannot be
    /// opened, by another job's lock for one: it is free again once that job's `stop` or `wait` has returned.
    pub fn start(&self, pipeline: impl Into<Graph>) -> Result<JobHandle, StartError> {
        self.start_graph(pipeline.into())
    }

    fn start_graph(&self, graph: Graph) -> Result<JobHandle, StartError> {
        let mut config = self.config.clone();
        config.job.epoch_interval = graph.epoch_interval().unwrap_or(config.job.epoch_interval);
        config.job.trigger = graph.trigger().or(config.job.trigger);
        config.job.no_data_epochs = graph.no_data_epochs().unwrap_or(config.job.no_data_epochs);
        let plan = Plan::new(graph, config.workers)?;
        tracing::debug!(plan = %plan.explain(config.key_groups), "starting a pipeline");
        let pipeline = plan.name().to_owned();
        let open = self.open_store(&pipeline, &config)?;
        let (clock, faults) = (Arc::clone(&self.clock), Arc::clone(&self.faults));
        let metrics = Arc::clone(&self.metrics);
        let link = actor::start(JobSetup { plan, config, clock, faults, open, metrics })
            .map_err(|source| StartError::Threads { pipeline, source })?;
        let link = Arc::new(link);
        let mut jobs = self.jobs();
        jobs.retain(|job| !job.is_over());
        jobs.push(Arc::clone(&link));
        Ok(JobHandle::new(link))
    }

    /// What its jobs count. Cheap; the answer may be kept and goes on counting.
    pub fn metrics(&self) -> Metrics {
        Metrics::new(Arc::clone(&self.metrics))
    }

    /// What its jobs are doing, as answers to HTTP requests, for a server of your own. Cheap; the answer may be kept.
    #[cfg(feature = "status")]
    pub fn status(&self) -> Status {
        Status::new(self.metrics(), Arc::clone(&self.jobs))
    }

    /// Where `/metrics` and `/status` are served, if anywhere: [`RuntimeBuilder::http`] with the port that was found.
    #[cfg(feature = "http")]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(HttpServer::address)
    }

    /// Opens the store now, so that a lock is the caller's error, and hands it to the committer as its first.
    fn open_store(&self, pipeline: &str, config: &RuntimeConfig) -> Result<OpenStore, StartError> {
        let (shard, create) = (config.shard, config.start_from != StartFrom::Resume);
        let timeout = config.open_timeout;
        // A store's own threads are started by the one that opens it, and rank as the one that started that.
        let opened = actor::below_the_workers(|| open_within(timeout, &self.backend, pipeline, shard, create));
        let opened = opened.map_err(|source| StartError::Threads { pipeline: pipeline.to_owned(), source })?;
        let opened = opened.map_err(|source| StartError::Store { pipeline: pipeline.to_owned(), source })?;
        let (backend, pipeline) = (Arc::clone(&self.backend), pipeline.to_owned());
        let mut first = Some(opened);
        Ok(Box::new(move |create| match first.take() {
            Some(store) => Ok(store),
            None => open_within(timeout, &backend, &pipeline, shard, create),
        }))
    }

    fn jobs(&self) -> MutexGuard<'_, Vec<Arc<JobLink>>> {
        // A push or a retain that panicked left a list all the same.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.jobs().iter().for_each(|job| job.quit());
    }
}

//! What a runtime tells whoever asks by HTTP: one function from a request to its answer, without any server's types.
//!
//! The runtime's own server calls it, and so may a daemon's. It reads counters and the job's status; no record waits for that.

mod facts;
mod routes;
mod topology;

use std::fmt;

use crate::actor::JobList;
use crate::metrics::Metrics;

/// What a runtime and its jobs are doing, as answers to HTTP requests. Cheap to clone; may outlive its
/// [`Runtime`](crate::runtime::Runtime), and then shows which state its pipelines ended in.
#[derive(Clone)]
pub struct Status {
    metrics: Metrics,
    jobs: JobList,
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status").finish_non_exhaustive()
    }
}

/// An answer to an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The content type.
    pub content_type: &'static str,
    /// The body, which an answer to `HEAD` leaves out.
    pub body: String,
}

impl Status {
    pub(crate) const fn new(metrics: Metrics, jobs: JobList) -> Self {
        Self { metrics, jobs }
    }

    /// Answers a request by its method and its target, as it stands in the request: path and query. Takes about a millisecond per
    /// thousand series, on the caller's thread; never panics, whatever it is given.
    ///
    /// | path | answer |
    /// |---|---|
    /// | `/metrics` | all series as Prometheus text |
    /// | `/healthz` | 200: it answers. Says nothing of pipelines: whoever restarts a daemon because a peer of it is away makes things worse |
    /// | `/readyz` | 200 while every pipeline runs or has ended well, else 503 and the others by name |
    /// | `/status` | JSON: state, failures and all series of each pipeline, by operator, channel, source and sink |
    /// | `/status/topology` | JSON: vertices and edges; with `?format=dot` or `?format=mermaid` a drawing |
    /// | `/status/checkpoints` | JSON: the last 32 checkpoints by phase, the newest first |
    /// | `/status/config` | JSON: the options that each job runs with, those that were not given included |
    ///
    /// `?pipeline=NAME` leaves out the other pipelines of `/status` and what is below it. Options of sources and sinks are in none of
    /// these, so neither are their passwords.
    pub fn respond(&self, method: &str, target: &str) -> Response {
        routes::respond(self, method, target)
    }
}

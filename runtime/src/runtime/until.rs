//! Running until somebody wants it to end.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Runtime;
use crate::actor::JobLink;
use crate::job::{Ended, JobError};

/// A job that [`Runtime::run_until`] waited for did not end well.
#[derive(Clone, Debug, thiserror::Error)]
#[error("pipeline {pipeline} failed")]
#[non_exhaustive]
pub struct RunError {
    /// Its pipeline.
    pub pipeline: String,
    /// What happened.
    pub source: JobError,
}

type Ending<'a> = Pin<Box<dyn Future<Output = Result<Ended, JobError>> + Send + 'a>>;

/// Futures that go on at the same time, and what came of those that are done.
struct Together<'a> {
    going: Vec<Ending<'a>>,
    done: Vec<Option<Result<Ended, JobError>>>,
}

impl<'a> Together<'a> {
    fn new<F>(jobs: &'a [Arc<JobLink>], of: impl Fn(&'a JobLink) -> F) -> Self
    where
        F: Future<Output = Result<Ended, JobError>> + Send + 'a,
    {
        let going: Vec<_> = jobs.iter().map(|job| Box::pin(of(job)) as Ending<'a>).collect();
        let done = going.iter().map(|_| None).collect();
        Self { going, done }
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        for (going, done) in self.going.iter_mut().zip(&mut self.done) {
            if done.is_none()
                && let Poll::Ready(ended) = going.as_mut().poll(context)
            {
                *done = Some(ended);
            }
        }
    }

    fn are_done(&self) -> bool {
        self.done.iter().all(Option::is_some)
    }

    /// The first that failed.
    fn failed(&self) -> Option<(usize, JobError)> {
        let mut done = self.done.iter().enumerate();
        done.find_map(|(index, done)| Some((index, done.as_ref()?.as_ref().err()?.clone())))
    }
}

impl Runtime {
    /// Waits until `shutdown` resolves, then stops all jobs of this runtime at the same time: each closes one last epoch, commits and
    /// delivers it, and the next start goes on from there. Returns how they ended, by pipeline.
    ///
    /// Returns earlier when all jobs have ended by themselves. When one fails and may not be restarted, the others are stopped, and
    /// its failure is returned. It is about the jobs that have not ended when the last of them is started; a job that is started
    /// while this waits is stopped with the others.
    ///
    /// What makes `shutdown` resolve is the caller's: this library installs no signal handler. The example `daemon` waits for
    /// SIGTERM.
    ///
    /// # Errors
    /// [`RunError`] names the pipeline that failed first, or that did not stop within
    /// [`shutdown_timeout`](super::RuntimeBuilder::shutdown_timeout).
    ///
    /// # Cancel safety
    /// Dropped before `shutdown` resolved, nothing has happened and the jobs go on. Dropped later, they end all the same.
    pub async fn run_until(&self, shutdown: impl Future<Output = ()>) -> Result<Vec<(String, Ended)>, RunError> {
        let jobs = self.jobs().clone();
        let mut running = Together::new(&jobs, JobLink::over);
        let mut shutdown = pin!(shutdown);
        poll_fn(|context| {
            running.poll(context);
            if running.are_done() || running.failed().is_some() {
                return Poll::Ready(());
            }
            shutdown.as_mut().poll(context)
        })
        .await;
        let failed = |jobs: &[Arc<JobLink>], (index, source)| {
            let pipeline = jobs.get(index).map(|job: &Arc<JobLink>| job.pipeline().to_owned()).unwrap_or_default();
            RunError { pipeline, source }
        };
        let first = running.failed().map(|found| failed(&jobs, found));

        let jobs = self.jobs().clone();
        let within = self.config.shutdown_timeout;
        let mut stopping = Together::new(&jobs, |job| job.end(false, within));
        poll_fn(|context| {
            stopping.poll(context);
            if stopping.are_done() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        if let Some(error) = first.or_else(|| stopping.failed().map(|found| failed(&jobs, found))) {
            return Err(error);
        }
        let ended = jobs.iter().zip(stopping.done.into_iter().flatten().flatten());
        Ok(ended.map(|(job, ended)| (job.pipeline().to_owned(), ended)).collect())
    }
}

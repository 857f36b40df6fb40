//! All that a runtime's jobs count, and what their earlier attempts have counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::metrics::names;
use crate::metrics::sample::{Collect, Samples};
use crate::time::SharedClock;

/// Pipelines that have ended and are still told of; the ones that ended first go first.
const MOST_ENDED: usize = 256;

/// One per runtime, so that two of them in a process know nothing of each other.
pub(crate) struct MetricsHub {
    clock: SharedClock,
    inner: Mutex<Inner>,
    /// Said once.
    overflowed: AtomicBool,
}

#[derive(Default)]
struct Inner {
    pipelines: BTreeMap<String, Entry>,
    /// How many jobs have begun and have ended, ever.
    begun: u64,
    ended: u64,
    /// Seconds and series of the last collection.
    last: (f64, f64),
}

/// One pipeline.
#[derive(Default)]
struct Entry {
    /// The number of the job that it tells of. A store is free a little before its job's line is dropped, so another one may have
    /// come.
    owner: u64,
    job: Option<Arc<dyn Collect>>,
    attempt: Option<Arc<dyn Collect>>,
    /// What attempts and jobs that are over have counted.
    gone: Samples,
    /// The times that were shown last, since the attempt began.
    shown: Samples,
    /// Set when the job is over: its number in the order of ends, and the state that is told.
    over: Option<(u64, PipelineState)>,
}

impl fmt::Debug for MetricsHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsHub").finish_non_exhaustive()
    }
}

/// The states of a pipeline as they are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PipelineState {
    /// Its store is open; nothing has begun.
    #[default]
    Created,
    /// An attempt is being made from the last epoch.
    Restoring,
    /// Records flow.
    Running,
    /// It ends in order.
    Draining,
    /// An attempt has failed, and another one follows.
    Restarting,
    /// It has failed for good.
    Failed,
    /// It has ended well: finished, drained or stopped.
    Finished,
}

impl PipelineState {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Created, Self::Restoring, Self::Running, Self::Draining, Self::Restarting, Self::Failed, Self::Finished];

    /// Its name as a label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Restoring => "restoring",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Finished => "finished",
        }
    }

    /// Puts this state of a pipeline, and that it is in none of the others.
    pub(crate) fn put(self, pipeline: &str, into: &mut Samples) {
        for state in Self::ALL {
            let value = f64::from(u8::from(state == self));
            into.gauge(&names::PIPELINE_STATE, [pipeline.to_owned().into(), state.label().into()], value);
        }
    }
}

fn retire(old: Option<Arc<dyn Collect>>, gone: &mut Samples) {
    if let Some(old) = old {
        let mut last = Samples::default();
        old.collect(&mut last);
        gone.keep_counts_of(last);
    }
}

impl Entry {
    fn retire_job(&mut self) {
        retire(self.job.take(), &mut self.gone);
    }

    /// Only attempts count times.
    fn retire_attempt(&mut self) {
        retire(self.attempt.take(), &mut self.gone);
        self.gone.rise_from(&mut std::mem::take(&mut self.shown));
    }
}

impl MetricsHub {
    pub(crate) fn new(clock: SharedClock) -> Arc<Self> {
        Arc::new(Self { clock, inner: Mutex::default(), overflowed: AtomicBool::new(false) })
    }

    /// Enters a job. Of what an earlier one of the same name counted nothing is lost.
    pub(crate) fn pipeline(self: &Arc<Self>, pipeline: &str) -> PipelineMetrics {
        let mut inner = self.lock();
        inner.begun += 1;
        let number = inner.begun;
        let entry = inner.pipelines.entry(pipeline.to_owned()).or_default();
        entry.owner = number;
        entry.over = None;
        drop(inner);
        PipelineMetrics { hub: Arc::clone(self), pipeline: pipeline.to_owned(), number, ended: PipelineState::Failed }
    }

    /// Reads everything.
    pub(crate) fn collect(&self) -> Samples {
        let began = self.clock.now();
        let mut all = Samples::default();
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        all.gauge(&names::BUILD_INFO, [env!("CARGO_PKG_VERSION").into(), profile.into()], 1.0);
        let mut inner = self.lock();
        let (seconds, series) = inner.last;
        all.gauge(&names::COLLECT_SECONDS, [], seconds);
        all.gauge(&names::SERIES, [], series);
        for (pipeline, entry) in &mut inner.pipelines {
            let mut samples = Samples::default();
            entry.job.iter().chain(&entry.attempt).for_each(|part| part.collect(&mut samples));
            samples.raise_by(&entry.gone);
            samples.rise_from(&mut entry.shown);
            if let Some((_, state)) = entry.over {
                state.put(pipeline, &mut samples);
            }
            all.append(samples);
        }
        inner.last = (self.clock.now().saturating_since(began).as_secs_f64(), all.len() as f64);
        drop(inner);
        if all.left_out() > 0 && !self.overflowed.swap(true, Ordering::Relaxed) {
            let (kept, left_out) = (all.len(), all.left_out());
            tracing::warn!(kept, left_out, "too many series: the rest is not exported, which is said only once");
        }
        all
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What is behind it is changed field by field, each whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job's line to the hub. Dropped, its series go, but for the state it ended in.
#[derive(Debug)]
pub(crate) struct PipelineMetrics {
    hub: Arc<MetricsHub>,
    pipeline: String,
    number: u64,
    ended: PipelineState,
}

impl PipelineMetrics {
    fn change(&self, change: impl FnOnce(&mut Entry)) {
        let mut inner = self.hub.lock();
        if let Some(entry) = inner.pipelines.get_mut(&self.pipeline).filter(|entry| entry.owner == self.number) {
            change(entry);
        }
    }

    /// The job says what it counts.
    pub(crate) fn begin_job(&self, job: Arc<dyn Collect>) {
        self.change(|entry| {
            entry.retire_job();
            entry.job = Some(job);
        });
    }

    /// An attempt says what it counts, from zero.
    pub(crate) fn begin_attempt(&self, attempt: Arc<dyn Collect>) {
        self.change(|entry| {
            entry.retire_attempt();
            entry.attempt = Some(attempt);
        });
    }

    /// Which state is told when it is over.
    pub(crate) fn ends_as(&mut self, state: PipelineState) {
        self.ended = state;
    }
}

impl Drop for PipelineMetrics {
    fn drop(&mut self) {
        let ended = self.ended;
        let mut inner = self.hub.lock();
        let number = inner.ended;
        inner.ended += 1;
        let entry = inner.pipelines.get_mut(&self.pipeline).filter(|entry| entry.owner == self.number);
        let Some(entry) = entry else { return };
        entry.retire_job();
        entry.retire_attempt();
        entry.over = Some((number, ended));
        let over = inner.pipelines.iter().filter_map(|(name, entry)| Some((entry.over?.0, name.clone())));
        let mut over: Vec<_> = over.collect();
        over.sort();
        for (_, name) in over.iter().take(over.len().saturating_sub(MOST_ENDED)) {
            inner.pipelines.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::sample::Value;
    use crate::time::SystemClock;

    /// Counts and a time that a test sets.
    struct Fixed(u64, u64);

    impl Collect for Fixed {
        fn collect(&self, into: &mut Samples) {
            let labels = || ["p".into(), "op".into(), "0".into()];
            into.count(&names::RECORDS_IN, labels(), self.0);
            into.gauge(&names::BACKPRESSURED, labels(), self.0 as f64);
            into.time(&names::TIME, ["p".into(), "op".into(), "0".into(), "busy".into()], Duration::from_secs(self.1));
        }
    }

    fn hub() -> Arc<MetricsHub> {
        MetricsHub::new(Arc::new(SystemClock::new()))
    }

    fn shown(hub: &MetricsHub, name: &str) -> Vec<Value> {
        let samples = hub.collect();
        samples.iter().filter(|sample| sample.family.name == name).map(|sample| sample.value.clone()).collect()
    }

    #[test]
    fn counts_go_on_over_attempts_and_jobs_and_gauges_do_not() {
        let hub = hub();
        let job = hub.pipeline("p");
        let count = |hub: &MetricsHub| shown(hub, names::RECORDS_IN.name);
        for (attempt, total) in [(5, 5), (7, 12), (0, 12)] {
            job.begin_attempt(Arc::new(Fixed(attempt, 0)));
            assert_eq!(count(&hub), [Value::Count(total)]);
            assert_eq!(shown(&hub, names::BACKPRESSURED.name), [Value::Gauge(attempt as f64)]);
        }
        drop(job);
        assert_eq!(count(&hub), [], "its series go with the job");
        let job = hub.pipeline("p");
        job.begin_attempt(Arc::new(Fixed(1, 0)));
        assert_eq!(count(&hub), [Value::Count(13)]);
    }

    #[test]
    fn a_time_never_falls() {
        let hub = hub();
        let job = hub.pipeline("p");
        let mut highest = Duration::ZERO;
        // An open turn may turn out to be another state's, and an attempt begins anew.
        for seconds in [9, 8, 2, 30] {
            let mut inner = hub.lock();
            inner.pipelines.get_mut("p").unwrap().attempt = Some(Arc::new(Fixed(0, seconds)));
            drop(inner);
            highest = highest.max(Duration::from_secs(seconds));
            assert_eq!(shown(&hub, names::TIME.name), [Value::Time(highest)]);
        }
        drop(job);
    }

    #[test]
    fn a_pipeline_that_ended_shows_its_state_and_nothing_else() {
        let hub = hub();
        let mut job = hub.pipeline("p");
        job.begin_job(Arc::new(Fixed(1, 1)));
        job.ends_as(PipelineState::Finished);
        drop(job);
        let samples = hub.collect();
        let of_p = samples.iter().filter(|sample| sample.labels.first().is_some_and(|label| label == "p"));
        let of_p: Vec<_> =
            of_p.map(|sample| (sample.family.name, sample.labels[1].clone(), sample.value.clone())).collect();
        assert_eq!(of_p.len(), PipelineState::ALL.len());
        for (name, state, value) in of_p {
            assert_eq!(name, names::PIPELINE_STATE.name);
            assert_eq!(value, Value::Gauge(f64::from(u8::from(state == "finished"))), "{state}");
        }
    }

    #[test]
    fn what_is_kept_does_not_grow_with_attempts_or_scrapes() {
        let hub = hub();
        let job = hub.pipeline("p");
        for attempt in 1..=1_000 {
            job.begin_attempt(Arc::new(Fixed(1, attempt)));
            hub.collect();
        }
        let inner = hub.lock();
        let entry = inner.pipelines.get("p").unwrap();
        assert_eq!((entry.gone.len(), entry.shown.len()), (2, 1), "one count and one time");
        drop((inner, job));
    }

    #[test]
    fn a_job_that_ends_late_leaves_the_next_one_alone() {
        let hub = hub();
        let late = hub.pipeline("p");
        late.begin_attempt(Arc::new(Fixed(3, 0)));
        let next = hub.pipeline("p");
        next.begin_attempt(Arc::new(Fixed(4, 0)));
        late.begin_attempt(Arc::new(Fixed(100, 0)));
        drop(late);
        assert_eq!(shown(&hub, names::RECORDS_IN.name), [Value::Count(7)]);
        drop(next);
        assert_eq!(shown(&hub, names::RECORDS_IN.name), []);
    }

    #[test]
    fn pipelines_that_ended_long_ago_are_forgotten() {
        let hub = hub();
        let running = hub.pipeline("running");
        for number in 0..MOST_ENDED + 3 {
            drop(hub.pipeline(&format!("p{number}")));
        }
        let inner = hub.lock();
        assert_eq!(inner.pipelines.len(), MOST_ENDED + 1);
        assert!(!inner.pipelines.contains_key("p2") && inner.pipelines.contains_key("p3"));
        assert!(inner.pipelines.contains_key("running"));
        drop((inner, running));
    }
}

//! A job's control thread: a private System with the job actor in it, and the threads that it commands.
//!
//! Ending, in this order: the System with the actor is dropped, and with it every queue and every worker's handle; the
//! threads see that and end, the committer closing the store; they are joined; only then the result is told.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use actix::{Addr, AsyncContext, Context, System};
use tokio::sync::{oneshot, watch};

use crate::actor::blocking;
use crate::actor::collect::JobCollector;
use crate::actor::config::RuntimeConfig;
use crate::actor::job::{Crew, JobActor};
use crate::actor::link::{JobLink, Progress, View};
use crate::actor::outlet::Outlet;
use crate::actor::rows::RowReads;
use crate::actor::threads::{Threads, Worker, yield_to_workers};
use crate::channel::queue;
use crate::fault::SharedFaults;
use crate::job::{Committer, Ended, JobError, OpenStore};
use crate::metrics::MetricsHub;
use crate::plan::Plan;
use crate::state::log::Identity;
use crate::time::SharedClock;

/// Orders that fit into the queue of a thread; more wait in its outlet.
const ORDERS: usize = 16;

/// What a job is made from.
pub(crate) struct JobSetup {
    pub(crate) plan: Plan,
    pub(crate) config: RuntimeConfig,
    pub(crate) clock: SharedClock,
    pub(crate) faults: SharedFaults,
    pub(crate) open: OpenStore,
    pub(crate) metrics: Arc<MetricsHub>,
}

type Started = io::Result<Addr<JobActor>>;

/// Starts a job; returns when its actor is there, which takes no longer than starting the threads.
///
/// # Errors
/// What the operating system says.
pub(crate) fn start(setup: JobSetup) -> io::Result<JobLink> {
    let (plan, config) = (setup.plan.clone(), setup.config.clone());
    let (telling, progress) = watch::channel(Progress::default());
    let telling = Arc::new(telling);
    let view = Arc::new(View::default());
    let (ready, started) = sync_channel(1);
    let name = format!("millstream-control-{}", plan.name());
    let seen = Arc::clone(&view);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let threads = Rc::new(Threads::default());
        let (clock, within) = (setup.clock.clone(), setup.config.job.stop_timeout);
        let over = run(setup, &threads, &telling, &seen, &ready);
        let left = threads.join(within, &clock);
        if !left.is_empty() {
            tracing::error!(threads = ?left, "threads of a job did not end in time and are left behind");
        }
        drop((threads, seen, ready, clock));
        telling.send_modify(|progress| progress.over = Some(over));
    })?;
    match started.recv() {
        Ok(Ok(job)) => Ok(JobLink::new((&plan, config), job, view, progress, thread)),
        Ok(Err(error)) => {
            drop(thread.join());
            Err(error)
        }
        Err(_) => {
            drop(thread.join());
            Err(io::Error::other("the control thread died while it was started"))
        }
    }
}

fn run(
    setup: JobSetup,
    threads: &Rc<Threads>,
    progress: &Arc<watch::Sender<Progress>>,
    view: &Arc<View>,
    ready: &SyncSender<Started>,
) -> Result<Ended, JobError> {
    // With timers, without sockets.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(ready, error),
    };
    let runner = System::with_tokio_rt(|| runtime);
    let (over, ended) = oneshot::channel();
    let made = runner.block_on(async { job_actor(setup, threads, progress, view, over) });
    match made {
        Ok(job) => drop(ready.send(Ok(job))),
        Err(error) => return refuse(ready, error),
    }
    // Without an answer the actor panicked: a bug, and the job is gone. Nothing waits for it for ever.
    runner.block_on(ended).unwrap_or(Err(JobError::Gone))
}

fn refuse(ready: &SyncSender<Started>, error: io::Error) -> Result<Ended, JobError> {
    let _ = ready.send(Err(error));
    Err(JobError::Gone)
}

fn job_actor(
    setup: JobSetup,
    threads: &Rc<Threads>,
    progress: &Arc<watch::Sender<Progress>>,
    view: &Arc<View>,
    over: oneshot::Sender<Result<Ended, JobError>>,
) -> Started {
    let JobSetup { plan, config, clock, faults, open, metrics } = setup;
    let workers = (0..config.workers).map(|index| Worker::spawn(format!("millstream-work-{index}"), threads));
    let workers = workers.collect::<io::Result<Vec<_>>>()?;
    let (committer_orders, for_committer) = queue(ORDERS);
    let (acks, for_acks) = queue(ORDERS);
    // The threads need the actor's address and the actor their queues: the mailbox is made first, and what the threads
    // say before the actor runs waits in it.
    let context = Context::<JobActor>::new();
    let job = context.address();
    let identity =
        Identity { pipeline: plan.name().to_owned(), shard: config.shard, key_groups: config.key_groups.count() };
    let declarations = plan.declarations();
    let (start_from, limits) = (config.start_from, config.log);
    let committer = Committer::new(identity, start_from, limits, declarations, open, Arc::clone(&faults));
    let share = committer.share();
    // A task asks once per stateful operator at a time, and once more ahead of need.
    let operators: usize = plan.tasks().iter().map(|task| task.vertices.len()).sum();
    let reads = RowReads::start(threads, plan.name(), operators * usize::from(plan.parallelism()), &share)?;
    let (folds, for_folds) = queue(1);
    let back = committer_orders.downgrade();
    threads.spawn(format!("millstream-fold-{}", plan.name()), move || {
        yield_to_workers();
        blocking::fold(&for_folds, &back);
    })?;
    let (address, at) = (job.clone(), clock.clone());
    threads.spawn(format!("millstream-commit-{}", plan.name()), move || {
        yield_to_workers();
        blocking::commit(committer, &for_committer, &folds, &address, &at);
    })?;
    let told = Arc::new(plan.clone());
    threads.spawn(format!("millstream-ack-{}", plan.name()), move || blocking::acknowledge(&told, &for_acks))?;
    let crew = Crew {
        threads: Rc::clone(threads),
        workers,
        committer: Outlet::new(committer_orders),
        acks: Outlet::new(acks),
        reads,
        share,
        deliveries: None,
    };
    let metrics = metrics.pipeline(plan.name());
    metrics.begin_job(Arc::new(JobCollector::new(&plan, &config, Arc::clone(view))));
    let seen = (Arc::clone(progress), Arc::clone(view), metrics);
    let actor = JobActor::new((plan, config), (clock, faults), crew, seen, over);
    Ok(context.run(actor))
}

/// Orders that fit into a delivery's queue.
pub(super) const fn orders() -> usize {
    ORDERS
}

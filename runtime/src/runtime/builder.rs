//! What a runtime is set up with: every option, checked before anything is started.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "http")]
use super::listen::listen;
use super::{Runtime, RuntimeError};
use crate::actor::{Bounds, JobList, LatencyPolicy, MOST_WORKERS, RuntimeConfig, SHORTEST_EPOCH};
use crate::config::RuntimeOptions;
use crate::fault::{NoFaults, SharedFaults};
use crate::id::ShardId;
use crate::job::RestartPolicy;
use crate::metrics::{MetricsHub, MetricsLevel};
use crate::state::MemoryShares;
use crate::state::key_group::KeyGroups;
use crate::state::log::{LogLimits, StartFrom};
use crate::state::store::{Memory, StateBackend};
use crate::time::{SharedClock, SystemClock};

/// Sets up a [`Runtime`].
#[derive(Debug)]
#[must_use]
pub struct RuntimeBuilder {
    config: RuntimeConfig,
    workers: Option<usize>,
    backend: Arc<dyn StateBackend>,
    clock: Option<SharedClock>,
    faults: SharedFaults,
    /// What was asked for and is not compiled in.
    missing: Option<RuntimeError>,
    bounds: Bounds,
    http: Option<String>,
}

impl RuntimeBuilder {
    pub(super) fn new() -> Self {
        Self {
            config: RuntimeConfig::default(),
            workers: None,
            backend: Arc::new(Memory::new()),
            clock: None,
            faults: Arc::new(NoFaults),
            missing: None,
            bounds: Bounds::default(),
            http: None,
        }
    }

    /// Sets all options that a configuration file has; the others stay as they are. See [`RuntimeOptions`].
    pub fn options(mut self, options: RuntimeOptions) -> Self {
        fn set<T>(place: &mut T, given: Option<T>) {
            if let Some(given) = given {
                *place = given;
            }
        }
        let millis = |given: Option<u64>| given.map(Duration::from_millis);
        if let Some(directory) = options.state_directory {
            #[cfg(feature = "rocksdb")]
            {
                self.backend = Arc::new(crate::state::store::RocksDb::at(directory));
            }
            #[cfg(not(feature = "rocksdb"))]
            {
                let given = directory.display().to_string();
                self.missing =
                    Some(RuntimeError::NotCompiledIn { option: "state_directory", given, feature: "rocksdb" });
            }
        }
        if let Some(address) = options.http {
            #[cfg(feature = "http")]
            {
                self.http = Some(address);
            }
            #[cfg(not(feature = "http"))]
            {
                self.missing = Some(RuntimeError::NotCompiledIn { option: "http", given: address, feature: "http" });
            }
        }
        self.workers = options.workers.or(self.workers);
        let config = &mut self.config;
        set(&mut config.latency, options.latency_policy);
        set(&mut config.metrics, options.metrics_level);
        set(&mut config.job.epoch_interval, millis(options.epoch_interval_ms));
        set(&mut config.job.max_epochs_in_flight, options.max_epochs_in_flight);
        set(&mut config.job.epoch_timeout, millis(options.epoch_timeout_ms));
        set(&mut config.job.stop_timeout, millis(options.stop_timeout_ms));
        set(&mut config.shutdown_timeout, millis(options.shutdown_timeout_ms));
        set(&mut config.open_timeout, millis(options.open_timeout_ms));
        set(&mut config.start_from, options.start_from);
        set(&mut config.job.restart, options.restart.map(RestartPolicy::from));
        set(&mut config.job.restart_finished, options.restart_finished);
        set(&mut config.shard, options.shard);
        set(&mut config.channel_frames, options.channel_frames);
        set(&mut config.read_ahead, options.read_ahead);
        set(&mut config.job.max_outbox_bytes, options.max_outbox_bytes);
        set(&mut config.job.max_waiting_bytes, options.max_waiting_bytes);
        set(&mut config.job.max_commit_bytes, options.max_commit_bytes);
        set(&mut config.state_memory, options.state_memory_bytes);
        set(&mut config.job.max_unfolded_bytes, options.max_unfolded_bytes);
        set(&mut config.log, options.log_limits);
        set(&mut config.key_groups, options.key_groups.map(KeyGroups::new));
        self
    }

    /// Where state is kept. Default [`Memory`]: it lasts as long as the runtime.
    pub fn state_backend(mut self, backend: impl StateBackend + 'static) -> Self {
        self.backend = Arc::new(backend);
        self
    }

    /// Worker threads of each job, and copies of each task where the pipeline says nothing. Default: the cores that this
    /// process may use; range 1 to 960.
    pub const fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// How a subtask waits when it has nothing to do. Default [`LatencyPolicy::Adaptive`].
    pub const fn latency_policy(mut self, policy: LatencyPolicy) -> Self {
        self.config.latency = policy;
        self
    }

    /// How much the runtime counts of itself. Default [`MetricsLevel::Info`].
    pub const fn metrics_level(mut self, level: MetricsLevel) -> Self {
        self.config.metrics = level;
        self
    }

    /// Time between barriers where the pipeline says nothing. Default 100 ms, at least 1 ms; below 10 ms is experimental.
    pub const fn epoch_interval(mut self, interval: Duration) -> Self {
        self.config.job.epoch_interval = interval;
        self
    }

    /// What to do with a store that is new, and with one that is not. Default [`StartFrom::ResumeOrCreate`].
    pub const fn start_from(mut self, start_from: StartFrom) -> Self {
        self.config.start_from = start_from;
        self
    }

    /// How long the store may take to open before that is an error: some damage makes a database's open spin or wait for ever.
    /// Default 60 s, above zero. A store that has to replay a large WAL on a slow disk needs seconds, not minutes.
    pub const fn open_timeout(mut self, timeout: Duration) -> Self {
        self.config.open_timeout = timeout;
        self
    }

    /// When a failed job starts again by itself. Default: three times in ten minutes.
    pub const fn restart(mut self, policy: RestartPolicy) -> Self {
        self.config.job.restart = policy;
        self
    }

    /// Whether a pipeline that finished or was drained may be started again on its store. Default false: a named error.
    pub const fn restart_finished(mut self, allowed: bool) -> Self {
        self.config.job.restart_finished = allowed;
        self
    }

    /// Where every reading of time comes from. Default [`SystemClock`]. Sleeps are real: with a clock that is set by hand
    /// a time is noticed only after it would have come in real time.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Which copy of the daemon this is. Default 0.
    pub const fn shard(mut self, shard: ShardId) -> Self {
        self.config.shard = shard;
        self
    }

    /// Frames of records, of at most 256 records each, that fit into a channel between two subtasks. Default 64, range 1
    /// to 65,536.
    pub const fn channel_frames(mut self, frames: usize) -> Self {
        self.config.channel_frames = frames;
        self
    }

    /// Batches, of at most 256 records each, that a reader may be ahead of its task. Default 8, range 1 to 65,536.
    pub const fn read_ahead(mut self, batches: usize) -> Self {
        self.config.read_ahead = batches;
        self
    }

    /// When the log of deltas is folded into rows. Default 1/16 of [`RuntimeBuilder::state_memory`] (64 MiB) or 1,024 epochs; each at
    /// least 1. A fold copies up to twice these bytes.
    pub const fn log_limits(mut self, limits: LogLimits) -> Self {
        self.bounds.log = Some(limits);
        self
    }

    /// How long loops, readers and deliveries may take to end before they are left behind. Default 10 s, above zero.
    pub const fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.config.job.stop_timeout = timeout;
        self
    }

    /// How long [`Runtime::run_until`] waits for its jobs to stop in order. Default 20 s, above zero: less than what service
    /// managers grant before they kill.
    pub const fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.config.shutdown_timeout = timeout;
        self
    }

    /// How long an epoch may take from its barrier until every subtask has handed in its part; then the attempt fails.
    /// Default 10 minutes, above zero.
    pub const fn epoch_timeout(mut self, timeout: Duration) -> Self {
        self.config.job.epoch_timeout = timeout;
        self
    }

    /// Epochs whose barrier is out and whose parts are not all in; at the bound no barrier is sent. Default 2, range 1 to 8:
    /// channels keep room for that many barriers.
    pub const fn max_epochs_in_flight(mut self, epochs: usize) -> Self {
        self.config.job.max_epochs_in_flight = epochs;
        self
    }

    /// Bytes of committed output of all sinks that is not delivered; there the sources are held back. Default 64 MiB, at
    /// least 1.
    pub const fn max_outbox_bytes(mut self, bytes: usize) -> Self {
        self.config.job.max_outbox_bytes = bytes;
        self
    }

    /// Bytes of complete epochs that wait for the disk; there the sources are held back. Default 1/8 of
    /// [`RuntimeBuilder::state_memory`] (128 MiB), at least 1.
    pub const fn max_waiting_bytes(mut self, bytes: usize) -> Self {
        self.bounds.waiting = Some(bytes);
        self
    }

    /// Key groups of a pipeline: the most subtasks that its keyed state can ever be shared out to. Fixed when its store is
    /// made; a store with another number is refused. Default 960, which has many divisors; range 1 to 65,534.
    pub const fn key_groups(mut self, groups: NonZeroU16) -> Self {
        self.config.key_groups = KeyGroups::new(groups);
        self
    }

    /// Bytes of memory that a job may take for its state: half for the keys that are in memory, a quarter for the store's caches
    /// and buffers, the rest for what is on its way there ([`MemoryShares`]). Keys that were changed least recently are evicted
    /// and read back from the store when they are needed. Default 1 GiB, at least 1; the store's part is never less
    /// than 16 MiB.
    pub const fn state_memory(mut self, bytes: u64) -> Self {
        self.config.state_memory = bytes;
        self
    }

    /// Bytes of changed state that is not folded into rows; at half of it the log is folded, there the sources are held
    /// back. All of it is in memory, and read at every start. Default 1/4 of [`RuntimeBuilder::state_memory`] (256 MiB), at least 1.
    pub const fn max_unfolded_bytes(mut self, bytes: u64) -> Self {
        self.bounds.unfolded = Some(bytes);
        self
    }

    /// Bytes of complete epochs in one write; a single larger epoch goes alone. Default 1/32 of
    /// [`RuntimeBuilder::state_memory`] (32 MiB), at least 1.
    pub const fn max_commit_bytes(mut self, bytes: usize) -> Self {
        self.bounds.commit = Some(bytes);
        self
    }

    /// Serves `/metrics`, for Prometheus, `/healthz`, `/readyz` and `/status` at this address and port, as long as the runtime lives: all
    /// that [`Status::respond`](crate::status::Status::respond) answers. Default: listens nowhere.
    ///
    /// Use `127.0.0.1:9464` unless others in the network are to read it: there is neither a password nor encryption. Port 0 is one
    /// that is free; [`Runtime::http_address`] says which.
    #[cfg(feature = "http")]
    pub fn http(mut self, address: impl Into<String>) -> Self {
        self.http = Some(address.into());
        self
    }

    /// Decides what happens at crash points. Default: nothing. For crash tests.
    #[cfg(feature = "test-util")]
    pub fn faults(mut self, faults: SharedFaults) -> Self {
        self.faults = faults;
        self
    }

    /// Checks all options. Starts no thread, except that of the HTTP server where one is asked for.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfRange`] names the first option that is out of its range. [`RuntimeError::Listen`] when the port of the
    /// HTTP server is taken or the address is not this machine's.
    pub fn build(self) -> Result<Runtime, RuntimeError> {
        let Self { mut config, workers, backend, clock, faults, missing, bounds, http } = self;
        missing.map_or(Ok(()), Err)?;
        bounds.fill_in(&mut config);
        if let Some(workers) = workers {
            config.workers = u16::try_from(workers).unwrap_or(u16::MAX);
            check("workers", workers, (1..=MOST_WORKERS).contains(&config.workers), "1 to 960, the key groups")?;
        }
        let job = &config.job;
        let room = 1..=65_536;
        check("channel_frames", config.channel_frames, room.contains(&config.channel_frames), "1 to 65536")?;
        check("read_ahead", config.read_ahead, room.contains(&config.read_ahead), "1 to 65536")?;
        let epochs = job.max_epochs_in_flight;
        check("max_epochs_in_flight", epochs, (1..=8).contains(&epochs), "1 to 8")?;
        let interval = job.epoch_interval;
        check("epoch_interval", format!("{interval:?}"), interval >= SHORTEST_EPOCH, "at least 1 ms")?;
        let times = [
            ("open_timeout", config.open_timeout),
            ("stop_timeout", job.stop_timeout),
            ("shutdown_timeout", config.shutdown_timeout),
            ("epoch_timeout", job.epoch_timeout),
        ];
        for (option, time) in times {
            check(option, format!("{time:?}"), !time.is_zero(), "above zero")?;
        }
        let groups = config.key_groups.count();
        check("key_groups", groups, groups < u16::MAX, "1 to 65534")?;
        let bytes = [
            ("max_outbox_bytes", job.max_outbox_bytes as u64),
            ("max_waiting_bytes", job.max_waiting_bytes as u64),
            ("max_unfolded_bytes", job.max_unfolded_bytes),
            ("state_memory", config.state_memory),
            ("max_commit_bytes", job.max_commit_bytes as u64),
            ("log_limits.fold_bytes", config.log.fold_bytes),
            ("log_limits.fold_epochs", config.log.fold_epochs),
            ("log_limits.batch_bytes", config.log.batch_bytes as u64),
        ];
        for (option, given) in bytes {
            check(option, given, given > 0, "at least 1")?;
        }
        let clock = clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let backend = backend.within(MemoryShares::of(config.state_memory).store).unwrap_or(backend);
        let metrics = MetricsHub::new(Arc::clone(&clock));
        let jobs = JobList::default();
        #[cfg(feature = "http")]
        let http = http.map(|address| listen(address, (&metrics, &jobs))).transpose()?;
        #[cfg(not(feature = "http"))]
        debug_assert!(http.is_none(), "only set where it is compiled in");
        Ok(Runtime {
            config,
            backend,
            clock,
            faults,
            jobs,
            metrics,
            #[cfg(feature = "http")]
            http,
        })
    }
}

fn check(option: &'static str, given: impl fmt::Display, fits: bool, range: &'static str) -> Result<(), RuntimeError> {
    if fits { Ok(()) } else { Err(RuntimeError::OutOfRange { option, given: given.to_string(), range }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_out_of_its_range_is_named() {
        let text = |builder: RuntimeBuilder| builder.build().unwrap_err().to_string();
        let builder = Runtime::builder;
        assert_eq!(text(builder().workers(0)), "runtime option workers is 0; it must be 1 to 960, the key groups");
        assert_eq!(
            text(builder().epoch_interval(Duration::from_micros(5))),
            "runtime option epoch_interval is 5µs; it must be at least 1 ms"
        );
        let limits = LogLimits { fold_epochs: 0, ..LogLimits::default() };
        for (builder, option) in [
            (builder().workers(100_000), "workers is 100000"),
            (builder().channel_frames(0), "channel_frames"),
            (builder().max_epochs_in_flight(9), "max_epochs_in_flight"),
            (builder().stop_timeout(Duration::ZERO), "stop_timeout"),
            (builder().open_timeout(Duration::ZERO), "open_timeout"),
            (builder().log_limits(limits), "log_limits.fold_epochs"),
            (builder().max_outbox_bytes(0), "max_outbox_bytes"),
        ] {
            let text = text(builder);
            assert!(text.contains(option), "{text}");
        }
    }
}

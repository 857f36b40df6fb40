//! Every option that a runtime, a job or a store takes, in one place; each is defined where it is used.
//!
//! [`RuntimeOptions`] is their form in a daemon's own configuration file.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::actor::LatencyPolicy;
use crate::actor::RuntimeConfig;
use crate::id::ShardId;
pub use crate::job::{JobConfig, RestartPolicy};
use crate::metrics::MetricsLevel;
pub use crate::state::log::{LogLimits, StartFrom};

/// The options of a [`Runtime`](crate::runtime::Runtime) as a daemon's configuration file has them: part of its own TOML, JSON or
/// YAML, by way of serde. What is not there keeps its default; an unknown name is an error of the reader, which lists those
/// that there are. Values are checked by [`RuntimeBuilder::build`](crate::runtime::RuntimeBuilder::build).
///
/// Each field is the builder's method of its name, with the unit behind it where it is a bare number.
///
/// ```
/// # use millstream_runtime::config::RuntimeOptions;
/// # use millstream_runtime::runtime::Runtime;
/// let json = r#"{ "workers": 2, "epoch_interval_ms": 50, "restart": { "restarts": 5 } }"#;
/// let options: RuntimeOptions = serde_json::from_str(json)?;
/// let runtime = Runtime::builder().options(options).build()?;
/// assert!(serde_json::from_str::<RuntimeOptions>(r#"{ "epoch_intervall_ms": 50 }"#).is_err());
/// # drop(runtime);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RuntimeOptions {
    /// Where state is kept: the root directory of a [`RocksDb`](crate::state::store::RocksDb) backend. In memory if it is not there.
    pub state_directory: Option<PathBuf>,
    /// [`RuntimeBuilder::workers`](crate::runtime::RuntimeBuilder::workers).
    pub workers: Option<usize>,
    /// `park`, `adaptive` or `spin`: [`RuntimeBuilder::latency_policy`](crate::runtime::RuntimeBuilder::latency_policy).
    pub latency_policy: Option<LatencyPolicy>,
    /// `off`, `info` or `debug`: [`RuntimeBuilder::metrics_level`](crate::runtime::RuntimeBuilder::metrics_level).
    pub metrics_level: Option<MetricsLevel>,
    /// [`RuntimeBuilder::epoch_interval`](crate::runtime::RuntimeBuilder::epoch_interval).
    pub epoch_interval_ms: Option<u64>,
    /// [`RuntimeBuilder::max_epochs_in_flight`](crate::runtime::RuntimeBuilder::max_epochs_in_flight).
    pub max_epochs_in_flight: Option<usize>,
    /// [`RuntimeBuilder::epoch_timeout`](crate::runtime::RuntimeBuilder::epoch_timeout).
    pub epoch_timeout_ms: Option<u64>,
    /// [`RuntimeBuilder::stop_timeout`](crate::runtime::RuntimeBuilder::stop_timeout).
    pub stop_timeout_ms: Option<u64>,
    /// [`RuntimeBuilder::shutdown_timeout`](crate::runtime::RuntimeBuilder::shutdown_timeout).
    pub shutdown_timeout_ms: Option<u64>,
    /// [`RuntimeBuilder::open_timeout`](crate::runtime::RuntimeBuilder::open_timeout).
    pub open_timeout_ms: Option<u64>,
    /// `resume_or_create`, `resume` or `create`: [`RuntimeBuilder::start_from`](crate::runtime::RuntimeBuilder::start_from).
    pub start_from: Option<StartFrom>,
    /// [`RuntimeBuilder::restart`](crate::runtime::RuntimeBuilder::restart).
    pub restart: Option<RestartOptions>,
    /// [`RuntimeBuilder::restart_finished`](crate::runtime::RuntimeBuilder::restart_finished).
    pub restart_finished: Option<bool>,
    /// [`RuntimeBuilder::shard`](crate::runtime::RuntimeBuilder::shard).
    pub shard: Option<ShardId>,
    /// [`RuntimeBuilder::channel_frames`](crate::runtime::RuntimeBuilder::channel_frames).
    pub channel_frames: Option<usize>,
    /// [`RuntimeBuilder::read_ahead`](crate::runtime::RuntimeBuilder::read_ahead).
    pub read_ahead: Option<usize>,
    /// [`RuntimeBuilder::max_outbox_bytes`](crate::runtime::RuntimeBuilder::max_outbox_bytes).
    pub max_outbox_bytes: Option<usize>,
    /// [`RuntimeBuilder::max_waiting_bytes`](crate::runtime::RuntimeBuilder::max_waiting_bytes).
    pub max_waiting_bytes: Option<usize>,
    /// [`RuntimeBuilder::max_commit_bytes`](crate::runtime::RuntimeBuilder::max_commit_bytes).
    pub max_commit_bytes: Option<usize>,
    /// [`RuntimeBuilder::state_memory`](crate::runtime::RuntimeBuilder::state_memory).
    pub state_memory_bytes: Option<u64>,
    /// [`RuntimeBuilder::max_unfolded_bytes`](crate::runtime::RuntimeBuilder::max_unfolded_bytes).
    pub max_unfolded_bytes: Option<u64>,
    /// [`RuntimeBuilder::log_limits`](crate::runtime::RuntimeBuilder::log_limits).
    pub log_limits: Option<LogLimits>,
    /// [`RuntimeBuilder::key_groups`](crate::runtime::RuntimeBuilder::key_groups).
    pub key_groups: Option<NonZeroU16>,
    /// Where `/metrics` is served, an IP address and a port as in `127.0.0.1:9464`; needs the feature `http`. Nowhere if it is not
    /// there. [`RuntimeBuilder::http`](crate::runtime::RuntimeBuilder::http).
    pub http: Option<String>,
}

/// A [`RestartPolicy`] as a configuration file has it. What is not there keeps its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RestartOptions {
    /// [`RestartPolicy::restarts`].
    pub restarts: Option<usize>,
    /// [`RestartPolicy::window`].
    pub window_ms: Option<u64>,
    /// [`RestartPolicy::backoff`].
    pub backoff_ms: Option<u64>,
    /// [`RestartPolicy::max_backoff`].
    pub max_backoff_ms: Option<u64>,
}

impl From<RestartOptions> for RestartPolicy {
    fn from(options: RestartOptions) -> Self {
        let millis = |given: Option<u64>, default| given.map_or(default, Duration::from_millis);
        let default = Self::default();
        Self {
            restarts: options.restarts.unwrap_or(default.restarts),
            window: millis(options.window_ms, default.window),
            backoff: millis(options.backoff_ms, default.backoff),
            max_backoff: millis(options.max_backoff_ms, default.max_backoff),
        }
    }
}

/// The options that a runtime runs with, those that follow from others included. Where state is kept, and what is served where, is
/// not among what a job is given.
impl From<&RuntimeConfig> for RuntimeOptions {
    fn from(config: &RuntimeConfig) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).ok();
        let job = &config.job;
        Self {
            state_directory: None,
            workers: Some(usize::from(config.workers)),
            latency_policy: Some(config.latency),
            metrics_level: Some(config.metrics),
            epoch_interval_ms: millis(job.epoch_interval),
            max_epochs_in_flight: Some(job.max_epochs_in_flight),
            epoch_timeout_ms: millis(job.epoch_timeout),
            stop_timeout_ms: millis(job.stop_timeout),
            shutdown_timeout_ms: millis(config.shutdown_timeout),
            open_timeout_ms: millis(config.open_timeout),
            start_from: Some(config.start_from),
            restart: Some(RestartOptions {
                restarts: Some(job.restart.restarts),
                window_ms: millis(job.restart.window),
                backoff_ms: millis(job.restart.backoff),
                max_backoff_ms: millis(job.restart.max_backoff),
            }),
            restart_finished: Some(job.restart_finished),
            shard: Some(config.shard),
            channel_frames: Some(config.channel_frames),
            read_ahead: Some(config.read_ahead),
            max_outbox_bytes: Some(job.max_outbox_bytes),
            max_waiting_bytes: Some(job.max_waiting_bytes),
            max_commit_bytes: Some(job.max_commit_bytes),
            state_memory_bytes: Some(config.state_memory),
            max_unfolded_bytes: Some(job.max_unfolded_bytes),
            log_limits: Some(config.log),
            key_groups: NonZeroU16::new(config.key_groups.count()),
            http: None,
        }
    }
}

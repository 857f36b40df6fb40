//! How a runtime runs its jobs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::ShardId;
use crate::job::JobConfig;
use crate::metrics::MetricsLevel;
use crate::state::MemoryShares;
use crate::state::key_group::KeyGroups;
use crate::state::log::{LogLimits, StartFrom};

/// How a subtask waits when it has nothing to do.
///
/// Waking a sleeping thread takes 9 to 19 µs, being found polling below 1 µs. Whatever is chosen, at least one core of the
/// machine is never polled on: syncing the disk needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LatencyPolicy {
    /// Sleeps at once: the least CPU, the longest hop.
    Park,
    /// Polls for about twice the time between recent arrivals, at most 200 µs, then sleeps. A quiet job uses no CPU.
    #[default]
    Adaptive,
    /// Polls until something comes. Subtasks beyond the last core but one wait as by [`LatencyPolicy::Adaptive`].
    Spin,
}

/// Everything that a runtime's builder sets, checked.
#[derive(Clone, Debug)]
pub(crate) struct RuntimeConfig {
    /// Worker threads of a job, and subtasks of a task where the pipeline says nothing.
    pub(crate) workers: u16,
    /// Loops that may poll at the same time, in the whole process.
    pub(crate) pollers: usize,
    pub(crate) latency: LatencyPolicy,
    pub(crate) metrics: MetricsLevel,
    pub(crate) job: JobConfig,
    pub(crate) start_from: StartFrom,
    /// How long a store may take to open.
    pub(crate) open_timeout: Duration,
    /// How long `run_until` waits for the jobs to stop.
    pub(crate) shutdown_timeout: Duration,
    pub(crate) shard: ShardId,
    /// Frames of records that fit into a channel.
    pub(crate) channel_frames: usize,
    /// Batches that a reader may be ahead of its task.
    pub(crate) read_ahead: usize,
    pub(crate) log: LogLimits,
    pub(crate) key_groups: KeyGroups,
    /// Bytes of memory that a job may take for its state, by [`crate::state::MemoryShares`].
    pub(crate) state_memory: u64,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            workers: u16::try_from(cores).unwrap_or(u16::MAX).min(MOST_WORKERS),
            pollers: cores.saturating_sub(1),
            latency: LatencyPolicy::default(),
            metrics: MetricsLevel::default(),
            job: JobConfig::default(),
            start_from: StartFrom::default(),
            open_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(20),
            shard: ShardId::default(),
            channel_frames: 64,
            read_ahead: 8,
            log: LogLimits::default(),
            key_groups: KeyGroups::default(),
            state_memory: 1 << 30,
        }
    }
}

/// Bounds that follow from `state_memory` unless they are given.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) waiting: Option<usize>,
    pub(crate) unfolded: Option<u64>,
    pub(crate) commit: Option<usize>,
    pub(crate) log: Option<LogLimits>,
}

impl Bounds {
    pub(crate) fn fill_in(self, config: &mut RuntimeConfig) {
        let shares = MemoryShares::of(config.state_memory);
        let room = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        config.job.max_waiting_bytes = self.waiting.unwrap_or_else(|| room(shares.waiting));
        config.job.max_unfolded_bytes = self.unfolded.unwrap_or(shares.unfolded);
        config.job.max_commit_bytes = self.commit.unwrap_or_else(|| room(shares.commit));
        config.log = self.log.unwrap_or(LogLimits { fold_bytes: shares.fold, ..LogLimits::default() });
    }
}

/// As many as there are key groups.
pub(crate) const MOST_WORKERS: u16 = 960;
/// The shortest time between barriers.
pub(crate) const SHORTEST_EPOCH: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_follow_from_the_memory_unless_they_are_given() {
        let mut config = RuntimeConfig { state_memory: 256 << 20, ..RuntimeConfig::default() };
        Bounds { waiting: Some(5), ..Bounds::default() }.fill_in(&mut config);
        let RuntimeConfig { job, log, .. } = config;
        assert_eq!((job.max_unfolded_bytes, job.max_commit_bytes), (64 << 20, 8 << 20));
        assert_eq!((log.fold_bytes, log.fold_epochs), (16 << 20, LogLimits::default().fold_epochs));
        assert_eq!(job.max_waiting_bytes, 5);
    }
}

//! Waiting until a record is due, on a plain thread.

use std::time::Duration;

use clap::ValueEnum;

use crate::clock::Stopwatch;

/// How long before the due time a hybrid wait stops sleeping.
const SPIN: u64 = 60_000;
/// A wait is cut into pieces, so that the thread hears of the end.
const LONGEST_WAIT: u64 = 20_000_000;

/// How a sender waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pacing {
    /// Hybrid where a core is left over, else sleep.
    Auto,
    /// Sleeps until the due time.
    Sleep,
    /// Sleeps until 60 µs before, then spins.
    Hybrid,
    /// Spins.
    Spin,
}

impl Pacing {
    /// Decides what `auto` is: spinning must not take the core of a worker, or of the one that commits.
    pub(crate) fn resolve(self, cores: usize, workers: usize, senders: usize) -> Self {
        match self {
            Self::Auto if cores > workers + senders => Self::Hybrid,
            Self::Auto => Self::Sleep,
            chosen => chosen,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Sleep => "sleep",
            Self::Hybrid => "hybrid",
            Self::Spin => "spin",
        }
    }

    /// Waits until `due`, at most about 20 ms; returns the time.
    pub(crate) fn wait(self, clock: Stopwatch, due: u64) -> u64 {
        let sleep_until = match self {
            Self::Spin => 0,
            Self::Hybrid => due.saturating_sub(SPIN),
            Self::Sleep | Self::Auto => due,
        };
        let now = clock.nanos();
        let due = due.min(now + LONGEST_WAIT);
        if sleep_until > now {
            std::thread::sleep(Duration::from_nanos((sleep_until - now).min(LONGEST_WAIT)));
        }
        let mut now = clock.nanos();
        // A cut sleep leaves more to wait than one would spin for.
        while now < due && (self == Self::Spin || self == Self::Hybrid && due - now <= SPIN) {
            std::hint::spin_loop();
            now = clock.nanos();
        }
        now
    }
}

/// Takes the kernel's 50 µs of timer slack off the calling thread. Returns the slack in nanoseconds, where the kernel tells.
pub(crate) fn sharpen_timers() -> Option<u64> {
    // The file is there for every thread id, though only processes are listed.
    let thread = std::fs::read_link("/proc/thread-self").ok()?;
    let path = format!("/proc/{}/timerslack_ns", thread.file_name()?.to_str()?);
    let _ = std::fs::write(&path, "1");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// How far the calling thread is put before all others, as `nice` counts.
#[cfg(target_os = "linux")]
const BEFORE_OTHERS: i32 = -15;

/// Puts the calling thread before the pipeline's own, where the system allows it. Returns its niceness, where the kernel tells.
///
/// On a machine without a core to spare a sender on an equal footing waits for the slice of a worker to end, some milliseconds,
/// and then it is the tester that was late. It takes next to nothing of the core that it gets.
pub(crate) fn go_first() -> Option<i32> {
    #[cfg(target_os = "linux")]
    {
        // Without the right to it there is nothing to do about it: the send lag tells what it costs.
        rustix::process::nice(BEFORE_OTHERS).or_else(|_| rustix::process::nice(0)).ok()
    }
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spins_only_where_a_core_is_left_over() {
        assert_eq!(Pacing::Auto.resolve(4, 2, 1), Pacing::Hybrid);
        assert_eq!(Pacing::Auto.resolve(2, 1, 1), Pacing::Sleep);
        assert_eq!(Pacing::Spin.resolve(1, 1, 1), Pacing::Spin);
    }
}

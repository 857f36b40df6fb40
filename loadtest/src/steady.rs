//! Is the load steady, and does a backlog grow? Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Seconds that must be alike.
const WINDOWS: usize = 5;

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Second {
    /// Records that were due.
    pub(crate) scheduled: u64,
    pub(crate) sent: u64,
    /// Records that came out.
    pub(crate) completed: u64,
    /// Records due by its end that had not come out.
    pub(crate) backlog: u64,
    pub(crate) p50_ns: Option<u64>,
    pub(crate) p99_ns: Option<u64>,
    pub(crate) max_ns: Option<u64>,
}

/// A line through points one second apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trend {
    /// Rise per second.
    pub(crate) slope: f64,
    /// Standard error of it.
    pub(crate) error: f64,
    freedom: usize,
}

impl Trend {
    /// Fits by least squares; nothing through fewer than three points.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        let freedom = count.checked_sub(2).filter(|freedom| *freedom > 0)?;
        let (middle, mean) = ((count - 1) as f64 / 2.0, values.iter().sum::<f64>() / count as f64);
        let xs = || (0..count).map(|x| x as f64 - middle);
        let spread: f64 = xs().map(|x| x * x).sum();
        let slope = xs().zip(values).map(|(x, y)| x * (y - mean)).sum::<f64>() / spread;
        let rest: f64 = xs().zip(values).map(|(x, y)| (y - mean - slope * x).powi(2)).sum();
        Some(Self { slope, error: (rest / freedom as f64 / spread).sqrt(), freedom })
    }

    /// The upper end of the one-sided 95 % interval.
    pub(crate) fn upper(self) -> f64 {
        self.slope + self.error * student(self.freedom)
    }

    /// Whether it rises, with 95 % certainty.
    pub(crate) fn rises(self) -> bool {
        self.slope - self.error * student(self.freedom) > 0.0
    }
}

/// The 95 % quantile of Student's distribution.
fn student(freedom: usize) -> f64 {
    const TABLE: [f64; 10] = [6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812];
    let far = 1.645 + 1.7 / freedom as f64;
    freedom.checked_sub(1).and_then(|index| TABLE.get(index)).copied().unwrap_or(far)
}

/// Whether a warm-up may end: the last five medians lie within 5 % of their mean, as many records came out as were due within
/// 2 %, and the backlog does not rise.
pub(crate) fn is_steady(seconds: &[Second]) -> bool {
    let Some(last) = seconds.len().checked_sub(WINDOWS).and_then(|from| seconds.get(from..)) else { return false };
    let medians: Vec<f64> = last.iter().filter_map(|second| second.p50_ns).map(|nanos| nanos as f64).collect();
    let mean = medians.iter().sum::<f64>() / medians.len().max(1) as f64;
    let alike = medians.len() == WINDOWS && medians.iter().all(|median| (median - mean).abs() <= 0.05 * mean);
    let sum = |number: fn(&Second) -> u64| last.iter().map(number).sum::<u64>() as f64;
    let scheduled = sum(|second| second.scheduled);
    let keeps_up = (sum(|second| second.completed) - scheduled).abs() <= 0.02 * scheduled;
    let backlog: Vec<f64> = last.iter().map(|second| second.backlog as f64).collect();
    alike && keeps_up && !Trend::of(&backlog).is_some_and(Trend::rises)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(p50: u64, completed: u64, backlog: u64) -> Second {
        Second { scheduled: 1_000, sent: 1_000, completed, backlog, p50_ns: Some(p50), ..Second::default() }
    }

    #[test]
    fn a_line_is_found_again() {
        let trend = Trend::of(&[1.0, 3.0, 5.0, 7.0]).unwrap();
        assert!((trend.slope - 2.0).abs() < 1e-12 && trend.error < 1e-12 && trend.rises());
        let trend = Trend::of(&[5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        assert!(!trend.rises() && trend.upper() > 0.0);
        assert!(Trend::of(&[1.0, 2.0]).is_none());
    }

    #[test]
    fn a_warm_up_ends_when_all_three_hold() {
        let steady = [
            second(100, 1_000, 3),
            second(104, 999, 2),
            second(98, 1_001, 4),
            second(101, 1_000, 3),
            second(99, 1_000, 3),
        ];
        assert!(is_steady(&steady));
        assert!(!is_steady(&steady[1..]), "four seconds are not five");
        let with = |place: usize, other: Second| {
            let mut seconds = steady;
            seconds[place] = other;
            seconds
        };
        assert!(!is_steady(&with(2, second(120, 1_000, 3))), "a median that stands out");
        assert!(!is_steady(&with(2, second(100, 800, 3))), "records that did not come out");
        let growing: Vec<Second> = (0..5).map(|n| second(100, 1_000, n * 3)).collect();
        assert!(!is_steady(&growing), "a backlog that grows");
    }
}

//! The highest rate that a pipeline takes without falling behind (Karimov et al., ICDE 2018): doubling, bisection, confirmation.
//! Pure: what a step measures is handed in.

use crate::steady::{Second, Trend};

/// What the step of a search found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Step {
    pub(crate) rate: f64,
    /// Records of the measured phase.
    pub(crate) scheduled: u64,
    pub(crate) sent: u64,
    /// Came out before the measured phase was over.
    pub(crate) completed_in_time: u64,
    pub(crate) seconds: Vec<Second>,
    /// Seconds until everything had come out after the last was due; nothing if it never did.
    pub(crate) drain_s: Option<f64>,
    /// Nothing lost, doubled, overtaken or wrong.
    pub(crate) clean: bool,
}

/// Why a rate is not sustained; nothing if it is.
pub(crate) fn unsustained(step: &Step) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut demand = |holds: bool, text: String| {
        if !holds {
            reasons.push(text);
        }
    };
    let share = |part: u64| part as f64 / step.scheduled.max(1) as f64;
    demand(
        share(step.completed_in_time) >= 0.995,
        format!("{:.2} % came out in time", 100.0 * share(step.completed_in_time)),
    );
    demand(share(step.sent) >= 0.999, format!("{:.2} % were sent", 100.0 * share(step.sent)));
    let backlog: Vec<f64> = step.seconds.iter().map(|second| second.backlog as f64).collect();
    match Trend::of(&backlog) {
        Some(trend) => {
            demand(trend.upper() <= 0.005 * step.rate, format!("the backlog may grow by {:.0}/s", trend.upper()))
        }
        None => demand(false, "too short to tell whether a backlog grows; take at least 3 s".into()),
    }
    let third = step.seconds.len() / 3;
    let typical = |seconds: &[Second]| {
        let mut all: Vec<u64> = seconds.iter().filter_map(|second| second.p99_ns).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    };
    if let (Some(first), Some(last)) = (
        step.seconds.get(..third).and_then(typical),
        step.seconds.len().checked_sub(third).and_then(|from| step.seconds.get(from..)).and_then(typical),
    ) {
        demand(last as f64 <= 1.5 * first as f64, format!("p99 rose from {first} ns to {last} ns"));
    }
    demand(step.drain_s.is_some_and(|seconds| seconds <= 2.0), "it took more than 2 s to drain".into());
    demand(step.clean, "results were wrong".into());
    reasons
}

/// Finds the highest rate for which `holds(rate, confirming)` says yes, within `precision` (0.05: 5 %); nothing if already
/// `start` fails. A rate is confirmed if two of three runs hold; otherwise the next lower is tried.
///
/// # Errors
/// What `holds` returns.
pub(crate) fn highest<E>(
    start: f64,
    precision: f64,
    mut holds: impl FnMut(f64, bool) -> Result<bool, E>,
) -> Result<Option<f64>, E> {
    /// 2^20 times the beginning: past that the rate is not what limits.
    const DOUBLINGS: u32 = 20;
    let (mut low, mut high) = (0.0, start);
    let mut doublings = 0;
    while doublings <= DOUBLINGS && holds(high, false)? {
        low = high;
        high *= 2.0;
        doublings += 1;
    }
    if low == 0.0 {
        return Ok(None);
    }
    while high - low > precision * low {
        let middle = f64::midpoint(low, high);
        if holds(middle, false)? { low = middle } else { high = middle }
    }
    while low >= start / 2.0 {
        let mut held = 0;
        for run in 0..3 {
            held += u32::from(holds(low, true)?);
            // Two are enough either way.
            if held == 2 || run + 1 - held == 2 {
                break;
            }
        }
        if held >= 2 {
            return Ok(Some(low));
        }
        low *= 1.0 - precision;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A pipeline that takes `capacity` records a second and queues the rest: what a step of ten seconds would measure.
    fn fake(capacity: f64, rate: f64) -> Step {
        let done = rate.min(capacity);
        let seconds = (1..=10)
            .map(|second| {
                let backlog = (rate - done) * f64::from(second);
                let p99 = 1e6 + backlog / capacity * 1e9;
                Second { backlog: backlog as u64, p99_ns: Some(p99 as u64), ..Second::default() }
            })
            .collect();
        Step {
            rate,
            scheduled: (rate * 10.0) as u64,
            sent: (rate * 10.0) as u64,
            completed_in_time: (done * 10.0) as u64,
            seconds,
            drain_s: Some((rate - done) * 10.0 / capacity),
            clean: true,
        }
    }

    #[test]
    fn finds_a_known_capacity_within_the_precision() {
        for capacity in [1_000.0, 123_456.0, 999_999.0] {
            let holds = |rate, _| Ok::<_, Infallible>(unsustained(&fake(capacity, rate)).is_empty());
            let found = highest(1_000.0, 0.05, holds).unwrap().unwrap();
            // A rate that is 0.5 % above the capacity still completes 99.5 % of what is due.
            assert!(found <= capacity * 1.006 && found >= capacity * 0.95, "{found} of {capacity}");
        }
        assert_eq!(highest(1_000.0, 0.05, |_, _| Ok::<_, Infallible>(false)), Ok(None));
    }

    #[test]
    fn a_rate_that_two_of_three_longer_runs_do_not_hold_is_stepped_down() {
        let mut asked = Vec::new();
        let holds = |rate: f64, confirming: bool| {
            if confirming {
                asked.push(rate);
            }
            Ok::<_, Infallible>(rate <= if confirming { 9_300.0 } else { 10_000.0 })
        };
        let found = highest(1_000.0, 0.05, holds).unwrap().unwrap();
        assert!((8_800.0..=9_300.0).contains(&found), "{found}");
        assert_eq!(asked.iter().filter(|rate| **rate == found).count(), 2);
    }

    #[test]
    fn each_condition_alone_refuses_a_rate() {
        let good = fake(2_000.0, 1_000.0);
        assert_eq!(unsustained(&good), Vec::<String>::new());
        let seconds = |change: fn(usize, &mut Second)| {
            let mut step = good.clone();
            step.seconds.iter_mut().enumerate().for_each(|(number, second)| change(number, second));
            step
        };
        for (step, word) in [
            (Step { completed_in_time: 9_949, ..good.clone() }, "in time"),
            (Step { sent: 9_989, ..good.clone() }, "sent"),
            (seconds(|number, second| second.backlog = 6 * number as u64), "backlog"),
            (seconds(|number, second| second.p99_ns = Some(if number < 5 { 100 } else { 151 })), "p99 rose"),
            (Step { drain_s: Some(2.1), ..good.clone() }, "drain"),
            (Step { drain_s: None, ..good.clone() }, "drain"),
            (Step { clean: false, ..good.clone() }, "wrong"),
        ] {
            let reasons = unsustained(&step);
            assert!(reasons.len() == 1 && reasons[0].contains(word), "{word}: {reasons:?}");
        }
    }
}

//! May one believe a run? And what is the exit code? Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::Tally;

/// What a verdict rests on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evidence {
    /// Nanoseconds; nothing where samples do not suffice.
    pub(crate) processed_p99: Option<u64>,
    pub(crate) lag_p99: Option<u64>,
    pub(crate) hiccup_p99: Option<u64>,
    pub(crate) baseline_p99: Option<u64>,
    /// Share of all CPU time that the hypervisor took; nothing where the kernel does not tell.
    pub(crate) steal: Option<f64>,
    pub(crate) steady: bool,
    /// Epochs on, how many fit into the measured phase by their interval, and how many committed.
    pub(crate) epochs: Option<(f64, u64)>,
}

/// Whether a run says something about the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Validity {
    Valid,
    /// The tester itself was in the way.
    InvalidTester,
    /// The machine was.
    InvalidPlatform,
    /// The pipeline had not settled, or too few epochs were closed.
    Unsteady,
}

/// A hiccup shorter than this is no sign of a disturbed machine: a pipeline that works takes the core for as long.
const SMALL_HICCUP: u64 = 1_000_000;
/// As often must an epoch fit in, and commit.
const EPOCHS: u64 = 5;

/// Judges, with all reasons; the first is the verdict. A disturbed machine comes before a tester that was late: it explains that.
pub(crate) fn judge(evidence: &Evidence, strict: bool) -> (Validity, Vec<String>) {
    let mut found = Vec::new();
    if let Some(steal) = evidence.steal.filter(|steal| *steal > 0.01) {
        found.push((Validity::InvalidPlatform, format!("the hypervisor took {:.1} % of the CPU time", 100.0 * steal)));
    }
    if let (Some(during), Some(before)) = (evidence.hiccup_p99, evidence.baseline_p99)
        && during > SMALL_HICCUP
        && during > 2 * before
    {
        let text = format!("hiccup p99 of {during} ns is above twice its baseline of {before} ns, and above 1 ms");
        found.push((Validity::InvalidPlatform, text));
    }
    match (evidence.lag_p99, evidence.processed_p99) {
        (Some(lag), Some(processed)) if lag as f64 > 0.1 * processed as f64 => {
            let text = format!("send lag p99 of {lag} ns is above 10 % of the processed p99 of {processed} ns");
            found.push((Validity::InvalidTester, text));
        }
        (Some(_), Some(_)) => {}
        _ => found.push((Validity::Unsteady, "too few records for a p99: measure longer or at a higher rate".into())),
    }
    if let Some((fit, committed)) = evidence.epochs {
        if fit < EPOCHS as f64 {
            found
                .push((Validity::Unsteady, format!("only {fit:.1} epochs fit into the measured phase; {EPOCHS} must")));
        }
        if committed < EPOCHS {
            found.push((Validity::Unsteady, format!("only {committed} epochs were committed; {EPOCHS} must be")));
        }
    }
    if !evidence.steady {
        let text = "the pipeline was not steady when the warm-up had to end";
        // A warning, unless asked for.
        if strict {
            found.push((Validity::Unsteady, text.into()));
        } else {
            let verdict = found.iter().map(|(validity, _)| *validity).next().unwrap_or(Validity::Valid);
            let mut reasons: Vec<String> = found.into_iter().map(|(_, reason)| reason).collect();
            reasons.push(format!("warning: {text}"));
            return (verdict, reasons);
        }
    }
    let verdict = found.first().map_or(Validity::Valid, |(validity, _)| *validity);
    (verdict, found.into_iter().map(|(_, reason)| reason).collect())
}

/// The exit code: wrong results win over an invalid run, and that over objectives that are not met. An interrupted run with right
/// results is 130.
pub(crate) fn exit_code(tallies: &[Tally], validity: Validity, slos_met: bool, interrupted: bool) -> u8 {
    if !tallies.iter().all(Tally::is_clean) {
        5
    } else if interrupted {
        130
    } else if validity != Validity::Valid {
        4
    } else if !slos_met {
        3
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Evidence = Evidence {
        processed_p99: Some(1_000_000),
        lag_p99: Some(50_000),
        hiccup_p99: Some(300_000),
        baseline_p99: Some(100_000),
        steal: Some(0.001),
        steady: true,
        epochs: Some((50.0, 49)),
    };

    #[test]
    fn believes_a_good_run_and_says_why_not_another() {
        assert_eq!(judge(&GOOD, true), (Validity::Valid, vec![]));
        for (evidence, expected, word) in [
            (Evidence { lag_p99: Some(100_001), ..GOOD }, Validity::InvalidTester, "send lag"),
            (Evidence { steal: Some(0.02), ..GOOD }, Validity::InvalidPlatform, "hypervisor"),
            (Evidence { hiccup_p99: Some(1_000_001), ..GOOD }, Validity::InvalidPlatform, "hiccup"),
            (Evidence { epochs: Some((4.9, 5)), ..GOOD }, Validity::Unsteady, "fit"),
            (Evidence { epochs: Some((5.0, 4)), ..GOOD }, Validity::Unsteady, "committed"),
            (Evidence { processed_p99: None, ..GOOD }, Validity::Unsteady, "too few records"),
            (Evidence { steady: false, ..GOOD }, Validity::Unsteady, "not steady"),
        ] {
            let (validity, reasons) = judge(&evidence, true);
            assert_eq!((validity, reasons.len()), (expected, 1), "{reasons:?}");
            assert!(reasons[0].contains(word), "{reasons:?}");
        }
        let both = Evidence { lag_p99: Some(100_001), steal: Some(0.02), ..GOOD };
        assert_eq!(judge(&both, false).0, Validity::InvalidPlatform, "the machine explains the tester");
        let (validity, reasons) = judge(&Evidence { steady: false, ..GOOD }, false);
        assert_eq!((validity, reasons.len()), (Validity::Valid, 1));
    }

    #[test]
    fn wrong_results_win_over_an_invalid_run() {
        let (clean, lost) = (Tally::default(), Tally { lost: 1, ..Tally::default() });
        for (tally, validity, slos_met, interrupted, code) in [
            (clean, Validity::Valid, true, false, 0),
            (clean, Validity::Valid, false, false, 3),
            (clean, Validity::Unsteady, true, false, 4),
            (clean, Validity::Unsteady, false, false, 4),
            (clean, Validity::Valid, false, true, 130),
            (lost, Validity::InvalidPlatform, true, false, 5),
            (lost, Validity::Valid, false, true, 5),
        ] {
            assert_eq!(exit_code(&[clean, tally], validity, slos_met, interrupted), code);
        }
    }
}

//! Service level objectives: what a run has to reach. Pure.
//!
//! ```text
//! EXPR := TERM { and TERM }      TERM := [TAG.]STAT OP VALUE      OP := < <= > >= ==
//! TAG  := processed (the default) durable visible service send_lag hiccup
//! STAT := p50 p90 p99 p99.9 p99.99 mean max, of a tag; throughput lost duplicated reordered wrong backlog, of the run
//! ```

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::latency::Summary;
use crate::report::RunResult;
use crate::schedule::parse_rate;

/// Tags that a latency can have, and how the result names them.
const TAGS: [&str; 6] = ["processed", "durable", "visible", "service", "send_lag", "hiccup"];

/// One objective: all its terms must hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slo {
    text: String,
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    text: String,
    what: What,
    op: Op,
    /// Nanoseconds, records per second, or records.
    value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A statistic of a latency, by its tag.
    Latency(&'static str, Stat),
    Throughput,
    Lost,
    Duplicated,
    Reordered,
    Wrong,
    Backlog,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stat {
    P50,
    P90,
    P99,
    P999,
    P9999,
    Mean,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
}

/// What became of one term of an objective.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SloResult {
    /// The term as it was given.
    pub(crate) expr: String,
    /// Nanoseconds, records per second, or records; null where the run does not tell.
    pub(crate) observed: Option<f64>,
    /// What the run does not tell is not met.
    pub(crate) met: bool,
}

impl SloResult {
    /// Whether what was observed is nanoseconds.
    pub(crate) fn is_time(expr: &str) -> bool {
        expr.parse::<Term>().is_ok_and(|term| matches!(term.what, What::Latency(..)))
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let terms = text.split(" and ").map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), terms })
    }
}

impl FromStr for Term {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = |what: &str| {
            format!("`{text}` is no objective: {what}; write p99<1ms, durable.p99.9<=200ms or throughput>=200k/s")
        };
        let at = text.find(['<', '>', '=']).ok_or_else(|| wrong("it compares nothing"))?;
        let (name, rest) = text.split_at(at);
        let operators =
            [("<=", Op::AtMost), (">=", Op::AtLeast), ("==", Op::Equal), ("<", Op::Less), (">", Op::Greater)];
        let (op, value) = operators
            .iter()
            .find_map(|(sign, op)| Some((*op, rest.strip_prefix(sign)?)))
            .ok_or_else(|| wrong("its comparison is none of < <= > >= =="))?;
        let (name, value) = (name.trim(), value.trim());
        let number = || value.parse::<u64>().map(|number| number as f64).map_err(|_| wrong("its value is no number"));
        let (what, value) = match name {
            "throughput" => (What::Throughput, parse_rate(value).map_err(|error| wrong(&error))?),
            "lost" => (What::Lost, number()?),
            "duplicated" => (What::Duplicated, number()?),
            "reordered" => (What::Reordered, number()?),
            "wrong" => (What::Wrong, number()?),
            "backlog" => (What::Backlog, number()?),
            _ => {
                let tagged = TAGS.iter().find_map(|tag| Some((*tag, name.strip_prefix(tag)?.strip_prefix('.')?)));
                let (tag, stat) = tagged.unwrap_or(("processed", name));
                let stat = match stat {
                    "p50" => Stat::P50,
                    "p90" => Stat::P90,
                    "p99" => Stat::P99,
                    "p99.9" => Stat::P999,
                    "p99.99" => Stat::P9999,
                    "mean" => Stat::Mean,
                    "max" => Stat::Max,
                    _ => return Err(wrong(&format!("there is no `{name}`"))),
                };
                let time = humantime::parse_duration(value).map_err(|error| wrong(&error.to_string()))?;
                (What::Latency(tag, stat), time.as_nanos() as f64)
            }
        };
        Ok(Self { text: text.to_owned(), what, op, value })
    }
}

impl Stat {
    fn of(self, summary: &Summary) -> Option<f64> {
        let nanos = match self {
            Self::P50 => summary.q.q50,
            Self::P90 => summary.q.q90,
            Self::P99 => summary.q.q99,
            Self::P999 => summary.q.q999,
            Self::P9999 => summary.q.q9999,
            Self::Mean => return summary.mean,
            Self::Max => summary.max,
        };
        nanos.map(|nanos| nanos as f64)
    }
}

impl Term {
    fn observed(&self, result: &RunResult) -> Option<f64> {
        let (counts, latency) = (&result.counts, &result.latency_ns);
        // What was committed must be right as well.
        let visible = |number: fn(&crate::report::VisibleCounts) -> u64| counts.visible.as_ref().map_or(0, number);
        let records = match self.what {
            What::Latency(tag, stat) => {
                let summary = match tag {
                    "durable" => latency.durable.as_ref(),
                    "visible" => latency.visible.as_ref(),
                    "service" => Some(&latency.service),
                    "send_lag" => Some(&latency.send_lag),
                    "hiccup" => Some(&latency.hiccup),
                    _ => Some(&latency.processed),
                };
                return stat.of(summary?);
            }
            What::Throughput => return Some(result.rates.achieved),
            What::Lost => counts.lost + visible(|counts| counts.lost),
            What::Duplicated => counts.duplicated + visible(|counts| counts.duplicated),
            What::Reordered => counts.reordered + visible(|counts| counts.reordered),
            What::Wrong => counts.wrong + visible(|counts| counts.wrong),
            What::Backlog => result.rates.backlog_max,
        };
        Some(records as f64)
    }

    fn judge(&self, result: &RunResult) -> SloResult {
        let observed = self.observed(result);
        let met = observed.is_some_and(|observed| match self.op {
            Op::Less => observed < self.value,
            Op::AtMost => observed <= self.value,
            Op::Greater => observed > self.value,
            Op::AtLeast => observed >= self.value,
            // Whole numbers of records and nanoseconds below 2^53; a rate that is exactly so is not what anybody wants.
            Op::Equal => (observed - self.value).abs() < f64::EPSILON,
        });
        SloResult { expr: self.text.clone(), observed, met }
    }
}

impl Slo {
    /// Holds a run against the objective, term by term.
    pub(crate) fn judge(&self, result: &RunResult) -> impl Iterator<Item = SloResult> {
        self.terms.iter().map(|term| term.judge(result))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::tests::result;

    fn met(text: &str) -> Vec<bool> {
        let mut result = result();
        result.latency_ns.processed.q.q99 = Some(999_999);
        result.latency_ns.processed.q.q9999 = None;
        result.latency_ns.durable = None;
        (result.rates.achieved, result.rates.backlog_max, result.counts.lost) = (200_000.0, 7, 0);
        text.parse::<Slo>().unwrap().judge(&result).map(|slo| slo.met).collect()
    }

    #[test]
    fn holds_a_run_against_each_term() {
        for (text, expected) in [
            ("p99<1ms", true),
            ("processed.p99 <= 999999ns", true),
            ("p99<999999ns", false),
            ("p99>1ms", false),
            ("throughput>=200k/s", true),
            ("throughput>200k", false),
            ("lost==0", true),
            ("backlog<7", false),
            // What is not known is not met, whatever is asked.
            ("p99.99<1h", false),
            ("durable.p50>=0s", false),
        ] {
            assert_eq!(met(text), [expected], "{text}");
        }
        assert_eq!(met("p99<1ms and lost==0 and backlog==8"), [true, true, false]);
    }

    #[test]
    fn says_what_is_wrong_with_an_objective() {
        for (text, word) in [
            ("", "compares nothing"),
            ("p99", "compares nothing"),
            ("p99=1ms", "none of < <="),
            ("p98<1ms", "no `p98`"),
            ("slow.p99<1ms", "no `slow.p99`"),
            ("p99<1", "time unit"),
            ("lost==none", "no number"),
            ("throughput>=fast", "fast"),
            ("p99<1ms and ", "compares nothing"),
        ] {
            let error = text.parse::<Slo>().unwrap_err();
            assert!(error.contains(word) && error.contains("write p99<1ms"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = text.parse::<Slo>();
        }

        #[test]
        fn every_objective_of_the_grammar_is_read(
            tag in prop::sample::select(&TAGS[..]),
            stat in prop::sample::select(&["p50", "p90", "p99", "p99.9", "p99.99", "mean", "max"][..]),
            op in prop::sample::select(&["<", "<=", ">", ">=", "=="][..]),
            millis in 0_u32..1_000_000,
        ) {
            let text = format!("{tag}.{stat}{op}{millis}ms");
            let slo: Slo = text.parse().unwrap();
            prop_assert_eq!(slo.terms[0].value, f64::from(millis) * 1e6);
            prop_assert_eq!(slo.to_string(), text);
        }
    }
}

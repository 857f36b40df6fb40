//! Latencies: recorded, merged, and read back only as far as there are samples for it.

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is longer counts as this long, and is counted: an hour.
const LONGEST: u64 = 3_600_000_000_000;
/// Samples that must lie above a quantile for it to be told.
const BEYOND: f64 = 100.0;
/// The quantiles that are told.
pub(crate) const QUANTILES: [(&str, f64); 5] =
    [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99), ("0.999", 0.999), ("0.9999", 0.9999)];

/// A histogram of nanoseconds, three digits exact, from 1 ns to an hour.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    histogram: Histogram<u64>,
    saturated: u64,
}

impl Latency {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { histogram: Histogram::new_with_bounds(1, LONGEST, 3)?, saturated: 0 })
    }

    #[inline]
    pub(crate) fn record(&mut self, nanos: u64) {
        self.saturated += u64::from(nanos > LONGEST);
        self.histogram.saturating_record(nanos.max(1));
    }

    /// Records a stall as all the samples that a meter missed during it, one each `interval`.
    pub(crate) fn record_with_missed(&mut self, nanos: u64, interval: u64) {
        let mut left = nanos;
        self.record(left);
        while left > interval.saturating_mul(2) {
            left -= interval;
            self.record(left);
        }
    }

    /// Adds all of `other`.
    pub(crate) fn merge(&mut self, other: &Self) -> anyhow::Result<()> {
        self.saturated += other.saturated;
        Ok(self.histogram.add(&other.histogram)?)
    }

    pub(crate) fn clear(&mut self) {
        self.saturated = 0;
        self.histogram.reset();
    }

    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The quantile in nanoseconds; nothing while fewer than a hundred samples lie beyond it.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<u64> {
        // Rounding must not lose the sample that completes the hundred.
        let enough = self.count() as f64 * (1.0 - quantile) >= BEYOND - 1e-6;
        enough.then(|| self.histogram.value_at_quantile(quantile))
    }

    /// The quantile for a rough judgement: ten samples beyond it are enough. Not to be printed.
    pub(crate) fn rough_quantile(&self, quantile: f64) -> Option<u64> {
        let enough = self.count() as f64 * (1.0 - quantile) >= BEYOND / 10.0 - 1e-6;
        enough.then(|| self.histogram.value_at_quantile(quantile))
    }

    pub(crate) fn max(&self) -> Option<u64> {
        (self.count() > 0).then(|| self.histogram.max())
    }

    /// What the result file says of it.
    pub(crate) fn summary(&self) -> anyhow::Result<Summary> {
        let some = self.count() > 0;
        let mut encoded = Vec::new();
        V2DeflateSerializer::new().serialize(&self.histogram, &mut encoded)?;
        let [q50, q90, q99, q999, q9999] = QUANTILES.map(|(_, quantile)| self.quantile(quantile));
        Ok(Summary {
            n: self.count(),
            mean: some.then(|| self.histogram.mean()),
            stddev: some.then(|| self.histogram.stdev()),
            min: some.then(|| self.histogram.min()),
            max: self.max(),
            saturated: self.saturated,
            q: Quantiles { q50, q90, q99, q999, q9999 },
            hdr_v2: some.then(|| base64::engine::general_purpose::STANDARD.encode(encoded)),
        })
    }
}

/// A latency in the result file; nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Summary {
    pub(crate) n: u64,
    pub(crate) mean: Option<f64>,
    pub(crate) stddev: Option<f64>,
    pub(crate) min: Option<u64>,
    pub(crate) max: Option<u64>,
    /// Samples above an hour, which count as an hour.
    pub(crate) saturated: u64,
    pub(crate) q: Quantiles,
    /// The whole histogram: HdrHistogram V2, deflated, base64.
    pub(crate) hdr_v2: Option<String>,
}

/// Quantiles in nanoseconds; nothing where samples do not suffice.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quantiles {
    #[serde(rename = "0.5")]
    pub(crate) q50: Option<u64>,
    #[serde(rename = "0.9")]
    pub(crate) q90: Option<u64>,
    #[serde(rename = "0.99")]
    pub(crate) q99: Option<u64>,
    #[serde(rename = "0.999")]
    pub(crate) q999: Option<u64>,
    #[serde(rename = "0.9999")]
    pub(crate) q9999: Option<u64>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hdrhistogram::serialization::Deserializer;

    use super::*;
    use crate::schedule::Spec;

    /// Latencies of a pipeline that takes no time, but for one stall in which nothing comes out; the clock is virtual.
    fn through_a_stall(schedule: &str, run: u64, stall: std::ops::Range<u64>) -> Latency {
        let mut latency = Latency::new().unwrap();
        let spec = Spec::parse(schedule, 10_000.0, Duration::from_nanos(run)).unwrap();
        for due in spec.due_times(42).take_while(|due| *due < run) {
            let done = if stall.contains(&due) { stall.end } else { due };
            latency.record(done - due);
        }
        latency
    }

    #[test]
    fn a_known_stall_gives_the_analytic_quantiles() {
        const MS: u64 = 1_000_000;
        let (run, stall) = (4_000 * MS, 400 * MS);
        // Of all records the share (S - x) / T waits longer than x.
        let analytic = |quantile: f64| stall as f64 - (1.0 - quantile) * run as f64;
        for (schedule, tolerance) in [("constant", 0.02), ("poisson", 0.02)] {
            let latency = through_a_stall(schedule, run, 1_000 * MS..1_000 * MS + stall);
            for quantile in [0.95, 0.97, 0.99] {
                let found = latency.quantile(quantile).unwrap() as f64;
                let expected = analytic(quantile);
                assert!((found / expected - 1.0).abs() < tolerance, "{schedule} {quantile}: {found}, not {expected}");
            }
            assert_eq!(latency.quantile(0.5), Some(1));
            assert!((latency.max().unwrap() as f64 / stall as f64 - 1.0).abs() < 0.02);
        }
    }

    #[test]
    fn the_stall_shows_where_a_closed_loop_would_hide_it() {
        // A sender that waits for each answer sends one record into the stall, of 36,001: below p99.
        let mut closed = Latency::new().unwrap();
        (0..36_000).for_each(|_| closed.record(1));
        closed.record(400_000_000);
        assert_eq!(closed.quantile(0.99), Some(1));
        let open = through_a_stall("constant", 4_000_000_000, 1_000_000_000..1_400_000_000);
        assert!(open.quantile(0.99).unwrap() > 350_000_000);
    }

    #[test]
    fn tells_no_quantile_without_a_hundred_samples_beyond_it() {
        let mut latency = Latency::new().unwrap();
        (0..9_999).for_each(|_| latency.record(5));
        assert_eq!((latency.quantile(0.9), latency.quantile(0.99)), (Some(5), None));
        latency.record(5);
        assert_eq!((latency.quantile(0.99), latency.quantile(0.999)), (Some(5), None));
        assert_eq!(latency.rough_quantile(0.999), Some(5));
        assert_eq!((latency.rough_quantile(0.9999), Latency::new().unwrap().max()), (None, None));
    }

    #[test]
    fn fills_in_what_a_meter_missed_in_a_stall() {
        let mut latency = Latency::new().unwrap();
        latency.record_with_missed(10, 1);
        assert_eq!(latency.count(), 9);
        latency.record_with_missed(1, 1);
        assert_eq!(latency.count(), 10);
    }

    #[test]
    fn what_is_written_can_be_read_and_merged_again() {
        let mut latency = Latency::new().unwrap();
        [5, 70_000, LONGEST + 1].into_iter().for_each(|nanos| latency.record(nanos));
        let summary = latency.summary().unwrap();
        assert_eq!((summary.n, summary.saturated), (3, 1));
        let bytes = base64::engine::general_purpose::STANDARD.decode(summary.hdr_v2.unwrap()).unwrap();
        let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!(read, latency.histogram);
        let mut merged = latency.clone();
        merged.merge(&latency).unwrap();
        assert_eq!((merged.count(), merged.saturated), (6, 2));
    }
}

//! Prometheus text of the families that the exporter cannot carry: seconds with a fraction, and distributions and quantiles that are
//! counted already.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::metrics::names::{Family, Kind};
use crate::metrics::sample::{Samples, Value};
use crate::metrics::{BOUNDS_MICROS, Buckets, Recent, Summary};

/// Whether a family is written here; the others are the exporter's. None is in both, or its text would name it twice.
pub(super) const fn is_ours(family: &Family) -> bool {
    matches!(family.kind, Kind::Seconds | Kind::Histogram | Kind::Summary)
}

/// Appends all series of such families.
pub(super) fn write(samples: &Samples, text: &mut String) {
    let mut before = "";
    for sample in samples.iter().filter(|sample| is_ours(sample.family)) {
        let Family { name, help, kind, labels, .. } = sample.family;
        if *name != before {
            let kind = match kind {
                Kind::Histogram => "histogram",
                Kind::Summary => "summary",
                Kind::Counter | Kind::Seconds | Kind::Gauge => "counter",
            };
            let _ = write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n", help.replace('\\', "\\\\"));
            before = name;
        }
        let labels: Vec<_> = labels.iter().zip(sample.labels).map(|(name, value)| label(name, value)).collect();
        let labels = labels.join(",");
        match sample.value {
            Value::Time(time) => line(text, name, "", &labels, None, &time.as_secs_f64().to_string()),
            Value::Times(times) => write_times(text, name, &labels, times),
            Value::Summary(summary) => write_summary(text, name, &labels, summary),
            Value::Count(_) | Value::Gauge(_) => {}
        }
    }
}

fn write_times(text: &mut String, name: &str, labels: &str, times: &Buckets) {
    for (bound, count) in BOUNDS_MICROS.iter().zip(times.cumulative()) {
        line(text, name, "_bucket", labels, Some(("le", &le(*bound))), &count.to_string());
    }
    let count = times.count().to_string();
    line(text, name, "_bucket", labels, Some(("le", "+Inf")), &count);
    line(text, name, "_sum", labels, None, &times.sum().as_secs_f64().to_string());
    line(text, name, "_count", labels, None, &count);
}

/// Quantiles that nothing is known of are left out.
fn write_summary(text: &mut String, name: &str, labels: &str, summary: &Summary) {
    for share in Recent::QUANTILES {
        if let Some(latency) = summary.recent.quantile(share) {
            let (share, seconds) = (format!("{share:?}"), latency.as_secs_f64().to_string());
            line(text, name, "", labels, Some(("quantile", &share)), &seconds);
        }
    }
    line(text, name, "_sum", labels, None, &summary.sum.as_secs_f64().to_string());
    line(text, name, "_count", labels, None, &summary.count.to_string());
}

fn line(text: &mut String, name: &str, suffix: &str, labels: &str, more: Option<(&str, &str)>, value: &str) {
    text.push_str(name);
    text.push_str(suffix);
    let more = more.map(|(name, value)| label(name, value));
    let all: Vec<&str> =
        [Some(labels), more.as_deref()].into_iter().flatten().filter(|part| !part.is_empty()).collect();
    if !all.is_empty() {
        let _ = write!(text, "{{{}}}", all.join(","));
    }
    let _ = writeln!(text, " {value}");
}

fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", escaped(value))
}

fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return value.into();
    }
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
}

/// A bound in seconds as Prometheus itself writes it, so that `le="1.0"` finds it in every version of it.
fn le(micros: u64) -> String {
    match micros {
        0..10 => format!("{micros}e-06"),
        10..100 if micros.is_multiple_of(10) => format!("{}e-05", micros / 10),
        _ => format!("{:?}", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::names;

    #[test]
    fn bounds_are_written_as_prometheus_does() {
        let texts: Vec<_> = BOUNDS_MICROS.iter().map(|bound| le(*bound)).collect();
        let expected = "1e-06 2e-06 5e-06 1e-05 2e-05 5e-05 0.0001 0.0002 0.0005 0.001 0.002 0.005 0.01 0.02 0.05 0.1 0.2 0.5 \
                        1.0 2.0 5.0 10.0 30.0";
        assert_eq!(texts.join(" "), expected);
        for (text, bound) in texts.iter().zip(BOUNDS_MICROS) {
            assert_eq!(text.parse::<f64>().unwrap(), bound as f64 / 1e6);
        }
    }

    #[test]
    fn hostile_values_of_labels_are_escaped() {
        let mut samples = Samples::default();
        let hostile = "a\"} 1\nb\\<script>&'";
        samples.time(&names::CHANNEL_BLOCKED, [hostile.into(), "c".into()], Duration::from_millis(1_500));
        let mut text = String::new();
        write(&samples, &mut text);
        let line = text.lines().last().unwrap();
        assert_eq!(
            line,
            "millstream_channel_send_blocked_seconds_total{pipeline=\"a\\\"} 1\\nb\\\\<script>&'\",channel=\"c\"} 1.5"
        );
        assert_eq!(text.lines().count(), 3, "help, type and one series: {text}");
    }

    #[test]
    fn a_histogram_is_cumulative_and_has_its_head_once() {
        let mut samples = Samples::default();
        for pipeline in ["p", "q"] {
            let mut times = Buckets::default();
            [3, 700_000, 60_000_000].iter().for_each(|micros| times.record(Duration::from_micros(*micros)));
            samples.times(&names::CHECKPOINT_DURATION, [pipeline.into()], times);
        }
        let mut text = String::new();
        write(&samples, &mut text);
        assert_eq!(text.matches("# TYPE").count(), 1, "{text}");
        for expected in [
            "_bucket{pipeline=\"p\",le=\"2e-06\"} 0\n",
            "_bucket{pipeline=\"p\",le=\"5e-06\"} 1\n",
            "_bucket{pipeline=\"q\",le=\"1.0\"} 2\n",
            "_bucket{pipeline=\"q\",le=\"+Inf\"} 3\n",
            "_sum{pipeline=\"q\"} 60.700003\n",
            "_count{pipeline=\"p\"} 3\n",
        ] {
            assert!(text.contains(&format!("{}{expected}", names::CHECKPOINT_DURATION.name)), "{expected} in {text}");
        }
    }
}

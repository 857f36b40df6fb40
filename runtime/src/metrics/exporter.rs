//! The exporter, and the one place that knows the `metrics` facade.
//!
//! A recorder lives for one rendering. The exporter never forgets a series of its own accord, so one that stayed would show
//! pipelines that are gone; and nothing is written to it between two scrapes, so there is nothing that would grow or that its
//! upkeep would have to drain.

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::metrics::names::{Family, Kind};
use crate::metrics::sample::{Sample, Samples, Value};
use crate::metrics::text;

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// All samples as Prometheus text, format 0.0.4.
pub(super) fn render(samples: &Samples) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    publish(samples, &recorder);
    let mut text = recorder.handle().render();
    text::write(samples, &mut text);
    text
}

/// Writes what the facade can carry into a recorder.
fn publish(samples: &Samples, recorder: &dyn Recorder) {
    let mut before = "";
    for sample in samples.iter().filter(|sample| !text::is_ours(sample.family)) {
        if sample.family.name != before {
            describe(sample.family, recorder);
            before = sample.family.name;
        }
        let key = key(&sample);
        match sample.value {
            Value::Count(count) => recorder.register_counter(&key, &METADATA).absolute(*count),
            Value::Gauge(value) => recorder.register_gauge(&key, &METADATA).set(*value),
            Value::Time(_) | Value::Times(_) | Value::Summary(_) => {}
        }
    }
}

fn describe(family: &Family, recorder: &dyn Recorder) {
    let name = KeyName::from_const_str(family.name);
    // Without the unit: it is in the name.
    if family.kind == Kind::Counter {
        recorder.describe_counter(name, None, family.help.into());
    } else {
        recorder.describe_gauge(name, None, family.help.into());
    }
}

fn key(sample: &Sample<'_>) -> Key {
    let labels = sample.family.labels.iter().zip(sample.labels);
    let labels: Vec<_> = labels.map(|(name, value)| Label::new(*name, value.clone().into_owned())).collect();
    Key::from_parts(sample.family.name, labels)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Buckets, Summary, names};

    #[test]
    fn every_family_has_its_head_once_whoever_writes_it() {
        let mut samples = Samples::default();
        for family in names::FAMILIES {
            for hostile in ["plain", "a\"} 1\nb\\<script>"] {
                let mut one = Samples::default();
                let value = match family.kind {
                    Kind::Counter => Value::Count(3),
                    Kind::Gauge => Value::Gauge(0.5),
                    Kind::Seconds => Value::Time(Duration::from_millis(1_250)),
                    Kind::Histogram => Value::Times(Box::<Buckets>::default()),
                    Kind::Summary => Value::Summary(Box::<Summary>::default()),
                };
                one.put(family, family.labels.iter().map(|_| hostile.into()).collect(), value);
                samples.append(one);
            }
        }
        let text = render(&samples);
        let mut heads: BTreeMap<&str, usize> = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            *heads.entry(line.split(' ').next().unwrap()).or_default() += 1;
        }
        assert_eq!(heads.len(), names::FAMILIES.len());
        for family in names::FAMILIES {
            assert_eq!(heads.get(family.name), Some(&1), "{}", family.name);
            assert!(text.contains(&format!("# HELP {} {}", family.name, family.help)), "{}", family.name);
        }
        let is_line = |line: &str| line.is_empty() || line.starts_with("# ") || line.starts_with("millstream_");
        assert!(text.lines().all(is_line), "an unescaped line break in {text}");
        assert!(text.contains("operator=\"a\\\"} 1\\nb\\\\<script>\""), "{text}");
    }
}

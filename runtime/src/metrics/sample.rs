//! What a collection finds: one value per series.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::metrics::names::{Family, Kind};
use crate::metrics::{Buckets, Recent};

/// Series that a collection may have; what is beyond is left out and counted.
const MOST_SERIES: usize = 50_000;

/// The value of a label.
pub(crate) type Label = Cow<'static, str>;

/// What a series shows.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Of a [`Kind::Counter`].
    Count(u64),
    /// Of [`Kind::Seconds`].
    Time(Duration),
    /// Of a [`Kind::Gauge`].
    Gauge(f64),
    /// Of a [`Kind::Histogram`].
    Times(Box<Buckets>),
    /// Of a [`Kind::Summary`].
    Summary(Box<Summary>),
}

impl Value {
    const fn fits(&self, kind: Kind) -> bool {
        matches!(
            (self, kind),
            (Self::Count(_), Kind::Counter)
                | (Self::Time(_), Kind::Seconds)
                | (Self::Gauge(_), Kind::Gauge)
                | (Self::Times(_), Kind::Histogram)
                | (Self::Summary(_), Kind::Summary)
        )
    }

    /// Adds another one of its kind. Gauges are no sums: the later one stays.
    fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::Count(count), Self::Count(more)) => *count += more,
            (Self::Time(time), Self::Time(more)) => *time += more,
            (Self::Times(times), Self::Times(more)) => times.add(&more),
            (Self::Summary(summary), Self::Summary(more)) => summary.add(&more),
            (value, other) => *value = other,
        }
    }
}

/// Latencies: those of the last seconds for quantiles, and how many there were in all.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// Those of the last ten full seconds.
    pub recent: Recent,
    /// How many, since the pipeline began.
    pub count: u64,
    /// Their sum.
    pub sum: Duration,
}

impl Summary {
    fn add(&mut self, other: &Self) {
        self.recent.add(&other.recent);
        self.count += other.count;
        self.sum += other.sum;
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    name: &'static str,
    labels: Vec<Label>,
}

/// A series with its value.
#[derive(Debug)]
#[non_exhaustive]
pub struct Sample<'a> {
    /// What it is of.
    pub family: &'static Family,
    /// The values of the family's labels, in their order.
    pub labels: &'a [Cow<'static, str>],
    /// What it shows.
    pub value: &'a Value,
}

/// The series of a collection, ordered by family and labels.
#[derive(Debug, Default)]
pub struct Samples {
    series: BTreeMap<Series, (&'static Family, Value)>,
    left_out: usize,
}

/// Something that can say at any time what it has counted.
pub(crate) trait Collect: Send + Sync {
    /// Adds its series. Takes no longer than reading them.
    fn collect(&self, into: &mut Samples);
}

impl Samples {
    /// Walks over all of them; those of a family stand together.
    pub fn iter(&self) -> impl Iterator<Item = Sample<'_>> {
        self.series.iter().map(|(series, (family, value))| Sample { family, labels: &series.labels, value })
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Series that found no room.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    pub(crate) fn count<const N: usize>(&mut self, family: &'static Family, labels: [Label; N], count: u64) {
        self.put(family, labels.into(), Value::Count(count));
    }

    pub(crate) fn time<const N: usize>(&mut self, family: &'static Family, labels: [Label; N], time: Duration) {
        self.put(family, labels.into(), Value::Time(time));
    }

    pub(crate) fn gauge<const N: usize>(&mut self, family: &'static Family, labels: [Label; N], value: f64) {
        self.put(family, labels.into(), Value::Gauge(value));
    }

    pub(crate) fn times<const N: usize>(&mut self, family: &'static Family, labels: [Label; N], times: Buckets) {
        self.put(family, labels.into(), Value::Times(Box::new(times)));
    }

    pub(crate) fn summary<const N: usize>(&mut self, family: &'static Family, labels: [Label; N], summary: Summary) {
        self.put(family, labels.into(), Value::Summary(Box::new(summary)));
    }

    /// One series of several subtasks is their sum.
    pub(super) fn put(&mut self, family: &'static Family, labels: Vec<Label>, value: Value) {
        debug_assert!(
            value.fits(family.kind) && labels.len() == family.labels.len(),
            "{}: {labels:?} {value:?}",
            family.name
        );
        let full = self.series.len() >= MOST_SERIES;
        let series = Series { name: family.name, labels };
        match self.series.get_mut(&series) {
            Some((_, before)) => before.add(value),
            None if full => self.left_out += 1,
            None => drop(self.series.insert(series, (family, value))),
        }
    }

    /// Takes over all series of another collection.
    pub(super) fn append(&mut self, other: Self) {
        self.left_out += other.left_out;
        for (Series { labels, .. }, (family, value)) in other.series {
            self.put(family, labels, value);
        }
    }

    /// Adds to what counts what another collection counted, also where only that one has the series.
    pub(super) fn keep_counts_of(&mut self, other: Self) {
        for (Series { labels, .. }, (family, mut value)) in other.series {
            if let Value::Summary(summary) = &mut value {
                // Whatever it has of the last seconds is over soon, and does not count for the seconds to come.
                summary.recent = Recent::default();
            }
            if family.kind != Kind::Gauge {
                self.put(family, labels, value);
            }
        }
    }

    /// Raises the series that are here by what `earlier` has of them.
    pub(super) fn raise_by(&mut self, earlier: &Self) {
        for (series, (_, value)) in &mut self.series {
            if let Some((_, before)) = earlier.series.get(series) {
                value.add(before.clone());
            }
        }
    }

    /// Keeps times from falling below what was shown of them, and takes note of what is shown now.
    pub(super) fn rise_from(&mut self, shown: &mut Self) {
        for (series, (family, value)) in &mut self.series {
            let Value::Time(time) = value else { continue };
            match shown.series.get_mut(series) {
                Some((_, Value::Time(before))) => {
                    *time = (*time).max(*before);
                    *before = *time;
                }
                _ => drop(shown.series.insert(series.clone(), (*family, Value::Time(*time)))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::names;

    #[test]
    fn subtasks_that_share_a_series_are_added_up() {
        let mut samples = Samples::default();
        let labels = || ["p".into(), "op".into(), "late".into()];
        samples.count(&names::RECORDS_DROPPED, labels(), 2);
        samples.count(&names::RECORDS_DROPPED, labels(), 3);
        let values: Vec<_> = samples.iter().map(|sample| sample.value.clone()).collect();
        assert_eq!(values, [Value::Count(5)]);
    }

    #[test]
    fn too_many_series_are_left_out_and_counted() {
        let mut samples = Samples::default();
        for number in 0..MOST_SERIES + 7 {
            samples.gauge(&names::CHECKPOINT_LAST_EPOCH, [number.to_string().into()], 1.0);
        }
        assert_eq!((samples.len(), samples.left_out()), (MOST_SERIES, 7));
        // Those that are there still count.
        samples.gauge(&names::CHECKPOINT_LAST_EPOCH, ["5".into()], 2.0);
        assert_eq!(samples.left_out(), 7);
    }
}

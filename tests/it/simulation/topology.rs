//! Random pipelines whose output, as a multiset, does not depend on timing.

use millstream::operators::{KeyedStream, Pipeline, Stream};
use millstream::runtime::graph::Graph;
use millstream::runtime::testing::{Numbered, Outside, SimSink, SimSource};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::event_time::{EventTime, Reading};

#[derive(Clone, Copy, Debug)]
enum Step {
    Map,
    TryMap,
    Filter,
    Explode(u8),
    ExplodeInto(u8),
    Inspect,
    Rebalance,
    /// Joins the stream with a copy of itself.
    Double,
}

#[derive(Clone, Copy, Debug)]
enum Keyed {
    Count,
    Sum,
    Fold,
    Reduce,
}

/// A pipeline: sources, stateless steps, one or two keyed operators, one or two sinks.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    seed: u64,
    sources: Vec<Vec<u64>>,
    steps: Vec<Step>,
    keys: u64,
    text_keys: bool,
    keyed: Keyed,
    again: Option<Keyed>,
    branch: bool,
    sink_faults: f64,
    event_time: Option<EventTime>,
}

/// What flows: where it comes from, and a number.
pub(super) type Item = (Numbered, u64);

impl Topology {
    /// Draws a pipeline and the places of its output.
    pub(super) fn draw(seed: u64, sink_faults: f64) -> (Self, Vec<Outside>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let largest = if rng.random_bool(0.1) { 900 } else { 250 };
        let sources = (0..rng.random_range(1..=2)).map(|_| {
            let splits = rng.random_range(1..=4);
            (0..splits).map(|_| rng.random_range(0..largest)).collect()
        });
        let sources: Vec<Vec<u64>> = sources.collect();
        let steps = (0..rng.random_range(0..=4)).map(|_| step(&mut rng)).collect();
        let keyed = |rng: &mut ChaCha8Rng| match rng.random_range(0..4) {
            0 => Keyed::Count,
            1 => Keyed::Sum,
            2 => Keyed::Fold,
            _ => Keyed::Reduce,
        };
        let topology = Self {
            seed,
            sources,
            steps,
            keys: if rng.random_bool(0.3) { rng.random_range(40..200) } else { rng.random_range(1..40) },
            text_keys: rng.random_bool(0.5),
            keyed: keyed(&mut rng),
            again: rng.random_bool(0.4).then(|| keyed(&mut rng)),
            branch: rng.random_bool(0.3),
            sink_faults,
            // Drawn apart, so that the same seed gives the same pipeline around it.
            event_time: EventTime::draw(&mut ChaCha8Rng::seed_from_u64(seed ^ 0x71_3e)),
        };
        let sinks = if topology.branch { 2 } else { 1 };
        (topology, (0..sinks).map(|_| Outside::default()).collect())
    }

    /// How many keys there are.
    pub(super) const fn keys(&self) -> u64 {
        self.keys
    }

    pub(super) fn graph(&self, outsides: &[Outside]) -> Graph {
        let pipeline = Pipeline::new("sim");
        let mut joined: Option<Stream<Item>> = None;
        for (index, lengths) in self.sources.iter().enumerate() {
            let first_split = index as u32 * 10;
            let source = SimSource { lengths: lengths.clone(), seed: self.seed ^ index as u64, first_split };
            let timed = self.event_time.as_ref();
            let source: Reading = timed.map_or(source.clone().into(), |event_time| event_time.source(source));
            let stream = pipeline.source(&format!("source-{index}"), source).map(|numbered| (numbered, 1)).erase();
            let stream = match timed {
                Some(event_time) => event_time.assign(stream, index),
                None => stream,
            };
            joined = Some(match joined {
                Some(before) => before.union(stream),
                None => stream,
            });
        }
        let mut stream = joined.unwrap();
        for step in &self.steps {
            stream = apply(stream, *step);
        }
        if let Some(event_time) = &self.event_time {
            stream = event_time.check(stream, "far");
        }
        if self.branch {
            let sink = self.sink(outsides, 1);
            stream.clone().map(|(numbered, n)| (numbered.split, numbered.seq, n)).sink("raw", sink);
        }
        let counted = self.keyed(stream, "first", self.keyed);
        let counted = match self.again {
            // The values of the first operator are the same whatever the order, so those of the second are too.
            Some(again) => {
                let items = counted.map(|(key, n)| (Numbered { split: key as u32, seq: n }, n));
                self.keyed(items.erase(), "second", again)
            }
            None => counted,
        };
        counted.sink("out", self.sink(outsides, 0));
        pipeline.into()
    }

    /// What was not as it must be with the watermarks, if anything.
    pub(super) fn violation(&self) -> Option<String> {
        self.event_time.as_ref()?.violation()
    }

    fn sink(&self, outsides: &[Outside], index: usize) -> SimSink {
        SimSink { outside: outsides[index].clone(), seed: self.seed ^ 77 ^ index as u64, faults: self.sink_faults }
    }

    fn keyed(&self, stream: Stream<Item>, name: &str, keyed: Keyed) -> Stream<(u64, u64)> {
        let keys = self.keys;
        if self.text_keys {
            let keyed_stream: KeyedStream<String, (String, u64)> = stream
                .map(move |(numbered, _)| (format!("key-{}", key(numbered, keys)), key(numbered, keys)))
                .key_by_ref(|(name, _)| name.as_str());
            let counted = aggregate(keyed_stream, name, keyed, |(_, key)| *key);
            return counted.map(|(name, n)| (name.strip_prefix("key-").unwrap().parse().unwrap(), n)).erase();
        }
        let keyed_stream = stream.map(move |(numbered, _)| key(numbered, keys)).key_by(|key| *key);
        aggregate(keyed_stream, name, keyed, |key| *key)
    }
}

fn key(numbered: Numbered, keys: u64) -> u64 {
    (u64::from(numbered.split) * 31 + numbered.seq) % keys
}

/// Every record of a key adds the same number, so the running results do not depend on their order.
fn aggregate<K, T>(
    stream: KeyedStream<K, T>,
    name: &str,
    keyed: Keyed,
    number: impl Fn(&T) -> u64 + Clone + Send + Sync + 'static,
) -> Stream<(K, u64)>
where
    K: millstream::runtime::state::key_group::StreamKey,
    T: millstream::runtime::state::StateValue + Clone,
{
    match keyed {
        Keyed::Count => stream.count(name),
        Keyed::Sum => stream.sum(name, move |value| number(value) + 1),
        Keyed::Fold => stream.fold(name, || 0, |n, _| *n += 3),
        // Reduced by joining equal values: the result is the value, once per record.
        Keyed::Reduce => stream.reduce(name, |before, _| before).map(move |(key, value)| (key, number(&value))).erase(),
    }
}

fn step(rng: &mut impl Rng) -> Step {
    match rng.random_range(0..8) {
        0 => Step::Map,
        1 => Step::TryMap,
        2 => Step::Filter,
        3 => Step::Explode(if rng.random_bool(0.1) { 200 } else { 3 }),
        4 => Step::ExplodeInto(3),
        5 => Step::Inspect,
        6 => Step::Rebalance,
        _ => Step::Double,
    }
}

fn apply(stream: Stream<Item>, step: Step) -> Stream<Item> {
    match step {
        Step::Map => stream.map(|(numbered, n)| (numbered, n + 1)).erase(),
        Step::TryMap => stream.try_map(Ok::<Item, std::io::Error>).erase(),
        Step::Filter => stream.filter(|(numbered, _)| numbered.seq % 5 != 3).erase(),
        Step::Explode(most) => stream
            .flat_map(move |(numbered, n)| {
                let copies = if numbered.seq % 50 == 7 { u64::from(most) } else { numbered.seq % 3 };
                (0..copies).map(move |copy| (numbered, n + copy))
            })
            .erase(),
        Step::ExplodeInto(most) => stream
            .flat_map_into(move |(numbered, n), out| {
                out.extend((0..numbered.seq % u64::from(most)).map(|copy| (numbered, n + copy)));
            })
            .erase(),
        Step::Inspect => stream.inspect(|_| ()).erase(),
        Step::Rebalance => stream.rebalance(),
        Step::Double => {
            let copy = stream.clone();
            stream.union(copy.map(|(numbered, n)| (numbered, n + 1000)))
        }
    }
}

//! The keyed count of `benches/keyed_count.rs` in timely: source, exchange by key, count, and an output that is dropped.
//!
//! ```text
//! timely_count WORKERS KEYS WARM_UP RECORDS
//! ```
//! Prints one JSON object on stdout. Every worker makes its share of the numbers, as our generator's splits do; the rate is that of
//! the `RECORDS` after the warm-up, from when the first worker begins with them until the last has seen them all.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Instant;

use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::{Inspect, Operator, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};

/// Numbers that a worker sends between two times. Large enough that progress tracking costs next to nothing.
const ROUND: u64 = 1 << 16;
/// Rounds that may be on their way: the next one is made while the last is counted.
const AHEAD: u64 = 2;

/// As in `benches/keyed_count.rs`.
#[inline]
fn key(number: u64, keys: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    ((mixed >> 32) * keys) >> 32
}

/// As in `benches/keyed_count.rs`.
#[derive(Default)]
struct CheapHasher(u64);

impl Hasher for CheapHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

fn main() -> ExitCode {
    let arguments: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let [workers, keys, warm_up, records] = arguments[..] else {
        eprintln!("usage: timely_count WORKERS KEYS WARM_UP RECORDS");
        return ExitCode::FAILURE;
    };
    match run(workers, keys, warm_up, records) {
        Ok((seconds, counted)) => {
            let per_second = records as f64 / seconds;
            println!(r#"{{"records_per_second":{per_second},"seconds":{seconds},"counted":{counted}}}"#);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("timely_count: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns how long the records took, and how many were counted with the warm-up.
#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn run(workers: u64, keys: u64, warm_up: u64, records: u64) -> Result<(f64, u64), String> {
    let counted = Arc::new(AtomicU64::new(0));
    let all = Arc::clone(&counted);
    let warm = Arc::new(Barrier::new(workers as usize));
    let guards = timely::execute(timely::Config::process(workers as usize), move |worker| {
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        let counted = Arc::clone(&all);
        let mut input = InputHandle::new();
        let probe = ProbeHandle::new();
        worker.dataflow::<u64, _, _>(|scope| {
            input
                .to_stream(scope)
                .unary(Exchange::new(|key: &u64| *key), "count", move |_capability, _info| {
                    let mut counts: HashMap<u64, u64, BuildHasherDefault<CheapHasher>> = HashMap::default();
                    move |input, output| {
                        input.for_each_time(|time, data| {
                            let mut session = output.session(&time);
                            for batch in data {
                                counted.fetch_add(batch.len() as u64, Ordering::Relaxed);
                                for key in batch.drain(..) {
                                    let count = counts.entry(key).or_insert(0);
                                    *count += 1;
                                    session.give((key, *count));
                                }
                            }
                        });
                    }
                })
                .container::<Vec<(u64, u64)>>()
                .inspect(|counted| {
                    black_box(counted);
                })
                .probe_with(&probe);
        });
        let mut round = 0;
        let mut send = |numbers: std::ops::Range<u64>, worker: &mut timely::worker::Worker| {
            let mut next = numbers.start + index;
            while next < numbers.end {
                for _ in 0..ROUND {
                    if next >= numbers.end {
                        break;
                    }
                    input.send(key(next, keys));
                    next += peers;
                }
                round += 1;
                input.advance_to(round);
                while probe.less_than(&round.saturating_sub(AHEAD)) {
                    worker.step();
                }
            }
            while probe.less_than(&round) {
                worker.step();
            }
        };
        send(0..warm_up, worker);
        warm.wait();
        let begun = Instant::now();
        send(warm_up..warm_up + records, worker);
        (begun, Instant::now())
    })?;
    let times: Vec<(Instant, Instant)> = guards.join().into_iter().collect::<Result<_, _>>()?;
    let begun = times.iter().map(|(begun, _)| *begun).min().ok_or("no worker")?;
    let ended = times.iter().map(|(_, ended)| *ended).max().ok_or("no worker")?;
    Ok(((ended - begun).as_secs_f64(), counted.load(Ordering::Relaxed)))
}

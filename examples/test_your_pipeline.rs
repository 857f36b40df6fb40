//! Teaches how to test a pipeline: by a script, with event times, through crashes, and without waiting for a clock.
//!
//! ```sh
//! cargo run --example test_your_pipeline
//! ```
//! In your crate each function is a `#[test]`, and `millstream` has its feature `test-util` in `[dev-dependencies]`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use millstream::prelude::*;
use millstream::runtime::sink::IntoSink;
use millstream::runtime::source::{Batch, Source};
use millstream::runtime::testing::{ManualClock, Outside, SimConfig, SimSink, Step, check, check_steps, simulate};

/// A payment: who, when, how much.
type Payment = (String, Timestamp, u64);

/// The pipeline under test. It takes its ends as arguments: the daemon gives it a feed and files, a test gives it a script.
fn totals(payments: impl Source<Out = Payment>, sink: impl IntoSink<(String, u64)>) -> Pipeline {
    let pipeline = Pipeline::new("totals");
    pipeline
        .source("payments", payments)
        .key_by(|payment| payment.0.clone())
        .sum("total", |payment| payment.2)
        .sink("out", sink);
    pipeline
}

/// Says what each customer paid in the minute after the first payment, once that minute is over in event time.
#[derive(Clone)]
struct FirstMinute;

impl KeyedProcess for FirstMinute {
    type Key = String;
    type In = Payment;
    type Out = (String, u64);
    type State = Value<u64>;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Value<u64>, BoxError> {
        Ok(ctx.value("paid")?)
    }

    fn on_record(
        &mut self,
        (_, at, cents): Payment,
        paid: &mut Value<u64>,
        ctx: &mut ProcessContext<'_, (String, u64)>,
    ) -> Result<(), BoxError> {
        if paid.get().is_none() {
            ctx.timers().register(TimerKind::EventTime, at.saturating_add(Duration::from_secs(60)));
        }
        paid.update(|| 0, |paid| *paid += cents);
        Ok(())
    }

    fn on_timer(
        &mut self,
        _time: Timestamp,
        paid: &mut Value<u64>,
        ctx: &mut ProcessContext<'_, (String, u64)>,
    ) -> Result<(), BoxError> {
        let customer = ctx.key()?;
        if let Some(paid) = paid.take() {
            ctx.emit((customer, paid));
        }
        Ok(())
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn paid(customer: &str, seconds: i64, cents: u64) -> Payment {
    (customer.to_owned(), at(seconds), cents)
}

/// A script goes through record by record, as one frame, over three subtasks, and with the state saved and restored after every
/// record. All cuts must give the same results, so an operator that keeps something in a field fails here.
fn a_script_gives_these_results() -> anyhow::Result<()> {
    let script = [paid("ada", 1, 250), paid("bob", 2, 100), paid("ada", 3, 50)];
    let results: Vec<(String, u64)> = check(script, |source, sink| totals(source, sink).into())?;
    ensure!(results == [("ada".to_owned(), 250), ("bob".to_owned(), 100), ("ada".to_owned(), 300)], "{results:?}");
    Ok(())
}

/// A script says its own watermarks: event time moves when the test says so, and no test waits for a minute.
fn a_minute_of_event_time_takes_no_time() -> anyhow::Result<()> {
    let record = |payment: Payment| Step::Record(payment.clone(), payment.1);
    let script = [
        record(paid("ada", 0, 250)),
        Step::Watermark(at(59)),
        record(paid("ada", 60, 50)),
        Step::Watermark(at(60)),    // the timer is due at 60 s, inclusive
        record(paid("ada", 60, 1)), // late: dropped and counted
        record(paid("ada", 70, 7)), // a new first payment, whose minute the end of the input ends
    ];
    let results: Vec<(String, u64)> = check_steps(script, |source, sink| {
        let pipeline = Pipeline::new("first-minute");
        let steps = pipeline.source("payments", source).event_time_by(Step::time, Step::strategy());
        let payments = steps.flat_map(Step::into_record);
        payments.key_by(|payment: &Payment| payment.0.clone()).process("first", FirstMinute).sink("out", sink);
        pipeline.into()
    })?;
    ensure!(results == [("ada".to_owned(), 300), ("ada".to_owned(), 7)], "{results:?}");
    Ok(())
}

/// The simulator crashes the process at named points, fails tasks and loses answers of the sink, on one thread with virtual time:
/// a seed is the whole story. What is delivered must be what a run without faults delivers.
fn crashes_change_nothing() -> anyhow::Result<()> {
    let payments = || Generator::new(Some(60), |n| paid(if n % 3 == 0 { "ada" } else { "bob" }, n as i64, n));
    let delivered = |config: &SimConfig, faults: f64| -> anyhow::Result<Vec<Vec<u8>>> {
        let outside = Outside::default();
        let sink = || SimSink { outside: outside.clone(), seed: config.seed, faults };
        simulate(config, &|| totals(payments(), sink()).into()).map_err(|failure| anyhow::anyhow!("{failure}"))?;
        let mut rows = outside.rows();
        rows.sort();
        Ok(rows)
    };
    let expected = delivered(&SimConfig::calm(1), 0.0)?;
    for seed in 0..20 {
        let config =
            SimConfig { crashes: 3, crash_chance: 0.02, failures: 2, parallelism: vec![1, 3], ..SimConfig::calm(seed) };
        let found = delivered(&config, 0.1)?;
        ensure!(found == expected, "seed {seed} lost or doubled something");
    }
    Ok(())
}

/// What reads a clock takes one: `ManualClock` stands still until the test moves it.
fn an_hour_of_processing_time_takes_no_time() -> anyhow::Result<()> {
    let clock = ManualClock::default();
    let source = Generator::new(None, |n| n).rate(1.0).clock(Arc::new(clock.clone()));
    let split = Source::splits(&source).map_err(|error| anyhow::anyhow!("{error}"))?.remove(0);
    let mut reader = source.reader(&split, None).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut batch = Batch::default();
    reader.poll(&mut batch, 10).map_err(|error| anyhow::anyhow!("{error}"))?;
    let first = batch.records.len();
    clock.advance(Duration::from_secs(3_600));
    reader.poll(&mut batch, 10).map_err(|error| anyhow::anyhow!("{error}"))?;
    ensure!(first == 1 && batch.records.len() > 1, "{first}, then {}", batch.records.len());
    Ok(())
}

fn main() -> anyhow::Result<()> {
    a_script_gives_these_results()?;
    a_minute_of_event_time_takes_no_time()?;
    crashes_change_nothing()?;
    an_hour_of_processing_time_takes_no_time()?;
    println!("all four passed");
    Ok(())
}

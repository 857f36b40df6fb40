//! Teaches how to write an operator of your own, with state and a timer, and how to give streams a method for it.
//!
//! ```sh
//! cargo run --example custom_operator
//! ```

use std::time::Duration;

use anyhow::ensure;
use millstream::prelude::*;

/// A reading of a sensor.
#[derive(Clone, Debug)]
struct Reading {
    sensor: u32,
    at: Timestamp,
    celsius: f64,
}

/// Reports the peak of each *alarm*: a time above the limit that ends when no reading was above it for `quiet`.
///
/// The fields are configuration: each subtask and each attempt after a failure begins with a clone of them. What must survive is
/// state.
#[derive(Clone)]
struct Alarms {
    limit: f64,
    quiet: Duration,
}

/// Handles on the state of the current key.
struct AlarmState {
    peak: Value<f64>,
    quiet_at: Value<Timestamp>,
}

impl KeyedProcess for Alarms {
    type Key = u32;
    type In = Reading;
    type Out = (u32, f64);
    type State = AlarmState;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<AlarmState, BoxError> {
        Ok(AlarmState { peak: ctx.value("peak")?, quiet_at: ctx.value("quiet_at")? })
    }

    fn on_record(
        &mut self,
        reading: Reading,
        state: &mut AlarmState,
        ctx: &mut ProcessContext<'_, (u32, f64)>,
    ) -> Result<(), BoxError> {
        if reading.celsius <= self.limit {
            return Ok(());
        }
        let sensor = ctx.key()?;
        if let Some(before) = state.quiet_at.take() {
            ctx.timers().delete(TimerKind::EventTime, before);
            // The watermark comes behind the records that raise it, so the alarm may be over and its timer still to fire.
            if reading.at > before
                && let Some(peak) = state.peak.take()
            {
                ctx.emit((sensor, peak));
            }
        }
        state.peak.update(|| f64::MIN, |peak| *peak = peak.max(reading.celsius));
        let quiet_at = reading.at.saturating_add(self.quiet);
        ctx.timers().register(TimerKind::EventTime, quiet_at);
        state.quiet_at.set(quiet_at);
        Ok(())
    }

    fn on_timer(
        &mut self,
        _time: Timestamp,
        state: &mut AlarmState,
        ctx: &mut ProcessContext<'_, (u32, f64)>,
    ) -> Result<(), BoxError> {
        state.quiet_at.clear();
        let sensor = ctx.key()?;
        if let Some(peak) = state.peak.take() {
            ctx.emit((sensor, peak));
        }
        Ok(())
    }
}

/// A method of your own on streams, so that the operator reads like the ones that are there.
trait AlarmsExt {
    /// Reports the peak of each alarm of each sensor. State is kept under `name`.
    fn alarms(self, name: &str, limit: f64) -> Stream<(u32, f64)>;
}

impl AlarmsExt for Stream<Reading> {
    fn alarms(self, name: &str, limit: f64) -> Stream<(u32, f64)> {
        let quiet = Duration::from_secs(60);
        self.key_by(|reading: &Reading| reading.sensor).process(name, Alarms { limit, quiet })
    }
}

/// Sensor 1 has two alarms, sensor 2 none; a reading a minute.
fn readings() -> Generator<impl Fn(u64) -> Reading + Send + Sync + 'static> {
    Generator::new(Some(20), |n| {
        let (sensor, minute) = (1 + (n % 2) as u32, n / 2);
        let hot = sensor == 1 && matches!(minute, 2 | 3 | 7);
        let celsius = if hot { 80.0 + minute as f64 } else { 20.0 };
        Reading { sensor, at: Timestamp::from_millis(minute as i64 * 45_000), celsius }
    })
}

fn main() -> anyhow::Result<()> {
    let (sink, alarms) = Collect::new();
    let pipeline = Pipeline::new("alarms");
    pipeline
        .source("readings", readings())
        .event_time(|reading: &Reading| reading.at, Duration::ZERO)
        .alarms("alarms", 50.0)
        .sink("out", sink);
    print!("{}", pipeline.explain());
    Runtime::builder().build()?.start(pipeline)?.join()?;
    let alarms = alarms.snapshot();
    for (sensor, peak) in &alarms {
        println!("sensor {sensor} peaked at {peak} degrees");
    }
    ensure!(alarms == [(1, 83.0), (1, 87.0)], "two alarms were to be found, not {alarms:?}");
    Ok(())
}

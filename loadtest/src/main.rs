//! The load tester of millstream: measures latency and throughput from outside, against intended send times.
//!
//! `schedule` says when each record is due, `source` sends it then, `probe` sees it at the sinks, `check` holds what came out
//! against what went in, `driver` puts a run together, `validity` says whether one may believe it.

#![forbid(unsafe_code)]

mod args;
mod check;
mod clock;
mod driver;
mod hiccup;
mod latency;
mod pacing;
mod probe;
mod progress;
mod report;
mod schedule;
mod search;
mod slo;
mod source;
mod steady;
mod validity;
mod workload;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _, ValueEnum as _};
use serde::Serialize;

use crate::args::{Arguments, Command, MaxArgs, Output, RunArgs};
use crate::driver::Plan;
use crate::progress::Progress;
use crate::report::{SUITE, StepResult, Suite, quantile_table, schemas};
use crate::search::{highest, unsustained};
use crate::validity::Validity;

fn main() -> ExitCode {
    match work(Arguments::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(args) => run(&args),
        Command::Max(args) => max(&args),
        Command::Hiccup { duration, output } => hiccup(duration, &output),
        Command::Workloads => {
            for value in workload::Kind::value_variants().iter().filter_map(clap::ValueEnum::to_possible_value) {
                let help = value.get_help().map(ToString::to_string).unwrap_or_default();
                println!("{:<14} {help}", value.get_name());
            }
            Ok(0)
        }
        Command::Schema { of } => {
            let schema = schemas().into_iter().find_map(|(name, schema)| (name == of).then_some(schema));
            println!("{}", serde_json::to_string_pretty(&schema)?);
            Ok(0)
        }
    }
}

/// Says what is wrong with the arguments, as clap does, and ends with its code.
fn usable(plan: Result<Plan, String>) -> Plan {
    plan.unwrap_or_else(|text| Arguments::command().error(clap::error::ErrorKind::ValueValidation, text).exit())
}

fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let output = &args.common.output;
    let plan = Plan { slos: args.slos.clone(), ..usable(args.common.plan(args.rate, &args.schedule, args.duration)) };
    let interrupted = on_interrupt()?;
    let outcome = driver::run(&plan, &interrupted, &mut Progress::new(output.quiet))?;
    write_json(output, &outcome.result)?;
    show(output, &outcome.result.table());
    Ok(outcome.exit)
}

fn max(args: &MaxArgs) -> anyhow::Result<u8> {
    let output = &args.common.output;
    let interrupted = on_interrupt()?;
    let mut progress = Progress::new(output.quiet);
    let mut steps: Vec<StepResult> = Vec::new();
    // An interrupted search ends, but what it has measured is written.
    let found = highest(args.start, args.precision, |rate, confirming| -> anyhow::Result<bool> {
        if interrupted.load(Ordering::Acquire) {
            return Ok(false);
        }
        let plan = usable(args.common.plan(rate, "poisson", if confirming { args.step * 2 } else { args.step }));
        let outcome = driver::run(&plan, &interrupted, &mut progress)?;
        let reasons = unsustained(&outcome.step);
        let sustained = reasons.is_empty();
        let verdict = if sustained { "sustained".to_owned() } else { format!("not sustained: {}", reasons.join("; ")) };
        progress.say(&format!("{rate:.0}/s{} {verdict}", if confirming { ", confirming:" } else { ":" }));
        steps.push(StepResult { rate, confirming, sustained, reasons, result: outcome.result });
        Ok(sustained)
    })?;
    let interrupted = interrupted.load(Ordering::Acquire);
    let max = found.filter(|_| !interrupted);
    show(
        output,
        &max.map_or_else(
            || "no rate was found that is sustained".to_owned(),
            |rate| format!("highest sustained rate: {rate:.0} records/s, within {:.1} %", 100.0 * args.precision),
        ),
    );
    let wrong = steps.iter().any(|step| step.reasons.iter().any(|reason| reason.contains("wrong")));
    // Where the steps that carry the answer are not valid, the answer is not.
    let believable = steps
        .iter()
        .filter(|step| step.confirming && step.sustained && Some(step.rate) == max)
        .all(|step| step.result.verdict.validity == Validity::Valid);
    write_json(output, &Suite { schema: SUITE.to_owned(), max, precision: args.precision, interrupted, steps })?;
    Ok(match (wrong, interrupted, max.is_some() && believable) {
        (true, _, _) => 5,
        (_, true, _) => 130,
        (_, _, false) => 4,
        _ => 0,
    })
}

fn hiccup(duration: Duration, output: &Output) -> anyhow::Result<u8> {
    let interrupted = on_interrupt()?;
    let clock = clock::Stopwatch::start();
    let meter = hiccup::HiccupMeter::start(clock)?;
    while clock.nanos() < clock::nanos(duration) && !interrupted.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let summary = meter.take().summary()?;
    write_json(output, &summary)?;
    show(output, &quantile_table(&[("hiccup", &summary)], &summary));
    Ok(if interrupted.load(Ordering::Acquire) { 130 } else { 0 })
}

/// Sets a flag at the first SIGINT; the second ends the process.
fn on_interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let ours = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new().name("loadtest-signals".into()).spawn(move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if ours.swap(true, Ordering::AcqRel) {
                    std::process::exit(130);
                }
                eprintln!("\ninterrupted: ending the run; once more to end at once");
            }
        });
    })?;
    Ok(flag)
}

fn write_json(output: &Output, value: &impl Serialize) -> anyhow::Result<()> {
    let Some(path) = &output.json else { return Ok(()) };
    let text = serde_json::to_string_pretty(value)?;
    if path.as_os_str() == "-" {
        println!("{text}");
        return Ok(());
    }
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// Shows a text on stdout, or on stderr where the result has stdout.
fn show(output: &Output, text: &str) {
    let json_on_stdout = output.json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    match (output.quiet, json_on_stdout) {
        (true, _) => {}
        (_, true) => eprintln!("{text}"),
        _ => println!("{text}"),
    }
}

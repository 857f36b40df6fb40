//! Teaches what a restart keeps: a keyed ledger whose committed rows add up, however often its process dies.
//!
//! ```sh
//! cargo run --example ledger
//! ```
//! runs it once, stopped and started again on the way, and checks its rows. The crash harness (`make kill9`) runs it as
//! its victim, with a directory: see `--help`, and [`tell`] for what it prints then.

#[path = "ledger/input.rs"]
mod input;
#[path = "ledger/numbers.rs"]
mod numbers;
#[path = "ledger/source.rs"]
mod source;
#[path = "ledger/spans.rs"]
mod spans;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use clap::{Parser, ValueEnum};
use millstream::prelude::*;
use millstream::runtime::fault::{CrashPoint, Crashed, Faults};
use millstream::runtime::job::JobPhase;
use millstream::runtime::state::log::LogLimits;
use serde::{Deserialize, Serialize};

use self::input::{Booking, PARTITIONS, booking, value_date};
use self::source::{Budgeted, Bug};

/// How often the status is looked at.
const LOOK: Duration = Duration::from_millis(2);

#[derive(Clone, Debug, Parser)]
struct Args {
    /// Where input, state and output are; without it a temporary directory, and the rows are checked at the end
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What is counted
    #[arg(long, value_enum, default_value_t = Workload::Ledger)]
    workload: Workload,
    /// What the bookings are made from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many bookings there are
    #[arg(long, default_value_t = 20_000)]
    records: u64,
    /// The first number that this life sends
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Records per second; no limit by default
    #[arg(long)]
    rate: Option<f64>,
    /// Records that this life of the process reads at full speed; then they trickle
    #[arg(long)]
    budget: Option<u64>,
    /// Epochs in the log before it is folded into rows
    #[arg(long, default_value_t = 5)]
    fold_epochs: u64,
    /// Stops in order once this life has committed so many epochs
    #[arg(long)]
    stop_after: Option<u64>,
    /// Panics at this record of this life, once
    #[arg(long)]
    panic_at: Option<u64>,
    /// Any panic ends the process, as in a daemon that is built with `panic = "abort"`
    #[arg(long)]
    abort: bool,
    /// Books every booking by a timer, once event time has come to it
    #[arg(long)]
    timers: bool,
    /// Runs in micro-batches
    #[arg(long)]
    batches: bool,
    /// Bytes of memory that the state may take
    #[arg(long, default_value_t = 4 << 20)]
    memory: u64,
    /// Plants a bug that the harness has to find
    #[arg(long, value_enum)]
    bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Bookings per account: running number and sum
    Ledger,
    /// Words of the files in `input`: running count
    Words,
    /// Bookings per account between two pauses: session windows, and group state with a timeout
    Spans,
    /// Numbers that this process sends, through a write-ahead log: each counts once
    Numbers,
}

/// What is kept per account, and the booking that led to it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Balance {
    bookings: u64,
    sum: i64,
    partition: u32,
    seq: u64,
    amount: i64,
}

impl Balance {
    fn book(&mut self, booking: &Booking) {
        let Booking { partition, seq, amount, .. } = *booking;
        *self = Self { bookings: self.bookings + 1, sum: self.sum + amount, partition, seq, amount };
    }
}

/// One line of the books.
struct Row(u64, Balance);

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(account, Balance { bookings, sum, partition, seq, amount }) = self;
        write!(f, "{account} {bookings} {sum} {partition} {seq} {amount}")
    }
}

fn bookings(pipeline: &Pipeline, args: &Args) -> Stream<Booking> {
    let seed = args.seed;
    let mut bookings = Generator::new(Some(args.records), move |number| booking(seed, number)).splits(PARTITIONS);
    if let Some(rate) = args.rate {
        bookings = bookings.rate(rate);
    }
    let source = Budgeted::new(bookings, args.budget, args.bug);
    pipeline.source("bookings", source).inspect(panic_at(args.panic_at)).erase()
}

fn spans(args: &Args, dir: &Path) -> Pipeline {
    let pipeline = Pipeline::new("spans");
    let rows = spans::spans(bookings(&pipeline, args));
    rows.sink("rows", FileSink::at(dir.join("out")).roll_interval(Duration::from_millis(20)));
    pipeline
}

fn ledger(args: &Args, dir: &Path) -> Pipeline {
    let pipeline = Pipeline::new("ledger");
    let bookings = bookings(&pipeline, args);
    let bookings = if args.timers {
        bookings
            .event_time(|booking| Timestamp::from_micros(value_date(booking)), Duration::ZERO)
            .key_by(|booking| booking.account)
            .process("value-dates", AtValueDate)
    } else {
        bookings
    };
    bookings
        .key_by(|booking: &Booking| booking.account)
        .fold("balances", Balance::default, |balance, booking| balance.book(&booking))
        .map(|(account, balance)| Row(account, balance))
        .sink("books", FileSink::at(dir.join("out")).roll_interval(Duration::from_millis(20)));
    pipeline
}

/// Holds every booking until its value date.
#[derive(Clone)]
struct AtValueDate;

impl KeyedProcess for AtValueDate {
    type Key = u64;
    type In = Booking;
    type Out = Booking;
    type State = Map<i64, Booking>;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Map<i64, Booking>, BoxError> {
        Ok(ctx.map("waiting")?)
    }

    fn on_record(
        &mut self,
        booking: Booking,
        waiting: &mut Map<i64, Booking>,
        ctx: &mut ProcessContext<'_, Booking>,
    ) -> Result<(), BoxError> {
        ctx.timers().register(TimerKind::EventTime, ctx.time());
        waiting.insert(&ctx.time().as_micros(), booking);
        Ok(())
    }

    fn on_timer(
        &mut self,
        time: Timestamp,
        waiting: &mut Map<i64, Booking>,
        ctx: &mut ProcessContext<'_, Booking>,
    ) -> Result<(), BoxError> {
        let booking = waiting.remove(&time.as_micros()).ok_or("a timer without its booking")?;
        ctx.emit(booking);
        Ok(())
    }
}

fn words(args: &Args, dir: &Path) -> Pipeline {
    let pipeline = Pipeline::new("words");
    let mut lines = Lines::at(dir.join("input"));
    if let Some(rate) = args.rate {
        lines = lines.pace(rate / f64::from(PARTITIONS));
    }
    pipeline
        .source("lines", Budgeted::new(lines, args.budget, args.bug))
        .inspect(panic_at(args.panic_at))
        .flat_map_into(|line: String, words: &mut Vec<String>| words.extend(line.split(' ').map(str::to_owned)))
        .key_by_ref(|word| word.as_str())
        .count("counts")
        .map(|(word, count)| format!("{word} {count}"))
        .sink("rows", FileSink::at(dir.join("out")).roll_interval(Duration::from_millis(20)));
    pipeline
}

fn by_trigger(args: &Args, pipeline: Pipeline) -> Pipeline {
    if args.batches { pipeline.trigger(Trigger::ProcessingTime(Duration::from_millis(5))) } else { pipeline }
}

/// Panics at the record of this number in the life of the process; never without one.
fn panic_at<T>(number: Option<u64>) -> impl Fn(&T) + Clone + Send + Sync + 'static {
    let seen = Arc::new(AtomicU64::new(0));
    move |_| {
        let seen = seen.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(number != Some(seen), "record {seen} of this life panics as it was told to");
    }
}

/// Tells the harness something: one line, at once.
fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        // Nobody listens any more.
        std::process::exit(2);
    }
}

/// Stops the world at a crash point and waits there for the kill: `MILLSTREAM_FAILPOINT=commit-written:3`.
#[derive(Debug)]
struct Failpoint {
    point: CrashPoint,
    nth: u64,
    passed: AtomicU64,
}

impl FromStr for Failpoint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
        let point = CrashPoint::ALL.iter().copied().find(|point| point.name() == name);
        let point = point.ok_or_else(|| anyhow!("there is no failpoint {name}"))?;
        Ok(Self { point, nth: nth.parse().context("name:nth")?, passed: AtomicU64::new(0) })
    }
}

impl Faults for Failpoint {
    fn pass(&self, point: CrashPoint) -> Result<(), Crashed> {
        if point == self.point && self.passed.fetch_add(1, Ordering::Relaxed) + 1 == self.nth {
            tell(&format!("stopped at {point}"));
            loop {
                std::thread::park();
            }
        }
        Ok(())
    }
}

/// Ends the process when stdin does: the harness is gone.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(2);
    });
}

/// Tells what changed since the last look.
fn report(status: &JobStatus, told: &mut (bool, u64), tell: fn(&str)) {
    let (begun, committed) = told;
    if !*begun && matches!(status.phase, JobPhase::Running | JobPhase::Closing) {
        (*begun, *committed) = (true, status.restored.number());
        tell(&format!("restored {}", status.restored.number()));
    }
    if *begun && status.committed.number() > *committed {
        *committed = status.committed.number();
        tell(&format!("committed {committed}"));
    }
}

/// One life of the ledger.
async fn live(args: &Args, dir: &Path, tell: fn(&str)) -> anyhow::Result<Ended> {
    let mut builder = Runtime::builder()
        .state_backend(RocksDb::at(dir.join("state")))
        .workers(2)
        .epoch_interval(Duration::from_millis(10))
        // Epochs are small here; pieces are smaller, so that most of them are written in several.
        .log_limits(LogLimits { fold_epochs: args.fold_epochs, batch_bytes: 256, ..LogLimits::default() })
        .state_memory(args.memory)
        .restart(RestartPolicy::at_most(3).backoff(Duration::from_millis(5)));
    if let Ok(failpoint) = std::env::var("MILLSTREAM_FAILPOINT") {
        builder = builder.faults(Arc::new(failpoint.parse::<Failpoint>()?));
    }
    let runtime = builder.build()?;
    let job = match args.workload {
        Workload::Ledger => runtime.start(by_trigger(args, ledger(args, dir)))?,
        Workload::Words => runtime.start(by_trigger(args, words(args, dir)))?,
        Workload::Spans => runtime.start(by_trigger(args, spans(args, dir)))?,
        Workload::Numbers => {
            let (pipeline, feed) = numbers::numbers(dir);
            let job = runtime.start(pipeline)?;
            numbers::send(feed, args.first..args.first + args.records, tell);
            job
        }
    };
    let mut told = (false, 0);
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            ended = job.wait() => return Ok(ended?),
            _ = look.tick() => {}
        }
        let status = job.status();
        let before = told.1;
        report(&status, &mut told, tell);
        if told.1 > before {
            let state = job.state();
            tell(&format!("keys {} {}", state.read_keys, state.evicted_keys));
        }
        let epochs = status.committed.number().saturating_sub(status.restored.number());
        if args.stop_after.is_some_and(|after| epochs >= after) {
            return Ok(job.stop(Duration::from_secs(20)).await?);
        }
    }
}

/// Runs the ledger in two halves and checks its books.
async fn check_itself(args: &Args) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let half = Args { budget: Some(args.records / 2), stop_after: Some(3), ..args.clone() };
    let stopped = live(&half, dir.path(), |_| ()).await?;
    let ended = live(args, dir.path(), |_| ()).await?;
    ensure!(ended.epoch() > stopped.epoch(), "the second half has no epoch of its own");

    let mut books: BTreeMap<u64, (u64, i64)> = BTreeMap::new();
    for file in read_committed(dir.path().join("out"))? {
        for row in file.lines()? {
            let fields: Vec<i64> = row.split(' ').map(str::parse).collect::<Result<_, _>>()?;
            let [account, bookings, sum, _, _, amount] = *fields.as_slice() else { bail!("not six fields: {row}") };
            let (last, balance) = books.entry(account.unsigned_abs()).or_default();
            (*last, *balance) = (*last + 1, *balance + amount);
            ensure!((*last, *balance) == (bookings.unsigned_abs(), sum), "account {account} breaks at {row}");
        }
    }
    let mut expected: BTreeMap<u64, (u64, i64)> = BTreeMap::new();
    for booking in (0..args.records).map(|number| booking(args.seed, number)) {
        let (bookings, sum) = expected.entry(booking.account).or_default();
        (*bookings, *sum) = (*bookings + 1, *sum + booking.amount);
    }
    ensure!(books == expected, "the books are in order, but are not those of the input");
    println!("stopped at epoch {}, went on to {}", stopped.epoch(), ended.epoch());
    println!("{} bookings on {} accounts, each exactly once: the books balance", args.records, books.len());
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let Some(dir) = args.dir.clone() else { return check_itself(&args).await };
    end_with_stdin();
    if args.abort {
        std::panic::set_hook(Box::new(|_| std::process::abort()));
    }
    let ended = live(&args, &dir, tell).await?;
    tell(&format!("ended {}", ended.epoch().number()));
    Ok(())
}

//! Teaches how to watch a log: reports hosts whose logins fail too often, and says when they are quiet again. The log may be
//! rotated and the program killed at any time; each line counts once.
//!
//! ```sh
//! cargo run --example tail_log_alerts                        # writes a log of its own, rotates it, stops, goes on, ends
//! cargo run --example tail_log_alerts -- /var/log/auth.log   # follows yours until Ctrl-C
//! ```
//! It looks for what sshd writes, in lines that begin with the time as 2026-11-27T10:00:00. Of a log with other times make
//! one: `journalctl -f -t sshd -o short-iso > sshd.log`.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::ensure;
use millstream::prelude::*;
use serde::{Deserialize, Serialize};

/// A line of the log: when it was written, and the host whose login failed, if it says so.
#[derive(Debug)]
struct Line {
    at: Timestamp,
    failed: Option<String>,
}

impl Line {
    fn parse(text: String) -> Result<Self, BoxError> {
        // Without its offset: as long as all lines have the same, only differences count.
        let seconds = text.get(..19).ok_or("the line has no time")?;
        let at = humantime::parse_rfc3339_weak(seconds)?.duration_since(UNIX_EPOCH)?;
        let failed = text.split_once("Failed password").and_then(|(_, rest)| rest.split_once(" from "));
        let failed = failed.and_then(|(_, rest)| rest.split_whitespace().next()).map(str::to_owned);
        Ok(Self { at: Timestamp::from_micros(at.as_micros() as i64), failed })
    }
}

/// Reports a host with `limit` failures `within` a time, and again when there was none for as long.
#[derive(Clone)]
struct Guard {
    limit: usize,
    within: Duration,
}

/// What is known of a host. It is kept until the host is quiet.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Attempts {
    /// The failures of the last while.
    recent: Vec<Timestamp>,
    /// All failures.
    total: u64,
    reported: bool,
    /// When its timer is set to.
    quiet_at: Timestamp,
}

impl KeyedProcess for Guard {
    type Key = String;
    type In = Line;
    type Out = String;
    type State = Value<Attempts>;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Value<Attempts>, BoxError> {
        Ok(ctx.value("attempts")?)
    }

    fn on_record(
        &mut self,
        line: Line,
        state: &mut Value<Attempts>,
        ctx: &mut ProcessContext<'_, String>,
    ) -> Result<(), BoxError> {
        let host: String = ctx.key()?;
        let mut attempts = state.take().unwrap_or_default();
        attempts.total += 1;
        attempts.recent.retain(|at| at.saturating_add(self.within) > line.at);
        attempts.recent.push(line.at);
        if attempts.recent.len() >= self.limit && !attempts.reported {
            attempts.reported = true;
            ctx.emit(format!("{host}: {} failed logins within {:?}", attempts.recent.len(), self.within));
        }
        // Each failure puts off the time when the host is quiet.
        ctx.timers().delete(TimerKind::EventTime, attempts.quiet_at);
        attempts.quiet_at = line.at.saturating_add(self.within);
        ctx.timers().register(TimerKind::EventTime, attempts.quiet_at);
        state.set(attempts);
        Ok(())
    }

    fn on_timer(
        &mut self,
        _time: Timestamp,
        state: &mut Value<Attempts>,
        ctx: &mut ProcessContext<'_, String>,
    ) -> Result<(), BoxError> {
        let host: String = ctx.key()?;
        match state.take() {
            Some(attempts) if attempts.reported => {
                ctx.emit(format!("{host}: quiet again, after {} failed logins", attempts.total));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Starts watching a log, from its beginning or where the last run with this state left off.
fn watch(log: &Path, state: &Path) -> anyhow::Result<(Runtime, JobHandle, Collected<String>)> {
    let (sink, alerts) = Collect::new();
    let pipeline = Pipeline::new("log-alerts");
    let stream = pipeline
        .source("log", TailLines::at(log))
        .try_map(Line::parse)
        .skip_errors()
        .event_time(|line: &Line| line.at, Duration::from_secs(1))
        .filter(|line: &Line| line.failed.is_some())
        .key_by(|line: &Line| line.failed.clone().unwrap_or_default())
        .process("guard", Guard { limit: 5, within: Duration::from_secs(60) });
    stream.clone().sink("screen", Console::display());
    stream.sink("alerts", sink);
    let runtime = Runtime::builder().state_backend(RocksDb::at(state)).build()?;
    let job = runtime.start(pipeline)?;
    Ok((runtime, job, alerts))
}

fn main() -> anyhow::Result<()> {
    if let Some(log) = std::env::args_os().nth(1) {
        // Ctrl-C just ends the process, as kill -9 would: the next run goes on behind the last line that was counted.
        let (_runtime, job, _) = watch(Path::new(&log), Path::new("tail_log_alerts.state"))?;
        job.join()?;
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let (log, state) = (directory.path().join("auth.log"), directory.path().join("state"));
    write(&log, "10:00:00 sshd[7]: Accepted publickey for ada from 192.0.2.1 port 4711 ssh2")?;
    for second in 1..=5 {
        fail(&log, second, "198.51.100.7")?;
        if second <= 3 {
            fail(&log, second, "203.0.113.9")?;
        }
    }
    println!("first run");
    let (_runtime, job, alerts) = watch(&log, &state)?;
    alerts.wait_for(1)?;
    let mut seen = alerts.take();
    job.stop_blocking(Duration::from_secs(10))?;

    // While nobody watches, the log gets a line and is rotated.
    fail(&log, 20, "203.0.113.9")?;
    fs::rename(&log, directory.path().join("auth.log.1"))?;
    fail(&log, 21, "203.0.113.9")?;
    println!("second run");
    let (_runtime, job, alerts) = watch(&log, &state)?;
    alerts.wait_for(1)?;
    // Event time goes on with any line.
    write(&log, "10:05:00 sshd[7]: Connection closed by 192.0.2.1 port 4711")?;
    alerts.wait_for(3)?;
    seen.extend(alerts.take());
    job.stop_blocking(Duration::from_secs(10))?;
    // Hosts are watched by several subtasks, between which there is no order.
    seen.sort();
    let expected = [
        "198.51.100.7: 5 failed logins within 60s",
        "198.51.100.7: quiet again, after 5 failed logins",
        "203.0.113.9: 5 failed logins within 60s",
        "203.0.113.9: quiet again, after 5 failed logins",
    ];
    ensure!(seen == expected, "wrong alerts: {seen:?}");
    Ok(())
}

/// Appends a line of a login that failed.
fn fail(log: &Path, second: u32, host: &str) -> std::io::Result<()> {
    write(log, &format!("10:00:{second:02} sshd[7]: Failed password for root from {host} port 4711 ssh2"))
}

fn write(log: &Path, line: &str) -> std::io::Result<()> {
    let mut log = OpenOptions::new().create(true).append(true).open(log)?;
    writeln!(log, "2026-11-27T{line}")
}

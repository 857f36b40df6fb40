//! The parent: starts the child, kills it, starts it again, and asks the judge.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use millstream::runtime::time::{Clock, SystemClock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::Args;
use crate::child::{Layout, Report};
use crate::input::{self, Text};
use crate::journal::Entries;
use crate::judge::{Case, Rows, Saved};
use crate::screen::Screen;

/// The child is killed when so much of the input is read ...
const KILL_FROM: u64 = 45;
/// ... and the demo has failed if the conditions are not met before this.
const KILL_UNTIL: u64 = 80;
/// Commits that must be there before.
const COMMITS: u64 = 3;
/// What everything may take beyond the input.
const SPARE: Duration = Duration::from_secs(25);

/// Runs the demo, or ends it cleanly on Ctrl-C and SIGTERM.
pub(crate) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // Both are dropped on every way out: the child is killed before its directory is removed.
    let dir = tempfile::Builder::new().prefix("millstream-demo-").tempdir()?;
    let longest = Duration::from_secs(args.seconds.into()) + SPARE;
    let verdict = tokio::select! {
        biased;
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        verdict = tokio::time::timeout(longest, watch(args, dir.path())) => Some(verdict),
    };
    let removed = dir.path().to_owned();
    dir.close().with_context(|| format!("cannot remove {}", removed.display()))?;
    match verdict {
        Some(Ok(verdict)) => Ok(if verdict? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        Some(Err(_)) => bail!("verdict: red, it was not over after {longest:?}"),
        None => {
            println!("\ninterrupted: the child is killed, {} is removed", removed.display());
            Ok(ExitCode::from(130))
        }
    }
}

/// Returns whether the verdict is green.
async fn watch(args: &Args, dir: &Path) -> anyhow::Result<bool> {
    let clock = SystemClock::new();
    let began = clock.now();
    let text = input::prepare(&Layout(dir).input())?;
    let Text { files, lines, records, .. } = &text;
    let mut screen = Screen::new(*lines);
    screen.say(&format!("word count over this project: {files} files, {lines} lines, {records} words"));
    let mut rows = Rows::default();

    let mut life = Life::begin(args, dir, 1, *lines)?;
    screen.say(&format!("first life: process {}", life.child.id()));
    let (share, said) = loop {
        let report = life.next().await.context("the first life ended before it was killed")?;
        rows.look(dir)?;
        screen.show(clock.now(), &report, 0, &rows.counts);
        let Report::Progress { lines, epoch, .. } = report else { continue };
        let share = lines * 100 / text.lines.max(1);
        ensure!(
            share < KILL_UNTIL,
            "verdict: red, {share} % of the input without {COMMITS} commits and a committed file"
        );
        if share >= KILL_FROM && epoch >= COMMITS && !rows.files.is_empty() {
            break (share, epoch);
        }
    };
    life.kill()?;
    rows.look(dir)?;
    let visible = rows.files.len();
    screen.say(&format!("kill -9 at {share} % of the input, after epoch {said} and {visible} committed files"));
    let saved = Saved::read(dir)?;
    let first = Entries::read(dir, 1)?;

    let mut life = Life::begin(args, dir, 2, text.lines)?;
    screen.say(&format!("second life: process {}", life.child.id()));
    let mut restored = None;
    let killed_at = clock.now();
    loop {
        let report = life.next().await.context("the second life ended too early")?;
        match report {
            Report::Restored { epoch } => {
                restored = Some(epoch);
                let took = clock.now().saturating_since(killed_at).as_millis();
                screen.say(&format!("went on from epoch {epoch}, {took} ms after its start"));
            }
            Report::Progress { .. } => {
                rows.look(dir)?;
                screen.show(clock.now(), &report, first.lines, &rows.counts);
            }
            Report::Finished { epoch } => {
                screen.say(&format!("finished with epoch {epoch}"));
                break;
            }
        }
    }
    life.wait().await?;
    rows.look(dir)?;
    let second = Entries::read(dir, 2)?;

    let case = Case { text: &text, rows: &rows, saved: &saved, said, restored, first: &first, second: &second };
    let mut all_good = true;
    for finding in case.findings() {
        all_good &= finding.good;
        screen.judge(finding.good, &format!("[{}] {}", if finding.good { "green" } else { "red" }, finding.text));
    }
    let took = clock.now().saturating_since(began).as_secs_f64();
    let verdict = if all_good { "green: nothing lost, nothing doubled" } else { "red" };
    screen.judge(all_good, &format!("verdict: {verdict} ({took:.1} s)"));
    Ok(all_good)
}

/// One life of the child; killed when it is dropped.
struct Life {
    child: Child,
    /// Held open: the child ends itself when this end is gone.
    _stdin: Option<ChildStdin>,
    reports: mpsc::Receiver<Report>,
}

impl Life {
    fn begin(args: &Args, dir: &Path, life: u32, lines: u64) -> anyhow::Result<Self> {
        let rate = lines as f64 / f64::from(args.seconds);
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--child").arg(dir).arg(format!("--life={life}")).arg(format!("--rate={rate}"));
        if args.plant_bug && life > 1 {
            command.arg("--plant-bug");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own: Ctrl-C is for us, who then end the child.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().context("cannot start the child")?;
        let stdin = child.stdin.take();
        let out = BufReader::new(child.stdout.take().context("the child has no stdout")?);
        let (sender, reports) = mpsc::channel(64);
        std::thread::spawn(move || {
            let reports = out.lines().map_while(Result::ok).map_while(|line| serde_json::from_str(&line).ok());
            for report in reports {
                if sender.blocking_send(report).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, _stdin: stdin, reports })
    }

    async fn next(&mut self) -> Option<Report> {
        self.reports.recv().await
    }

    fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    async fn wait(mut self) -> anyhow::Result<()> {
        // It has said its last; what is left of it ends at once.
        while self.next().await.is_some() {}
        let status = self.child.wait()?;
        ensure!(status.success(), "the child ended with {status}");
        Ok(())
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Fails only where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

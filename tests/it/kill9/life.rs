//! One life of the child process.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use millstream::runtime::time::{Clock, SystemClock, Timestamp};

/// Longest that anything awaited of a child may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The example `ledger`.
pub(crate) fn executable() -> PathBuf {
    example("ledger")
}

/// An example, which cargo builds beside the tests.
///
/// # Panics
/// Where it is missing or older than its sources: a test of yesterday's code proves nothing.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let exe = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    let advice = "run `cargo build --examples` with the features of this test, or `make kill9`";
    let built = std::fs::metadata(&exe).and_then(|exe| exe.modified());
    let built = built.unwrap_or_else(|error| panic!("the example {} is missing: {error}; {advice}", exe.display()));
    let sources = std::fs::read_to_string(exe.with_extension("d")).unwrap();
    let (_, sources) = sources.split_once(": ").unwrap();
    for source in sources.split_whitespace() {
        let changed = std::fs::metadata(source).and_then(|source| source.modified());
        assert!(changed.is_ok_and(|changed| changed <= built), "the example is older than {source}; {advice}");
    }
    exe
}

/// What a child tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It runs, from this epoch.
    Restored(u64),
    /// This epoch is committed.
    Committed(u64),
    /// It waits at this failpoint for its kill.
    Stopped(String),
    /// So many keys were read back, and so many evicted.
    Keys(u64, u64),
    /// This number is in the write-ahead log.
    Durable(u64),
    /// It ended in order.
    Ended(u64),
    /// It is gone.
    Gone,
}

impl Told {
    fn parse(line: &str) -> Option<Self> {
        let (what, rest) = line.split_once(' ')?;
        Some(match what {
            "restored" => Self::Restored(rest.parse().ok()?),
            "committed" => Self::Committed(rest.parse().ok()?),
            "stopped" => Self::Stopped(rest.strip_prefix("at ")?.to_owned()),
            "keys" => {
                let (read, evicted) = rest.split_once(' ')?;
                Self::Keys(read.parse().ok()?, evicted.parse().ok()?)
            }
            "durable" => Self::Durable(rest.parse().ok()?),
            "ended" => Self::Ended(rest.parse().ok()?),
            _ => return None,
        })
    }
}

/// A child process, killed when it is dropped.
pub(crate) struct Life {
    child: Child,
    /// Held open: the child ends itself when this end is gone. `Child::wait` would close it.
    _stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// What it told, for complaints.
    heard: Vec<Told>,
    stderr: PathBuf,
    clock: SystemClock,
    /// Where it went on; nothing while it recovers.
    pub(crate) restored: Option<u64>,
    /// The last epoch that it said is committed.
    pub(crate) committed: u64,
    /// Keys that it read back, said at its end.
    pub(crate) read: u64,
    /// Keys that it evicted, said at its end.
    pub(crate) evicted: u64,
    /// Numbers that it said are in the write-ahead log.
    pub(crate) durable: Vec<u64>,
}

impl Life {
    pub(crate) fn begin(exe: &Path, dir: &Path, arguments: &[String], environment: &[(&str, String)]) -> Self {
        let stderr = dir.join("stderr.log");
        let mut log: File = OpenOptions::new().create(true).append(true).open(&stderr).unwrap();
        writeln!(log, "--- a life with {environment:?} and {arguments:?}").unwrap();
        let mut command = Command::new(exe);
        command.arg("--dir").arg(dir).args(arguments).env_remove("MILLSTREAM_FAILPOINT");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = sync_channel(10_000);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Self {
            child,
            _stdin: stdin,
            lines,
            heard: Vec::new(),
            stderr,
            clock: SystemClock::new(),
            restored: None,
            committed: 0,
            read: 0,
            evicted: 0,
            durable: Vec::new(),
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Epochs that this life said it committed.
    pub(crate) fn epochs(&self) -> u64 {
        self.restored.map_or(0, |restored| self.committed.saturating_sub(restored))
    }

    /// Waits for the next thing it tells; nothing if it told nothing by then.
    fn next(&mut self, until: Timestamp) -> Option<Told> {
        let line = match self.lines.recv_timeout(until.saturating_since(self.clock.now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => return Some(Told::Gone),
        };
        let told = Told::parse(&line).unwrap_or_else(|| panic!("the child says {line:?}"));
        match &told {
            Told::Restored(epoch) => self.restored = Some(*epoch),
            Told::Committed(epoch) => self.committed = *epoch,
            Told::Keys(read, evicted) => (self.read, self.evicted) = (*read, *evicted),
            Told::Durable(number) => self.durable.push(*number),
            _ => {}
        }
        self.heard.push(told.clone());
        Some(told)
    }

    /// Waits until it tells something that is wanted.
    pub(crate) fn wait_for(&mut self, wanted: impl Fn(&Told) -> bool) -> Result<Told, String> {
        let until = self.clock.now().saturating_add(PATIENCE);
        loop {
            match self.next(until) {
                Some(told) if wanted(&told) => return Ok(told),
                Some(told @ (Told::Gone | Told::Ended(_))) => return Err(self.complain(&format!("{told:?}"))),
                Some(_) => {}
                None => return Err(self.complain("nothing more")),
            }
        }
    }

    /// Listens for a while; returns whether it is still there.
    pub(crate) fn listen(&mut self, time: Duration) -> bool {
        let until = self.clock.now().saturating_add(time);
        loop {
            match self.next(until) {
                Some(Told::Gone | Told::Ended(_)) => return false,
                Some(_) => {}
                None => return true,
            }
        }
    }

    /// Kills it with SIGKILL and hears out what it had told.
    pub(crate) fn kill(mut self) -> Self {
        self.end();
        while !matches!(self.next(Timestamp::MAX), Some(Told::Gone) | None) {}
        self
    }

    /// Waits for an end in order.
    pub(crate) fn wait(mut self) -> Result<Self, String> {
        let status: ExitStatus = self.child.wait().map_err(|error| error.to_string())?;
        if status.success() { Ok(self) } else { Err(self.complain(&format!("{status}"))) }
    }

    fn end(&mut self) {
        // Fails only where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn complain(&self, what: &str) -> String {
        let log = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        let log = log.rsplit("--- a life").next().unwrap_or_default();
        let heard = &self.heard[self.heard.len().saturating_sub(5)..];
        format!("the child said {what} after {heard:?}; its stderr:{log}")
    }
}

/// One life to its end in order; otherwise what it said.
pub(crate) fn live(
    exe: &Path,
    dir: &Path,
    arguments: &[String],
    environment: &[(&str, String)],
) -> Result<Life, String> {
    let mut life = Life::begin(exe, dir, arguments, environment);
    life.wait_for(|told| matches!(told, Told::Ended(_)))?;
    life.wait()
}

impl Drop for Life {
    fn drop(&mut self) {
        self.end();
    }
}

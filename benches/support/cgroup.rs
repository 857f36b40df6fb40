//! A memory cgroup of our own (Linux), version 1 or 2: what a child may take, and what it took.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A cgroup with a limit on memory; removed when it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryCgroup {
    directory: PathBuf,
    peak_file: &'static str,
}

impl MemoryCgroup {
    /// Makes a cgroup in which processes take at most `limit` bytes together, page cache included: the kernel gives that back
    /// first, then it kills.
    ///
    /// # Errors
    /// One line that says why there is none: no memory controller, or not root.
    pub(crate) fn new(name: &str, limit: u64) -> Result<Self, String> {
        let name = format!("millstream-{name}-{}", std::process::id());
        let (directory, limit_file, peak_file) = match (version_1(), version_2()) {
            (Some(parent), _) => (parent.join(name), "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
            (None, Some(parent)) => (parent.join(name), "memory.max", "memory.peak"),
            (None, None) => return Err("there is no memory controller below /sys/fs/cgroup".to_owned()),
        };
        let refused = |error: io::Error| format!("cannot make the cgroup {}: {error}", directory.display());
        std::fs::create_dir(&directory).map_err(refused)?;
        let cgroup = Self { directory, peak_file };
        std::fs::write(cgroup.directory.join(limit_file), limit.to_string())
            .map_err(|error| format!("cannot limit the cgroup {}: {error}", cgroup.directory.display()))?;
        Ok(cgroup)
    }

    /// A command that runs `program` in the cgroup from its first instruction on, under its own process id.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.directory.join("cgroup.procs")).arg(program);
        command
    }

    /// The most that it took at any time, page cache included; nothing where the kernel does not tell.
    pub(crate) fn peak(&self) -> Option<u64> {
        std::fs::read_to_string(self.directory.join(self.peak_file)).ok()?.trim().parse().ok()
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // The processes are gone; what is charged to it goes to its parent.
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// The group that this process is in, below the controller's own mount.
fn version_1() -> Option<PathBuf> {
    let root = Path::new("/sys/fs/cgroup/memory");
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.split_once(":memory:"))?.1;
    let own = root.join(own.trim_start_matches('/'));
    // Inside a container the path is that of the host.
    [own, root.to_owned()].into_iter().find(|directory| directory.join("memory.limit_in_bytes").exists())
}

/// The root: below a group that has processes there may be none with controllers.
fn version_2() -> Option<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let controllers = std::fs::read_to_string(root.join("cgroup.subtree_control")).ok()?;
    controllers.split_whitespace().any(|name| name == "memory").then(|| root.to_owned())
}

/// What a process takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resident {
    /// Memory that is nobody's file: heap, stacks. Bytes.
    pub(crate) anonymous: u64,
    /// The most that was resident at any time, mapped files included. Bytes.
    pub(crate) peak: u64,
}

impl Resident {
    /// Reads what a process takes now; nothing once it is gone.
    pub(crate) fn of(process: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
        };
        Some(Self { anonymous: field("RssAnon:")?, peak: field("VmHWM:")? })
    }
}

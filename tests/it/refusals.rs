//! One directory per refusal: a start that must not succeed says what is wrong, where, and what to do, and changes nothing.
//!
//! What needs root (another owner, a file system that is full or read-only) is skipped without it, with a line that says so.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::checkpoint::{Closing, OperatorDecl, OperatorKind, StateDecl};
use millstream::runtime::runtime::RuntimeBuilder;
use millstream::runtime::state::log::StartFrom;
use millstream::runtime::state::store::{Durability, Space, StateBackend, WriteBatch};

use crate::kill9::life::{self, Life, Told};
use crate::stored::{self, PIPELINE, SHARD, chain, directory};

/// Starts a pipeline and returns what it says against it.
fn refusal(builder: RuntimeBuilder, pipeline: Pipeline) -> String {
    let runtime = builder.build().unwrap();
    match runtime.start(pipeline) {
        Err(error) => chain(&error),
        Ok(job) => chain(&job.join().expect_err("it ran")),
    }
}

fn at(root: &Path) -> RuntimeBuilder {
    Runtime::builder().workers(1).state_backend(RocksDb::at(root))
}

/// Reads ten numbers and counts them, by the names that the table asks for.
fn pipeline(lines: &str, counts: &str, out: &str) -> Pipeline {
    let pipeline = Pipeline::new(PIPELINE);
    let (sink, _) = Collect::new();
    pipeline.source(lines, Generator::new(Some(10), |n| n)).key_by(|n| n % 3).count(counts).sink(out, sink);
    pipeline
}

fn usual() -> Pipeline {
    pipeline("lines", "counts", "out")
}

fn run_to_its_end(root: &Path) {
    at(root).build().unwrap().start(usual()).unwrap().join().unwrap();
}

#[track_caller]
fn assert_says(name: &str, text: &str, root: &Path, parts: &[&str]) {
    println!("  {name}: {}", text.replace(root.to_str().unwrap(), "ROOT"));
    let place = directory(root);
    for part in parts.iter().copied().chain([place.to_str().unwrap()]) {
        assert!(text.contains(part), "{name} lacks {part:?}: {text}");
    }
    assert!(!text.ends_with('.'), "{name}: {text}");
}

/// CRC-32 as in IEEE 802.3, a bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// Changes what stands in the database behind the runtime's back.
fn meddle(root: &Path, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
    let mut store = RocksDb::at(root).open(PIPELINE, SHARD, false).unwrap();
    let manifest = store.multi_get(Space::Meta, &[b"m".to_vec()]).unwrap().pop().flatten().unwrap();
    let mut batch = WriteBatch::default();
    match change(manifest) {
        Some(manifest) => batch.put(Space::Meta, *b"m", manifest),
        None => batch.delete(Space::Meta, *b"m"),
    }
    store.write(batch, Durability::Synced).unwrap();
}

#[test]
fn another_topology_is_refused_with_both_sides_named() {
    let root = tempfile::tempdir().unwrap();
    run_to_its_end(root.path());
    let before = stored_files(root.path());
    let table = [
        (
            "removed",
            pipeline("lines", "words", "out"),
            vec!["lacks: counts", "the pipeline has: lines, words, out", "their names back"],
        ),
        (
            "renamed source",
            pipeline("rows", "counts", "out"),
            vec!["lacks: lines", "give them their names back, or start with an empty store"],
        ),
        (
            "kind changed",
            pipeline("lines", "out", "counts"),
            vec!["operator counts was a stateful operator and is a sink now", "a name of its own"],
        ),
    ];
    for (name, pipeline, parts) in table {
        assert_says(name, &refusal(at(root.path()), pipeline), root.path(), &parts);
    }
    assert_eq!(stored_files(root.path()), before, "a refused start changed the store");
}

/// What a store holds, to see whether a refused start changed it. The attempt number may rise.
fn stored_files(root: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let store = RocksDb::at(root).open(PIPELINE, SHARD, false).unwrap();
    let mut all = Vec::new();
    for space in Space::ALL {
        store
            .scan(space, &[], None, &mut |key, value| {
                if space != Space::Meta || key != b"a" {
                    all.push((key.to_vec(), value.to_vec()));
                }
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
    }
    all
}

#[test]
fn another_version_of_a_state_is_refused() {
    let root = tempfile::tempdir().unwrap();
    stored::live(root.path(), 1, 2, false, None);
    let with = |states: &[(&str, u32)]| -> Vec<OperatorDecl> {
        let states = states.iter().map(|(name, version)| StateDecl::value(*name, *version)).collect();
        let mut declared = stored::declared();
        declared[1] = OperatorDecl { name: "counts".to_owned(), kind: OperatorKind::Stateful, states };
        declared
    };
    let table: [(&str, Vec<OperatorDecl>, &[&str]); 2] = [
        (
            "version",
            with(&[("value", 2), ("last", 1)]),
            &["state value of operator counts was written by version 1", "go back to version 1"],
        ),
        (
            "state removed",
            with(&[("value", 1)]),
            &["operator counts had a state last that it lacks now", "declare it again"],
        ),
    ];
    for (name, declared, parts) in table {
        let (mut log, _) = stored::open(root.path(), StartFrom::Resume).unwrap();
        let error = log.register(&declared).unwrap_err();
        assert_says(name, &chain(&error), root.path(), parts);
    }
}

#[test]
fn a_store_of_a_newer_build_or_without_its_genesis_is_refused() {
    let root = tempfile::tempdir().unwrap();
    run_to_its_end(root.path());
    meddle(root.path(), |mut manifest| {
        manifest[4..6].copy_from_slice(&7u16.to_be_bytes());
        let crc = crc32(&[&manifest[..6], &manifest[10..]].concat());
        manifest[6..10].copy_from_slice(&crc.to_be_bytes());
        Some(manifest)
    });
    let parts = ["was written by format 7, this build reads up to 1", "use the build that wrote it or a newer one"];
    assert_says("newer", &refusal(at(root.path()), usual()), root.path(), &parts);

    meddle(root.path(), |_| None);
    let parts = ["is damaged; restore its directory from a copy", "it has data and no manifest"];
    assert_says("no genesis", &refusal(at(root.path()), usual()), root.path(), &parts);

    let place = directory(root.path());
    for entry in fs::read_dir(&place).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_file() && !name.ends_with(".millstream") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let parts = ["held committed epochs and its file CURRENT is gone", "restore the directory from a copy"];
    assert_says("emptied", &refusal(at(root.path()), usual()), root.path(), &parts);
    // Whoever wants to begin anew says so by taking the directory away.
    fs::remove_dir_all(&place).unwrap();
    run_to_its_end(root.path());
}

/// Flips a bit in the middle of the last file whose name is like that.
fn flip(place: &Path, like: impl Fn(&str) -> bool) -> PathBuf {
    let names = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let name = names.filter(|name| like(name)).max().unwrap();
    let path = place.join(name);
    let mut bytes = fs::read(&path).unwrap();
    if bytes.len() == 1024 {
        // Both slots of the mark.
        bytes[512 + 20] ^= 4;
        bytes[20] ^= 4;
    } else if !bytes.is_empty() {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
    }
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_damaged_file_of_each_kind_is_refused_or_was_not_needed() {
    type Like = fn(&str) -> bool;
    let table: [(&str, Like, &[&str]); 9] = [
        ("CURRENT", |name| name == "CURRENT", &["CURRENT", "restore the directory from a copy"]),
        ("MANIFEST", |name| name.starts_with("MANIFEST-"), &["MANIFEST-", "restore the directory from a copy"]),
        ("WAL", |name| name.ends_with(".log"), &["Corruption", "restore the directory from a copy"]),
        ("sst", |name| name.ends_with(".sst"), &[".sst", "restore the directory from a copy"]),
        (
            "mark",
            |name| name == "EPOCH.millstream",
            &["EPOCH.millstream cannot be read", "or, if the rest of it is known to be good, remove that file"],
        ),
        // Nobody reads them: the database writes them anew, and locks do not care for content.
        ("OPTIONS", |name| name.starts_with("OPTIONS-"), &[]),
        ("LOCK", |name| name == "LOCK", &[]),
        ("our LOCK", |name| name == "LOCK.millstream", &[]),
        ("WRITTEN", |name| name == "WRITTEN.millstream", &[]),
    ];
    let image = tempfile::tempdir().unwrap();
    stored::make(image.path(), 3);
    // Reading changes a directory, so each reads a copy of its own.
    let copy = || {
        let root = tempfile::tempdir().unwrap();
        stored::copy(image.path(), root.path());
        root
    };
    let original = stored::read(copy().path()).unwrap();
    for (name, like, parts) in table {
        let root = copy();
        flip(&directory(root.path()), like);
        match (stored::read(root.path()), parts) {
            (Ok(found), []) => assert!(found == original, "{name}: silent"),
            (Ok(_), _) => panic!("{name}: not noticed"),
            (Err(error), []) => panic!("{name}: {}", chain(&error)),
            (Err(error), parts) => assert_says(name, &chain(&error), root.path(), parts),
        }
    }
    // The last record of the WAL, cut: a torn tail to the database, which opens and lacks an epoch that was synced.
    let root = copy();
    let place = directory(root.path());
    let names = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let wal = place.join(names.filter(|name| name.ends_with(".log")).max().unwrap());
    let bytes = fs::read(&wal).unwrap();
    fs::write(&wal, &bytes[..bytes.len() - 1]).unwrap();
    let text = chain(&stored::read(root.path()).unwrap_err());
    let parts =
        ["is at epoch 15 in attempt 4, and has been at epoch 16", "synced last is lost", "restore its directory"];
    assert_says("end of the WAL", &text, root.path(), &parts);
}

#[test]
fn start_from_says_what_it_found_instead() {
    let root = tempfile::tempdir().unwrap();
    let from = |from| at(root.path()).start_from(from);
    let parts = ["there is none", "use StartFrom::ResumeOrCreate to begin a new one"];
    assert_says("resume", &refusal(from(StartFrom::Resume), usual()), root.path(), &parts);
    assert!(!directory(root.path()).exists(), "a refused start made something");
    run_to_its_end(root.path());
    let parts = ["is there already, at epoch ", "use StartFrom::ResumeOrCreate to go on, or another name or directory"];
    assert_says("create", &refusal(from(StartFrom::Create), usual()), root.path(), &parts);
}

#[test]
fn a_pipeline_that_ended_is_not_begun_again_unasked() {
    let root = tempfile::tempdir().unwrap();
    run_to_its_end(root.path());
    let parts = ["finished at epoch ", "start it on another store", "restart_finished(true)"];
    assert_says("finished", &refusal(at(root.path()), usual()), root.path(), &parts);

    let root = tempfile::tempdir().unwrap();
    stored::live(root.path(), 1, 4, false, Some(Closing::Drained));
    assert_eq!(stored::open(root.path(), StartFrom::Resume).unwrap().0.closing(), Some(Closing::Drained));
}

#[test]
fn a_store_in_use_names_its_holder() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = stored::open(root.path(), StartFrom::Create).unwrap();
    let pid = std::process::id();
    let ours = format!("in use by pid {pid} since ");
    let parts = [ours.as_str(), "which is this process", "stop it first, or choose another pipeline name or directory"];
    assert_says("locked by us", &refusal(at(root.path()), usual()), root.path(), &parts);
    drop(log);
    run_to_its_end(root.path());
}

#[test]
fn of_two_processes_the_second_is_refused_until_the_first_is_killed() {
    let exe = life::executable();
    let dir = tempfile::tempdir().unwrap();
    let arguments = |more: &str| vec!["--records=2000".to_owned(), more.to_owned()];
    let mut first = Life::begin(&exe, dir.path(), &arguments("--budget=100"), &[]);
    first.wait_for(|told| matches!(told, Told::Committed(_))).unwrap();
    let mut second = Life::begin(&exe, dir.path(), &arguments("--seed=1"), &[]);
    let text = second.wait_for(|told| matches!(told, Told::Restored(_))).unwrap_err();
    let holder = format!("in use by pid {} since ", first.pid());
    for part in [holder.as_str(), "stop it first", dir.path().join("state/ledger/0").to_str().unwrap()] {
        assert!(text.contains(part), "{part}: {text}");
    }
    drop(second);
    let first = first.kill();
    let mut third = Life::begin(&exe, dir.path(), &arguments("--seed=1"), &[]);
    third.wait_for(|told| matches!(told, Told::Ended(_))).unwrap();
    assert!(third.restored >= Some(first.committed));
}

#[test]
fn an_open_that_never_ends_is_given_up_and_says_who_holds_the_lock() {
    let root = tempfile::tempdir().unwrap();
    run_to_its_end(root.path());
    let place = directory(root.path());
    // To read a pipe waits for somebody who writes: so the database hangs, as it does in some damaged MANIFESTs.
    let current = place.join("CURRENT");
    let content = fs::read(&current).unwrap();
    fs::remove_file(&current).unwrap();
    assert!(Command::new("mkfifo").arg(&current).status().unwrap().success());
    let text = refusal(at(root.path()).open_timeout(Duration::from_millis(300)), usual());
    let parts = [
        "did not open within 300ms",
        "holds the store's lock as long as this process lives",
        "end the process",
        "open_timeout(..)",
    ];
    assert_says("stuck", &text, root.path(), &parts);
    let parts = ["in use by pid", "which is this process"];
    assert_says("stuck, again", &refusal(at(root.path()), usual()), root.path(), &parts);

    // Now it is let go on and opens after all. Nobody waits for it any more, so it is closed again and the lock is free.
    let pipe = root.path().join("pipe");
    fs::rename(&current, &pipe).unwrap();
    fs::write(&current, &content).unwrap();
    // Whether it still reads what is written depends on who is faster; it is let go on either way.
    match fs::write(&pipe, &content) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.unwrap(),
    }
    fs::File::open(place.join("LOCK.millstream")).unwrap().lock().unwrap();
    let text = refusal(at(root.path()), usual());
    assert_says("finished", &text, root.path(), &["finished at epoch "]);
}

#[test]
fn a_file_in_place_of_the_directory_is_named() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join(PIPELINE)).unwrap();
    fs::write(directory(root.path()), b"").unwrap();
    let parts = ["cannot use the store's directory", "is not a directory; move it away, or choose another directory"];
    assert_says("a file", &refusal(at(root.path()), usual()), root.path(), &parts);
}

/// Says whether this process may do everything, by the owner of its entry in `/proc`; tells what is skipped if not.
pub(crate) fn is_root(what: &str) -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|ours| ours.uid() == 0);
    if !root {
        println!("skipped, it needs root: {what}");
    }
    root
}

/// A file system in memory, taken away when it is dropped.
pub(crate) struct Tmpfs {
    pub(crate) root: tempfile::TempDir,
}

impl Tmpfs {
    /// Mounts one of this size; nothing where that is not allowed, as in some containers.
    pub(crate) fn mount(size: &str, what: &str) -> Option<Self> {
        if !is_root(what) {
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(root.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { root }),
            Ok(output) => {
                println!(
                    "skipped, a tmpfs cannot be mounted ({}): {what}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                None
            }
            Err(error) => {
                println!("skipped, there is no mount ({error}): {what}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        assert!(Command::new("mount").args(["-o", &options]).arg(self.path()).status().unwrap().success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: whatever still has a file open there does not keep the test's directory.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Writes a file until there is no room.
pub(crate) fn fill(path: &Path) {
    let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
    let mut size = 1 << 20;
    while size > 0 {
        if std::io::copy(&mut std::io::repeat(7).take(size), &mut file).is_err() {
            size /= 2;
        }
    }
}

#[test]
fn a_read_only_file_system_is_named() {
    let Some(disk) = Tmpfs::mount("24m", "a start on a read-only file system") else { return };
    run_to_its_end(disk.path());
    disk.remount("ro");
    let text = refusal(at(disk.path()), usual());
    let parts = [
        "cannot use the store's directory",
        "Read-only file system",
        "mount the file system for writing, or choose another",
    ];
    assert_says("read-only", &text, disk.path(), &parts);
    disk.remount("rw");
    assert_says("finished", &refusal(at(disk.path()), usual()), disk.path(), &["finished at epoch "]);
}

#[test]
fn a_start_without_room_is_named_and_works_when_there_is_some() {
    let Some(disk) = Tmpfs::mount("24m", "a start on a full file system") else { return };
    stored::live(disk.path(), 1, 2, false, None);
    let ballast = disk.path().join("ballast");
    fill(&ballast);
    let text = refusal(at(disk.path()), usual());
    let parts =
        ["cannot use the store's directory", "No space left on device", "free some space there and start again"];
    assert_says("full", &text, disk.path(), &parts);
    fs::remove_file(ballast).unwrap();
    assert_eq!(stored::read(disk.path()).unwrap().epoch.number(), 2);
}

#[test]
fn a_directory_of_another_owner_is_named() {
    if !is_root("a start in a directory of another owner") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The build's directory may be closed to other users.
    let exe = dir.path().join("ledger");
    fs::copy(life::executable(), &exe).unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    let mut command = Command::new(&exe);
    command.arg("--dir").arg(dir.path()).current_dir("/").uid(65_534).gid(65_534);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // Held open: the child ends when this end is gone.
    let stdin = child.stdin.take();
    let (tell, told) = sync_channel(1);
    let mut stderr = child.stderr.take().unwrap();
    std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        tell.send(text)
    });
    let text = told.recv_timeout(Duration::from_secs(60));
    let _ = child.kill();
    assert!(!child.wait().unwrap().success());
    drop(stdin);
    let text = text.unwrap();
    println!("  another owner: {}", text.replace(dir.path().to_str().unwrap(), "ROOT"));
    let whose = format!("{} belongs to user 0 with mode 755, this process runs as user 65534", state.display());
    for part in ["cannot use the store's directory", "Permission denied", &whose, "change the owner with `chown -R`"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

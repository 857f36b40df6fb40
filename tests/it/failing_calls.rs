//! Every write, sync, rename and truncation of a short run fails once, one run per call: with EIO, with ENOSPC, or done by half.
//!
//! The victim is the example `ledger`, with a library from `tests/support/failing_calls.c` preloaded. Whatever fails, it goes
//! on rightly or ends with an error that says what, where and what to do; then a run without faults finishes its work and
//! the kill harness's oracle judges the output: nothing lost, nothing doubled. `make iofault` lets every call fail; a plain
//! test run takes `MILLSTREAM_FAILING_CALLS` of them by a draw.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::kill9::life::{self, live};
use crate::kill9::oracle::Oracle;
use crate::stored;

/// Cases of a plain test run.
const SOME: usize = 18;
const RECORDS: u64 = 1_200;
const SEED: u64 = 5;
const WORKERS: usize = 2;

/// How a call fails.
const HOW: [&str; 3] = ["EIO", "ENOSPC", "SHORT"];

/// What a faulty life came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It did what it was to do.
    WentOn,
    /// It said what is wrong and ended.
    Ended,
    /// It was over before that call.
    NotReached,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    /// On a store that is there already, so that the run begins with a recovery.
    resumed: bool,
    nth: usize,
    how: &'static str,
}

fn arguments() -> Vec<String> {
    vec![format!("--seed={SEED}"), format!("--records={RECORDS}"), "--fold-epochs=2".to_owned()]
}

/// Three epochs, a fold among them.
fn short() -> Vec<String> {
    [arguments(), vec!["--budget=300".to_owned(), "--stop-after=3".to_owned()]].concat()
}

/// Compiles the library that makes calls fail.
fn library(into: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/failing_calls.c");
    let library = into.join("failing_calls.so");
    let compiled = Command::new("cc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl")
        .output()
        .unwrap_or_else(|error| panic!("cannot run cc, which RocksDB's build needs too: {error}"));
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    library
}

struct Bench {
    exe: PathBuf,
    library: PathBuf,
    /// A store with three epochs.
    begun: tempfile::TempDir,
}

impl Bench {
    fn directory(&self, resumed: bool) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        if resumed {
            stored::copy(self.begun.path(), dir.path());
        }
        dir
    }

    fn environment(&self, dir: &Path, nth: usize, how: &str) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        vec![
            ("LD_PRELOAD", text(&self.library)),
            ("MILLSTREAM_FAIL_BELOW", text(&dir.join("state"))),
            ("MILLSTREAM_FAIL_NTH", nth.to_string()),
            ("MILLSTREAM_FAIL_HOW", how.to_owned()),
            ("MILLSTREAM_FAIL_REPORT", text(&dir.join("calls.log"))),
        ]
    }

    /// How many calls a run without faults makes.
    fn calls(&self, resumed: bool) -> usize {
        let dir = self.directory(resumed);
        live(&self.exe, dir.path(), &short(), &self.environment(dir.path(), 0, "EIO")).unwrap();
        let report = fs::read_to_string(dir.path().join("calls.log")).unwrap();
        report.lines().find_map(|line| line.strip_prefix("calls ")).unwrap().parse().unwrap()
    }

    /// A life with a fault, one without, and the judgement.
    fn run(&self, case: Case) -> Result<(Outcome, String), String> {
        let dir = self.directory(case.resumed);
        let path = dir.path();
        let faulty = live(&self.exe, path, &short(), &self.environment(path, case.nth, case.how));
        let report = fs::read_to_string(path.join("calls.log")).unwrap_or_default();
        let failed = report.lines().find_map(|line| line.strip_prefix("failed ")).unwrap_or_default().to_owned();
        let outcome = match &faulty {
            Ok(_) if failed.is_empty() => Outcome::NotReached,
            Ok(_) => Outcome::WentOn,
            Err(text) => {
                let said = text.rsplit("Error: ").next().filter(|said| said.len() < text.len()).unwrap_or_default();
                let clear = said.contains("cannot ") && said.contains(path.join("state").to_str().unwrap());
                if failed.is_empty() || !clear || text.contains("panicked") {
                    return Err(format!("after `{failed}`: {text}"));
                }
                Outcome::Ended
            }
        };
        let after = || -> Result<(), String> {
            let clean = live(&self.exe, path, &arguments(), &[])?;
            let committed = faulty.as_ref().map_or(0, |life| life.committed);
            let restored = clean.restored.unwrap_or_default();
            if restored < committed {
                return Err(format!("lost: epoch {committed} was committed, the next life went on from {restored}"));
            }
            Oracle::ledger(SEED, RECORDS).judge(&path.join("out"))
        };
        after().map_err(|text| format!("after `{failed}` and {outcome:?}: {text}"))?;
        Ok((outcome, failed))
    }
}

fn cases(bench: &Bench) -> Vec<Case> {
    let mut cases = Vec::new();
    for resumed in [false, true] {
        // The number of calls differs from run to run by a few.
        let calls = bench.calls(resumed);
        println!("failing calls: {calls} calls on a {} store", if resumed { "known" } else { "new" });
        assert!(calls > 30, "the library counts only {calls} calls: it is blind");
        cases.extend(HOW.iter().flat_map(|how| (1..=calls + 5).map(move |nth| Case { resumed, nth, how })));
    }
    let wanted = std::env::var("MILLSTREAM_FAILING_CALLS").ok();
    let wanted = wanted.map_or(SOME, |wanted| wanted.parse().unwrap_or(usize::MAX));
    if wanted < cases.len() {
        let seed = std::env::var("MILLSTREAM_FAILING_CALLS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(3);
        cases.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        cases.truncate(wanted);
    }
    cases
}

#[test]
fn one_failing_call_loses_and_doubles_nothing() {
    let tools = tempfile::tempdir().unwrap();
    let begun = tempfile::tempdir().unwrap();
    let bench = Bench { exe: life::executable(), library: library(tools.path()), begun };
    live(&bench.exe, bench.begun.path(), &short(), &[]).unwrap();
    let cases = cases(&bench);

    let next = AtomicUsize::new(0);
    let outcomes: Mutex<BTreeMap<(&str, Outcome), usize>> = Mutex::default();
    let bad: Mutex<Vec<String>> = Mutex::default();
    let calls: Mutex<BTreeMap<String, usize>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match bench.run(*case) {
                        Ok((outcome, failed)) => {
                            *outcomes.lock().unwrap().entry((case.how, outcome)).or_default() += 1;
                            let call = failed.split(' ').nth(1).unwrap_or("none").to_owned();
                            *calls.lock().unwrap().entry(call).or_default() += 1;
                        }
                        Err(text) => bad.lock().unwrap().push(format!("{case:?}: {text}")),
                    }
                }
            });
        }
    });
    let (outcomes, bad, calls) =
        (outcomes.into_inner().unwrap(), bad.into_inner().unwrap(), calls.into_inner().unwrap());
    println!("failing calls: {} cases, {outcomes:?}, by call {calls:?}", cases.len());
    assert!(bad.is_empty(), "{} of {} cases:\n{}", bad.len(), cases.len(), bad.join("\n"));
    let reached: usize =
        outcomes.iter().filter(|((_, outcome), _)| *outcome != Outcome::NotReached).map(|(_, n)| n).sum();
    assert!(reached * 2 > cases.len(), "only {reached} of {} calls failed", cases.len());
}

//! What `docs/embedding.md` says a daemon takes on: threads by name, and crates by feature.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use millstream::prelude::*;

use crate::generated::path;

/// Bytes of a thread's name that Linux keeps.
const KEPT: usize = 15;

fn page() -> String {
    fs::read_to_string(path("docs/embedding.md")).unwrap()
}

/// The fixed beginnings of the names in the page's table, as far as the kernel keeps them.
fn documented() -> BTreeSet<String> {
    let page = page();
    let table = page.split_once("<!-- begin threads -->").unwrap().1.split_once("<!-- end threads -->").unwrap().0;
    let names = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let fixed = names.map(|name| name.trim_end_matches(|letter: char| letter == '-' || letter.is_uppercase()));
    fixed.map(|name| name.chars().take(KEPT).collect()).collect()
}

/// Our threads that run at this moment.
fn running() -> BTreeSet<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // One that ends meanwhile has no name any more.
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("millstream-")).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn every_thread_of_a_job_is_in_the_table_and_every_row_of_it_is_there() {
    let documented = documented();
    assert_eq!(documented.len(), 11, "{documented:?}");
    let (feed, source) = feed::<String>(8);
    let (collect, collected) = Collect::new();
    let pipeline = Pipeline::new("p").parallelism(2).epoch_interval(Duration::from_millis(10));
    pipeline.source("feed", source).key_by(|word: &String| word.clone()).count("count").sink("out", collect);
    let builder = Runtime::builder().workers(2).state_backend(Memory::new());
    #[cfg(feature = "http")]
    let builder = builder.http("127.0.0.1:0");
    let runtime = builder.build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    feed.send("word".to_owned()).unwrap();
    collected.wait_for(1).unwrap();

    let is_row = |name: &String, row: &String| name.starts_with(row.as_str());
    let seen = running();
    let strangers: Vec<_> = seen.iter().filter(|name| !documented.iter().any(|row| is_row(name, row))).collect();
    assert!(strangers.is_empty(), "threads that docs/embedding.md does not tell of: {strangers:?}");
    let absent: Vec<_> = documented.iter().filter(|row| !seen.iter().any(|name| is_row(name, row))).collect();
    // That one is gone once the store is open; the server's is there where it is compiled in.
    let expected: &[&str] =
        if cfg!(feature = "http") { &["millstream-open"] } else { &["millstream-http", "millstream-open"] };
    assert_eq!(absent, expected, "rows of docs/embedding.md that no thread goes by; running: {seen:?}");
    job.stop_blocking(Duration::from_secs(20)).unwrap();
}

#[test]
fn crates_by_feature_are_as_many_as_the_page_says() {
    let page = page();
    let table = page.split_once("## Features, and what they cost").unwrap().1.split_once("## Where").unwrap().0;
    let said: Vec<usize> =
        table.lines().filter_map(|line| line.trim_end_matches(" |").rsplit(' ').next()?.parse().ok()).collect();
    let features: [&[&str]; 4] =
        [&["--no-default-features"], &[], &["--features", "rocksdb,http"], &["--features", "rocksdb,test-util"]];
    assert_eq!(said.len(), features.len());
    for (said, features) in said.into_iter().zip(features) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["tree", "--package", "millstream", "-e", "normal", "--prefix", "none", "--locked", "--offline"]);
        let output = cargo.args(features).current_dir(path("")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let crates: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        // Without our own four.
        let found = crates.iter().filter(|name| !name.starts_with("millstream")).count();
        assert!(found.abs_diff(said) <= 3, "{features:?}: {found} crates, docs/embedding.md says {said}");
    }
}

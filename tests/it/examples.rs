//! Every example runs to its end, and what it says about its own results holds.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;

use crate::kill9::life;

/// The child of other tests, and what `make demo` runs and judges.
const ELSEWHERE: [&str; 2] = ["ledger", "demo"];

#[test]
fn every_example_runs_to_its_end() {
    let sources = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")).unwrap();
    let paths = sources.map(|entry| entry.unwrap().path());
    let names = paths.filter(|path| path.is_file()).map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    let mut names: Vec<String> = names.filter(|name| !ELSEWHERE.contains(&name.as_str())).collect();
    names.sort_unstable();
    assert!(names.iter().any(|name| name == "embed"), "{names:?}");
    names.iter().for_each(|name| run(name));
}

/// Runs one, which has to be content with its own results, and shows what it says.
fn run(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (mut output, input) = std::io::pipe().unwrap();
    let mut command = Command::new(life::example(name));
    command.current_dir(dir.path()).stdin(Stdio::null()).stdout(input.try_clone().unwrap()).stderr(input);
    let mut child = command.spawn().unwrap();
    // With it our copies of the pipe's end, so that it is closed when the child is gone.
    drop(command);
    let (tell, told) = sync_channel(1);
    std::thread::spawn(move || {
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        tell.send(said)
    });
    let Ok(said) = told.recv_timeout(life::PATIENCE) else {
        child.kill().unwrap();
        panic!("example {name} does not come to its end: {}", child.wait().unwrap());
    };
    let status = child.wait().unwrap();
    println!("  example {name}: {status}\n{said}");
    assert!(status.success(), "example {name}: {status}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "example {name} leaves behind {left:?}");
}

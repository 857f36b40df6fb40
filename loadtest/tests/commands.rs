//! Runs the binary: exit codes, and what goes to which stream. Results are checked, never times.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests are tests, too")]

use std::process::{Command, Output};

use serde_json::Value;

fn loadtest(arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millstream-loadtest")).args(arguments.split_whitespace()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// As short as a run can be.
const SHORT: &str = "--backend memory --baseline 10ms --warmup-min 0s --warmup-max 10ms";

fn short_run(arguments: &str) -> Value {
    let epochs = if arguments.contains("--epoch-interval") { "" } else { "--epoch-interval 20ms" };
    let output = loadtest(&format!("run {arguments} {SHORT} {epochs} --json - --quiet"));
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    // So short a run may be invalid on a busy machine. It may never be wrong.
    assert!(matches!(output.status.code(), Some(0 | 4)), "{:?}\n{stdout}\n{stderr}", output.status);
    let result: Value = serde_json::from_str(&stdout).unwrap();
    let invalid = result["verdict"]["validity"] != "valid";
    assert_eq!(output.status.code(), Some(if invalid { 4 } else { 0 }));
    assert_eq!(result["verdict"]["passed"], Value::Bool(!invalid));
    assert_fits("result", &result);
    result
}

#[test]
fn every_workload_puts_out_what_went_in() {
    for (workload, outputs) in [("passthrough", 1), ("keyed-count", 1), ("word-count", 8)] {
        let result =
            short_run(&format!("{workload} --rate 2k/s --duration 300ms --keys 50 --parallelism 2 --senders 2"));
        assert_eq!(result["schema"], "loadtest-result/1");
        let counts = &result["counts"];
        let number = |name: &str| counts[name].as_u64().unwrap();
        assert!(number("scheduled") > 0, "{result}");
        assert_eq!(number("scheduled"), number("sent"), "{workload}");
        assert_eq!(number("completed"), number("sent") * outputs, "{workload}");
        for wrong in ["lost", "duplicated", "reordered", "wrong"] {
            assert_eq!((number(wrong), counts["visible"][wrong].as_u64()), (0, Some(0)), "{workload}: {wrong}");
        }
        for tag in ["processed", "visible", "service"] {
            assert_eq!(result["latency_ns"][tag]["n"], counts["completed"], "{workload}: {tag}");
        }
        assert_eq!(result["latency_ns"]["durable"]["n"], counts["sent"], "{workload}");
    }
}

#[test]
fn in_micro_batches_all_that_went_in_comes_out_too() {
    let result = short_run("keyed-count --rate 1k/s --duration 300ms --mode micro-batch --epoch-interval 20ms");
    assert_eq!(result["pipeline"]["mode"], "micro-batch");
    let counts = &result["counts"];
    assert_eq!((&counts["completed"], &counts["lost"]), (&counts["sent"], &Value::from(0)));
    assert_ne!((&counts["sent"], &result["epochs"]["committed"]), (&Value::from(0), &Value::from(0)));
}

#[test]
fn without_epochs_nothing_is_durable_or_visible() {
    let result = short_run("keyed-count --rate 1k/s --duration 200ms --epoch-interval off");
    let latency = &result["latency_ns"];
    assert_eq!((&latency["durable"], &latency["visible"]), (&Value::Null, &Value::Null));
    assert_eq!(result["epochs"]["committed"], 0);
}

#[test]
fn a_run_that_is_too_short_is_invalid_and_says_why() {
    let output = loadtest(&format!("run passthrough --rate 100/s --duration 50ms {SHORT}"));
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stdout).contains("too few records for a p99"), "{}", text(&output.stdout));
}

#[test]
fn refuses_what_it_cannot_do_and_says_what_to_do() {
    for (arguments, word) in [
        ("", "Usage"),
        ("run", "<WORKLOAD>"),
        ("run nexmark-q5", "keyed-count"),
        ("run keyed-count --mode micro-batch --epoch-interval off", "a micro-batch is an epoch"),
        ("run keyed-count --mode sometimes", "continuous, micro-batch"),
        ("run keyed-count --rate fast", "100k/s"),
        ("run keyed-count --schedule ramp:1k", "ramp:FROM..TO"),
        ("run keyed-count --epoch-interval 1us", "1ms or more"),
        ("run keyed-count --duration 0s", "must take some time"),
        ("max keyed-count --precision 90%", "0.5% to 50%"),
        ("run keyed-count --slo p98<1ms", "there is no `p98`"),
    ] {
        let output = loadtest(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(text(&output.stderr).contains(word), "{arguments}: {}", text(&output.stderr));
    }
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let output = loadtest("hiccup --duration 5ms --json /nowhere/result.json");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot write /nowhere/result.json"));
}

#[test]
fn an_objective_that_is_not_met_is_another_end_than_an_invalid_run() {
    let run = |slo: &str| {
        let arguments = format!("run passthrough --rate 1k/s --duration 300ms {SHORT} --epoch-interval 20ms --json -");
        let mut command = Command::new(env!("CARGO_BIN_EXE_millstream-loadtest"));
        let output = command.args(arguments.split_whitespace()).args(["--slo", slo]).output().unwrap();
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), result, text(&output.stderr))
    };
    let (code, result, table) = run("lost==0 and duplicated==0");
    assert_eq!((&result["slo"][0]["met"], &result["slo"][1]["met"]), (&Value::Bool(true), &Value::Bool(true)));
    assert!(matches!(code, Some(0 | 4)) && table.contains("✓ lost==0: 0"), "{table}");
    let (code, result, table) = run("processed.max<1ns");
    assert_eq!(&result["slo"][0]["met"], &Value::Bool(false));
    assert!(result["slo"][0]["observed"].as_f64().unwrap() > 1.0);
    // A machine that is too busy wins over the objective.
    let valid = result["verdict"]["validity"] == "valid";
    assert_eq!(code, Some(if valid { 3 } else { 4 }), "{table}");
    assert!(table.contains("✗ processed.max<1ns: ") && result["verdict"]["passed"] == false, "{table}");
}

/// The schema of results, as it is committed.
fn committed_schema(of: &str) -> &'static str {
    match of {
        "result" => include_str!("../schema/loadtest-result-1.json"),
        _ => include_str!("../schema/loadtest-suite-1.json"),
    }
}

#[test]
fn the_schemas_are_those_that_are_committed() {
    for of in ["result", "suite"] {
        let printed = text(&loadtest(&format!("schema {of}")).stdout);
        let place = format!("{}/schema/loadtest-{of}-1.json", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("MILLSTREAM_WRITE_DOCS").is_some() {
            std::fs::write(place, &printed).unwrap();
        } else {
            assert!(printed == committed_schema(of), "{place} is not what is written: `make pages` makes it anew");
        }
    }
}

/// Holds a result against its schema.
fn assert_fits(of: &str, value: &Value) {
    let schema = serde_json::from_str(committed_schema(of)).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{} at {}", error, error.instance_path())).collect();
    assert_eq!(errors, Vec::<String>::new());
    // The schema does refuse something.
    let mut other = value.clone();
    other["surprise"] = Value::Null;
    assert!(!validator.is_valid(&other));
}

#[test]
fn lists_the_workloads() {
    let output = loadtest("workloads");
    assert_eq!((output.status.code(), text(&output.stdout).lines().count()), (Some(0), 3));
}

#[test]
fn a_search_keeps_the_result_of_every_step() {
    // Steps this short cannot tell whether a backlog grows, so not even the first is sustained.
    let output = loadtest(&format!("max passthrough --start 500/s --step 100ms {SHORT} --json - --quiet"));
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let suite: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&suite["schema"], &suite["max"]), (&Value::from("loadtest-suite/1"), &Value::Null));
    assert_eq!(suite["steps"].as_array().unwrap().len(), 1);
    assert_eq!(suite["steps"][0]["result"]["schema"], "loadtest-result/1");
    assert_fits("suite", &suite);
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_run_early_and_keeps_its_result() {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::process::Stdio;

    // The progress line every ten seconds would be the other sign that it runs; a trace of its own is quicker.
    let mut child = Command::new(env!("CARGO_BIN_EXE_millstream-loadtest"))
        .args(format!("run passthrough --rate 1k/s --duration 1h {SHORT} --json -").split_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains("measuring")), "it never began to measure");
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{stdout}");
    let result: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&result["run"]["interrupted"], &result["counts"]["lost"]), (&Value::Bool(true), &Value::from(0)));
}

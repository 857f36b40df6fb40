//! What a user may get wrong at the ends of a pipeline: each mistake is an error that says what, where and what to do.

use std::net::TcpListener;
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::source::Source;

use crate::stored::chain;

fn numbers(pipeline: &Pipeline, name: &str) -> millstream::operators::Stream<u64> {
    pipeline.source(name, Generator::new(Some(10), |n| n))
}

/// Starts it, and returns what is said against it, at once or when it has ended.
fn refusal(pipeline: Pipeline) -> String {
    let runtime = Runtime::builder().workers(1).restart(RestartPolicy::never()).build().unwrap();
    match runtime.start(pipeline) {
        Err(error) => chain(&error),
        Ok(job) => chain(&job.join().expect_err("it ran")),
    }
}

#[track_caller]
fn assert_says(case: &str, text: &str, parts: &[&str]) {
    println!("  {case}: {text}");
    for part in parts {
        assert!(text.contains(part), "{case} lacks {part:?}: {text}");
    }
}

#[test]
fn a_description_with_a_mistake_is_refused_before_anything_runs() {
    type Describe = fn() -> Pipeline;
    let table: [(&str, Describe, &[&str]); 10] = [
        ("nothing", || Pipeline::new("p"), &["the pipeline has no source", "the pipeline has no sink"]),
        (
            "no sink",
            || {
                let pipeline = Pipeline::new("p");
                let _ = numbers(&pipeline, "in");
                pipeline
            },
            &[
                "nothing reads the result of \"in\" at ",
                "end it in a sink (Blackhole drops it) or remove it",
                "no sink",
            ],
        ),
        (
            "a branch without a sink",
            || {
                let pipeline = Pipeline::new("p");
                numbers(&pipeline, "in").sink("out", Blackhole::new());
                let _ = numbers(&pipeline, "forgotten").map(|n| n + 1).erase();
                pipeline
            },
            &["nothing reads the result of \"map-", "bad_input.rs:", "or remove it"],
        ),
        (
            "two sinks of one name",
            || {
                let pipeline = Pipeline::new("p");
                let stream = numbers(&pipeline, "in");
                stream.clone().sink("out", Blackhole::new());
                stream.sink("out", Blackhole::new());
                pipeline
            },
            &["the name \"out\" at ", "is taken by the one at ", "bad_input.rs:", "give one of them another"],
        ),
        (
            "a sink named as its source",
            || {
                let pipeline = Pipeline::new("p");
                numbers(&pipeline, "in").sink("in", Blackhole::new());
                pipeline
            },
            &["the name \"in\" at ", "is taken by the one at "],
        ),
        (
            "a quote in a name",
            || {
                let pipeline = Pipeline::new("p");
                numbers(&pipeline, "in").sink("say \"hi\"", Blackhole::new());
                pipeline
            },
            &["sink name \"say \\\"hi\\\"\" at ", "must be 1 to 64 characters of a-z A-Z 0-9 _ . : > -"],
        ),
        (
            "a line break in a name",
            || {
                let pipeline = Pipeline::new("p");
                numbers(&pipeline, "two\nlines").sink("out", Blackhole::new());
                pipeline
            },
            &["source name \"two\\nlines\" at ", "must be 1 to 64 characters"],
        ),
        (
            "no name",
            || {
                let pipeline = Pipeline::new("p");
                numbers(&pipeline, "in").sink("", Blackhole::new());
                pipeline
            },
            &["sink name \"\" at ", "must be 1 to 64 characters"],
        ),
        (
            "a pipeline's name that leaves its directory",
            || {
                let pipeline = Pipeline::new("../p");
                numbers(&pipeline, "in").sink("out", Blackhole::new());
                pipeline
            },
            &["pipeline name \"../p\" at ", "must be 1 to 64 characters"],
        ),
        (
            "no subtasks, no epochs",
            || {
                let pipeline = Pipeline::new("p").parallelism(0).epoch_interval(Duration::ZERO);
                numbers(&pipeline, "in").sink("out", Blackhole::new());
                pipeline
            },
            &["parallelism is 0; it must be 1 to 960", "the epoch interval is 0ns; it must be at least 1 ms"],
        ),
    ];
    for (case, describe, parts) in table {
        let text = refusal(describe());
        assert_says(case, &text, parts);
    }
}

#[test]
fn a_directory_that_a_sink_cannot_use_is_named_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "somebody's").unwrap();
    let below = file.join("out");
    let a_file = "there is a file where a directory has to be: move it away, or choose another directory";
    let unusual = FileSink::at(dir.path().join("out")).extension("a/b");
    let table = [
        ("a file", FileSink::at(&file), vec!["sink out cannot open", file.to_str().unwrap(), a_file]),
        ("below a file", FileSink::at(&below), vec!["sink out cannot open", below.to_str().unwrap(), a_file]),
        (
            "an extension with a slash",
            unusual,
            vec!["\"a/b\" is no file extension", "use letters, digits, _ and - only"],
        ),
        ("no directory", FileSink::at(""), vec!["sink out cannot open"]),
    ];
    for (case, sink, parts) in table {
        let pipeline = Pipeline::new("p").epoch_interval(Duration::from_millis(5));
        numbers(&pipeline, "in").sink("out", sink.roll_interval(Duration::ZERO));
        assert_says(case, &refusal(pipeline), &parts);
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"somebody's");
}

#[test]
fn a_source_that_cannot_be_read_is_named_with_the_remedy() {
    fn of<S: Source>(source: S) -> Pipeline {
        let pipeline = Pipeline::new("p");
        pipeline.source("in", source).sink("out", Blackhole::new());
        pipeline
    }
    let client = |address: &str| SocketLines::connect(address).give_up_after(Duration::ZERO);
    let listener = || SocketListener::at("127.0.0.1:0");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_at = taken.local_addr().unwrap().to_string();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let no_address = ["is no address: give host:port, such as localhost:9999"];
    let zero = ["so nothing could ever be read; give at least"];
    let dir = tempfile::tempdir().unwrap();
    let tail = |name: &str| TailLines::at(dir.path().join(name));
    std::fs::write(dir.path().join("bad"), b"good\nb\xffd\n").unwrap();
    // Sparse: a gibibyte of zeros.
    std::fs::File::create(dir.path().join("long")).unwrap().set_len(1 << 30).unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let watched = |name: &str| WatchedDirectory::at(dir.path().join(name), "files", Memory::new());
    let lines = || Lines::at(dir.path().join("file"));
    let made = || Generator::new(None, |n| n);
    let (feed, fed) = feed::<u64>(1);
    let splits = ["it must be 1 to 65536"];
    let table: [(&str, Pipeline, Vec<&str>); 42] = [
        (
            "no file",
            of(Lines::at(dir.path().join("none"))),
            vec!["cannot read ", "/none; create it, or correct the path"],
        ),
        (
            "no bytes of a file",
            of(lines().max_line_bytes(0)),
            vec!["no line fits into max_line_bytes(0)", "at least 1"],
        ),
        ("no pace", of(lines().pace(0.0)), vec!["0 is no rate: give records per second as a finite number above 0"]),
        ("a rate that is none", of(made().rate(f64::NAN)), vec!["NaN is no rate: give records per second"]),
        (
            "a rate without end",
            of(made().rate(f64::INFINITY)),
            vec!["inf is no rate", "leave the rate out for no limit"],
        ),
        ("no splits", of(made().splits(0)), [&["splits is 0"], &splits[..]].concat()),
        ("splits without end", of(made().splits(u32::MAX)), [&["splits is 4294967295"], &splits[..]].concat()),
        (
            "no bytes of a log",
            of(WalSource::new("log", fed, Memory::new()).max_bytes(0)),
            vec!["no record fits into max_bytes(0)", "at least 1 byte"],
        ),
        ("no directory", of(watched("none")), vec!["cannot watch ", "/none; create it, or correct the path"]),
        ("a file", of(watched("file")), vec!["cannot watch ", "/file; it is a file: name its directory"]),
        ("no pattern", of(watched("").files(["["])), vec!["\"[\" is no pattern for files: "]),
        ("no interval", of(watched("").interval(Duration::ZERO)), vec!["interval is 0; give at least 1 ms"]),
        ("no bytes of its files", of(watched("").max_line_bytes(0)), vec!["max_line_bytes is 0; give at least 1"]),
        (
            "an archive that would be read again",
            of(watched("").clean_source(CleanSource::Archive(dir.path().join("done")))),
            vec![
                "cannot archive to ",
                "/done: it lies in the watched directory ",
                "choose a directory outside, or one",
            ],
        ),
        ("silence of no time", of(client(&taken_at).idle_timeout(Duration::ZERO)), vec!["idle_timeout is 0"]),
        ("no rows per second", of(RateSource::per_second(0)), vec!["per_second is 0", "give at least 1"]),
        ("no splits of a rate", of(RateSource::per_second(1).splits(0)), [&["splits is 0"], &splits[..]].concat()),
        ("no rows per batch", of(RateMicroBatch::rows_per_batch(0)), vec!["rows_per_batch is 0", "give at least 1"]),
        ("no splits of a batch", of(RateMicroBatch::rows_per_batch(1).splits(0)), vec!["splits is 0", splits[0]]),
        ("no port", of(client("localhost")), no_address.to_vec()),
        ("no host", of(client(":9999")), no_address.to_vec()),
        ("port 0", of(client("localhost:0")), no_address.to_vec()),
        ("a port that is none", of(client("localhost:99999")), no_address.to_vec()),
        ("no address to listen at", of(SocketListener::at("9999")), no_address.to_vec()),
        (
            "a host that nobody knows",
            of(client("no-such-host.invalid:9999")),
            vec!["cannot connect to no-such-host.invalid:9999", "is the server there up?", "lookup"],
        ),
        (
            "nobody who listens",
            of(client(&free)),
            vec![free.as_str(), "cannot connect to ", "is the server there up?", "refused"],
        ),
        (
            "an address that is taken",
            of(SocketListener::at(&taken_at)),
            vec!["cannot listen at ", taken_at.as_str(), "listens there: end it, or choose another port"],
        ),
        (
            "an address of another machine",
            of(SocketListener::at("192.0.2.1:9999")),
            vec!["cannot listen at 192.0.2.1:9999", "this machine has no such address"],
        ),
        ("no connections", of(listener().max_connections(0)), [&["max_connections is 0"], &zero[..]].concat()),
        ("no bytes", of(listener().max_line_bytes(0)), [&["max_line_bytes is 0"], &zero[..]].concat()),
        ("no patience", of(listener().idle_timeout(Duration::ZERO)), [&["idle_timeout is 0"], &zero[..]].concat()),
        ("no time for a line", of(listener().line_timeout(Duration::ZERO)), vec!["line_timeout is 0", "Duration::MAX"]),
        ("no bytes of a client", of(client(&taken_at).max_line_bytes(0)), vec!["max_line_bytes is 0"]),
        (
            "a log in no directory",
            of(tail("none/app.log")),
            vec!["none/app.log: its directory does not exist; create it"],
        ),
        ("a log below a file", of(tail("bad/app.log")), vec!["its directory is a file; correct the path"]),
        ("a directory to follow", of(tail("")), vec!["cannot follow", "it is a directory: name a file in it"]),
        ("a device to follow", of(TailLines::at("/dev/null")), vec!["/dev/null", "which cannot be read again"]),
        ("a log that must exist", of(tail("none.log").must_exist()), vec!["none.log: there is no such file"]),
        ("no bytes of a log", of(tail("bad").max_line_bytes(0)), vec!["max_line_bytes(0)", "give at least 1"]),
        (
            "a log looked at too rarely",
            of(tail("bad").poll_interval(Duration::from_secs(1))),
            vec!["a poll_interval of 1000 ms is too long: give at most 50 ms"],
        ),
        (
            "a log that is no text",
            of(tail("bad")),
            vec!["the line at byte 5 of", "bad is not UTF-8", "b\\xffd", "skip such lines"],
        ),
        ("a log without line ends", of(tail("long")), vec!["the line at byte 0 of", "is longer than 1048576 bytes"]),
    ];
    for (case, pipeline, parts) in table {
        assert_says(case, &refusal(pipeline), &parts);
    }
    drop(feed);
}

#[test]
fn the_smallest_options_of_sinks_work() {
    let dir = tempfile::tempdir().unwrap();
    // Missing directories are made.
    let out = dir.path().join("a/b/c");
    let (channel, received) = channel_sink(0);
    let pipeline = Pipeline::new("p").parallelism(1).epoch_interval(Duration::from_millis(1));
    let stream = numbers(&pipeline, "in");
    stream.clone().sink("files", FileSink::at(&out).roll_bytes(0).roll_interval(Duration::MAX));
    stream.sink("channel", channel);
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    let received: Vec<u64> = received.collect();
    job.join().unwrap();
    assert_eq!(received, (0..10).collect::<Vec<_>>());
    let lines: Vec<_> = read_committed(&out).unwrap().iter().flat_map(|file| file.lines().unwrap()).collect();
    assert_eq!(lines, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

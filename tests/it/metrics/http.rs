//! `/metrics` over HTTP: a server that listens only where it was asked to.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use millstream::prelude::*;

use super::scrape::Scrape;
use super::{LONG, words};

fn serving(address: &str) -> (Runtime, SocketAddr) {
    let runtime = Runtime::builder().workers(2).http(address).build().unwrap();
    let address = runtime.http_address().unwrap();
    (runtime, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// Sends some bytes and reads until the server closes: the status line, the other lines of the head, and the body.
fn ask(address: SocketAddr, request: &str) -> (String, Vec<String>, String) {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    let mut head = head.lines().map(str::to_owned);
    (head.next().unwrap(), head.collect(), body.to_owned())
}

fn get(address: SocketAddr, path: &str) -> (String, Vec<String>, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: it\r\n\r\n"))
}

#[test]
fn a_scrape_finds_what_the_jobs_count() {
    let (runtime, address) = serving("127.0.0.1:0");
    let (pipeline, feed, collected) = words("words");
    let job = runtime.start(pipeline).unwrap();
    ["a", "b", "a"].iter().for_each(|word| feed.send((*word).to_owned()).unwrap());
    collected.wait_for(3).unwrap();

    let (status, head, body) = get(address, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let kind = head.iter().find(|line| line.to_lowercase().starts_with("content-type:")).unwrap();
    assert!(kind.ends_with("text/plain; version=0.0.4; charset=utf-8"), "{kind}");
    let seen = Scrape::of(&body);
    assert_eq!(seen.sum("millstream_operator_records_in_total", &[("operator", "out")]), 3.0);
    let (status, head, body) = get(address, "/status?pipeline=words");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(head.iter().any(|line| line.eq_ignore_ascii_case("content-type: application/json")), "{head:?}");
    let told: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["pipelines"]["words"]["state"], "running");
    assert_eq!(get(address, "/status/topology?format=png").0, "HTTP/1.1 400 Bad Request");
    // With a query, as some scrapers send it; without a body, where only the head is asked for.
    assert_eq!(get(address, "/metrics?name=up").0, "HTTP/1.1 200 OK");
    let (status, _, body) = ask(address, "HEAD /metrics HTTP/1.1\r\nHost: it\r\n\r\n");
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", ""));
    job.stop_blocking(LONG).unwrap();
}

#[test]
fn a_runtime_is_ready_while_its_pipelines_run() {
    let (runtime, address) = serving("127.0.0.1:0");
    assert_eq!(get(address, "/healthz").0, "HTTP/1.1 200 OK");
    assert_eq!(get(address, "/readyz").0, "HTTP/1.1 200 OK", "nothing is to run");
    let (pipeline, feed, collected) = words("words");
    let job = runtime.start(pipeline).unwrap();
    feed.send("a".to_owned()).unwrap();
    collected.wait_for(1).unwrap();
    assert_eq!(get(address, "/readyz").0, "HTTP/1.1 200 OK");
    job.stop_blocking(LONG).unwrap();
    assert_eq!(get(address, "/readyz").0, "HTTP/1.1 200 OK", "stopped in order");
}

#[test]
fn a_runtime_is_not_ready_behind_a_failure() {
    let builder = Runtime::builder().workers(1).restart(RestartPolicy::never());
    let runtime = builder.http("127.0.0.1:0").build().unwrap();
    let address = runtime.http_address().unwrap();
    let pipeline = Pipeline::new("p").parallelism(1);
    // As a panic, without the message on the terminal.
    let fails = |_: &u64| {
        std::panic::resume_unwind(Box::new("planned"));
    };
    pipeline.source("numbers", IterSource::new(vec![1_u64])).inspect(fails).sink("out", Blackhole::new());
    runtime.start(pipeline).unwrap().join().unwrap_err();
    let (status, _, body) = get(address, "/readyz");
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 503 Service Unavailable", "p is failed\n"));
}

#[test]
fn nonsense_is_refused_and_the_next_one_is_answered() {
    let (_runtime, address) = serving("127.0.0.1:0");
    assert_eq!(get(address, "/").0, "HTTP/1.1 404 Not Found");
    assert_eq!(get(address, "/../../etc/passwd").0, "HTTP/1.1 404 Not Found");
    let post = "POST /metrics HTTP/1.1\r\nHost: it\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(ask(address, post).0, "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(ask(address, "what?\r\n\r\n").0, "HTTP/1.1 400 Bad Request");
    // A head without an end is cut off, however the client takes that.
    let mut endless = connect(address);
    let line = format!("X: {}\r\n", "x".repeat(1_000));
    let head = format!("GET /metrics HTTP/1.1\r\n{}", line.repeat(100));
    let _ = endless.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let _ = endless.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(get(address, "/metrics").0, "HTTP/1.1 200 OK");
}

#[test]
fn silent_clients_shut_nobody_out() {
    let (_runtime, address) = serving("127.0.0.1:0");
    // More than there may be; they say nothing, or never come to an end.
    let silent: Vec<_> = (0..200)
        .map(|number| {
            let mut stream = connect(address);
            if number % 2 == 0 {
                stream.write_all(b"GET /metr").unwrap();
            }
            stream
        })
        .collect();
    assert_eq!(get(address, "/metrics").0, "HTTP/1.1 200 OK");
    drop(silent);
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = Runtime::builder().http(&*address).build().unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {address} for /metrics: ")), "{error}");
    assert!(error.ends_with("; choose another port, or port 0 for one that is free"), "{error}");
    let error = Runtime::builder().http("localhost").build().unwrap_err().to_string();
    assert_eq!(error, "runtime option http is localhost; it must be an IP address and a port, as in 127.0.0.1:9464");
}

#[test]
fn nothing_listens_unless_asked_and_the_port_is_free_again_behind_the_runtime() {
    assert_eq!(Runtime::builder().build().unwrap().http_address(), None);
    let (first, address) = serving("127.0.0.1:0");
    let (second, other) = serving("127.0.0.1:0");
    assert_ne!(address, other, "two runtimes of one process");
    // A client that is connected holds nothing up.
    let waiting = connect(address);
    drop(first);
    let (third, again) = serving(&address.to_string());
    assert_eq!(again, address);
    assert_eq!(get(again, "/metrics").0, "HTTP/1.1 200 OK");
    drop((waiting, second, third));
}

#[tokio::test]
async fn a_runtime_may_be_dropped_in_async_code() {
    let (runtime, address) = serving("127.0.0.1:0");
    let (pipeline, _feed, _collected) = words("words");
    let job = runtime.start(pipeline).unwrap();
    drop(runtime);
    assert!(matches!(job.wait().await, Err(JobError::Gone)));
    let refused = TcpStream::connect_timeout(&address, Duration::from_secs(60));
    assert!(refused.is_err(), "it still listens");
}

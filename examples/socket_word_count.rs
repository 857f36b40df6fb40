//! Teaches how to read lines from a socket: counts words, prints each count as it changes, and says what was dropped.
//!
//! ```sh
//! nc -lk 9999                                             # type here
//! cargo run --example socket_word_count localhost:9999    # ends when nc does
//! ```
//! Without an address it brings a server of its own, which sends a few lines and closes, and checks the counts.

use std::io::Write as _;
use std::net::TcpListener;

use anyhow::ensure;
use millstream::connectors::socket::SocketCounter;
use millstream::prelude::*;

/// Counts the words of the lines that a server sends, until it closes.
fn word_count(address: &str) -> (Pipeline, Collected<(String, u64)>, SocketCounter) {
    let lines = SocketLines::connect(address).end_with_peer();
    let counter = lines.counter();
    let (counts, counted) = Collect::new();
    let pipeline = Pipeline::new("socket-word-count");
    let stream = pipeline
        .source("lines", lines)
        .flat_map(|line: String| line.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>())
        .key_by_ref(|word| word.as_str())
        .count("count");
    stream.clone().map(|(word, count)| format!("{word} {count}")).sink("screen", Console::display());
    stream.sink("counts", counts);
    (pipeline, counted, counter)
}

/// A server at a port that is free: sends one line more than it completes.
fn server() -> std::io::Result<(String, std::thread::JoinHandle<std::io::Result<()>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let serve = move || {
        let (mut peer, _) = listener.accept()?;
        peer.write_all(b"to be or not to be\r\nthat is the question\nhalf a li")
    };
    Ok((address, std::thread::spawn(serve)))
}

fn main() -> anyhow::Result<()> {
    let runtime = Runtime::builder().build()?;
    if let Some(address) = std::env::args().nth(1) {
        let (pipeline, _, counter) = word_count(&address);
        runtime.start(pipeline)?.join()?;
        println!("{:?}", counter.counts());
        return Ok(());
    }
    let (address, serving) = server()?;
    let (pipeline, counted, counter) = word_count(&address);
    print!("{}", pipeline.explain());
    runtime.start(pipeline)?.join()?;
    serving.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;

    let most = |word: &str| counted.snapshot().into_iter().filter(|(of, _)| of == word).map(|(_, count)| count).max();
    ensure!(
        (most("to"), most("be"), most("question"), most("half")) == (Some(2), Some(2), Some(1), None),
        "wrong counts"
    );
    let counts = counter.counts();
    ensure!((counts.lines, counts.partial_lines) == (2, 1), "2 lines and a half were sent: {counts:?}");
    println!("{} lines were counted, {} was dropped because it had no end", counts.lines, counts.partial_lines);
    Ok(())
}

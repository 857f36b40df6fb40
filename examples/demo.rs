//! Teaches exactly-once by murder: a word count that is killed in mid-stream, goes on, and whose output is judged.
//!
//! ```sh
//! make demo                     # or: cargo run --example demo
//! make demo ARGS=--plant-bug    # the judge must say no
//! ```
//! The input is this project's own text. The program starts itself as a child, which counts words into committed files,
//! kills it with SIGKILL in the middle, starts it again and lets it finish. Then it compares the files with a count that it
//! made itself, without the runtime, and says its verdict.
//!
//! `demo/child.rs` has the pipeline, `demo/watched.rs` a source of one's own, `demo/judge.rs` what is checked.

#[path = "demo/child.rs"]
mod child;
#[path = "demo/input.rs"]
mod input;
#[path = "demo/journal.rs"]
mod journal;
#[path = "demo/judge.rs"]
mod judge;
#[path = "demo/screen.rs"]
mod screen;
#[path = "demo/supervisor.rs"]
mod supervisor;
#[path = "demo/watched.rs"]
mod watched;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Word count that is killed in mid-stream, restarted and judged
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Plants a bug: the second life begins one line too far. The verdict must turn red
    #[arg(long)]
    plant_bug: bool,
    /// Seconds that the input lasts
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(2..=40))]
    seconds: u32,
    /// Runs as the child in this directory
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
    /// Which life of the child it is
    #[arg(long, hide = true, default_value_t = 1)]
    life: u32,
    /// Lines per second
    #[arg(long, hide = true, default_value_t = 1_000.0)]
    rate: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match &args.child {
        Some(dir) => child::run(&args, dir).await.map(|()| ExitCode::SUCCESS),
        None => supervisor::run(&args).await,
    }
}

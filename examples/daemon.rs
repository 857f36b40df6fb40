//! Teaches how a daemon runs pipelines until SIGTERM: options from its own TOML, logs, and a shutdown that loses nothing.
//!
//! ```sh
//! cargo run --example daemon            # sends itself SIGTERM after a thousand requests
//! cargo run --example daemon -- --stay  # runs until you do: kill -TERM <pid>, or Ctrl-C
//! cargo run --features http --example daemon -- --stay  # tells where curl or Prometheus finds /metrics
//! ```

use std::future::Future;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use millstream::prelude::*;
use millstream::runtime::config::RuntimeOptions;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// What would be in `/etc/requests.toml`.
const CONFIG: &str = r#"
requests_per_second = 2000.0

[millstream]
epoch_interval_ms = 50
shutdown_timeout_ms = 10_000
restart = { restarts = 5 }
"#;

/// The daemon's configuration: its own settings, and the runtime's among them. A name that nobody knows is an error.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    requests_per_second: f64,
    millstream: RuntimeOptions,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // The library only emits; where logs go is the daemon's business.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).init();
    let config: Config = toml::from_str(CONFIG).context("the configuration")?;
    let stay = std::env::args().any(|argument| argument == "--stay");

    let shutdown = terminated()?;
    let directory = tempfile::tempdir()?;
    let runtime = start(&config, directory.path(), if stay { None } else { Some(1_000) })?;
    let ended = runtime.run_until(shutdown).await?;
    for (pipeline, ended) in &ended {
        println!("{pipeline}: {ended:?}; the next start goes on there");
    }
    ensure!(
        ended.iter().all(|(_, ended)| matches!(ended, Ended::Stopped { .. })) && ended.len() == 2,
        "both pipelines were stopped"
    );
    Ok(())
}

/// Two pipelines in one runtime: requests by path, and a heartbeat. SIGTERM is sent after `enough` requests, if that is given.
fn start(config: &Config, directory: &Path, enough: Option<u64>) -> anyhow::Result<Runtime> {
    let options = config.millstream.clone();
    let builder = Runtime::builder().options(options).state_backend(backend(directory));
    // In the TOML it is `http = "127.0.0.1:9464"`; any port that is free will do here.
    #[cfg(feature = "http")]
    let builder = builder.http("127.0.0.1:0");
    let runtime = builder.build()?;
    #[cfg(feature = "http")]
    if let Some(address) = runtime.http_address() {
        println!("metrics: http://{address}/metrics");
    }

    let requests = Pipeline::new("requests").parallelism(1);
    let path = |n| if n % 3 == 0 { "/login" } else { "/search" };
    requests
        .source("log", Generator::new(None, move |n| (n, path(n))).rate(config.requests_per_second))
        .inspect(move |(n, _)| {
            if Some(*n) == enough {
                terminate_myself();
            }
        })
        .map(|(_, path)| path.to_owned())
        .key_by(String::clone)
        .count("by-path")
        .sink("counts", Blackhole::new());
    runtime.start(requests)?;

    let heartbeat = Pipeline::new("heartbeat").parallelism(1);
    heartbeat.source("beats", Generator::new(None, |n| n).rate(1.0)).sink("console", Console::display());
    runtime.start(heartbeat)?;
    Ok(runtime)
}

#[cfg(feature = "rocksdb")]
fn backend(directory: &Path) -> RocksDb {
    RocksDb::at(directory)
}

#[cfg(not(feature = "rocksdb"))]
fn backend(_directory: &Path) -> Memory {
    Memory::new()
}

/// Resolves when somebody wants the daemon to end. The library installs no signal handler: this is the daemon's, and it is there
/// when this returns.
#[cfg(unix)]
fn terminated() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn terminated() -> io::Result<impl Future<Output = ()>> {
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}

/// As a service manager would do it.
fn terminate_myself() {
    let pid = std::process::id().to_string();
    if let Err(error) = Command::new("kill").args(["-TERM", &pid]).status() {
        eprintln!("cannot send SIGTERM: {error}");
    }
}

//! What a job says in the log of its daemon.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::prelude::*;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The lines about a pipeline.
    fn about(&self, pipeline: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(pipeline)).map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn a_restart_is_one_line_with_its_epoch_its_cause_and_its_positions() {
    let log = Log::default();
    // Of the whole process, since a job has threads of its own. No other test of this binary installs one.
    tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).init();

    let failed = Arc::new(AtomicBool::new(false));
    let (feed, numbers) = feed::<u64>(10);
    let pipeline = Pipeline::new("logged").parallelism(1).epoch_interval(Duration::from_millis(5));
    let once = move |n: u64| {
        if n == 2 && !failed.swap(true, Ordering::Relaxed) { Err("number two is bad") } else { Ok(n) }
    };
    let (sink, seen) = Collect::new();
    pipeline.source("numbers", numbers).try_map(once).sink("seen", sink);
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tokio.block_on(async {
        feed.send_durable_async(1).await.unwrap().await.unwrap();
        feed.send_async(2).await.unwrap();
        feed.send_async(3).await.unwrap();
        feed.close();
        job.wait().await.unwrap();
    });
    // The feed gives at most once for the open epoch: what it had handed on was not durable yet.
    assert_eq!(seen.snapshot().first(), Some(&1));

    let lines = log.about("logged");
    let said = |what: &str| -> Vec<&String> { lines.iter().filter(|line| line.contains(what)).collect() };
    let started = said("INFO");
    assert!(
        started.iter().any(|line| line.contains("started") && line.contains("positions=the beginning")),
        "{lines:#?}"
    );
    let [restarted] = *said("restarted").as_slice() else { panic!("one line per restart: {lines:#?}") };
    for part in ["WARN", "epoch=", "positions=feed at 1", "number two is bad", "restarts=1"] {
        assert!(restarted.contains(part), "{part} is missing: {restarted}");
    }
}

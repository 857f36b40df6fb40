//! A feed behind a write-ahead log: a number that was called durable counts exactly once, also where the process is killed
//! before its epoch is committed.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use millstream::prelude::*;

/// Numbers that are sent before the first of them is waited for.
const AHEAD: usize = 16;

/// Counts each number: once, if all is well.
pub(crate) fn numbers(dir: &Path) -> (Pipeline, Feed<u64>) {
    let (feed, numbers) = feed::<u64>(AHEAD);
    let pipeline = Pipeline::new("numbers");
    pipeline
        .source("numbers", WalSource::new("numbers-log", numbers, RocksDb::at(dir.join("state"))))
        .key_by(|number| *number)
        .count("counts")
        .map(|(number, count)| format!("{number} {count}"))
        .sink("rows", FileSink::at(dir.join("out")).roll_interval(Duration::from_millis(20)));
    (pipeline, feed)
}

/// Sends numbers on a thread of its own and tells which are durable; then the input is at its end.
pub(crate) fn send(feed: Feed<u64>, numbers: Range<u64>, tell: fn(&str)) {
    std::thread::spawn(move || {
        let numbers: Vec<u64> = numbers.collect();
        for some in numbers.chunks(AHEAD) {
            let receipts: Vec<_> = some.iter().map_while(|number| feed.send_durable(*number).ok()).collect();
            for (number, receipt) in some.iter().zip(receipts) {
                if receipt.wait().is_ok() {
                    tell(&format!("durable {number}"));
                }
            }
        }
        feed.close();
    });
}

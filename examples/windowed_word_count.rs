//! Teaches windows: counts words per minute of event time, and ranks each minute's words by a second window behind the first.
//!
//! ```sh
//! cargo run --example windowed_word_count
//! ```
//! Lines come with the second at which they were written, up to ten seconds out of order. A minute's counts go out once, when no line
//! of it can come any more.

use std::time::Duration;

use anyhow::ensure;
use millstream::prelude::*;

/// The second at which a line was written, and the line.
type Line = (i64, &'static str);

const LINES: [Line; 6] = [
    (5, "to be or not to be"),
    (50, "that is the question"),
    (62, "whether tis nobler in the mind to suffer"),
    (58, "to be"), // of the first minute: behind, but within the ten seconds
    (75, "the slings and arrows"),
    (190, "of outrageous fortune"),
];

fn main() -> anyhow::Result<()> {
    let minute = Tumbling::of(Duration::from_secs(60));
    let (minutes, ranked) = Collect::new();
    let pipeline = Pipeline::new("windowed-word-count"); // output mode append: what is sent is final
    let counts = pipeline
        .source("lines", IterSource::new(LINES))
        .event_time(|(second, _): &Line| Timestamp::from_millis(second * 1_000), Duration::from_secs(10))
        .flat_map(|(_, line): Line| line.split_whitespace().map(str::to_owned))
        .key_by_ref(|word| word.as_str())
        .window(minute)
        .aggregate("words-per-minute", Count);
    // A result's event time is the last microsecond of its window, so the same minute groups the counts of all words.
    counts
        .key_by(|_| 0_u8)
        .window(minute)
        .aggregate("top-words", TopK::of(2, |row: &Windowed<String, u64>| (row.value, row.key.clone())))
        .map(|minute| (minute.window.start.as_micros() / 60_000_000, minute.value))
        .sink("minutes", minutes);

    Runtime::builder().build()?.start(pipeline)?.join()?;
    let ranked = ranked.snapshot();
    for (minute, words) in &ranked {
        println!("minute {minute}: {words:?}");
    }
    let numbers: Vec<i64> = ranked.iter().map(|(minute, _)| *minute).collect();
    ensure!(numbers == [0, 1, 3], "nobody wrote in the third minute: {numbers:?}");
    let first = ranked.first().map(|(_, words)| words.as_slice());
    ensure!(
        first == Some(&[(3, "to".to_owned()), (3, "be".to_owned())]),
        "three times to and three times be: {first:?}"
    );
    Ok(())
}

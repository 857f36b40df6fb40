//! S-TRG: triggers.

mod finite;

use std::collections::BTreeSet;
use std::time::Duration;

use millstream::operators::OutputMode;
use millstream::prelude::*;
use millstream::runtime::id::ExecutionMode;
use millstream::runtime::testing::SimControl;

use super::drive::{Event, Ran, Script, at, number, on, secs};
use super::pieces::{Now, by_key};
use super::table::{Group, Row, Standing, row};

pub(super) const GROUP: Group = Group { name: "TRG", title: "Triggers", module: "trigger", rows: ROWS };

const ROWS: &[Row] = &[
    row("S-TRG-01", "With an interval of zero the next micro-batch begins as soon as the one before has ended (the default of a pipeline is continuous)").passes("the_next_batch_begins_when_the_one_before_has_ended").only_m(),
    row("S-TRG-02", "An interval of 2 s at 3.2 s: the next micro-batch begins at 4.0 s").passes("batches_begin_at_multiples_of_the_interval").only_m(),
    row("S-TRG-03", "An interval of 100 s and an epoch of 130 s: epochs begin at 0, 130 and 200 s").passes("after_an_overrun_the_next_batch_begins_at_once").only_m(),
    row("S-TRG-04", "Five intervals without records: no epoch").passes("without_records_there_is_no_epoch").only_m(),
    row("S-TRG-05", "An interval may be a text or a `Duration`, which has units of its own; a negative one is E-TRG-01, months are E-TRG-02").passes("an_interval_is_a_text_or_a_duration").only_m(),
    row("S-TRG-06", "Once: everything in one epoch whatever the limits, no window leaves, then it ends").open("the epoch that closes the life brings the watermark, so that windows do leave").only_m(),
    row("S-TRG-07", "Once after a crash inside an epoch: only that epoch runs again, although there is newer input").passes("finite::once_after_a_crash_does_the_open_epoch_only").only_m(),
    row("S-TRG-08", "AvailableNow: one epoch per row of the limit, the watermark rising in between, one more epoch without records, then it ends").passes("finite::available_now_reads_in_limited_epochs_and_closes_what_it_can").only_m(),
    row("S-TRG-09", "AvailableNow does not read what comes while it runs; a source that cannot tell its end has one epoch").open("no snapshot of the end is taken: a split counts as read when its reader had nothing for the first time").only_m(),
    row("S-TRG-11", "Continuous(1 s) for 5 s: 4 to 6 commits, numbered without a gap from the first").passes("barriers_follow_their_interval").only_c(),
    row("S-TRG-12", "RealTime(1 s) is E-TRG-03, in *append* E-TRG-04; 10 s in *update* runs").c(Standing::Passes("real_time_is_continuous_in_update_mode")).only_c(),
    row("S-TRG-13", "A callback per batch is refused in continuous mode: E-CONT-01").open("there is no callback per batch").only_c(),
    row("S-TRG-14", "The current time stands still in a micro-batch and is the same when it is done again; in continuous mode it is refused: E-CONT-02").c(Standing::NotApplicable("there is no function for the current time: operators ask their context, which says which time that is")).m(Standing::Passes("conformance::restart::a_batch_that_was_planned_is_done_again_as_it_was")),
];

/// Tenths of seconds since `since` at which each row's batch began.
fn begun(events: Stream<Event>, since: Timestamp) -> Stream<i64> {
    let tenths = move |now: Timestamp| (now.as_micros() - since.as_micros()) / 100_000;
    by_key(events).process("now", Now).map(move |(_, now)| tenths(now)).erase()
}

/// When batches begin, in tenths of seconds since 1970, of a run that begins at so many milliseconds.
fn begins(script: Script, millis: i64) -> Vec<i64> {
    let script = script.beginning(Timestamp::from_millis(millis));
    let ran = script.calm(ExecutionMode::MicroBatch, |mut events| begun(events.remove(0), at(0)));
    ran.rows.into_iter().map(|(_, row)| row.parse().unwrap()).collect()
}

fn epochs(ran: &Ran) -> Vec<u64> {
    ran.rows.iter().map(|(epoch, _)| *epoch).collect()
}

fn keys(mut events: Vec<Stream<Event>>) -> Stream<String> {
    events.remove(0).map(|event| event.key).erase()
}

#[test]
fn the_next_batch_begins_when_the_one_before_has_ended() {
    let script = Script::new([vec![on("a", 1)], vec![on("b", 1)]]).lasting(Duration::from_millis(60));
    let script = script.trigger(Trigger::ProcessingTime(Duration::ZERO));
    assert_eq!(epochs(&script.calm(ExecutionMode::MicroBatch, keys)), [1, 2]);
    let begins = begins(script, 5_000);
    assert!(begins[0] == 50 && begins[1] <= 52, "{begins:?}");
}

#[test]
fn batches_begin_at_multiples_of_the_interval() {
    let drains = [vec![on("a", 1)], vec![on("b", 1)], vec![on("c", 1)]];
    let script = Script::new(drains).lasting(Duration::from_millis(1_500)).trigger(Trigger::ProcessingTime(secs(2)));
    // The first at once; what has come by then goes with the next.
    assert_eq!(begins(script, 3_200), [32, 60, 80]);
    let script = Script::new([vec![on("a", 1)], vec![on("b", 1)]]).lasting(Duration::from_millis(300));
    assert_eq!(begins(script.trigger(Trigger::ProcessingTime(secs(2))), 3_200), [32, 40]);
}

#[test]
fn after_an_overrun_the_next_batch_begins_at_once() {
    let drains = [vec![number("a", 1, 130)], vec![number("b", 1, 10)], vec![number("c", 1, 1)]];
    let script = Script::new(drains).lasting(secs(1)).trigger(Trigger::ProcessingTime(secs(100)));
    let control = SimControl::default();
    let script = script.beginning(at(0)).controlled_by(&control);
    let clock = control.clock().clone();
    let slow = |mut events: Vec<Stream<Event>>| {
        let clock = clock.clone();
        let begun = begun(events.remove(0).map(|event| event).erase(), at(0));
        // Behind the reading of the clock: the batch takes as long as the row says.
        begun
            .map(move |tenths| {
                let takes = match tenths {
                    ..10 => secs(130),
                    1_300..1_310 => secs(10),
                    _ => Duration::ZERO,
                };
                clock.advance(takes);
                tenths / 10
            })
            .erase()
    };
    let ran = script.calm(ExecutionMode::MicroBatch, slow);
    let begins: Vec<i64> = ran.rows.iter().map(|(_, row)| row.parse().unwrap()).collect();
    assert_eq!(begins, [0, 130, 200]);
}

#[test]
fn without_records_there_is_no_epoch() {
    let script = Script::new([vec![on("a", 1)], vec![on("b", 1)]]).lasting(secs(11));
    let ran = script.trigger(Trigger::ProcessingTime(secs(2))).calm(ExecutionMode::MicroBatch, keys);
    assert_eq!(epochs(&ran), [1, 2], "five intervals lie between them");
}

#[test]
fn an_interval_is_a_text_or_a_duration() {
    let of = Trigger::processing_time;
    assert_eq!(of("100 seconds"), Ok(Trigger::ProcessingTime(secs(100))));
    assert_eq!(of("1min 40s"), Ok(Trigger::ProcessingTime(secs(100))));
    for (text, code) in [("-1 second", "E-TRG-01"), ("1 month", "E-TRG-02"), ("2 years", "E-TRG-02")] {
        let error = of(text).unwrap_err().to_string();
        assert!(error.contains(code), "{text}: {error}");
    }
}

#[test]
fn barriers_follow_their_interval() {
    const RECORDS: usize = 60;
    let drains: [Vec<Event>; RECORDS] = std::array::from_fn(|n| vec![number("a", 1, n as i64)]);
    // A record in a tenth of a second, or a little more.
    let script = Script::new(drains).lasting(Duration::from_millis(100)).interval(secs(1));
    let ran = script.calm(ExecutionMode::Continuous, |mut events| begun(events.remove(0), at(0)));
    let rows: Vec<(u64, i64)> = ran.rows.iter().map(|(epoch, row)| (*epoch, row.parse().unwrap())).collect();
    let in_five_seconds = rows.iter().filter(|(_, tenths)| tenths - rows[0].1 < 50);
    let epochs: BTreeSet<u64> = in_five_seconds.map(|(epoch, _)| *epoch).collect();
    assert!((4..=6).contains(&epochs.len()), "{rows:?}");
    assert!(epochs.iter().copied().eq(1..=epochs.len() as u64), "{rows:?}");
}

#[test]
fn real_time_is_continuous_in_update_mode() {
    let pipeline = |trigger, mode| {
        let (sink, collected) = Collect::new();
        let pipeline = Pipeline::new("real-time").parallelism(1).output_mode(mode).trigger(trigger);
        let numbers = pipeline.source("numbers", Generator::new(Some(10), |n| n));
        numbers.key_by(|n| n % 2).aggregate("counts", Count).sink("out", sink);
        (pipeline, collected)
    };
    let refused = |trigger, mode| pipeline(trigger, mode).0.validate().unwrap_err().to_string();
    let ten = Trigger::real_time("10 seconds").unwrap();
    let short = refused(Trigger::RealTime(secs(1)), OutputMode::Update);
    assert!(short.contains("E-TRG-03") && !short.contains("E-TRG-04"), "{short}");
    let append = refused(ten, OutputMode::Append);
    assert!(append.contains("E-TRG-04") && !append.contains("E-TRG-03"), "{append}");
    let (runs, collected) = pipeline(ten, OutputMode::Update);
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let job = runtime.start(runs).unwrap();
    assert!(matches!(job.join(), Ok(Ended::Finished { .. })));
    assert_eq!(job.status().mode, ExecutionMode::Continuous);
    // A row for each record.
    assert_eq!(collected.take(), (1..=5).flat_map(|count| [(0, count), (1, count)]).collect::<Vec<(u64, u64)>>());
}

use super::*;
use crate::record::Record;

/// Records `from..to` of a split, whose end position is `to`.
fn item(split: usize, from: u64, to: u64) -> Item<u64> {
    let records = (from..to).map(Record::new).collect();
    let batch = Batch { records, bytes: (to - from) * 10, ..Batch::at(Position::from_u64(to)) };
    Item { split, batch, at: Timestamp::MIN, ended: false }
}

const fn records(records: u64) -> EpochLimits {
    EpochLimits { records, ..EpochLimits::NONE }
}

fn backlog(planned: &[Option<(u64, u64)>], limit: u64) -> Backlog<u64> {
    backlog_within(planned, records(limit))
}

fn backlog_within(planned: &[Option<(u64, u64)>], limits: EpochLimits) -> Backlog<u64> {
    let replays = planned.iter().any(Option::is_some);
    let planned = planned.iter().map(|split| split.map(|(records, end)| (records, Position::from_u64(end))));
    Backlog::new(planned.map(|planned| (planned, false)), limits, replays)
}

fn answer(backlog: &mut Backlog<u64>, more: bool, stopped: bool) -> Option<(Vec<(u64, u64)>, bool)> {
    let name = |split: usize| Some(SplitId::new(split.to_string()));
    let (splits, dry) = backlog.answer(OperatorId::default(), name, (more, stopped)).unwrap()?;
    Some((splits.iter().map(|split| (split.records, split.end.as_u64().unwrap())).collect(), dry))
}

fn passed(backlog: &mut Backlog<u64>) -> Vec<(usize, Vec<u64>, u64)> {
    let items = std::iter::from_fn(|| backlog.pop_planned());
    let of = |item: Item<u64>| {
        let records = item.batch.records.iter().map(|record| record.value).collect();
        (item.split, records, item.batch.end.as_u64().unwrap())
    };
    items.map(of).collect()
}

#[test]
fn a_batch_is_what_is_at_hand_within_the_limit() {
    let mut backlog = backlog(&[None, None], 5);
    backlog.push(item(0, 0, 3)).unwrap();
    backlog.push(item(1, 0, 2)).unwrap();
    assert!(!backlog.has_room());
    backlog.push(item(0, 3, 4)).unwrap();
    assert_eq!(answer(&mut backlog, false, false), None, "nobody asked");
    backlog.ask(Amount::AtHand);
    assert_eq!(answer(&mut backlog, true, false), None, "there may be more at once");
    assert_eq!(answer(&mut backlog, false, false), Some((vec![(3, 3), (2, 2)], false)));
    assert_eq!(passed(&mut backlog), [(0, vec![0, 1, 2], 3), (1, vec![0, 1], 2)]);
    assert!(backlog.has(0) && !backlog.has(1));
}

/// The same, and a file ends in it.
fn last(split: usize, from: u64, to: u64) -> Item<u64> {
    let mut item = item(split, from, to);
    item.batch.files = 1;
    item
}

#[test]
fn a_batch_takes_whole_files_and_waits_for_the_end_of_the_first() {
    let mut backlog = backlog_within(&[None], EpochLimits { files: Some(2), ..records(20) });
    backlog.note_dry(0);
    backlog.ask(Amount::AtHand);
    backlog.push(item(0, 0, 3)).unwrap();
    assert_eq!(answer(&mut backlog, false, false), None, "its end is not there, though nothing was there before it");
    backlog.push(last(0, 3, 4)).unwrap();
    backlog.push(item(0, 4, 6)).unwrap();
    assert_eq!(answer(&mut backlog, false, false), Some((vec![(4, 4)], false)), "half a file stays");
    passed(&mut backlog);
    [last(0, 6, 6), last(0, 6, 7)].into_iter().for_each(|item| backlog.push(item).unwrap());
    assert!(!backlog.has_room(), "two files are there");
    backlog.push(last(0, 7, 8)).unwrap();
    backlog.ask(Amount::ThereIs);
    assert_eq!(answer(&mut backlog, false, false), Some((vec![(3, 7)], false)));
    passed(&mut backlog);
    backlog.ask(Amount::AtHand);
    assert_eq!(answer(&mut backlog, false, false), Some((vec![(1, 8)], true)));
    passed(&mut backlog);
    // A file of more records than a micro-batch may have, and one whose source has ended without a word of its end.
    backlog.push(item(0, 8, 28)).unwrap();
    backlog.ask(Amount::AtHand);
    assert_eq!(answer(&mut backlog, false, false), Some((vec![(20, 28)], true)));
    passed(&mut backlog);
    backlog.push(Item { ended: true, ..item(0, 28, 29) }).unwrap();
    backlog.ask(Amount::AtHand);
    assert_eq!(answer(&mut backlog, false, false), Some((vec![(1, 29)], true)));
}

#[test]
fn a_batch_takes_so_many_bytes_and_one_of_more_alone() {
    let mut backlog = backlog_within(&[None], EpochLimits { bytes: Some(40), ..records(100) });
    [item(0, 0, 3), item(0, 3, 4), item(0, 4, 9)].into_iter().for_each(|item| backlog.push(item).unwrap());
    assert!(!backlog.has_room());
    for (taken, end) in [(4, 4), (5, 9)] {
        backlog.ask(Amount::AtHand);
        assert_eq!(answer(&mut backlog, false, false), Some((vec![(taken, end)], false)));
        passed(&mut backlog);
    }
    assert!(backlog.has_room());
}

#[test]
fn once_takes_everything_whatever_the_limits() {
    let mut backlog = backlog_within(&[None], EpochLimits { files: Some(1), ..records(1) });
    [last(0, 0, 3), last(0, 3, 4), item(0, 4, 9)].into_iter().for_each(|item| backlog.push(item).unwrap());
    backlog.ask(Amount::All);
    backlog.note_dry(0);
    assert_eq!(answer(&mut backlog, false, false), Some((vec![(9, 9)], true)));
}

#[test]
fn what_there_is_waits_until_every_split_has_had_nothing() {
    let mut backlog = backlog(&[None, None], 100);
    backlog.push(item(0, 0, 3)).unwrap();
    backlog.ask(Amount::ThereIs);
    backlog.note_dry(0);
    assert_eq!(answer(&mut backlog, false, false), None);
    backlog.push(Item { ended: true, ..item(1, 0, 1) }).unwrap();
    assert_eq!(answer(&mut backlog, false, false), Some((vec![(3, 3), (1, 1)], true)));
}

#[test]
fn while_records_are_held_back_a_batch_has_none_and_says_so_again_behind_it() {
    let mut backlog = backlog(&[None], 100);
    backlog.push(item(0, 0, 3)).unwrap();
    backlog.ask(Amount::AtHand);
    assert_eq!(answer(&mut backlog, false, true), Some((vec![], false)));
    assert!(!backlog.take_news(true) && backlog.take_news(false) && !backlog.take_news(false));
}

#[test]
fn a_plan_that_was_found_takes_the_same_records_however_they_are_cut_now() {
    let mut backlog = backlog(&[Some((4, 10)), None, Some((0, 7))], 1);
    backlog.ask(Amount::AtHand);
    backlog.push(item(1, 0, 2)).unwrap();
    backlog.push(item(0, 6, 9)).unwrap();
    assert_eq!(answer(&mut backlog, false, true), None);
    backlog.push(item(0, 9, 12)).unwrap();
    assert_eq!(answer(&mut backlog, false, true), Some((vec![], false)));
    assert_eq!(passed(&mut backlog), [(2, vec![], 7), (0, vec![6, 7, 8], 9), (0, vec![9], 10)]);
    // The rest stays in order.
    backlog.ask(Amount::ThereIs);
    (0..3).for_each(|split| backlog.note_dry(split));
    assert_eq!(answer(&mut backlog, false, false), Some((vec![(2, 2)], false)));
    backlog.ask(Amount::AtHand);
    passed(&mut backlog);
    assert_eq!(answer(&mut backlog, false, false), Some((vec![(2, 12)], true)));
}

#[test]
fn a_source_of_which_the_plan_takes_nothing_gives_nothing() {
    let mut backlog: Backlog<u64> = Backlog::new([(None, false)].into_iter(), records(100), true);
    backlog.push(item(0, 0, 3)).unwrap();
    backlog.ask(Amount::AtHand);
    assert_eq!(answer(&mut backlog, false, false), Some((vec![], false)));
    assert_eq!(passed(&mut backlog), []);
    backlog.ask(Amount::AtHand);
    assert_eq!(answer(&mut backlog, false, false), Some((vec![(3, 3)], false)));
}

#[test]
fn a_split_with_fewer_records_than_were_planned_is_an_error() {
    let mut backlog = backlog(&[Some((4, 10))], 1);
    let error = backlog.push(Item { ended: true, ..item(0, 6, 9) }).unwrap_err();
    let text = "the split ends 1 records before the end of the micro-batch that had begun; a source has to give the same \
                records from a position again";
    assert_eq!(error.to_string(), text);
}

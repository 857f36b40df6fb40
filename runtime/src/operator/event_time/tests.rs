//! What goes out between the records, frame by frame.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::channel::Bell;
use crate::checkpoint::Barrier;
use crate::id::{Attempt, Epoch, ExecutionMode, OperatorId, ShardId, SubtaskId};
use crate::operator::{BatchTime, OutputMode, TaskClock, TaskControl};
use crate::state::MemoryBudget;
use crate::state::key_group::KeyGroups;
use crate::state::store::StoreShare;
use crate::time::{Clock, SystemClock};

type Out = Rc<RefCell<Vec<Frame<i64>>>>;

/// Takes everything, or, when it is narrow, one frame and then none until it is asked again.
struct End {
    out: Out,
    narrow: bool,
}

impl Node<i64> for End {
    fn offer(&mut self, frame: Frame<i64>, _context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.out.borrow_mut().push(frame);
        Ok(if self.narrow { Flow::Blocked } else { Flow::Ready })
    }
}

struct Bench {
    node: Box<dyn Node<i64>>,
    context: TaskContext,
    out: Out,
}

/// A node whose records are their own time in milliseconds.
fn bench(strategy: WatermarkStrategy<i64>, splits: Option<Splits>, narrow: bool) -> Bench {
    let open = OpenContext {
        pipeline: "test".to_owned(),
        shard: ShardId::new(0),
        name: "event_time".to_owned(),
        operator: OperatorId::default(),
        subtask: SubtaskId::default(),
        parallelism: 1,
        event_time: 0,
        attempt: Attempt::new(1),
        output_mode: OutputMode::Append,
        restored: Epoch::GENESIS,
        groups: 0..1,
        key_groups: KeyGroups::default(),
        state: None,
        folded: BTreeSet::new(),
        memory: MemoryBudget::default(),
        states: Vec::new(),
        share: StoreShare::default(),
        clock: Arc::new(SystemClock::new()),
        batch: Arc::new(TaskClock::new(Arc::new(SystemClock::new()), BatchTime::default())),
        quarantined: Arc::default(),
        control: TaskControl::default(),
    };
    let out = Out::default();
    let end = End { out: Rc::clone(&out), narrow };
    let node = EventTime::new(&open, |millis: &i64, _| Timestamp::from_millis(*millis), strategy, Box::new(end));
    let context = TaskContext::new(
        Attempt::new(1),
        SubtaskId::default(),
        Epoch::GENESIS,
        Arc::new(SystemClock::new()),
        Bell::default(),
    );
    let context = match splits {
        Some(splits) => context.reading(splits),
        None => context,
    };
    Bench { node: Box::new(node), context, out }
}

fn splits<const N: usize>(restored: [i64; N]) -> Option<Splits> {
    let absent = |millis| if millis == 0 { vec![] } else { vec![Timestamp::from_millis(millis)] };
    Some(Splits::new(restored.map(|millis| (false, absent(millis)))))
}

impl Bench {
    fn said(&mut self) -> Vec<String> {
        let frames: Vec<_> = self.out.borrow_mut().drain(..).collect();
        let said = frames.into_iter().map(|frame| match frame {
            Frame::Records(records) => format!("{:?}", records.iter().map(|record| record.value).collect::<Vec<_>>()),
            Frame::Watermark(Timestamp::MAX) => "final".to_owned(),
            Frame::Watermark(time) => format!("w{}", time.as_micros() / 1_000),
            other => format!("{other:?}").split(['(', ' ']).next().unwrap_or_default().to_lowercase(),
        });
        said.collect()
    }

    fn records(&mut self, split: u32, times: &[i64]) -> Vec<String> {
        let records = times.iter().map(|millis| Record { value: *millis, time: Timestamp::MIN, hash: split + 1 });
        self.frame(Frame::Records(records.collect()))
    }

    fn frame(&mut self, frame: Frame<i64>) -> Vec<String> {
        assert_eq!(self.node.offer(frame, &mut self.context).unwrap(), Flow::Ready);
        self.said()
    }

    fn dry(&mut self) -> Vec<String> {
        assert_eq!(self.node.flush(&mut self.context).unwrap(), Flow::Ready);
        self.said()
    }

    fn splits(&mut self) -> &mut Splits {
        self.context.splits_mut().unwrap()
    }
}

fn bounded(millis: u64) -> WatermarkStrategy<i64> {
    WatermarkStrategy::bounded(Duration::from_millis(millis))
}

const FINAL: Frame<i64> = Frame::Watermark(Timestamp::MAX);
const BARRIER: Frame<i64> = Frame::Barrier(Barrier {
    epoch: Epoch::GENESIS,
    next_mode: ExecutionMode::Continuous,
    last: false,
    had_data: false,
});

#[test]
fn the_minimum_over_the_splits_goes_out_behind_the_records_that_raised_it() {
    let mut bench = bench(bounded(5), splits([0, 0]), false);
    assert_eq!(bench.records(0, &[100, 97]), ["[100, 97]"]);
    assert_eq!(bench.records(1, &[50]), ["[50]", "w44"]);
    assert_eq!(bench.records(1, &[45, 49]), ["[45, 49]"]);
    assert_eq!(bench.records(1, &[200]), ["[200]", "w94"]);
    assert_eq!(bench.frame(BARRIER), ["barrier"]);
    let noted = [0, 1].map(|split| bench.splits().watermark(split, 0).as_micros() / 1_000);
    assert_eq!(noted, [94, 194], "what the source saves");
}

#[test]
fn a_split_that_ended_leaves_the_minimum_and_the_end_of_all_is_final() {
    let mut bench = bench(bounded(0), splits([0, 0]), false);
    bench.records(0, &[100]);
    bench.splits().end(1);
    assert_eq!(bench.dry(), ["w99"]);
    assert_eq!(bench.dry(), [] as [&str; 0]);
    bench.splits().end(0);
    assert_eq!(bench.dry(), ["final"]);
    assert_eq!(bench.frame(FINAL), [] as [&str; 0], "it was said already");
    assert_eq!((bench.frame(BARRIER), bench.frame(Frame::End)), (vec!["barrier".into()], vec!["end".into()]));
}

#[test]
fn a_subtask_without_splits_holds_nobody_back() {
    assert_eq!(bench(bounded(0), splits([]), false).dry(), ["final"]);
}

#[test]
fn a_drained_source_is_final_in_front_of_the_barrier_and_saves_what_its_splits_had() {
    let mut bench = bench(bounded(0), splits([0, 0]), false);
    bench.records(0, &[100]);
    assert_eq!((bench.frame(FINAL), bench.frame(BARRIER)), (vec!["final".into()], vec!["barrier".into()]));
    assert_eq!(bench.splits().watermark(0, 0), Timestamp::from_millis(99), "it may be read on by permission");
}

#[test]
fn an_idle_split_leaves_the_minimum_until_its_next_record() {
    let second = Duration::from_secs(1);
    let mut bench = bench(bounded(0).idle_after(second), splits([0, 0]), false);
    bench.records(0, &[100]);
    bench.records(1, &[50]);
    bench.splits().idle_for(1, second - Duration::from_micros(1));
    assert_eq!(bench.dry(), [] as [&str; 0]);
    bench.splits().idle_for(1, second);
    assert_eq!(bench.dry(), ["w99"]);
    bench.splits().idle_for(0, second);
    assert_eq!(bench.dry(), ["idle"]);
    bench.splits().idle_for(1, Duration::ZERO);
    assert_eq!(bench.records(1, &[60]), ["active", "[60]"], "late, and it does not pull the watermark back");
    assert_eq!(bench.records(1, &[300]), ["[300]", "w299"], "split 0 is still idle");
}

#[test]
fn without_a_time_for_it_nothing_is_ever_idle() {
    let mut bench = bench(bounded(0), splits([0, 0]), false);
    bench.records(0, &[100]);
    bench.splits().idle_for(1, Duration::MAX);
    assert_eq!(bench.dry(), [] as [&str; 0]);
}

#[test]
fn what_was_restored_goes_first_and_is_never_lowered() {
    let mut restored = bench(bounded(0), splits([70, 90]), false);
    assert_eq!(restored.records(0, &[60]), ["w70", "[60]"]);
    let mut restored = bench(bounded(0), splits([70, 90]), false);
    assert_eq!(restored.frame(BARRIER), ["w70", "barrier"]);
    assert_eq!(restored.splits().watermarks(1), [Timestamp::from_millis(90)]);
}

#[test]
fn other_watermarks_are_replaced_except_the_final_one() {
    let mut bench = bench(bounded(0).idle_after(Duration::from_secs(1)), None, false);
    assert_eq!(bench.frame(Frame::Watermark(Timestamp::from_millis(7))), [] as [&str; 0]);
    assert_eq!(bench.records(4, &[3]), ["[3]", "w2"], "one for the subtask: it has no splits");
    assert_eq!(bench.frame(Frame::Idle), ["idle"]);
    assert_eq!(bench.records(0, &[5]), ["active", "[5]", "w4"]);
    assert_eq!(bench.frame(FINAL), ["final"]);
}

#[test]
fn a_record_that_does_not_name_its_split_makes_one_watermark_of_all() {
    let mut bench = bench(bounded(0), splits([0, 0]), false);
    bench.records(0, &[100]);
    let nameless = Record { value: 40, time: Timestamp::MIN, hash: 0 };
    assert_eq!(bench.frame(Frame::Records(vec![nameless])), ["[40]", "w39"]);
    assert_eq!(bench.records(1, &[50]), ["[50]", "w49"]);
}

#[test]
fn a_pull_too_far_ahead_is_refused_and_counted_and_the_record_goes_on() {
    let mut bench = bench(bounded(0), splits([0]), false);
    let far = SystemClock::new().now().as_micros() / 1_000 + 100_000_000;
    assert_eq!(bench.records(0, &[far, 10]), [format!("[{far}, 10]"), "w9".to_owned()]);
    assert_eq!(bench.context.control().refused_pulls(), 1);
}

#[test]
fn goes_on_in_order_when_there_is_room_again() {
    let mut bench = bench(bounded(0), splits([5]), true);
    let frame = Frame::Records(vec![Record { value: 9, time: Timestamp::MIN, hash: 1 }]);
    let mut flow = bench.node.offer(frame, &mut bench.context).unwrap();
    let mut turns = 0;
    while flow == Flow::Blocked {
        flow = bench.node.resume(&mut bench.context).unwrap();
        turns += 1;
    }
    assert_eq!((turns, bench.said()), (3, vec!["w5".to_owned(), "[9]".to_owned(), "w8".to_owned()]));
}

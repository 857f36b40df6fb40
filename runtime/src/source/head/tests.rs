//! What a source says between its batches, and what of its splits it saves.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::channel::{Bell, QueueSender, queue};
use crate::checkpoint::Barrier;
use crate::error::BoxError;
use crate::id::{Attempt, Epoch, ExecutionMode, SubtaskId};
use crate::operator::{BatchTime, Splits, TaskClock};
use crate::source::{
    Batch, EpochLimits, Fetch, Fetcher, Fetching, IdleWatch, Polled as Answer, Reader, Source, idleness,
};
use crate::state::MemoryBudget;
use crate::state::budget::Taken;
use crate::time::{Clock, SharedClock};

#[derive(Clone, Debug, Default)]
struct Hand(Arc<std::sync::Mutex<Timestamp>>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

impl Hand {
    fn pass(&self, millis: u64) {
        let mut now = self.0.lock().unwrap();
        *now = now.saturating_add(Duration::from_millis(millis));
    }
}

type Passed = Rc<RefCell<Vec<String>>>;

/// Notes what passes, and the watermark of a record's split: the record itself, in milliseconds.
struct Chain(Passed);

impl Node<i64> for Chain {
    fn offer(&mut self, frame: Frame<i64>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        let text = match frame {
            Frame::Records(records) => {
                for record in &records {
                    let split = record.hash as usize - 1;
                    let time = Timestamp::from_millis(record.value);
                    context.splits_mut().unwrap().note_watermark(split, 0, time);
                }
                format!("{:?}", records.iter().map(|record| (record.hash, record.value)).collect::<Vec<_>>())
            }
            Frame::Watermark(Timestamp::MAX) => "final".to_owned(),
            Frame::Barrier(_) => "barrier".to_owned(),
            Frame::End => "end".to_owned(),
            other => format!("{other:?}"),
        };
        self.0.borrow_mut().push(text);
        Ok(Flow::Ready)
    }
}

struct Bench {
    head: SourceHead<i64>,
    context: TaskContext,
    passed: Passed,
    source: SourceControl,
    batches: QueueSender<Fetched<i64>>,
    watch: Option<IdleWatch>,
    clock: Hand,
}

/// A head over so many splits, of which those named have ended before.
fn bench(splits: usize, ended: &[usize], limits: &[Duration]) -> Bench {
    bench_of(splits, ended, limits, SourceControl::default())
}

fn bench_of(splits: usize, ended: &[usize], limits: &[Duration], source: SourceControl) -> Bench {
    let starts = (0..splits).map(|split| SplitStart {
        split: SplitId::new(split.to_string()),
        from: Some(Position::from_u64(0)),
        ended: ended.contains(&split),
        planned: None,
        watermarks: vec![],
    });
    let starts: Vec<_> = starts.collect();
    let known = Splits::new(starts.iter().map(|start| (start.ended, vec![])));
    let (batches, fetched) = queue(2);
    let clock = Hand::default();
    let shared: SharedClock = Arc::new(clock.clone());
    let (watch, idleness) = idleness(Arc::clone(&shared), splits, limits);
    let passed = Passed::default();
    let name = ("in".to_owned(), OperatorId::default());
    let chain = Box::new(Chain(Rc::clone(&passed)));
    let head = SourceHead::new(name, (starts, idleness), fetched, chain, TaskControl::default(), source.clone());
    let context =
        TaskContext::new(Attempt::new(1), SubtaskId::default(), Epoch::GENESIS, shared, Bell::default()).reading(known);
    Bench { head, context, passed, source, batches, watch: Some(watch), clock }
}

impl Bench {
    fn in_micro_batches(self) -> Self {
        let clock = TaskClock::new(Arc::new(self.clock.clone()), BatchTime::default());
        Self { context: self.context.running(ExecutionMode::MicroBatch, Arc::new(clock)), ..self }
    }

    fn turns(&mut self) -> Vec<String> {
        while self.head.poll(&mut self.context).unwrap() == Polled::Worked {}
        self.passed.borrow_mut().drain(..).collect()
    }

    fn barrier(&mut self, ends: Ends) -> Vec<String> {
        let (epoch, next_mode) = (self.context.epoch(), self.context.mode());
        let barrier = Barrier { epoch, next_mode, last: false, had_data: false };
        self.source.command(SourceCommand::Barrier { barrier, ends });
        self.turns()
    }

    fn batch(&self, split: usize, values: &[i64], ended: bool) {
        let records = values.iter().map(|value| Record::new(*value)).collect();
        let batch = Batch { records, ..Batch::at(Position::from_u64(values.len() as u64)) };
        self.batches.try_send(Fetched::Batch { split, batch, at: Timestamp::MIN, ended }).unwrap();
    }

    fn saved(&mut self) -> Vec<(String, Vec<Timestamp>)> {
        let parts = self.context.take_effects().into_iter().filter_map(|effect| match effect {
            Effect::Part(part) => Some(part.positions),
            _ => None,
        });
        parts.flatten().map(|position| (position.split.to_string(), position.watermarks)).collect()
    }
}

#[test]
fn a_drain_is_final_in_front_of_its_barrier_and_a_stop_is_not() {
    let mut drained = bench(1, &[], &[]);
    assert_eq!(drained.barrier(Ends::Epoch), ["barrier"]);
    assert_eq!(drained.barrier(Ends::Input), ["final", "barrier"]);
    drained.source.command(SourceCommand::End);
    assert_eq!(drained.turns(), ["end"]);
    assert_eq!(bench(1, &[], &[]).barrier(Ends::Life), ["barrier"]);
}

#[test]
fn is_final_as_soon_as_all_splits_have_ended_and_goes_on_answering_barriers() {
    let mut bench = bench(2, &[1], &[]);
    assert_eq!(bench.turns(), [] as [&str; 0]);
    bench.batch(0, &[7], true);
    assert_eq!(bench.turns(), ["[(1, 7)]", "final"]);
    assert!(bench.context.splits().unwrap().status().iter().all(|split| split.ended));
    assert_eq!(bench.barrier(Ends::Epoch), ["barrier"]);
    assert_eq!(bench.barrier(Ends::Input), ["barrier"], "it was final before");
}

#[test]
fn without_a_split_it_is_final_at_once() {
    assert_eq!(bench(0, &[], &[]).turns(), ["final"]);
}

#[test]
fn watermarks_are_saved_with_the_positions_that_moved() {
    let mut bench = bench(3, &[], &[]);
    bench.batch(1, &[5, 4], false);
    bench.batch(2, &[9], false);
    assert_eq!(bench.turns(), ["[(2, 5), (2, 4)]", "[(3, 9)]"]);
    bench.barrier(Ends::Epoch);
    let at = Timestamp::from_millis;
    assert_eq!(bench.saved(), [("1".to_owned(), vec![at(4)]), ("2".to_owned(), vec![at(9)])]);
    bench.barrier(Ends::Epoch);
    assert_eq!(bench.saved(), []);
}

#[test]
fn a_split_is_not_idle_while_a_batch_of_it_is_in_work() {
    let mut bench = bench(1, &[], &[Duration::from_millis(1)]);
    let mut watch = bench.watch.take().unwrap();
    watch.gave(0);
    bench.batch(0, &[5], false);
    // The reader goes on, and finds nothing more, before the task comes to the batch.
    bench.clock.pass(7);
    watch.had_nothing(0);
    let idle_for = |bench: &Bench| bench.context.splits().unwrap().status()[0].idle_for.as_millis();
    assert_eq!(bench.head.poll(&mut bench.context).unwrap(), Polled::Worked);
    assert_eq!(idle_for(&bench), 0);
    bench.turns();
    assert_eq!(idle_for(&bench), 7);
}

/// Answers by a script, then with nothing.
struct Script(std::sync::Mutex<Vec<usize>>);

impl Source for Script {
    type Out = i64;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(vec![])
    }

    fn reader(&self, split: &SplitId, _from: Option<&Position>) -> Result<Box<dyn Reader<i64>>, BoxError> {
        let counts = if split.as_str() == "0" { std::mem::take(&mut *self.0.lock().unwrap()) } else { Vec::new() };
        Ok(Box::new(ScriptReader(counts)))
    }
}

struct ScriptReader(Vec<usize>);

impl Reader<i64> for ScriptReader {
    fn poll(&mut self, batch: &mut Batch<i64>, _limit: usize) -> Result<Answer, BoxError> {
        let count = self.0.pop().unwrap_or(0);
        batch.records.extend((0..count).map(|_| Record::new(1)));
        Ok(if count == 0 { Answer::Idle } else { Answer::More })
    }
}

#[test]
fn a_split_is_idle_by_its_readers_answers_only_and_that_rings_the_task() {
    let limit = Duration::from_millis(10);
    let mut bench = bench(2, &[], &[limit]);
    let starts = ["0", "1"].map(|split| SplitStart {
        split: SplitId::new(split),
        from: None,
        ended: false,
        planned: None,
        watermarks: vec![],
    });
    let (script, bell) = (Arc::new(Script(std::sync::Mutex::new(vec![1, 1, 1]))), Bell::default());
    let watch = bench.watch.take().unwrap();
    let mut fetcher = Fetcher::new(script, starts.into(), bench.batches.clone(), bell.clone(), watch);
    let idle = |bench: &mut Bench| {
        bench.turns();
        bench.context.splits().unwrap().status().iter().map(|split| split.idle_for.as_millis()).collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    while found.iter().filter(|fetch| **fetch == Fetch::Full).count() == 0 {
        bench.clock.pass(2);
        found.push(fetcher.step());
    }
    // Split 1 has said nothing in every other step, and that was handed over once; the third batch of split 0 has found no room.
    let before = 2 * 2 * found.iter().filter(|fetch| **fetch == Fetch::Idle).count() as u128;
    bench.clock.pass(1_000);
    assert_eq!(fetcher.step(), Fetch::Full);
    assert_eq!(idle(&mut bench), [0, before]);
    assert_eq!(fetcher.step(), Fetch::Worked);
    // Split 0 hands over once that it has nothing.
    let mut silent = 0;
    while silent < 2 {
        bench.turns();
        silent = if fetcher.step() == Fetch::Idle { silent + 1 } else { 0 };
    }
    bell.answer();
    while !bell.is_rung() {
        bench.clock.pass(1);
        assert_eq!(fetcher.step(), Fetch::Idle);
    }
    let [first, second] = idle(&mut bench)[..] else { panic!("two splits") };
    assert!(second >= 10 && first < second, "split 0 gave a batch later: {first} {second}");
}

/// Moves on without a record, once; then has nothing.
struct Skips(bool);

impl Reader<i64> for Skips {
    fn poll(&mut self, batch: &mut Batch<i64>, _limit: usize) -> Result<Answer, BoxError> {
        batch.end = Position::from_u64(9);
        Ok(if std::mem::replace(&mut self.0, false) { Answer::More } else { Answer::Idle })
    }
}

impl Source for Skips {
    type Out = i64;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(vec![])
    }

    fn reader(&self, _split: &SplitId, _from: Option<&Position>) -> Result<Box<dyn Reader<i64>>, BoxError> {
        Ok(Box::new(Self(self.0)))
    }
}

#[test]
fn a_place_that_moves_without_a_record_is_saved() {
    let mut bench = bench(1, &[], &[]);
    let start = SplitStart { split: SplitId::new("0"), from: None, ended: false, planned: None, watermarks: vec![] };
    let watch = bench.watch.take().unwrap();
    let mut fetcher = Fetcher::new(Arc::new(Skips(true)), vec![start], bench.batches.clone(), Bell::default(), watch);
    let steps = [fetcher.step(), fetcher.step(), fetcher.step()];
    assert_eq!(
        steps,
        [Fetch::Worked, Fetch::Worked, Fetch::Idle],
        "handed over once, and once that there is nothing more"
    );
    assert_eq!(bench.turns(), [] as [&str; 0]);
    bench.barrier(Ends::Epoch);
    assert_eq!(bench.saved(), [("0".to_owned(), vec![])]);
}

#[test]
fn micro_batches_that_wait_for_memory_ask_for_epochs_which_may_free_some() {
    let memory = MemoryBudget::new(0);
    let mut taken = memory.join();
    taken.report(Taken { bytes: 1, ..Taken::default() });
    let mut bench =
        bench_of(1, &[], &[], SourceControl::within(memory, EpochLimits { records: 10, ..EpochLimits::default() }))
            .in_micro_batches();
    let asked = |bench: &mut Bench| {
        bench.turns();
        let effects = bench.context.take_effects().into_iter();
        effects.filter(|effect| matches!(effect, Effect::CloseEpoch(_))).count()
    };
    bench.batch(0, &[1], false);
    assert_eq!(asked(&mut bench), 1);
    bench.clock.pass(1_000);
    bench.context.tick();
    assert_eq!(asked(&mut bench), 0, "once for an epoch");
    bench.barrier(Ends::Epoch);
    assert_eq!(asked(&mut bench), 0, "for the next one not at once");
    bench.clock.pass(10);
    bench.context.tick();
    assert_eq!(asked(&mut bench), 1);
    taken.report(Taken::default());
    bench.barrier(Ends::Epoch);
    bench.clock.pass(1_000);
    bench.context.tick();
    assert_eq!(asked(&mut bench), 0, "records pass again");
}

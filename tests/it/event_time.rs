//! Watermarks of running jobs: who holds them back, for how long, and what ends with them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::channel::Frame;
use millstream::runtime::graph::OperatorVertex;
use millstream::runtime::operator::{AnyNode, Flow, Node, OpenContext, TaskContext, TaskError};
use millstream::runtime::testing::{ObserveOf, Observed};

/// A number is its own time in milliseconds.
fn time(n: &u64) -> Timestamp {
    Timestamp::from_millis(*n as i64)
}

/// Unites a feed with another stream, and feeds 1000, 1001 … until one of them meets the watermark of the feed.
fn feed_until_the_watermark_rises(name: &str, other: impl FnOnce(&Pipeline) -> Stream<u64>) {
    let (feed, numbers) = feed::<u64>(10);
    let (sink, observed) = channel_sink::<Observed<u64>>(10);
    let pipeline = Pipeline::new(name).parallelism(2).epoch_interval(Duration::from_millis(10));
    let numbers = pipeline.source("numbers", numbers).event_time(time, Duration::ZERO);
    let both = numbers.union(other(&pipeline)).rebalance();
    both.apply::<Observed<u64>>(None, ObserveOf::<u64>::default()).sink("out", sink);
    let runtime = Runtime::builder().workers(2).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    let risen = (1_000..2_000).any(|number| {
        feed.send(number).unwrap();
        let fed = std::iter::from_fn(|| observed.recv()).find(|observed| observed.value == number).unwrap();
        fed.watermark >= Some(Timestamp::from_millis(999))
    });
    assert!(risen, "something holds the watermark back");
    drop(observed);
    drop(job.stop_blocking(Duration::from_secs(10)));
}

#[test]
fn a_silent_source_holds_nobody_back_once_it_is_idle() {
    let (silent, source) = feed::<u64>(1);
    let strategy = WatermarkStrategy::monotonous().idle_after(Duration::from_millis(20));
    let timed = |pipeline: &Pipeline| pipeline.source("silent", source).event_time_by(time, strategy);
    feed_until_the_watermark_rises("silent", timed);
    drop(silent);
}

#[test]
fn a_finite_source_leaves_the_minimum_when_it_ends() {
    let few = Generator::new(Some(10), |n| n);
    let timed = |pipeline: &Pipeline| pipeline.source("few", few).event_time(time, Duration::ZERO);
    feed_until_the_watermark_rises("finite", timed);
}

#[test]
fn a_source_without_event_time_holds_nobody_back() {
    let (silent, source) = feed::<u64>(1);
    feed_until_the_watermark_rises("untimed", |pipeline| pipeline.source("untimed", source));
    drop(silent);
}

#[test]
fn an_absurd_time_is_counted_and_does_not_pull() {
    let absurd = |n: &u64| if *n == 3 { Timestamp::MAX } else { time(n) };
    let (sink, late) = Collect::new();
    let pipeline = Pipeline::new("absurd").parallelism(1);
    let timed = pipeline.source("numbers", Generator::new(Some(1_000), |n| n)).event_time(absurd, Duration::ZERO);
    let observed = timed.apply::<Observed<u64>>(None, ObserveOf::<u64>::default());
    observed.filter(Observed::is_late).sink("late", sink);
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    assert!(matches!(job.join(), Ok(Ended::Finished { .. })));
    assert_eq!(late.snapshot(), []);
    assert_eq!(job.subtasks().iter().map(|subtask| subtask.refused_pulls).sum::<u64>(), 1);
}

/// Notes the marks that pass.
#[derive(Clone, Default)]
struct Marks(Arc<Mutex<Vec<String>>>);

impl OperatorVertex for Marks {
    fn label(&self) -> &str {
        "marks"
    }

    fn states(&self) -> Vec<millstream::runtime::checkpoint::StateDecl> {
        Vec::new()
    }

    fn build(&self, _open: &OpenContext, next: AnyNode) -> Result<AnyNode, TaskError> {
        let node: Box<dyn Node<u64>> = Box::new(Noting(self.clone(), *next.downcast().unwrap()));
        Ok(Box::new(node))
    }
}

struct Noting(Marks, Box<dyn Node<u64>>);

impl Node<u64> for Noting {
    fn offer(&mut self, frame: Frame<u64>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        let note = match &frame {
            Frame::Watermark(Timestamp::MAX) => Some("final"),
            Frame::Barrier(_) => Some("barrier"),
            Frame::End => Some("end"),
            _ => None,
        };
        self.0.0.lock().unwrap().extend(note.map(str::to_owned));
        self.1.offer(frame, context)
    }

    fn resume(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.1.resume(context)
    }

    fn flush(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.1.flush(context)
    }
}

/// Runs a feed behind an exchange, ends the job, and returns the marks from the final watermark on, or the last one.
fn marks_at_the_end(name: &str, end: impl FnOnce(JobHandle) -> Result<Ended, JobError>) -> Vec<String> {
    let (feed, numbers) = feed::<u64>(10);
    let marks = Marks::default();
    let pipeline = Pipeline::new(name).parallelism(1).epoch_interval(Duration::from_millis(10));
    let timed = pipeline.source("numbers", numbers).event_time(time, Duration::ZERO).rebalance();
    timed.apply::<u64>(None, marks.clone()).sink("out", Blackhole::new());
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    feed.send_durable(5).unwrap().wait().unwrap();
    end(job).unwrap();
    let marks = marks.0.lock().unwrap();
    let open = marks.iter().rposition(|mark| mark == "final").unwrap_or(marks.len() - 1);
    marks[open..].to_vec()
}

#[test]
fn drain_sends_the_final_watermark_in_front_of_the_last_barrier_and_stop_sends_none() {
    let within = Duration::from_secs(10);
    let drained = marks_at_the_end("drained", |job| job.drain_blocking(within));
    assert_eq!(drained, ["final", "barrier", "end"]);
    let stopped = marks_at_the_end("stopped", |job| job.stop_blocking(within));
    assert_eq!(stopped, ["barrier"]);
}

//! What the jobs of the tests are made of: numbers, a function on each, and both kinds of sink.

use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::BoxError;
use crate::graph::{Exchange, Graph, OperatorOf, SinkOf, SourceOf, VertexKind, WireOf};
use crate::operator::{FrameInput, OpenContext, Operator};
use crate::record::Record;
use crate::sink::{Encoder, EpochBatch, Sink, SinkContext, SinkError, SinkErrorKind, SinkSpec, Token, TokenSink};
use crate::source::{Batch, Polled, Position, Reader, Source, SplitId};

/// Numbers from 0 on, in one split; waits at the end of what it is given so far, and ends only if told so.
#[derive(Clone)]
pub(super) struct Numbers {
    pub(super) upto: Arc<AtomicU64>,
    ends: bool,
    pub(super) acknowledged: Arc<AtomicU64>,
    pub(super) panics: Arc<AtomicUsize>,
}

impl Numbers {
    pub(super) fn new(upto: u64, ends: bool) -> Self {
        Self { upto: Arc::new(upto.into()), ends, acknowledged: Arc::default(), panics: Arc::default() }
    }
}

struct NumbersReader {
    source: Numbers,
    at: u64,
}

impl Source for Numbers {
    type Out = u64;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(vec![SplitId::new("all")])
    }

    fn reader(&self, _: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<u64>>, BoxError> {
        Ok(Box::new(NumbersReader { source: self.clone(), at: from.and_then(Position::as_u64).unwrap_or(0) }))
    }

    fn committed(&self, at: &[(SplitId, Position)]) {
        let at = at.first().and_then(|(_, position)| position.as_u64()).unwrap();
        assert!(self.acknowledged.fetch_max(at, Ordering::SeqCst) <= at, "went back to {at}");
    }
}

impl Reader<u64> for NumbersReader {
    fn poll(&mut self, batch: &mut Batch<u64>, limit: usize) -> Result<Polled, BoxError> {
        if self.source.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            panic!("a planned panic of the reader");
        }
        let upto = self.source.upto.load(Ordering::SeqCst);
        let end = upto.min(self.at + (limit as u64).min(50));
        batch.records.extend((self.at..end).map(Record::new));
        self.at = end;
        batch.end = Position::from_u64(end);
        Ok(match (end < upto, self.source.ends) {
            (true, _) => Polled::More,
            (false, true) => Polled::End,
            (false, false) => Polled::Idle,
        })
    }
}

/// Calls a function on every number.
struct Each<F>(F);

impl<F: FnMut(u64) -> Result<u64, BoxError> + 'static> Operator for Each<F> {
    type In = u64;
    type Out = u64;

    fn next(&mut self, input: &mut FrameInput<u64>) -> Result<Option<Record<u64>>, BoxError> {
        input.pop().map(|record| Ok(Record::new((self.0)(record.value)?))).transpose()
    }
}

#[derive(Clone, Default)]
pub(super) struct Collected(Arc<Mutex<Vec<u64>>>);

impl Collected {
    pub(super) fn sorted(&self) -> Vec<u64> {
        let mut numbers = self.0.lock().unwrap().clone();
        numbers.sort_unstable();
        numbers
    }

    pub(super) fn direct(&self) -> SinkSpec<u64> {
        let collected = self.clone();
        SinkSpec::Direct(Arc::new(move || Ok(Box::new(collected.clone()))))
    }
}

impl Sink<u64> for Collected {
    fn write(&mut self, value: u64) -> Result<(), BoxError> {
        self.0.lock().unwrap().push(value);
        Ok(())
    }
}

/// An outside system with a token: rows arrive exactly once.
#[derive(Clone, Default)]
pub(super) struct Outside {
    inner: Arc<Mutex<(Token, BTreeMap<u64, usize>)>>,
    pub(super) panics: Arc<AtomicUsize>,
}

struct Plain;

impl Encoder<u64> for Plain {
    fn encode(&self, value: &u64, out: &mut Vec<u8>) -> Result<(), BoxError> {
        out.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }
}

impl TokenSink for Outside {
    fn open(&mut self, _: &SinkContext) -> Result<Token, SinkError> {
        Ok(self.inner.lock().unwrap().0)
    }

    fn apply(&mut self, batch: &EpochBatch<'_>) -> Result<(), SinkError> {
        if self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            panic!("a planned panic of the connector");
        }
        let mut inner = self.inner.lock().unwrap();
        if batch.first() < inner.0.next {
            return Err(SinkError::plain(SinkErrorKind::Fatal, "an epoch came twice"));
        }
        for row in batch.rows() {
            *inner.1.entry(u64::from_be_bytes(row.bytes.try_into().unwrap())).or_default() += 1;
        }
        inner.0 = Token { next: batch.last().next() };
        Ok(())
    }
}

impl Outside {
    pub(super) fn spec(&self) -> SinkSpec<u64> {
        let outside = self.clone();
        let connector = Arc::new(move || Ok(Box::new(outside.clone()) as Box<dyn TokenSink>));
        SinkSpec::Outbox { encoder: Arc::new(Plain), connector }
    }

    pub(super) fn len(&self) -> usize {
        self.inner.lock().unwrap().1.len()
    }

    #[track_caller]
    pub(super) fn assert_each_once(&self, upto: u64) {
        let inner = self.inner.lock().unwrap();
        assert!(inner.1.values().all(|count| *count == 1), "doubled");
        assert_eq!(inner.1.keys().copied().collect::<Vec<_>>(), (0..upto).collect::<Vec<_>>());
    }
}

pub(super) fn pipeline<F, O>(source: &Numbers, each: F, sink: SinkSpec<u64>) -> Graph
where
    F: Fn(&OpenContext) -> O + Send + Sync + 'static,
    O: FnMut(u64) -> Result<u64, BoxError> + 'static,
{
    let at = Location::caller();
    let mut graph = Graph::new("numbers");
    let from = graph.add_vertex(Some("from"), VertexKind::Source(Arc::new(SourceOf::new(source.clone()))), at);
    let make = move |open: &OpenContext| Ok(Each(each(open)));
    let each = graph.add_vertex(Some("each"), VertexKind::Operator(Arc::new(OperatorOf::stateless("each", make))), at);
    let to = graph.add_vertex(Some("to"), VertexKind::Sink(Arc::new(SinkOf::new(sink))), at);
    // Through a channel to all subtasks of the next task.
    graph.add_edge(from, each, Exchange::Rebalance, Arc::new(WireOf::<u64>::plain()));
    graph.add_edge(each, to, Exchange::Forward, Arc::new(WireOf::<u64>::plain()));
    graph.set_epoch_interval(Duration::from_millis(5));
    graph
}

pub(super) fn identity(_: &OpenContext) -> impl FnMut(u64) -> Result<u64, BoxError> + use<> {
    Ok
}

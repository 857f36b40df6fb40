//! A source that hands out drain by drain, in virtual time, and ends lives where it is told to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::runtime::error::BoxError;
use millstream::runtime::position::{Position, SplitId};
use millstream::runtime::record::Record;
use millstream::runtime::source::{Batch, Polled, Reader, Source};
use millstream::runtime::testing::{Outside, SimControl};
use millstream::runtime::time::{Clock, Timestamp};

use super::{Event, sorted};

/// Where lives end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ends {
    /// Nowhere.
    Never,
    /// In good order behind every drain.
    Stop,
    /// By a crash in every drain, so long after it began.
    Crash(Duration),
}

/// The sources of a script, and what was delivered by the end of each drain.
#[derive(Clone)]
pub(super) struct Scripted {
    inputs: Arc<Vec<Vec<Vec<Event>>>>,
    lasts: Duration,
    ends: Ends,
    control: SimControl,
    outside: Outside,
    state: Arc<Mutex<State>>,
}

struct State {
    /// How many drains have begun.
    open: usize,
    /// When the last one did, or the life, if that is later.
    since: Timestamp,
    /// Rows that were there when each drain ended.
    delivered: Vec<usize>,
    /// Drains in which a life has crashed.
    crashed: usize,
    /// The life is being stopped; the next one begins the next drain.
    stopping: bool,
    /// See [`Ran::lives`](super::Ran).
    lives: Vec<(usize, usize)>,
}

impl Scripted {
    pub(super) fn new(
        inputs: &[Vec<Vec<Event>>],
        lasts: Duration,
        ends: Ends,
        (control, outside): (SimControl, Outside),
    ) -> Self {
        let state = State {
            open: 1,
            since: Timestamp::MIN,
            delivered: Vec::new(),
            crashed: 0,
            stopping: false,
            lives: Vec::new(),
        };
        let (inputs, state) = (Arc::new(inputs.to_vec()), Arc::new(Mutex::new(state)));
        Self { inputs, lasts, ends, control, outside, state }
    }

    pub(super) fn source(&self, index: usize) -> ScriptedSource {
        ScriptedSource { script: self.clone(), index }
    }

    /// What was sent by each drain, sorted.
    pub(super) fn drains(&self) -> Vec<Vec<String>> {
        let rows: Vec<String> =
            self.outside.rows().iter().map(|row| String::from_utf8_lossy(row).into_owned()).collect();
        let ends = self.state.lock().unwrap().delivered.clone();
        let begins = std::iter::once(0).chain(ends.iter().copied());
        begins.zip(&ends).map(|(begin, end)| sorted(rows[begin..*end].iter().cloned())).collect()
    }

    pub(super) fn lives(&self) -> Vec<(usize, usize)> {
        self.state.lock().unwrap().lives.clone()
    }

    /// The first source keeps the time. Says whether the script has come to its end.
    fn keep_time(&self, state: &mut State) -> bool {
        if state.open > self.drains_in_all() {
            return true;
        }
        let now = self.control.clock().now();
        if let Ends::Crash(after) = self.ends
            && state.crashed < state.open
            && now >= state.since.saturating_add(after)
        {
            state.crashed += 1;
            self.control.crash();
            return false;
        }
        if state.stopping || now < state.since.saturating_add(self.lasts) {
            return false;
        }
        if matches!(self.ends, Ends::Stop) && state.open < self.drains_in_all() {
            state.stopping = true;
            self.control.stop();
            return false;
        }
        self.next_drain(state);
        state.open > self.drains_in_all()
    }

    fn next_drain(&self, state: &mut State) {
        state.delivered.push(self.outside.rows().len());
        state.open += 1;
        state.since = self.control.clock().now();
    }

    fn drains_in_all(&self) -> usize {
        self.inputs[0].len()
    }
}

/// One of the sources.
pub(super) struct ScriptedSource {
    script: Scripted,
    index: usize,
}

impl Source for ScriptedSource {
    type Out = Event;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(vec![SplitId::new("script")])
    }

    fn reader(&self, _split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<Event>>, BoxError> {
        if self.index == 0 {
            let mut state = self.script.state.lock().unwrap();
            state.since = self.script.control.clock().now();
            if std::mem::take(&mut state.stopping) {
                self.script.next_drain(&mut state);
            }
            let life = (state.open - 1, self.script.outside.rows().len());
            state.lives.push(life);
        }
        let next = from.and_then(Position::as_u64).unwrap_or(0) as usize;
        Ok(Box::new(ScriptedReader { script: self.script.clone(), index: self.index, next }))
    }
}

struct ScriptedReader {
    script: Scripted,
    index: usize,
    /// Records that were handed out.
    next: usize,
}

impl Reader<Event> for ScriptedReader {
    fn poll(&mut self, batch: &mut Batch<Event>, limit: usize) -> Result<Polled, BoxError> {
        let mut state = self.script.state.lock().unwrap();
        let over = match self.index {
            0 => self.script.keep_time(&mut state),
            _ => state.open > self.script.drains_in_all(),
        };
        let open = self.script.inputs[self.index].iter().take(state.open).flatten();
        let records = open.skip(self.next).take(limit).map(|event| Record::new(event.clone()));
        batch.records.extend(records);
        self.next += batch.records.len();
        batch.end = Position::from_u64(self.next as u64);
        Ok(match batch.records.len() {
            _ if over => Polled::End,
            0 => Polled::Idle,
            _ => Polled::More,
        })
    }
}

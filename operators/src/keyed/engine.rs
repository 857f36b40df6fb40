//! Drives a user's operator: keys, late records, timers in their order, the watermark last.
//!
//! A watermark is handled in this order: timers fire with it, one at a time; only then records up to it are late; only then it goes
//! on. So what an operator before this one emits because of a watermark is not late here.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use millstream_runtime::canary::{Canary, planted};
use millstream_runtime::channel::Mark;
use millstream_runtime::error::{BoxError, guarded};
use millstream_runtime::graph::{BuildError, OperatorOf, OperatorVertex, Shape, VertexKind};
use millstream_runtime::operator::{
    self, DropReason, Emitted, Fired, FrameInput, Operator, OutputMode, Prepared, SideDecl,
};
use millstream_runtime::record::Record;
use millstream_runtime::state::OperatorState;
use millstream_runtime::state::key_group::StreamKey;
use millstream_runtime::state::keyed::{DueTimer, KeyedSetup, KeyedState, Popped};
use millstream_runtime::time::{SharedClock, Timestamp};
use millstream_runtime::timer::TimerKind;

use crate::failing::{Mishap, Warden};
use crate::keyed::context::{Drops, OpenContext, Outbox, ProcessContext, declare_side};
use crate::keyed::walk::{EpochEnd, Step, Visit, Walk, Walker};
use crate::side::{AnyRecord, Leaving, MainOnly, WithSides};

/// What becomes of a late record.
pub(crate) enum Late<T> {
    Drop,
    Side(u16, AnyRecord),
    Accept(T),
}

impl<T> Late<T> {
    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> Late<U> {
        match self {
            Self::Drop => Late::Drop,
            Self::Side(side, record) => Late::Side(side, record),
            Self::Accept(record) => Late::Accept(f(record)),
        }
    }
}

/// How a record stands to the operator's event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is worked on.
    InTime,
    /// It is worked on, and counted, since some of it is late.
    LateInPart,
    /// It is late: [`Logic::late`] says what becomes of it.
    Late,
    /// There is no place for it: it is dropped and counted.
    Nowhere,
}

/// A user's operator, whatever the number of its inputs. Cloned afresh for every subtask and attempt.
pub(crate) trait Logic: Clone + Send + Sync + 'static {
    type Key: StreamKey;
    type In: Send + 'static;
    type Out: Send + 'static;
    type State: 'static;

    /// What it is to the rules of output modes.
    fn shape(&self) -> Shape {
        Shape::Free
    }

    /// Why it may drop records.
    fn drop_reasons(&self) -> &'static [DropReason] {
        &[DropReason::Late]
    }

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Self::State, BoxError>;

    /// Side outputs for late records and for those that fail.
    fn own_sides(&self) -> Vec<SideDecl>;

    /// What becomes of the record if it fails.
    fn mishap(&self, _record: &Self::In, _sides: &[SideDecl]) -> Mishap {
        Mishap::Fail
    }

    /// Writes what the record is known by; says whether panics on it are quarantined.
    fn identify(&self, _record: &Self::In, _out: &mut Vec<u8>) -> Result<bool, BoxError> {
        Ok(false)
    }

    /// Where a record in quarantine goes.
    fn kept_away(&self, _record: Self::In, _sides: &[SideDecl]) -> Option<(u16, AnyRecord)> {
        None
    }

    /// Takes note that the state of the record's key is needed.
    fn want(&self, record: &Self::In, hash: u32, keyed: &mut KeyedState);

    /// Makes the record's key the current one.
    fn enter(&self, record: &Self::In, hash: u32, keyed: &mut KeyedState);

    /// How a record stands; called right before [`Logic::on_record`].
    #[inline]
    fn standing(
        &mut self,
        record: &Self::In,
        (time, hash): (Timestamp, u32),
        state: &Self::State,
        keyed: &KeyedState,
    ) -> Standing {
        let _ = (record, state);
        if keyed.is_late(hash, time) { Standing::Late } else { Standing::InTime }
    }

    /// What becomes of a record that is late.
    fn late(&self, record: Self::In, _sides: &[SideDecl]) -> Late<Self::In> {
        Late::Accept(record)
    }

    fn on_record(
        &mut self,
        record: Self::In,
        state: &mut Self::State,
        ctx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), BoxError>;

    fn on_timer(
        &mut self,
        time: Timestamp,
        state: &mut Self::State,
        ctx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), BoxError>;

    /// Says which keys have something to send at the end of an epoch.
    fn at_epoch_end(&mut self, end: EpochEnd, state: &Self::State, keyed: &KeyedState) -> Walk {
        let _ = (end, state, keyed);
        Walk::Nothing
    }

    /// Sends some of what the current key has for the end of an epoch.
    fn visit(&mut self, state: &mut Self::State, ctx: &mut ProcessContext<'_, Self::Out>) -> Result<Visit, BoxError> {
        let _ = (state, ctx);
        Ok(Visit::Done)
    }

    /// The subtask ends.
    fn close(&mut self, state: &mut Self::State) {
        let _ = state;
    }
}

/// The mark that is being handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Firing {
    Nothing,
    Watermark(Timestamp),
    ProcessingTime,
    EpochEnd,
}

/// The operator of one subtask.
pub(crate) struct Engine<L: Logic, W> {
    logic: L,
    state: L::State,
    keyed: KeyedState,
    sides: Vec<SideDecl>,
    out: Outbox<L::Out>,
    firing: Firing,
    walker: Walker,
    drops: Drops,
    warden: Warden,
    clock: SharedClock,
    leaving: PhantomData<fn() -> W>,
}

impl<L: Logic, W> fmt::Debug for Engine<L, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("keyed", &self.keyed).finish_non_exhaustive()
    }
}

impl<L: Logic, W> Drop for Engine<L, W> {
    fn drop(&mut self) {
        let Self { logic, state, .. } = self;
        // It is over either way, and a panic must not get out of a drop; the hook has told of it.
        let _told = guarded(|| logic.close(state));
    }
}

/// Opens a user's operator on some state.
fn open<L: Logic>(
    logic: &L,
    setup: KeyedSetup,
    mode: OutputMode,
) -> Result<(L::State, KeyedState, Vec<SideDecl>), BoxError> {
    let mut keyed = KeyedState::new::<L::Key>(setup);
    let mut sides = Vec::new();
    let state = logic.open(&mut OpenContext::new(mode, &mut keyed, &mut sides))?;
    logic.own_sides().into_iter().try_for_each(|side| declare_side(&mut sides, side))?;
    keyed.load()?;
    Ok((state, keyed, sides))
}

/// Makes the vertex of a user's operator. What its `open` refuses is a mistake in the pipeline's description.
pub(crate) fn vertex<L: Logic>(label: &str, logic: L) -> Result<VertexKind, BoxError> {
    Ok(VertexKind::Operator(operator(label, logic)?))
}

/// As [`vertex`], for one that something is put in front of.
pub(crate) fn operator<L: Logic>(label: &str, logic: L) -> Result<Arc<dyn OperatorVertex>, BoxError> {
    let (_, keyed, sides) = open(&logic, KeyedSetup::describe(), OutputMode::default())?;
    let (states, shape) = (keyed.declared().to_vec(), logic.shape());
    if sides.is_empty() {
        let make = move |open: &operator::OpenContext| Engine::<L, MainOnly>::open(open, &logic);
        return Ok(Arc::new(OperatorOf::stateful(label, states, make).with_shape(shape)));
    }
    let make = move |open: &operator::OpenContext| Engine::<L, WithSides>::open(open, &logic);
    Ok(Arc::new(OperatorOf::stateful(label, states, make).with_shape(shape).with_sides::<L::Out>(sides)))
}

/// The mistake of an operator that cannot be opened.
pub(crate) fn mistake(name: &str, at: &'static std::panic::Location<'static>, error: &BoxError) -> BuildError {
    BuildError::Open { operator: name.to_owned(), at: BuildError::place(at), error: error.to_string() }
}

impl<L: Logic, W> Engine<L, W> {
    fn open(context: &operator::OpenContext, logic: &L) -> Result<Self, BoxError> {
        let logic = logic.clone();
        let (state, keyed, sides) = open(&logic, context.keyed(), context.output_mode)?;
        let counter = |reason: &DropReason| (*reason, context.control.drop_counter(&context.name, *reason));
        let drops = Drops(logic.drop_reasons().iter().map(counter).collect());
        Ok(Self {
            logic,
            state,
            keyed,
            sides,
            out: Outbox::new(),
            firing: Firing::Nothing,
            walker: Walker::default(),
            drops,
            warden: Warden::new(context),
            clock: Arc::clone(&context.clock),
            leaving: PhantomData,
        })
    }

    /// Calls user code: the one place, so that what it leaves behind can be taken back. The inner result is what it returned.
    fn call(
        &mut self,
        time: Timestamp,
        firing: Option<TimerKind>,
        call: impl FnOnce(&mut L, &mut L::State, &mut ProcessContext<'_, L::Out>) -> Result<(), BoxError>,
    ) -> Result<Result<(), BoxError>, BoxError> {
        let watermark = self.event_time();
        let Self { logic, state, keyed, sides, out, drops, .. } = self;
        let mut context = ProcessContext { keyed, sides, out, drops, time, watermark, firing, stranger: None };
        let returned = call(logic, state, &mut context);
        if let Some(tag) = context.stranger {
            let text =
                format!("it emitted to the tag {tag:?}, which it does not declare; call `side_output` in `open`");
            return Err(text.into());
        }
        // Not the user's: state that cannot be written or read.
        self.keyed.take_error().map_or(Ok(returned), |error| Err(error.into()))
    }

    fn on_record(&mut self, Record { value, time, hash }: Record<L::In>) -> Result<(), BoxError> {
        let standing = self.logic.standing(&value, (time, hash), &self.state, &self.keyed);
        let value = match standing {
            Standing::InTime => value,
            Standing::LateInPart => {
                self.drops.count(DropReason::LateInPart);
                value
            }
            Standing::Nowhere => {
                self.drops.count(DropReason::NoWindow);
                return Ok(());
            }
            Standing::Late => match self.logic.late(value, &self.sides) {
                Late::Accept(value) => value,
                Late::Side(side, value) => {
                    self.out.push_back(Record { value: Emitted::Side(side, value), time, hash });
                    return Ok(());
                }
                Late::Drop => {
                    self.drops.count(DropReason::Late);
                    return Ok(());
                }
            },
        };
        if self.warden.is_quarantined(time, |out| self.logic.identify(&value, out))? {
            let kept_away = self.logic.kept_away(value, &self.sides);
            self.warden.count_kept_away(kept_away.is_some());
            let side = kept_away.map(|(side, value)| Record { value: Emitted::Side(side, value), time, hash });
            self.out.extend(side);
            return Ok(());
        }
        if self.warden.is_watching() {
            // What a panic leaves behind goes with the attempt.
            let called = guarded(|| self.work_on(value, (time, hash)));
            return self.warden.name(time, called)?;
        }
        self.work_on(value, (time, hash))
    }

    /// Gives user code a record.
    fn work_on(&mut self, value: L::In, (time, hash): (Timestamp, u32)) -> Result<(), BoxError> {
        self.logic.enter(&value, hash, &mut self.keyed);
        let mishap = self.logic.mishap(&value, &self.sides);
        if matches!(mishap, Mishap::Fail) {
            return self.call(time, None, |logic, state, context| logic.on_record(value, state, context))?;
        }
        let before = self.out.len();
        self.keyed.note_changes();
        match self.call(time, None, |logic, state, context| logic.on_record(value, state, context))? {
            Ok(()) => self.keyed.keep_changes(),
            Err(_) => {
                self.keyed.take_back()?;
                if !planted(Canary::SkippedLeavesOutput) {
                    self.out.truncate(before);
                }
                self.warden.count_error(&mishap);
                if let Mishap::Side(side, record) = mishap {
                    self.out.push_back(Record { value: Emitted::Side(side, record), time, hash });
                }
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: &DueTimer) -> Result<(), BoxError> {
        let time = match timer.kind {
            TimerKind::EventTime => timer.time,
            _ => Timestamp::MIN,
        };
        self.keyed.enter(timer);
        self.call(time, Some(timer.kind), |logic, state, context| logic.on_timer(timer.time, state, context))??;
        self.keyed.fired(timer);
        self.keyed.take_error().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Visits the next key that has something to send at the end of an epoch.
    fn walk(&mut self) -> Result<Step, BoxError> {
        let step = self.walker.step(&mut self.keyed);
        if step == Step::Visit {
            let mut visit = Visit::Done;
            self.call(Timestamp::MIN, None, |logic, state, context| {
                visit = logic.visit(state, context)?;
                Ok(())
            })??;
            if visit == Visit::Done {
                self.walker.leave(&mut self.keyed);
            }
        }
        Ok(step)
    }

    /// A timer that the last call registered in the past.
    fn pop_past(&mut self) -> Option<DueTimer> {
        let event_time = self.keyed.pop_past(TimerKind::EventTime);
        event_time.or_else(|| self.keyed.pop_past(TimerKind::ProcessingTime))
    }

    /// The event time that timers go by: the watermark, the one in work included.
    fn event_time(&self) -> Option<Timestamp> {
        let watermark = self.keyed.watermark();
        match self.firing {
            Firing::Watermark(to) => Some(watermark.map_or(to, |last| last.max(to))),
            _ => watermark,
        }
    }

    /// A timer that is due by the mark in work.
    fn pop_due(&mut self) -> Popped {
        if let Some(until) = self.event_time() {
            let popped = self.keyed.pop_due(TimerKind::EventTime, until);
            if popped != Popped::Nothing {
                return popped;
            }
        }
        let now = self.keyed.now();
        self.keyed.pop_due(TimerKind::ProcessingTime, now)
    }
}

impl<L: Logic, W: Leaving<L::Out>> Engine<L, W> {
    fn leave(&mut self) -> Option<Record<W::Out>> {
        while let Some(Record { value, time, hash }) = self.out.pop_front() {
            if let Some(value) = W::leave(value) {
                return Some(Record { value, time, hash });
            }
        }
        None
    }
}

impl<L: Logic, W: Leaving<L::Out>> Operator for Engine<L, W> {
    type In = L::In;
    type Out = W::Out;

    fn next(&mut self, input: &mut FrameInput<L::In>) -> Result<Option<Record<W::Out>>, BoxError> {
        loop {
            if let Some(record) = self.leave() {
                return Ok(Some(record));
            }
            if let Some(timer) = self.pop_past() {
                self.on_timer(&timer)?;
                continue;
            }
            let Some(record) = input.pop() else { return Ok(None) };
            self.on_record(record)?;
        }
    }

    fn prepare(&mut self, records: &[Record<L::In>]) -> Result<Prepared, BoxError> {
        self.keyed.set_now(self.clock.now());
        if !self.keyed.is_complete() {
            for record in records {
                self.logic.want(&record.value, record.hash, &mut self.keyed);
            }
            if self.keyed.is_missing() {
                return Ok(Prepared::Missing);
            }
        }
        self.keyed.set_event_time(self.event_time());
        Ok(Prepared::Ready)
    }

    fn on_mark(&mut self, mark: Mark) -> Result<(), BoxError> {
        self.firing = match mark {
            Mark::Watermark(watermark) => Firing::Watermark(watermark),
            Mark::ProcessingTime(_) => Firing::ProcessingTime,
            Mark::Barrier(barrier) => {
                let end = EpochEnd { had_data: barrier.had_data, last: barrier.last };
                self.walker = Walker::new(self.logic.at_epoch_end(end, &self.state, &self.keyed), &self.keyed);
                Firing::EpochEnd
            }
            _ => return Ok(()),
        };
        self.keyed.set_now(self.clock.now());
        Ok(())
    }

    fn fire(&mut self) -> Result<Fired<W::Out>, BoxError> {
        loop {
            if let Some(record) = self.leave() {
                return Ok(Fired::Record(record));
            }
            match self.firing {
                Firing::Nothing => return Ok(Fired::Done),
                Firing::EpochEnd => match self.walk()? {
                    Step::Visit => continue,
                    Step::Missing => return Ok(Fired::Missing),
                    Step::Over => {
                        self.firing = Firing::Nothing;
                        return Ok(Fired::Done);
                    }
                },
                Firing::Watermark(_) | Firing::ProcessingTime => {}
            }
            // The late threshold comes before all: it may be in the rows.
            if self.keyed.is_missing() {
                return Ok(Fired::Missing);
            }
            self.keyed.set_event_time(self.event_time());
            match self.pop_due() {
                Popped::Timer(timer) => {
                    self.on_timer(&timer)?;
                    continue;
                }
                Popped::Missing => return Ok(Fired::Missing),
                Popped::Nothing => {}
            }
            // All that is due has fired: only now records up to the watermark are late.
            if let Firing::Watermark(watermark) = std::mem::replace(&mut self.firing, Firing::Nothing) {
                self.keyed.raise(watermark);
            }
            return Ok(Fired::Done);
        }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.keyed.first_timer(TimerKind::ProcessingTime)
    }

    fn state(&mut self) -> Option<&mut dyn OperatorState> {
        Some(&mut self.keyed)
    }
}

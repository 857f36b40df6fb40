//! What a user's operator reaches: its declarations when it is opened, and everything else while it works.

use std::collections::VecDeque;
use std::fmt;

use millstream_runtime::error::BoxError;
use millstream_runtime::operator::{DropCounter, DropReason, Emitted, OutputMode, OutputTag, SideDecl};
use millstream_runtime::record::Record;
use millstream_runtime::state::key_group::StreamKey;
use millstream_runtime::state::keyed::{KeyTimers, KeyedError, KeyedState, List, Map, Value};
use millstream_runtime::state::{PackedKey, StateValue, Versioned};
use millstream_runtime::time::Timestamp;
use millstream_runtime::timer::TimerKind;

use crate::side::{AnyRecord, number_of};

/// Where an operator declares what it keeps and where it sends to.
///
/// `open` is called once while the pipeline is described, so that mistakes are found early and the store can number the states, and
/// once per subtask and attempt. It has to declare the same every time.
pub struct OpenContext<'a> {
    output_mode: OutputMode,
    keyed: &'a mut KeyedState,
    sides: &'a mut Vec<SideDecl>,
}

impl fmt::Debug for OpenContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenContext").field("keyed", &self.keyed).field("sides", &self.sides).finish()
    }
}

impl<'a> OpenContext<'a> {
    pub(super) const fn new(output_mode: OutputMode, keyed: &'a mut KeyedState, sides: &'a mut Vec<SideDecl>) -> Self {
        Self { output_mode, keyed, sides }
    }

    /// The output mode of the pipeline; while it is described, `Append`. What is declared must not depend on it.
    pub const fn output_mode(&self) -> OutputMode {
        self.output_mode
    }

    /// Declares one value per key, kept under `name`.
    ///
    /// # Errors
    /// [`KeyedError`] when the operator has another state of this name.
    pub fn value<V: StateValue>(&mut self, name: &str) -> Result<Value<V>, KeyedError> {
        self.keyed.value(name)
    }

    /// Declares one value per key, with the version of its type and the way to read older ones.
    ///
    /// # Errors
    /// As [`OpenContext::value`].
    pub fn value_with<V: StateValue, F>(&mut self, name: &str, form: Versioned<F>) -> Result<Value<V>, KeyedError>
    where
        F: Fn(u32, &[u8]) -> Result<V, BoxError> + 'static,
    {
        self.keyed.value_with(name, form)
    }

    /// Declares a list per key, kept under `name`.
    ///
    /// # Errors
    /// As [`OpenContext::value`].
    pub fn list<V: StateValue>(&mut self, name: &str) -> Result<List<V>, KeyedError> {
        self.keyed.list(name)
    }

    /// Declares a list per key, with the version of its elements' type and the way to read older ones.
    ///
    /// # Errors
    /// As [`OpenContext::value`].
    pub fn list_with<V: StateValue, F>(&mut self, name: &str, form: Versioned<F>) -> Result<List<V>, KeyedError>
    where
        F: Fn(u32, &[u8]) -> Result<V, BoxError> + 'static,
    {
        self.keyed.list_with(name, form)
    }

    /// Declares a map per key, kept under `name`.
    ///
    /// # Errors
    /// As [`OpenContext::value`].
    pub fn map<K: StreamKey, V: StateValue>(&mut self, name: &str) -> Result<Map<K, V>, KeyedError> {
        self.keyed.map(name)
    }

    /// Declares a map per key, with the version of its values' type and the way to read older ones.
    ///
    /// # Errors
    /// As [`OpenContext::value`].
    pub fn map_with<K: StreamKey, V: StateValue, F>(
        &mut self,
        name: &str,
        form: Versioned<F>,
    ) -> Result<Map<K, V>, KeyedError>
    where
        F: Fn(u32, &[u8]) -> Result<V, BoxError> + 'static,
    {
        self.keyed.map_with(name, form)
    }

    /// Gives up a state that an earlier version of the operator declared: what the store has of it is removed with the next epoch. Without
    /// it, a start on a store with such a state is refused. Does nothing where there is none.
    ///
    /// # Errors
    /// [`KeyedError`] when the state is declared as well.
    pub fn delete_if_exists(&mut self, name: &str) -> Result<(), KeyedError> {
        self.keyed.delete_if_exists(name)
    }

    /// Takes what went wrong in a handle.
    pub(crate) fn take_error(&mut self) -> Option<KeyedError> {
        self.keyed.take_error()
    }

    /// Has the first epoch that is committed say that the operator was there.
    pub(crate) const fn mark_begun(&mut self) {
        self.keyed.mark_begun();
    }

    /// Declares a side output, so that the operator may emit to it.
    ///
    /// # Errors
    /// A text when the operator has another side output of this name.
    pub fn side_output<T: Send + 'static>(&mut self, tag: &OutputTag<T>) -> Result<(), BoxError> {
        declare_side(self.sides, SideDecl::new(tag))
    }
}

/// Adds a side output unless it is there.
pub(super) fn declare_side(sides: &mut Vec<SideDecl>, side: SideDecl) -> Result<(), BoxError> {
    match sides.iter().find(|known| known.name() == side.name()) {
        None => sides.push(side),
        Some(known) if known.is_same(&side) => {}
        Some(_) => return Err(format!("two side outputs are named {:?} and carry different types", side.name()).into()),
    }
    Ok(())
}

/// What has been emitted and not yet sent.
pub(crate) type Outbox<T> = VecDeque<Record<Emitted<T>>>;

/// The counters of what an operator drops.
#[derive(Debug)]
pub(crate) struct Drops(pub(super) Vec<(DropReason, DropCounter)>);

impl Drops {
    /// Counts a record. A reason that the operator does not know of is a bug; nothing is counted then.
    pub(crate) fn count(&self, reason: DropReason) {
        let found = self.0.iter().find(|(known, _)| *known == reason);
        debug_assert!(found.is_some(), "the operator drops records and does not say that it may: {reason}");
        if let Some((_, counter)) = found {
            counter.count(1);
        }
    }
}

/// What an operator reaches while it works on a record or a timer.
pub struct ProcessContext<'a, Out> {
    pub(crate) keyed: &'a KeyedState,
    pub(crate) sides: &'a [SideDecl],
    pub(crate) out: &'a mut Outbox<Out>,
    pub(crate) drops: &'a Drops,
    pub(crate) time: Timestamp,
    pub(crate) watermark: Option<Timestamp>,
    pub(super) firing: Option<TimerKind>,
    /// A tag that was emitted to and not declared.
    pub(super) stranger: Option<String>,
}

impl<Out> fmt::Debug for ProcessContext<'_, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessContext").field("time", &self.time).finish_non_exhaustive()
    }
}

impl<Out> ProcessContext<'_, Out> {
    /// Sends a result with the time of the record or timer in work.
    pub fn emit(&mut self, value: Out) {
        self.emit_at(self.time, value);
    }

    /// Sends a result with a time of its own. One that is not above the watermark may be late for the next operator.
    pub fn emit_at(&mut self, time: Timestamp, value: Out) {
        self.out.push_back(Record::at(Emitted::Main(value), time));
    }

    /// Sends a result to a side output that `open` declared, with the time of the record or timer in work. The call fails
    /// afterwards if the tag was not declared.
    pub fn emit_to<T: Send + 'static>(&mut self, tag: &OutputTag<T>, value: T) {
        match number_of(tag, self.sides) {
            Some(side) => {
                let value: AnyRecord = Box::new(value);
                self.out.push_back(Record::at(Emitted::Side(side, value), self.time));
            }
            None => self.stranger = Some(tag.name().to_owned()),
        }
    }

    /// Returns the current key.
    ///
    /// # Errors
    /// A text when the stream's key is not a `K`.
    pub fn key<K: StreamKey>(&self) -> Result<K, BoxError> {
        let name = std::any::type_name::<K>();
        self.keyed.key().ok_or_else(|| format!("the key of this stream is not a {name}").into())
    }

    /// The current key's bytes.
    pub(crate) fn packed_key(&self) -> Result<PackedKey, BoxError> {
        self.keyed.packed_key().ok_or_else(|| "there is no current key: a bug".into())
    }

    /// The event time of the record or event-time timer in work; [`Timestamp::MIN`] for a record without one and for
    /// processing-time timers.
    pub const fn time(&self) -> Timestamp {
        self.time
    }

    /// The clock of the timer that fires; nothing while a record is worked on.
    pub const fn firing(&self) -> Option<TimerKind> {
        self.firing
    }

    /// The operator's watermark: no record with a time ≤ this follows, except late ones. While event-time timers fire it is the new
    /// one. Nothing before the first.
    pub const fn watermark(&self) -> Option<Timestamp> {
        self.watermark
    }

    /// The processing time, read once per frame.
    pub fn processing_time(&self) -> Timestamp {
        self.keyed.now()
    }

    /// The current key's timers. A timer is registered at most once per clock and time. It fires once its time is ≤ the watermark, or
    /// ≤ the processing time, timers of one subtask in ascending order; one in the past fires right behind the present call.
    pub fn timers(&self) -> &KeyTimers {
        self.keyed.timers()
    }
}

//! What becomes of records that user code cannot work on: one mechanism for all operators that can fail.

use std::mem;
use std::sync::Arc;

use millstream_runtime::codec;
use millstream_runtime::error::{BoxError, guarded};
use millstream_runtime::operator::{
    DeadLetterCounter, DeadLetterKind, DropCounter, DropReason, OpenContext, OutputTag, Poison, Poisoned, SideDecl,
};
use millstream_runtime::time::Timestamp;
use serde::Serialize;

use crate::side::{AnyRecord, number_of};

/// What becomes of records for which user code returns an error.
enum OnError<T> {
    /// The attempt fails.
    Fail,
    /// They are dropped and counted.
    Skip,
    /// They go to a side output, copied before the call.
    Side { tag: OutputTag<T>, copy: fn(&T) -> T },
}

impl<T> Clone for OnError<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Fail => Self::Fail,
            Self::Skip => Self::Skip,
            Self::Side { tag, copy } => Self::Side { tag: tag.clone(), copy: *copy },
        }
    }
}

/// What becomes of one record, decided before the call that consumes it.
pub(crate) enum Mishap {
    /// The attempt fails.
    Fail,
    /// It is dropped and counted.
    Skip,
    /// It goes to a side output.
    Side(u16, AnyRecord),
}

type Encode<T> = fn(&T, &mut Vec<u8>) -> Result<(), codec::CodecError>;

/// What becomes of records that fail, as an operator's user says it.
pub(crate) struct FailingRecords<T> {
    on_error: OnError<T>,
    /// How a record becomes bytes, if those that make user code panic go to quarantine.
    encode: Option<Encode<T>>,
}

impl<T> Clone for FailingRecords<T> {
    fn clone(&self) -> Self {
        Self { on_error: self.on_error.clone(), encode: self.encode }
    }
}

impl<T> Default for FailingRecords<T> {
    fn default() -> Self {
        Self { on_error: OnError::Fail, encode: None }
    }
}

impl<T: Send + 'static> FailingRecords<T> {
    pub(crate) fn skip_errors(&mut self) {
        self.on_error = OnError::Skip;
    }

    pub(crate) fn dead_letters_to(&mut self, tag: &OutputTag<T>)
    where
        T: Clone,
    {
        self.on_error = OnError::Side { tag: tag.clone(), copy: T::clone };
    }

    pub(crate) fn quarantine_panics(&mut self)
    where
        T: Serialize,
    {
        self.encode = Some(codec::encode_into::<T>);
    }

    /// Says whether something else than the attempt's failure is asked for.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.encode.is_some() || !matches!(self.on_error, OnError::Fail)
    }

    /// The side output that they go to.
    pub(crate) fn side(&self) -> Option<SideDecl> {
        match &self.on_error {
            OnError::Side { tag, .. } => Some(SideDecl::new(tag)),
            _ => None,
        }
    }

    /// What becomes of a record, if it fails.
    #[inline]
    pub(crate) fn mishap(&self, record: &T, sides: &[SideDecl]) -> Mishap {
        match &self.on_error {
            OnError::Fail => Mishap::Fail,
            OnError::Skip => Mishap::Skip,
            OnError::Side { tag, copy } => {
                number_of(tag, sides).map_or(Mishap::Skip, |side| Mishap::Side(side, Box::new(copy(record))))
            }
        }
    }

    /// Where a record goes that user code is not given: to the same side output, or nowhere.
    pub(crate) fn kept_away(&self, record: T, sides: &[SideDecl]) -> Option<(u16, AnyRecord)> {
        match &self.on_error {
            OnError::Side { tag, .. } => Some((number_of(tag, sides)?, Box::new(record))),
            _ => None,
        }
    }

    /// Writes what the record is known by; says whether panics on it are quarantined.
    #[inline]
    pub(crate) fn identify(&self, record: &T, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        match self.encode {
            None => Ok(false),
            Some(encode) => Ok(encode(record, out).map(|()| true)?),
        }
    }
}

/// Counts the records of one subtask that fail, and knows those again that are in quarantine.
pub(crate) struct Warden {
    operator: Arc<str>,
    skipped: DropCounter,
    dead_letters: DeadLetterCounter,
    kept_away: DropCounter,
    kept_away_letters: DeadLetterCounter,
    /// Records of this operator that user code is not given.
    quarantined: Vec<Poison>,
    /// The record in work, encoded.
    bytes: Vec<u8>,
    watching: bool,
}

impl Warden {
    pub(crate) fn new(open: &OpenContext) -> Self {
        let known = open.quarantined.iter().map(|known| &known.record);
        let drops = |reason| open.control.drop_counter(&open.name, reason);
        let letters = |kind| open.control.dead_letter_counter(&open.name, kind);
        Self {
            operator: open.name.as_str().into(),
            skipped: drops(DropReason::Skipped),
            dead_letters: letters(DeadLetterKind::Error),
            kept_away: drops(DropReason::Quarantined),
            kept_away_letters: letters(DeadLetterKind::Quarantined),
            quarantined: known.filter(|record| *record.operator == *open.name).cloned().collect(),
            bytes: Vec::new(),
            watching: false,
        }
    }

    /// Counts a record that user code returned an error for and that does not fail the attempt.
    pub(crate) fn count_error(&self, mishap: &Mishap) {
        match mishap {
            Mishap::Side(..) => self.dead_letters.count(1),
            Mishap::Skip | Mishap::Fail => self.skipped.count(1),
        }
    }

    /// Counts a record that is in quarantine, and whether it goes to the dead letters.
    pub(crate) fn count_kept_away(&self, is_letter: bool) {
        if is_letter {
            self.kept_away_letters.count(1);
        } else {
            self.kept_away.count(1);
        }
    }

    /// Looks at a record before user code does; says whether it is in quarantine.
    #[inline]
    pub(crate) fn is_quarantined(
        &mut self,
        time: Timestamp,
        identify: impl FnOnce(&mut Vec<u8>) -> Result<bool, BoxError>,
    ) -> Result<bool, BoxError> {
        self.bytes.clear();
        self.watching = identify(&mut self.bytes)?;
        let is = |known: &Poison| known.time == time && known.bytes == self.bytes;
        Ok(self.watching && self.quarantined.iter().any(is))
    }

    /// Whether a panic on the record that was looked at last is to be named: see [`Warden::name`].
    #[inline]
    pub(crate) const fn is_watching(&self) -> bool {
        self.watching
    }

    /// Names the record that was looked at last as the one that the call panicked on, if it did.
    pub(crate) fn name<R>(&mut self, time: Timestamp, called: Result<R, String>) -> Result<R, BoxError> {
        called.map_err(|message| {
            let record = Poison::new(Arc::clone(&self.operator), time, mem::take(&mut self.bytes));
            Poisoned { record, message }.into()
        })
    }

    /// Calls user code that has nothing but the record that was looked at last.
    #[inline]
    pub(crate) fn call<R>(&mut self, time: Timestamp, call: impl FnOnce() -> R) -> Result<R, BoxError> {
        if self.watching {
            let called = guarded(call);
            return self.name(time, called);
        }
        Ok(call())
    }
}

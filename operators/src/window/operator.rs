//! Panes of a key: the records of one window each, as an accumulator.
//!
//! ```text
//!  record ──► assign ──► late? ──► pane of (key, window) ──► result, as the rule says
//!                                        ▲
//!      timers at the window's end, and at the end of the allowed lateness
//! ```
//! A window is late when its end (and the allowed lateness) is ≤ the watermark: equality is late, each window by itself.

use std::collections::{BTreeMap, BTreeSet};

use millstream_runtime::error::BoxError;
use millstream_runtime::graph::Shape;
use millstream_runtime::operator::{DropReason, SideDecl};
use millstream_runtime::state::PackedKey;
use millstream_runtime::state::key_group::StreamKey;
use millstream_runtime::state::keyed::KeyedState;
use millstream_runtime::time::Timestamp;
use millstream_runtime::timer::TimerKind;

use crate::aggregate::Aggregate;
use crate::failing::Mishap;
use crate::keyed::engine::{Late, Logic, Standing};
use crate::keyed::walk::{EpochEnd, Visit, Walk};
use crate::keyed::{OpenContext, ProcessContext};
use crate::keyed_stream::KeySelector;
use crate::side::AnyRecord;
use crate::window::pane::Panes;
use crate::window::settings::{MakeRow, Rule, Settings};
use crate::window::{TimeWindow, WindowAssigner, WindowKind};

/// The key of an aggregation without one.
pub(super) const UNKEYED: u8 = 0;

/// An aggregation of windows. See the module.
pub(super) struct WindowAggregation<K: StreamKey, T, A, G: Aggregate<T>, R> {
    selector: KeySelector<K, T>,
    pub(super) assigner: A,
    pub(super) aggregate: G,
    pub(super) settings: Settings<T>,
    pub(super) make: MakeRow<K, G::Out, R>,
    /// Windows of the record in work.
    windows: Vec<TimeWindow>,
    /// Windows that changed in this epoch, and those of the epoch that ends.
    pub(super) changed: BTreeMap<PackedKey, BTreeSet<TimeWindow>>,
    ending: BTreeMap<PackedKey, BTreeSet<TimeWindow>>,
    /// The last window of the key in work whose row went out.
    sent: Option<TimeWindow>,
    /// Whether the epoch that ends had data.
    had_data: bool,
}

impl<K: StreamKey, T, A: Clone, G: Aggregate<T>, R> Clone for WindowAggregation<K, T, A, G, R> {
    fn clone(&self) -> Self {
        let assigner = (self.assigner.clone(), self.aggregate.clone());
        Self::new(self.selector.clone(), assigner, self.settings.clone(), self.make)
    }
}

impl<K: StreamKey, T, A, G: Aggregate<T>, R> WindowAggregation<K, T, A, G, R> {
    pub(super) fn new(
        selector: KeySelector<K, T>,
        (assigner, aggregate): (A, G),
        settings: Settings<T>,
        make: MakeRow<K, G::Out, R>,
    ) -> Self {
        Self {
            selector,
            assigner,
            aggregate,
            settings,
            make,
            windows: Vec::new(),
            changed: BTreeMap::new(),
            ending: BTreeMap::new(),
            sent: None,
            had_data: false,
        }
    }
}

impl<K, T, A, G, R> Logic for WindowAggregation<K, T, A, G, R>
where
    K: StreamKey,
    T: Send + 'static,
    A: WindowAssigner<T>,
    G: Aggregate<T>,
    R: Send + 'static,
{
    type Key = K;
    type In = T;
    type Out = R;
    type State = Panes<G::Acc>;

    fn shape(&self) -> Shape {
        let trigger = self.settings.trigger.or_else(|| self.assigner.trigger());
        let discarding = trigger.is_some_and(|trigger| trigger.discarding);
        // Without a trigger the mode decides, and then a result that was sent in append is final.
        let revises = trigger.is_some_and(|trigger| trigger.is_early() || !self.settings.lateness.is_zero());
        match self.assigner.kind() {
            WindowKind::Global if discarding => Shape::Free,
            WindowKind::Global => Shape::Aggregation { timed: false, revises: false },
            WindowKind::Fixed => Shape::Aggregation { timed: true, revises: revises && !discarding },
            WindowKind::Session => Shape::SessionAggregation { keyed: true },
        }
    }

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Self::State, BoxError> {
        let trigger = self.settings.trigger.or_else(|| self.assigner.trigger());
        Ok(Panes { panes: ctx.map("windows")?, rule: Rule::of(ctx.output_mode(), trigger) })
    }

    fn own_sides(&self) -> Vec<SideDecl> {
        self.settings.late.side().into_iter().chain(self.settings.failing.side()).collect()
    }

    fn drop_reasons(&self) -> &'static [DropReason] {
        &[DropReason::Late, DropReason::LateInPart, DropReason::NoWindow]
    }

    #[inline]
    fn mishap(&self, record: &T, sides: &[SideDecl]) -> Mishap {
        self.settings.failing.mishap(record, sides)
    }

    #[inline]
    fn identify(&self, record: &T, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        self.settings.failing.identify(record, out)
    }

    fn kept_away(&self, record: T, sides: &[SideDecl]) -> Option<(u16, AnyRecord)> {
        self.settings.failing.kept_away(record, sides)
    }

    fn want(&self, record: &T, hash: u32, keyed: &mut KeyedState) {
        self.selector.want(record, hash, keyed);
    }

    #[inline]
    fn enter(&self, record: &T, hash: u32, keyed: &mut KeyedState) {
        self.selector.enter(record, hash, keyed);
    }

    fn standing(
        &mut self,
        record: &T,
        (time, hash): (Timestamp, u32),
        state: &Self::State,
        keyed: &KeyedState,
    ) -> Standing {
        let mut windows = std::mem::take(&mut self.windows);
        windows.clear();
        if time > Timestamp::MIN || self.assigner.kind() == WindowKind::Global {
            self.assigner.assign(record, time, &mut windows);
        }
        let assigned = windows.len();
        if state.rule != Rule::Table && self.assigner.kind() != WindowKind::Global {
            windows.retain(|window| !self.is_late(window, hash, keyed));
        }
        self.windows = windows;
        match (assigned, self.windows.len()) {
            (0, _) => Standing::Nowhere,
            (_, 0) => Standing::Late,
            (assigned, taken) if taken < assigned => Standing::LateInPart,
            _ => Standing::InTime,
        }
    }

    fn late(&self, record: T, sides: &[SideDecl]) -> Late<T> {
        self.settings.late.decide(record, sides)
    }

    fn on_record(
        &mut self,
        record: T,
        state: &mut Self::State,
        ctx: &mut ProcessContext<'_, R>,
    ) -> Result<(), BoxError> {
        let windows = std::mem::take(&mut self.windows);
        for window in &windows {
            let window = match self.assigner.kind() {
                WindowKind::Session => self.merge_sessions(*window, state, ctx)?,
                WindowKind::Fixed | WindowKind::Global => *window,
            };
            self.add(&record, window, state, ctx)?;
        }
        self.windows = windows;
        Ok(())
    }

    fn on_timer(
        &mut self,
        time: Timestamp,
        state: &mut Self::State,
        ctx: &mut ProcessContext<'_, R>,
    ) -> Result<(), BoxError> {
        match ctx.firing() {
            Some(TimerKind::ProcessingTime) => self.on_processing_time(time, state, ctx),
            _ => self.on_event_time(time, state, ctx),
        }
    }

    fn at_epoch_end(&mut self, end: EpochEnd, state: &Self::State, keyed: &KeyedState) -> Walk {
        (self.sent, self.had_data) = (None, end.had_data);
        match state.rule {
            Rule::Table if self.settings.is_unkeyed => {
                let key = PackedKey::of(&UNKEYED, &mut Vec::new());
                if (end.had_data || end.last) && keyed.owns(&key) { Walk::Keys(vec![key]) } else { Walk::Nothing }
            }
            Rule::Table => {
                if end.had_data {
                    Walk::All
                } else {
                    Walk::Nothing
                }
            }
            Rule::Final | Rule::Trigger(_) => {
                self.ending = std::mem::take(&mut self.changed);
                Walk::Keys(self.ending.keys().cloned().collect())
            }
        }
    }

    fn visit(&mut self, state: &mut Self::State, ctx: &mut ProcessContext<'_, R>) -> Result<Visit, BoxError> {
        if state.rule != Rule::Table {
            let windows = self.ending.get_mut(&ctx.packed_key()?);
            let Some(window) = windows.and_then(BTreeSet::pop_first) else { return Ok(Visit::Done) };
            self.fire(window, state, ctx)?;
            return Ok(Visit::More);
        }
        if self.settings.is_unkeyed && self.sent.is_none() && state.panes.is_empty() {
            // Of nothing there is a row too.
            self.send(TimeWindow::ALL, &self.aggregate.start(), ctx)?;
            return Ok(Visit::Done);
        }
        if !self.had_data {
            return Ok(Visit::Done);
        }
        let next = match self.sent.take() {
            Some(last) => state.panes.iter_after(&last).next(),
            None => state.panes.iter().next(),
        };
        let Some((window, pane)) = next else { return Ok(Visit::Done) };
        self.send(window, &pane.acc, ctx)?;
        self.sent = Some(window);
        Ok(Visit::More)
    }
}

//! The pane of a key and window: its records as an accumulator, from the first of them until nothing can come any more.

use millstream_runtime::canary::{Canary, planted};
use millstream_runtime::error::BoxError;
use millstream_runtime::state::StateValue;
use millstream_runtime::state::key_group::StreamKey;
use millstream_runtime::state::keyed::{KeyedState, Map};
use millstream_runtime::time::Timestamp;
use millstream_runtime::timer::TimerKind;
use serde::{Deserialize, Serialize};

use crate::aggregate::Aggregate;
use crate::keyed::ProcessContext;
use crate::window::operator::WindowAggregation;
use crate::window::settings::Rule;
use crate::window::{TimeWindow, Trigger, WindowAssigner, WindowKind};

/// The watermark of windows before the first one: what ends at or before 1970 is late from the start, as in Spark.
const EPOCH: Timestamp = Timestamp::from_micros(0);

/// The records of one window.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "A: StateValue")]
pub(super) struct Pane<A> {
    pub(super) acc: A,
    /// Records since the last result.
    new: u64,
    /// When the trigger speaks next by the processing time.
    due: Option<Timestamp>,
}

/// What it keeps.
pub(super) struct Panes<A: StateValue> {
    pub(super) panes: Map<TimeWindow, Pane<A>>,
    pub(super) rule: Rule,
}

type Context<'a, R> = ProcessContext<'a, R>;

impl<K, T, A, G, R> WindowAggregation<K, T, A, G, R>
where
    K: StreamKey,
    T: Send + 'static,
    A: WindowAssigner<T>,
    G: Aggregate<T>,
{
    /// When a window is forgotten: nothing that comes later is taken.
    fn cleanup(&self, window: &TimeWindow) -> Timestamp {
        window.end.saturating_add(self.settings.lateness)
    }

    pub(super) fn is_late(&self, window: &TimeWindow, hash: u32, keyed: &KeyedState) -> bool {
        let bound = self.cleanup(window);
        let is_late = (bound <= EPOCH && !self.settings.before_1970) || keyed.is_late(hash, bound);
        is_late && !planted(Canary::LateAccepted)
    }

    /// Sends what a pane has come to.
    pub(super) fn send(&self, window: TimeWindow, acc: &G::Acc, ctx: &mut Context<'_, R>) -> Result<(), BoxError> {
        let row = (self.make)(ctx.key()?, window, self.aggregate.finish(acc));
        let time = match self.assigner.kind() {
            WindowKind::Global if ctx.firing().is_some() => Timestamp::MIN,
            WindowKind::Global => ctx.time(),
            WindowKind::Fixed | WindowKind::Session => window.time(),
        };
        ctx.emit_at(time, row);
        Ok(())
    }

    /// Sends the result of a window that has changed since the last time.
    pub(super) fn fire(
        &self,
        window: TimeWindow,
        state: &mut Panes<G::Acc>,
        ctx: &mut Context<'_, R>,
    ) -> Result<(), BoxError> {
        let discarding = matches!(state.rule, Rule::Trigger(Trigger { discarding: true, .. }));
        if discarding {
            let Some(pane) = state.panes.remove(&window) else { return Ok(()) };
            return if pane.new > 0 { self.send(window, &pane.acc, ctx) } else { Ok(()) };
        }
        if let Some(mut pane) = state.panes.get_mut(&window).filter(|pane| pane.new > 0) {
            pane.new = 0;
            self.send(window, &pane.acc, ctx)?;
        }
        Ok(())
    }

    /// Makes the session of a record one with those that it touches.
    pub(super) fn merge_sessions(
        &self,
        session: TimeWindow,
        state: &mut Panes<G::Acc>,
        ctx: &Context<'_, R>,
    ) -> Result<TimeWindow, BoxError> {
        let sessions = state.panes.keys().take_while(|other| other.start <= session.end);
        let parts: Vec<TimeWindow> = sessions.filter(|other| other.touches(&session)).collect();
        let merged = parts.iter().fold(session, |merged, part| merged.cover(part));
        if parts.is_empty() || parts == [merged] {
            return Ok(merged);
        }
        let mut whole: Option<Pane<G::Acc>> = None;
        for part in parts {
            ctx.timers().delete(TimerKind::EventTime, self.cleanup(&part));
            let Some(pane) = state.panes.remove(&part) else { continue };
            match &mut whole {
                Some(whole) => {
                    self.aggregate.merge(&mut whole.acc, pane.acc)?;
                    whole.new += pane.new;
                }
                None => whole = Some(pane),
            }
        }
        if let Some(whole) = whole {
            state.panes.insert(&merged, whole);
        }
        self.register(merged, state.rule, ctx);
        Ok(merged)
    }

    /// Adds the record to one of its windows, and sends what the rule says.
    pub(super) fn add(
        &mut self,
        record: &T,
        window: TimeWindow,
        state: &mut Panes<G::Acc>,
        ctx: &mut Context<'_, R>,
    ) -> Result<(), BoxError> {
        if let Some(mut pane) = state.panes.get_mut(&window) {
            self.aggregate.add(&mut pane.acc, record)?;
            pane.new += 1;
        } else {
            let mut acc = self.aggregate.start();
            self.aggregate.add(&mut acc, record)?;
            state.panes.insert(&window, Pane { acc, new: 1, due: None });
            self.register(window, state.rule, ctx);
        }
        let Rule::Trigger(trigger) = state.rule else { return Ok(()) };
        let new = state.panes.get(&window).map_or(0, |pane| pane.new);
        let is_past = ctx.watermark().is_some_and(|watermark| window.end <= watermark);
        if is_past || trigger.count.is_some_and(|count| new >= count) {
            return self.fire(window, state, ctx);
        }
        if let Some(every) = trigger.every
            && state.panes.get(&window).is_some_and(|pane| pane.due.is_none())
            && let Some(mut pane) = state.panes.get_mut(&window)
        {
            let due = ctx.processing_time().saturating_add(every);
            pane.due = Some(due);
            ctx.timers().register(TimerKind::ProcessingTime, due);
        }
        if trigger.epoch {
            self.changed.entry(ctx.packed_key()?).or_default().insert(window);
        }
        Ok(())
    }

    /// Registers what is to happen to a new window by event time.
    fn register(&self, window: TimeWindow, rule: Rule, ctx: &Context<'_, R>) {
        let Rule::Trigger(trigger) = rule else {
            if rule == Rule::Final {
                ctx.timers().register(TimerKind::EventTime, self.cleanup(&window));
            }
            return;
        };
        if self.assigner.kind() == WindowKind::Global {
            // Nothing is left over for the end of the input where every record, or the end of its epoch, sends it; and a window
            // that is not full gives nothing.
            if !trigger.only_full && !trigger.epoch && trigger.count != Some(1) {
                ctx.timers().register(TimerKind::EventTime, window.end);
            }
            return;
        }
        if ctx.watermark().is_none_or(|watermark| window.end > watermark) {
            ctx.timers().register(TimerKind::EventTime, window.end);
        }
        ctx.timers().register(TimerKind::EventTime, self.cleanup(&window));
    }

    /// Event time has come to the end of windows, or to that of their allowed lateness.
    pub(super) fn on_event_time(
        &self,
        time: Timestamp,
        state: &mut Panes<G::Acc>,
        ctx: &mut Context<'_, R>,
    ) -> Result<(), BoxError> {
        if state.rule == Rule::Table {
            // Registered before a restart, in another output mode: what is there stays there now.
            return Ok(());
        }
        let is_final = |window: &TimeWindow| self.cleanup(window) == time;
        let speaks = |window: &TimeWindow| is_final(window) || (state.rule != Rule::Final && window.end == time);
        let due: Vec<TimeWindow> =
            state.panes.keys().take_while(|window| window.start <= time).filter(speaks).collect();
        for window in due {
            if state.rule == Rule::Final {
                if let Some(pane) = state.panes.remove(&window) {
                    self.send(window, &pane.acc, ctx)?;
                }
                continue;
            }
            self.fire(window, state, ctx)?;
            if is_final(&window) && self.assigner.kind() != WindowKind::Global {
                state.panes.remove(&window);
            }
        }
        Ok(())
    }

    /// Processing time has come to where the trigger speaks.
    pub(super) fn on_processing_time(
        &self,
        time: Timestamp,
        state: &mut Panes<G::Acc>,
        ctx: &mut Context<'_, R>,
    ) -> Result<(), BoxError> {
        let due = state.panes.iter().filter(|(_, pane)| pane.due == Some(time));
        let due: Vec<TimeWindow> = due.map(|(window, _)| window).collect();
        for window in due {
            if let Some(mut pane) = state.panes.get_mut(&window) {
                pane.due = None;
            }
            self.fire(window, state, ctx)?;
        }
        Ok(())
    }
}

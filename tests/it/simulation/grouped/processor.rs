//! A stateful processor that uses variables of every kind, and several timers per key.

use std::time::Duration;

use millstream::operators::prelude::*;
use millstream::runtime::error::BoxError;
use millstream::runtime::testing::Numbered;
use millstream::runtime::time::Timestamp;

use super::{MILLI, Row, time};

/// Remembers records in a list, by their timers in a map, and counts them. See [`reference`](super::reference) for what comes of it.
#[derive(Clone)]
pub(super) struct Timers {
    /// Watermarks fall where a script says, so that the result may depend on them.
    pub(super) scripted: bool,
}

pub(super) struct Variables {
    count: ValueState<u64>,
    list: ListState<u64>,
    by_timer: MapState<i64, u64>,
}

impl StatefulProcessor for Timers {
    type Key = u64;
    type In = Numbered;
    type Out = Row;
    type State = Variables;

    fn init(&self, handle: &mut VariableHandle<'_, '_>) -> Result<Variables, BoxError> {
        Ok(Variables {
            count: handle.value_state("count", None)?,
            list: handle.list_state("list", None)?,
            by_timer: handle.map_state("by-timer", None)?,
        })
    }

    fn handle_input_rows(
        &mut self,
        key: &u64,
        rows: &mut Rows<'_, Numbered>,
        state: &mut Variables,
        ctx: &mut TransformContext<'_, Row>,
    ) -> Result<(), BoxError> {
        for record in rows {
            let (seq, at) = (record.seq, Timestamp::from_micros(time(record)));
            let count = state.count.get().map_or(0, |count| *count) + 1;
            state.count.update(count)?;
            match seq % 11 {
                5 => state.list.put(vec![seq])?,
                8 => state.list.clear(),
                _ => state.list.append_value(seq)?,
            }
            let soon = at.saturating_add(Duration::from_millis(seq % 5 * 10));
            let later = at.saturating_add(Duration::from_millis(30));
            for timer in [soon, later, later] {
                ctx.register_timer(timer)?;
                state.by_timer.update_value(&timer.as_micros(), seq)?;
            }
            if seq % 5 == 4 {
                ctx.delete_timer(later)?;
                state.by_timer.remove_key(&later.as_micros());
            }
            if self.scripted && seq % 6 == 1 {
                // In the past, or nearly.
                ctx.register_timer(Timestamp::from_micros(at.as_micros() - 20 * MILLI))?;
            }
            let list: Vec<u64> = state.list.get().map(|seq| *seq).collect();
            ctx.emit((*key, vec![format!("row {seq} {count} {list:?}")]));
        }
        Ok(())
    }

    fn handle_expired_timer(
        &mut self,
        key: &u64,
        expired_at: Timestamp,
        state: &mut Variables,
        ctx: &mut TransformContext<'_, Row>,
    ) -> Result<(), BoxError> {
        let expired = expired_at.as_micros();
        let seq = state.by_timer.get_value(&expired).map(|seq| *seq);
        state.by_timer.remove_key(&expired);
        if !ctx.list_timers()?.contains(&expired_at) {
            return Err("the timer that fires is not listed".into());
        }
        let mut told = format!("timer {expired} {seq:?}");
        if self.scripted {
            let watermark = ctx.timer_values().watermark_ms;
            let (count, timers) = (state.count.get().map(|count| *count), ctx.list_timers()?.len());
            told.push_str(&format!(" {count:?} {timers} {watermark}"));
            if let Some(again) = seq.filter(|seq| seq % 4 == 2) {
                // Known by no record, so not once more.
                ctx.register_timer(expired_at.saturating_add(Duration::from_micros(15_000 + again)))?;
                state.count.clear();
            }
        }
        ctx.emit((*key, vec![told]));
        Ok(())
    }
}

impl InitialStateProcessor for Timers {
    type Initial = u64;

    fn handle_initial_state(
        &mut self,
        key: &u64,
        row: u64,
        state: &mut Variables,
        ctx: &mut TransformContext<'_, Row>,
    ) -> Result<(), BoxError> {
        state.list.append_value(row)?;
        state.count.update(1_000)?;
        ctx.emit((*key, vec!["initial".to_owned()]));
        Ok(())
    }
}

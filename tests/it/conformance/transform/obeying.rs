//! Processors that do what their rows say.

use std::time::Duration;

use millstream::operators::prelude::*;
use millstream::runtime::error::BoxError;

use crate::conformance::drive::{Event, at, seconds};

/// Uses variables and timers as rows say, and tells of them.
#[derive(Clone, Default)]
pub(super) struct Obeying {
    /// Of the variable that has one.
    pub(super) ttl: Option<Duration>,
}

pub(super) struct Variables {
    value: ValueState<i64>,
    list: ListState<i64>,
    map: MapState<i64, i64>,
    mortal: ValueState<i64>,
    fired: ValueState<u64>,
}

impl Variables {
    fn told(&self) -> String {
        let Self { value, list, map, .. } = self;
        let one = value.get().map(|value| *value);
        let all: Vec<i64> = list.get().map(|element| *element).collect();
        let pairs: Vec<(i64, i64)> = map.iter().map(|(key, value)| (key, *value)).collect();
        assert_eq!((value.exists(), list.exists(), map.exists()), (one.is_some(), !all.is_empty(), !pairs.is_empty()));
        assert!(map.keys().eq(pairs.iter().map(|(key, _)| *key)));
        assert!(map.values().map(|value| *value).eq(pairs.iter().map(|(_, value)| *value)));
        for (key, value) in &pairs {
            assert!(map.contains_key(key) && map.get_value(key).is_some_and(|found| *found == *value));
        }
        format!("{one:?} {all:?} {pairs:?}")
    }
}

impl StatefulProcessor for Obeying {
    type Key = String;
    type In = Event;
    type Out = String;
    type State = Variables;

    fn init(&self, handle: &mut VariableHandle<'_, '_>) -> Result<Variables, BoxError> {
        Ok(Variables {
            value: handle.value_state("value", None)?,
            list: handle.list_state("list", None)?,
            map: handle.map_state("map", None)?,
            mortal: handle.value_state("mortal", self.ttl)?,
            fired: handle.value_state("fired", None)?,
        })
    }

    fn handle_input_rows(
        &mut self,
        _key: &String,
        rows: &mut Rows<'_, Event>,
        state: &mut Variables,
        ctx: &mut TransformContext<'_, String>,
    ) -> Result<(), BoxError> {
        for Event { says, number: n, .. } in rows {
            let mut words = says.split_whitespace();
            while let Some(word) = words.next() {
                let mut time = || -> Result<_, BoxError> { Ok(at(words.next().ok_or("no time")?.parse()?)) };
                match word {
                    "register" => drop(ctx.register_timer(time()?)?),
                    "delete" => assert!(ctx.delete_timer(time()?)?),
                    "tell" => ctx.emit("row".to_owned()),
                    "mortal" => state.mortal.update(n)?,
                    "tell-mortal" => ctx.emit(format!("{:?}", state.mortal.get().map(|value| *value))),
                    word => {
                        match word {
                            "update" => state.value.update(n)?,
                            "put" => state.list.put(vec![n, n + 1])?,
                            "append" => state.list.append_value(n)?,
                            "append-all" => state.list.append_list(vec![n, n])?,
                            "insert" => state.map.update_value(&n, n)?,
                            "remove" => state.map.remove_key(&n),
                            "clear-value" => state.value.clear(),
                            "clear-list" => state.list.clear(),
                            "clear-map" => state.map.clear(),
                            other => return Err(format!("what is {other}?").into()),
                        }
                        ctx.emit(state.told());
                    }
                }
            }
        }
        Ok(())
    }

    fn handle_expired_timer(
        &mut self,
        _key: &String,
        expired_at: millstream::runtime::time::Timestamp,
        state: &mut Variables,
        ctx: &mut TransformContext<'_, String>,
    ) -> Result<(), BoxError> {
        let nth = state.fired.get().map_or(1, |fired| *fired + 1);
        state.fired.update(nth)?;
        let ordinal = ["1st", "2nd", "3rd", "4th", "5th", "6th"][nth as usize - 1];
        let listed: Vec<i64> = ctx.list_timers()?.into_iter().map(seconds).collect();
        let watermark = ctx.timer_values().watermark_ms / 1_000;
        ctx.emit(format!("{ordinal}: {} at {watermark} of {listed:?}", seconds(expired_at)));
        Ok(())
    }
}

/// Adds numbers up, on top of an initial state, and tells each sum.
#[derive(Clone)]
pub(super) struct Sums;

impl StatefulProcessor for Sums {
    type Key = String;
    type In = Event;
    type Out = String;
    type State = ValueState<i64>;

    fn init(&self, handle: &mut VariableHandle<'_, '_>) -> Result<ValueState<i64>, BoxError> {
        Ok(handle.value_state("sum", None)?)
    }

    fn handle_input_rows(
        &mut self,
        key: &String,
        rows: &mut Rows<'_, Event>,
        sum: &mut ValueState<i64>,
        ctx: &mut TransformContext<'_, String>,
    ) -> Result<(), BoxError> {
        let before = sum.get().map_or(0, |sum| *sum);
        let after = before + rows.map(|event| event.number).sum::<i64>();
        sum.update(after)?;
        ctx.emit(format!("{key} {after}"));
        Ok(())
    }
}

impl InitialStateProcessor for Sums {
    type Initial = i64;

    fn handle_initial_state(
        &mut self,
        key: &String,
        row: i64,
        sum: &mut ValueState<i64>,
        ctx: &mut TransformContext<'_, String>,
    ) -> Result<(), BoxError> {
        let after = sum.get().map_or(0, |sum| *sum) + row;
        sum.update(after)?;
        ctx.emit(format!("{key} initial {after}"));
        Ok(())
    }
}

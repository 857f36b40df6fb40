//! Variables: their methods, their time to live, their initial state, and what may change between two starts.

use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::testing::{Outside, SimConfig, SimSink, SimSource, simulate};

use crate::group::tests::{Row, at, numbers, row, untimed};
use crate::prelude::*;

/// Uses each method of each kind of variable.
#[derive(Clone)]
struct All;

struct Variables {
    value: ValueState<i64>,
    list: ListState<i64>,
    map: MapState<String, i64>,
}

fn told(state: &Variables) -> String {
    let value = state.value.get().map(|value| *value);
    let list: Vec<i64> = state.list.get().map(|element| *element).collect();
    let map: Vec<(String, i64)> = state.map.iter().map(|(key, value)| (key, *value)).collect();
    assert_eq!(state.value.exists(), value.is_some());
    assert_eq!(state.list.exists(), !list.is_empty());
    assert_eq!(state.map.exists(), !map.is_empty());
    assert!(state.map.keys().eq(map.iter().map(|(key, _)| key.clone())));
    assert!(state.map.values().map(|value| *value).eq(map.iter().map(|(_, value)| *value)));
    for (key, value) in &map {
        assert!(state.map.contains_key(key) && state.map.get_value(key).map(|value| *value) == Some(*value));
    }
    format!("{value:?} {list:?} {map:?}")
}

impl StatefulProcessor for All {
    type Key = String;
    type In = Row;
    type Out = String;
    type State = Variables;

    fn init(&self, handle: &mut VariableHandle<'_, '_>) -> Result<Variables, BoxError> {
        Ok(Variables {
            value: handle.value_state("value", None)?,
            list: handle.list_state("list", None)?,
            map: handle.map_state("map", None)?,
        })
    }

    fn handle_input_rows(
        &mut self,
        _key: &String,
        rows: &mut Rows<'_, Row>,
        state: &mut Variables,
        ctx: &mut TransformContext<'_, String>,
    ) -> Result<(), BoxError> {
        for (_, n, says, _) in rows {
            match says.as_str() {
                "update" => state.value.update(n)?,
                "put" => state.list.put(vec![n, n + 1])?,
                "append" => state.list.append_value(n)?,
                "append all" => state.list.append_list(vec![n, n])?,
                "insert" => state.map.update_value(&n.to_string(), n)?,
                "remove" => state.map.remove_key(&n.to_string()),
                "clear value" => state.value.clear(),
                "clear list" => state.list.clear(),
                "clear map" => state.map.clear(),
                other => return Err(format!("what is {other}?").into()),
            }
            ctx.emit(told(state));
        }
        Ok(())
    }
}

/// S-TWS-01: the harness restarts behind every row in one of its cuts.
#[test]
fn each_method_of_a_variable_does_what_it_says_and_what_it_did_survives_a_restart() {
    let script = [
        ("update", 1, "Some(1) [] []"),
        ("append", 2, "Some(1) [2] []"),
        ("append all", 3, "Some(1) [2, 3, 3] []"),
        ("put", 4, "Some(1) [4, 5] []"),
        ("insert", 6, "Some(1) [4, 5] [(\"6\", 6)]"),
        ("insert", 7, "Some(1) [4, 5] [(\"6\", 6), (\"7\", 7)]"),
        ("remove", 6, "Some(1) [4, 5] [(\"7\", 7)]"),
        ("clear list", 0, "Some(1) [] [(\"7\", 7)]"),
        ("append", 8, "Some(1) [8] [(\"7\", 7)]"),
        ("clear map", 0, "Some(1) [8] []"),
        ("clear value", 0, "None [8] []"),
    ];
    let rows = script.map(|(says, n, _)| row("a", n, says, None));
    let out = untimed(OutputMode::Append, rows, |rows| {
        rows.transform_with_state("all", OutputMode::Append, TimeMode::None, All)
    });
    assert_eq!(out.unwrap(), script.map(|(_, _, wanted)| wanted));
}

/// Writes a value with a time to live on its first row and now and then later; tells whether it is there.
#[derive(Clone)]
struct Expiring;

const TTL_MS: i64 = 10;

impl StatefulProcessor for Expiring {
    type Key = u8;
    type In = u64;
    type Out = (i64, bool);
    type State = (ValueState<i64>, ValueState<i64>);

    fn init(&self, handle: &mut VariableHandle<'_, '_>) -> Result<Self::State, BoxError> {
        let ttl = Some(Duration::from_millis(TTL_MS as u64));
        Ok((handle.value_state("mortal", ttl)?, handle.value_state("written", None)?))
    }

    fn handle_input_rows(
        &mut self,
        _key: &u8,
        rows: &mut Rows<'_, u64>,
        (mortal, written): &mut Self::State,
        ctx: &mut TransformContext<'_, (i64, bool)>,
    ) -> Result<(), BoxError> {
        let now = ctx.timer_values().processing_time_ms;
        for seq in rows {
            if let Some(at) = written.get() {
                ctx.emit((now - *at, mortal.exists()));
            }
            // Written again before it expires, some of the time.
            if seq % 5 != 4 || !mortal.exists() {
                continue;
            }
            mortal.update(now)?;
            written.update(now)?;
        }
        if !mortal.exists() {
            mortal.update(now)?;
            written.update(now)?;
        }
        Ok(())
    }
}

/// S-TWS-06
#[test]
fn a_value_is_gone_when_its_time_to_live_is_over_and_a_write_begins_it_anew() {
    let outside = Outside::default();
    let pipeline = || {
        let pipeline = Pipeline::new("expiring").parallelism(1);
        let source = SimSource { lengths: vec![1_500], seed: 3, first_split: 0 };
        let sink = SimSink { outside: outside.clone(), seed: 0, faults: 0.0 };
        let rows = pipeline.source("in", source).map(|numbered| numbered.seq).key_by(|_| 1u8);
        let seen = rows.transform_with_state("mortal", OutputMode::Append, TimeMode::ProcessingTime, Expiring);
        // As one number: twice the age, and one more where it is there.
        seen.map(|(age, there)| age * 2 + i64::from(there)).sink("out", sink);
        pipeline.into()
    };
    simulate(&SimConfig::calm(1), &pipeline).unwrap();
    let seen: Vec<(i64, bool)> = numbers(&outside).into_iter().map(|seen| (seen / 2, seen % 2 == 1)).collect();
    for (age, there) in &seen {
        // Ages are of whole milliseconds: one may be a part of one older.
        assert!(if *there { *age <= TTL_MS } else { *age >= TTL_MS }, "{age} ms old, there: {there}");
    }
    assert!(seen.iter().any(|(_, there)| *there) && seen.iter().any(|(_, there)| !there));
    assert_eq!(seen.len(), 1_499);
}

/// Takes rows of the initial state in, any number per key.
#[derive(Clone)]
struct Seeded;

impl StatefulProcessor for Seeded {
    type Key = String;
    type In = Row;
    type Out = (String, Vec<u32>);
    type State = ListState<u32>;

    fn init(&self, handle: &mut VariableHandle<'_, '_>) -> Result<ListState<u32>, BoxError> {
        Ok(handle.list_state("seeds", None)?)
    }

    fn handle_input_rows(
        &mut self,
        key: &String,
        rows: &mut Rows<'_, Row>,
        seeds: &mut ListState<u32>,
        ctx: &mut TransformContext<'_, Self::Out>,
    ) -> Result<(), BoxError> {
        for _ in rows {
            ctx.emit((key.clone(), seeds.get().map(|seed| *seed).collect()));
        }
        Ok(())
    }
}

impl InitialStateProcessor for Seeded {
    type Initial = u32;

    fn handle_initial_state(
        &mut self,
        key: &String,
        row: u32,
        seeds: &mut ListState<u32>,
        ctx: &mut TransformContext<'_, Self::Out>,
    ) -> Result<(), BoxError> {
        seeds.append_value(row)?;
        ctx.emit((key.clone(), vec![row]));
        Ok(())
    }
}

/// S-TWS-08
#[test]
fn initial_state_comes_before_any_row_and_once() {
    let initial: Vec<(String, u32)> = [("a", 1), ("z", 2), ("a", 3)].map(|(key, n)| (key.to_owned(), n)).to_vec();
    let out = untimed(OutputMode::Append, ["a", "b", "z"].map(|key| row(key, 0, "", None)), |rows| {
        rows.initial_state(initial.clone()).transform_with_state("seeded", OutputMode::Append, TimeMode::None, Seeded)
    });
    let told = |key: &str, seeds: &[u32]| (key.to_owned(), seeds.to_vec());
    let wanted =
        [told("a", &[1]), told("z", &[2]), told("a", &[3]), told("a", &[1, 3]), told("b", &[]), told("z", &[2])];
    assert_eq!(out.unwrap(), wanted);
    // With rows that say their times, too.
    let out = untimed(OutputMode::Append, [row("b", 0, "", None)], |rows| {
        let (mode, time_mode) = (OutputMode::Append, TimeMode::None);
        let time = |(_, seeds): &(String, Vec<u32>)| at(seeds.len() as i64);
        rows.initial_state(initial.clone()).transform_with_state_at("seeded", mode, time_mode, Seeded, time)
    });
    assert_eq!(out.unwrap(), [&wanted[..3], &wanted[4..5]].concat());
}

//! Group state and stateful processors over several starts on one store.

use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::runtime::StartError;
use millstream::runtime::state::StateValue;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The whole text of an error, causes included.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A store, and how the pipelines on it run.
#[derive(Default)]
struct Place {
    store: Memory,
    trigger: Option<Trigger>,
}

impl Place {
    fn start(&self, pipeline: Pipeline) -> (Runtime, Result<JobHandle, StartError>) {
        let runtime = Runtime::builder().workers(2).restart(RestartPolicy::never()).state_backend(self.store.clone());
        let pipeline = if let Some(trigger) = self.trigger { pipeline.trigger(trigger) } else { pipeline };
        let runtime = runtime.build().unwrap();
        let job = runtime.start(pipeline);
        (runtime, job)
    }
}

/// A pipeline from a feed of numbers to what `describe` makes of them by key.
fn pipeline<R>(describe: impl FnOnce(KeyedStream<u64, u64>) -> Stream<R>) -> (Feed<u64>, Pipeline, Collected<R>)
where
    R: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let (feed, source) = feed::<u64>(10);
    let (sink, rows) = Collect::new();
    let pipeline = Pipeline::new("lives").epoch_interval(Duration::from_millis(5));
    describe(pipeline.source("numbers", source).key_by(|number| number % 2)).sink("out", sink);
    (feed, pipeline, rows)
}

/// Starts it, feeds it, and stops it in order.
async fn life<R>(place: &Place, numbers: &[u64], describe: impl FnOnce(KeyedStream<u64, u64>) -> Stream<R>) -> Vec<R>
where
    R: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let (feed, pipeline, rows) = pipeline(describe);
    let (_runtime, job) = place.start(pipeline);
    let job = job.unwrap();
    for number in numbers {
        feed.send_durable_async(*number).await.unwrap().await.unwrap();
    }
    job.stop(Duration::from_secs(60)).await.unwrap();
    rows.take()
}

/// Starts it, and returns what is said against that.
async fn refusal<R>(place: &Place, describe: impl FnOnce(KeyedStream<u64, u64>) -> Stream<R>) -> String
where
    R: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let (_feed, pipeline, _rows) = pipeline(describe);
    let (_runtime, job) = place.start(pipeline);
    match job {
        Err(error) => chain(&error),
        Ok(job) => chain(&job.wait().await.unwrap_err()),
    }
}

/// Which variables a version of the processor has.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    First,
    Second,
    /// With `kept` as a list.
    Broken,
    /// Without a word on `old`.
    Silent,
}

/// Adds numbers up in every variable that it has, and tells of all sums.
#[derive(Clone)]
struct Sums(Version);

struct Variables {
    kept: Option<ValueState<u64>>,
    old: Option<ValueState<u64>>,
    added: Option<MapState<u64, u64>>,
}

impl StatefulProcessor for Sums {
    type Key = u64;
    type In = u64;
    type Out = (Option<u64>, Option<u64>, Vec<u64>);
    type State = Variables;

    fn init(&self, handle: &mut VariableHandle<'_, '_>) -> Result<Variables, BoxError> {
        let has_old = self.0 == Version::First;
        if self.0 == Version::Second {
            handle.delete_if_exists("old")?;
        }
        if self.0 == Version::Broken {
            handle.list_state::<u64>("kept", None)?;
        }
        Ok(Variables {
            kept: (self.0 != Version::Broken).then(|| handle.value_state("kept", None)).transpose()?,
            old: has_old.then(|| handle.value_state("old", None)).transpose()?,
            added: (!has_old).then(|| handle.map_state("added", None)).transpose()?,
        })
    }

    fn handle_input_rows(
        &mut self,
        key: &u64,
        rows: &mut Rows<'_, u64>,
        state: &mut Variables,
        ctx: &mut TransformContext<'_, Self::Out>,
    ) -> Result<(), BoxError> {
        for number in rows {
            for value in [&mut state.kept, &mut state.old].into_iter().flatten() {
                let before = value.get().map_or(0, |sum| *sum);
                value.update(before + number)?;
            }
            if let Some(added) = &mut state.added {
                added.update_value(&number, *key)?;
            }
            let sum = |value: &Option<ValueState<u64>>| value.as_ref().and_then(|value| Some(*value.get()?));
            let keys = state.added.as_ref().map_or_else(Vec::new, |added| added.keys().collect());
            ctx.emit((sum(&state.kept), sum(&state.old), keys));
        }
        Ok(())
    }
}

/// S-TWS-09
#[tokio::test]
async fn variables_come_and_go_between_two_starts() {
    for trigger in [None, Some(Trigger::ProcessingTime(Duration::ZERO))] {
        come_and_go(&Place { trigger, ..Place::default() }).await;
    }
}

async fn come_and_go(store: &Place) {
    let sums = |version| {
        move |numbers: KeyedStream<u64, u64>| {
            numbers.transform_with_state("sums", OutputMode::Append, TimeMode::None, Sums(version))
        }
    };
    let first = life(store, &[2, 4], sums(Version::First)).await;
    assert_eq!(first, [(Some(2), Some(2), vec![]), (Some(6), Some(6), vec![])]);
    // One that is gone without a word, and one of another kind, are refused by name.
    let text = refusal(store, sums(Version::Silent)).await;
    assert!(text.contains("operator sums had a state old that it lacks now"), "{text}");
    let text = refusal(store, sums(Version::Broken)).await;
    assert!(text.contains("sums") && text.contains("kept") && text.contains("was a value and is a list now"), "{text}");
    let second = life(store, &[6, 8], sums(Version::Second)).await;
    assert_eq!(second, [(Some(12), None, vec![6]), (Some(20), None, vec![6, 8])]);
    // It comes back empty; what was added has to be kept or given up in its turn.
    let text = refusal(store, sums(Version::First)).await;
    assert!(text.contains("operator sums had a state added that it lacks now"), "{text}");
    let again = life(store, &[10], sums(Version::Silent)).await;
    assert_eq!(again, [(Some(30), None, vec![6, 8, 10])]);
}

/// §7.2: another kind of timeouts does not fit the state in a store.
#[tokio::test]
async fn another_kind_of_timeouts_is_refused() {
    let store = Place::default();
    let count = |timeout: GroupTimeout| {
        move |numbers: KeyedStream<u64, u64>| {
            numbers.flat_map_groups_with_state(
                "count",
                OutputMode::Append,
                timeout,
                |_, rows, state: &mut GroupState<u64>, out| {
                    let count = state.get_option().map_or(0, |count| *count) + rows.count() as u64;
                    state.update(count)?;
                    out.emit(count);
                    Ok(())
                },
            )
        }
    };
    assert_eq!(life(&store, &[0, 2], count(GroupTimeout::None)).await, [1, 2]);
    let text = refusal(&store, count(GroupTimeout::ProcessingTime)).await;
    assert!(text.contains("operator count had a state group_state that it lacks now"), "{text}");
    assert_eq!(life(&store, &[4], count(GroupTimeout::None)).await, [3]);
}

/// §7.2: a type that does not read what another one wrote is refused by the names of operator and state, before a record is read; one that
/// does goes on.
#[tokio::test]
async fn a_state_of_another_type_is_refused_by_name() {
    /// Sends the state as text, before the rows of the call are in it.
    fn before<S>(numbers: KeyedStream<u64, u64>, add: fn(Option<&S>, u64) -> S) -> Stream<String>
    where
        S: StateValue + std::fmt::Debug,
    {
        let (mode, timeout) = (OutputMode::Append, GroupTimeout::None);
        numbers.flat_map_groups_with_state("sums", mode, timeout, move |_, rows, state: &mut GroupState<S>, out| {
            for number in rows {
                out.emit(format!("{:?}", state.get_option().as_deref()));
                let next = add(state.get_option().as_deref(), number);
                state.update(next)?;
            }
            Ok(())
        })
    }
    let store = Place::default();
    let small = |numbers| before(numbers, |sum: Option<&u32>, number| sum.unwrap_or(&0) + number as u32);
    let large = |numbers| before(numbers, |sum: Option<&u64>, number| sum.unwrap_or(&0) + number);
    let text = |numbers| before(numbers, |sum: Option<&String>, _| format!("{sum:?}"));
    assert_eq!(life(&store, &[2, 4], small).await, ["None", "Some(2)"]);
    let refused = refusal(&store, text).await;
    for part in ["sums", "state group_state", "is not of its type", "go back to the type that wrote it"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    // A larger integer reads what a smaller one wrote.
    assert_eq!(life(&store, &[6], large).await, ["Some(6)"]);

    let store = Place::default();
    let sums = |numbers: KeyedStream<u64, u64>| {
        numbers.transform_with_state("sums", OutputMode::Append, TimeMode::None, Sums(Version::First))
    };
    let words = |numbers: KeyedStream<u64, u64>| {
        numbers.transform_with_state("sums", OutputMode::Append, TimeMode::None, Words)
    };
    life(&store, &[2], sums).await;
    let refused = refusal(&store, words).await;
    assert!(refused.contains("sums") && refused.contains("state kept is not of its type"), "{refused}");
}

/// As [`Sums`], with text where that has a number.
#[derive(Clone)]
struct Words;

impl StatefulProcessor for Words {
    type Key = u64;
    type In = u64;
    type Out = u64;
    type State = (ValueState<String>, ValueState<u64>);

    fn init(&self, handle: &mut VariableHandle<'_, '_>) -> Result<Self::State, BoxError> {
        Ok((handle.value_state("kept", None)?, handle.value_state("old", None)?))
    }

    fn handle_input_rows(
        &mut self,
        _key: &u64,
        rows: &mut Rows<'_, u64>,
        (kept, _): &mut Self::State,
        ctx: &mut TransformContext<'_, u64>,
    ) -> Result<(), BoxError> {
        for number in rows {
            kept.update(number.to_string())?;
            ctx.emit(number);
        }
        Ok(())
    }
}

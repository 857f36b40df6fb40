//! Runs a script in which it matters what is in an epoch.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::graph::Graph;
use crate::job::RestartPolicy;
use crate::operator::DropReason;
use crate::testing::Outside;
use crate::testing::harness::{HarnessFailure, ScriptSink};
use crate::testing::script::ScriptSource;
use crate::testing::simulation::{SimConfig, simulate};
use crate::time::Timestamp;

/// The results of a [`check_drains`].
#[derive(Clone, Debug)]
pub struct Drains<Out> {
    /// The results of each list, and behind them those of the end of the input, when event time comes to its end.
    pub results: Vec<Vec<Out>>,
    /// What was dropped, by reason.
    pub dropped: BTreeMap<DropReason, u64>,
}

/// The second run's subtasks.
const PARALLELISM: u16 = 3;
const SEVERAL: &str = "three subtasks";

/// Runs `script` list by list: each list is one record of the source and has an epoch of its own, which is closed, committed and
/// delivered before the next list is read, by other copies of the operators. What is returned is that of a single subtask; with three,
/// whose state is read back from rows, all has to be the same, besides the order of results within an epoch.
///
/// # Errors
/// [`HarnessFailure`] when the job failed, or something was different with several subtasks.
pub fn check_drains<In, Out>(
    script: impl IntoIterator<Item = Vec<In>>,
    describe: impl Fn(ScriptSource<Vec<In>>, ScriptSink<Out>) -> Graph,
) -> Result<Drains<Out>, HarnessFailure>
where
    In: Clone + Send + Sync + 'static,
    Out: Serialize + DeserializeOwned + 'static,
{
    let mut script: Vec<_> = script.into_iter().map(|list| (list, Timestamp::MIN)).collect();
    // The end of the input has an epoch of its own too.
    script.push((Vec::new(), Timestamp::MIN));
    let lists = script.len();
    let source = ScriptSource { records: Arc::new(script), per_life: 1, ..ScriptSource::default() };
    let one = run(1, (&source, lists), &describe)?;
    let mut several = run(PARALLELISM, (&source, lists), &describe)?;
    let mut sorted = one.clone();
    for Run { rows, .. } in [&mut sorted, &mut several] {
        rows.iter_mut().for_each(|rows| rows.sort());
    }
    if sorted != several {
        let counts =
            |run: &Run| format!("{:?}, dropped {:?}", run.rows.iter().map(Vec::len).collect::<Vec<_>>(), run.dropped);
        let text =
            format!("rows of each epoch: {} where {} were expected, or others", counts(&several), counts(&sorted));
        return Err(HarnessFailure::Differs { cut: SEVERAL, text });
    }
    let decode = |rows: &Vec<Vec<u8>>| rows.iter().map(|row| codec::decode(row)).collect::<Result<Vec<Out>, _>>();
    let results: Result<_, _> = one.rows.iter().map(decode).collect();
    let results = results.map_err(|error| HarnessFailure::Unreadable { text: error.to_string() })?;
    Ok(Drains { results, dropped: one.dropped })
}

/// What one run came to: the rows of each list.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    rows: Vec<Vec<Vec<u8>>>,
    dropped: BTreeMap<DropReason, u64>,
}

fn run<In, Out>(
    parallelism: u16,
    (source, lists): (&ScriptSource<Vec<In>>, usize),
    describe: &impl Fn(ScriptSource<Vec<In>>, ScriptSink<Out>) -> Graph,
) -> Result<Run, HarnessFailure> {
    let cut = if parallelism == 1 { "list by list" } else { SEVERAL };
    let outside = Outside::default();
    source.used_up.store(false, Ordering::Relaxed);
    let pipeline = || describe(source.clone(), ScriptSink { outside: outside.clone(), record: PhantomData });
    let mut config = SimConfig::calm(1);
    config.parallelism = vec![parallelism];
    if parallelism > 1 {
        // And of what is older, nothing is in the log: it is read back from rows.
        config.limits.fold_epochs = 1;
    }
    // Only the end of a life closes an epoch.
    config.job.epoch_interval = Duration::from_secs(3_600);
    config.job.restart = RestartPolicy::never();
    // Long enough for what the processing time is to do with the list.
    config.stop_after = Some(Duration::from_millis(20));
    config.stop_when = Some(Arc::clone(&source.used_up));
    let report = simulate(&config, &pipeline).map_err(|failure| HarnessFailure::Failed { cut, failure })?;
    if report.epochs != lists as u64 {
        let text = format!("{} epochs for {lists} lists", report.epochs);
        return Err(HarnessFailure::Differs { cut, text });
    }
    let mut rows = vec![Vec::new(); lists];
    for (epoch, row) in outside.rows_of_epochs() {
        let list = usize::try_from(epoch.number()).ok().and_then(|number| rows.get_mut(number.checked_sub(1)?));
        list.into_iter().for_each(|list| list.push(row.clone()));
    }
    let dropped = report.dropped.into_iter().filter(|(_, records)| *records > 0).collect();
    Ok(Run { rows, dropped })
}

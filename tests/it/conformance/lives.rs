//! Several starts on one store, in order: each is fed, and stopped when everything is durable.

use std::iter::successors;
use std::time::Duration;

use millstream::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How epochs begin in a life.
pub(super) const BATCHES: Option<Trigger> = Some(Trigger::ProcessingTime(Duration::ZERO));

/// A store on which pipelines of one name follow each other.
#[derive(Default)]
pub(super) struct Place {
    store: Memory,
}

/// What came of a life.
pub(super) struct Life<R> {
    pub(super) rows: Vec<R>,
    /// The last epoch before it, and its own last one.
    pub(super) epochs: (u64, u64),
}

impl Place {
    /// Starts a pipeline, feeds it number by number, and stops it. Returns what is said against the start, if it is refused.
    pub(super) fn live<R>(
        &self,
        trigger: Option<Trigger>,
        numbers: &[u64],
        describe: impl FnOnce(Stream<u64>) -> Stream<R>,
    ) -> Result<Life<R>, String>
    where
        R: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let (feed, source) = feed::<u64>(10);
        let (sink, rows) = Collect::new();
        let pipeline = Pipeline::new("lives").epoch_interval(Duration::from_millis(5));
        describe(pipeline.source("numbers", source)).sink("out", sink);
        let runtime = Runtime::builder().workers(2).restart(RestartPolicy::never()).state_backend(self.store.clone());
        let pipeline = if let Some(trigger) = trigger { pipeline.trigger(trigger) } else { pipeline };
        let runtime = runtime.build().unwrap();
        let job = runtime.start(pipeline).map_err(|error| chain(&error))?;
        for number in numbers {
            let durable = feed.send_durable(*number).unwrap().wait();
            if durable.is_err() {
                return Err(chain(&job.join().unwrap_err()));
            }
        }
        let ended = job.stop_blocking(Duration::from_secs(60)).map_err(|error| chain(&error))?;
        let epochs = (job.status().restored.number(), ended.epoch().number());
        Ok(Life { rows: rows.take(), epochs })
    }
}

/// The whole text of an error, causes included.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

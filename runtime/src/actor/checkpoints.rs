//! Who waits for an epoch that began to close after he asked.

use tokio::sync::oneshot;

use crate::id::Epoch;
use crate::job::{Ended, JobError};

type Answer = oneshot::Sender<Result<Epoch, JobError>>;

#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// With the first epoch whose barrier was sent afterwards.
    waiting: Vec<(Option<Epoch>, Answer)>,
}

impl Checkpoints {
    pub(super) fn ask(&mut self, answer: Answer) {
        // Who dropped his future waits no more; so the list is as long as there are callers.
        self.waiting.retain(|(_, answer)| !answer.is_closed());
        self.waiting.push((None, answer));
    }

    /// Whether somebody waits for a barrier to be sent.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.iter().any(|(epoch, _)| epoch.is_none())
    }

    /// A barrier is sent.
    pub(super) fn barrier(&mut self, closes: Epoch) {
        for (epoch, _) in &mut self.waiting {
            epoch.get_or_insert(closes);
        }
    }

    /// Epochs up to this one are durable.
    pub(super) fn committed(&mut self, committed: Epoch) {
        let done = self.waiting.extract_if(.., |(epoch, _)| epoch.is_some_and(|epoch| epoch <= committed));
        done.for_each(|(_, answer)| drop(answer.send(Ok(committed))));
    }

    /// Epochs that were not committed go with their attempt; the next one closes others.
    pub(super) fn attempt_over(&mut self) {
        self.waiting.iter_mut().for_each(|(epoch, _)| *epoch = None);
    }

    /// A job that ended well has committed everything that it had taken in.
    pub(super) fn over(&mut self, result: &Result<Ended, JobError>) {
        for (_, answer) in self.waiting.drain(..) {
            let _ = answer.send(result.clone().map(Ended::epoch));
        }
    }
}

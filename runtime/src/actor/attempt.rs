//! The pieces of one attempt that the job actor commands.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use crate::actor::link::SubtaskView;
use crate::id::{Attempt, ExecutionMode, OperatorId, SubtaskId};
use crate::operator::{Quarantined, SourceCommand, SourceControl, TaskControl};
use crate::plan::Plan;
use crate::state::log::Restored;

/// An attempt that is to be built.
pub(super) struct Seeding {
    pub(super) attempt: Attempt,
    pub(super) operators: Vec<OperatorId>,
    pub(super) restored: Arc<Restored>,
    /// Records that user code is not given.
    pub(super) quarantined: Arc<[Quarantined]>,
    /// How its first epoch runs.
    pub(super) mode: ExecutionMode,
    /// Its pieces are being made.
    pub(super) begun: bool,
}

/// What of a subtask may still be running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Its data loop.
    Loop,
    /// The thread of its readers.
    Reader,
}

struct Subtask {
    id: SubtaskId,
    control: TaskControl,
    source: Option<SourceControl>,
}

/// An attempt whose pieces there are. Dropped, it closes them.
pub(super) struct Hosted {
    pub(super) attempt: Attempt,
    pub(super) operators: Vec<OperatorId>,
    pub(super) restored: Arc<Restored>,
    /// Subtasks that are not built yet.
    pub(super) waiting: Vec<SubtaskId>,
    list: Vec<Subtask>,
    /// Given up when the attempt is closed; loops that were not let go end then.
    go: Option<watch::Sender<bool>>,
    going: bool,
    /// Loops whose end is still to be reported.
    running: BTreeSet<SubtaskId>,
}

impl Hosted {
    pub(super) fn new(seeding: &Seeding, go: watch::Sender<bool>) -> Self {
        Self {
            attempt: seeding.attempt,
            operators: seeding.operators.clone(),
            restored: Arc::clone(&seeding.restored),
            waiting: Vec::new(),
            list: Vec::new(),
            go: Some(go),
            going: false,
            running: BTreeSet::new(),
        }
    }

    pub(super) fn add(&mut self, id: SubtaskId, control: TaskControl, source: Option<SourceControl>) {
        self.waiting.push(id);
        self.list.push(Subtask { id, control, source });
    }

    pub(super) fn subtasks(&self) -> Vec<SubtaskId> {
        self.list.iter().map(|subtask| subtask.id).collect()
    }

    pub(super) fn sources(&self) -> Vec<SubtaskId> {
        self.list.iter().filter(|subtask| subtask.source.is_some()).map(|subtask| subtask.id).collect()
    }

    pub(super) fn views(&self, plan: &Plan) -> Vec<SubtaskView> {
        let names = |id: SubtaskId| {
            let task = plan.tasks().iter().find(|task| task.id == id.task)?;
            let vertices = task.vertices.iter().filter_map(|vertex| plan.graph().vertex(*vertex));
            Some(vertices.map(|vertex| vertex.name.as_str()).collect::<Vec<_>>().join(" > "))
        };
        let view = |subtask: &Subtask| SubtaskView {
            subtask: subtask.id,
            task: names(subtask.id).unwrap_or_default().into(),
            control: subtask.control.clone(),
            source: subtask.source.clone(),
        };
        self.list.iter().map(view).collect()
    }

    /// Whether all are built and wait to be let go.
    pub(super) fn is_complete(&self) -> bool {
        self.waiting.is_empty() && !self.going && !self.is_closed()
    }

    pub(super) const fn is_going(&self) -> bool {
        self.going
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.go.is_none()
    }

    /// Lets the loops go.
    pub(super) fn go(&mut self) {
        self.going = true;
        self.running = self.list.iter().map(|subtask| subtask.id).collect();
        if let Some(go) = &self.go {
            go.send_replace(true);
        }
    }

    /// Takes note that a loop has ended; says whether that is news.
    pub(super) fn ended(&mut self, subtask: SubtaskId) -> bool {
        self.running.remove(&subtask)
    }

    /// Whatever these loops still say is not reported.
    pub(super) fn forget(&mut self, which: impl Fn(SubtaskId) -> bool) {
        self.running.retain(|subtask| !which(*subtask));
    }

    pub(super) fn command(&self, command: SourceCommand) {
        self.sources_do(|control| control.command(command));
    }

    pub(super) fn hold(&self, held: bool) {
        self.sources_do(|control| control.hold(held));
    }

    fn sources_do(&self, tell: impl Fn(&SourceControl)) {
        for subtask in &self.list {
            if let Some(source) = &subtask.source {
                tell(source);
                subtask.control.bell.ring();
            }
        }
    }

    /// Ends all loops and readers.
    pub(super) fn close(&mut self) {
        self.go = None;
        self.list.iter().for_each(|subtask| subtask.control.close());
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.close();
    }
}

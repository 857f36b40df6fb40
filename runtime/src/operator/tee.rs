//! One stream, several readers within the same task.

use crate::channel::Frame;
use crate::operator::{Flow, Node, TaskContext, TaskError};

/// Hands every frame to every branch, in the same order.
pub struct Tee<T> {
    branches: Vec<Box<dyn Node<T>>>,
    /// Which branches wait for room.
    blocked: Vec<bool>,
}

impl<T> std::fmt::Debug for Tee<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tee").field("branches", &self.branches.len()).finish_non_exhaustive()
    }
}

impl<T> Tee<T> {
    /// Joins branches.
    pub fn new(branches: Vec<Box<dyn Node<T>>>) -> Self {
        let blocked = vec![false; branches.len()];
        Self { branches, blocked }
    }

    fn flow(&self) -> Flow {
        if self.blocked.contains(&true) { Flow::Blocked } else { Flow::Ready }
    }

    fn each(
        &mut self,
        context: &mut TaskContext,
        wanted: impl Fn(bool) -> bool,
        mut call: impl FnMut(&mut dyn Node<T>, &mut TaskContext) -> Result<Flow, TaskError>,
    ) -> Result<Flow, TaskError> {
        for (branch, blocked) in self.branches.iter_mut().zip(&mut self.blocked) {
            if wanted(*blocked) {
                *blocked = call(branch.as_mut(), context)? == Flow::Blocked;
            }
        }
        Ok(self.flow())
    }
}

impl<T: Clone> Node<T> for Tee<T> {
    fn offer(&mut self, frame: Frame<T>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        // A frame is only offered when every branch is ready, so each takes it now.
        let last = self.branches.len().saturating_sub(1);
        let mut frame = Some(frame);
        for (index, (branch, blocked)) in self.branches.iter_mut().zip(&mut self.blocked).enumerate() {
            let copy = if index == last { frame.take() } else { frame.clone() };
            if let Some(copy) = copy {
                *blocked = branch.offer(copy, context)? == Flow::Blocked;
            }
        }
        Ok(self.flow())
    }

    fn resume(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.each(context, |blocked| blocked, |branch, context| branch.resume(context))
    }

    fn flush(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.each(context, |blocked| !blocked, |branch, context| branch.flush(context))
    }

    fn encode_slice(&mut self, entries: usize, context: &mut TaskContext) -> Result<usize, TaskError> {
        let mut left = 0;
        for branch in &mut self.branches {
            left += branch.encode_slice(entries, context)?;
        }
        Ok(left)
    }
}

//! A vertex with something put in front of it or behind it in the same chain.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use millstream_runtime::checkpoint::StateDecl;
use millstream_runtime::graph::{OperatorVertex, Shape};
use millstream_runtime::operator::{AnyNode, Driver, Node, OpenContext, Operator, SideDecl, TaskControl, TaskError};

/// To everybody but the chain it is the vertex within. `build` builds that one, and what stands around it.
pub(crate) struct Around<B> {
    inner: Arc<dyn OperatorVertex>,
    build: B,
}

impl<B> Around<B>
where
    B: Fn(&dyn OperatorVertex, &OpenContext, AnyNode) -> Result<AnyNode, TaskError>,
{
    pub(crate) const fn new(inner: Arc<dyn OperatorVertex>, build: B) -> Self {
        Self { inner, build }
    }
}

impl<B> fmt::Debug for Around<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Around").field("inner", &self.inner.label()).finish_non_exhaustive()
    }
}

impl<B> OperatorVertex for Around<B>
where
    B: Fn(&dyn OperatorVertex, &OpenContext, AnyNode) -> Result<AnyNode, TaskError> + Send + Sync,
{
    fn label(&self) -> &str {
        self.inner.label()
    }

    fn states(&self) -> Vec<StateDecl> {
        self.inner.states()
    }

    fn is_stateful(&self) -> bool {
        self.inner.is_stateful()
    }

    fn shape(&self) -> Shape {
        self.inner.shape()
    }

    fn sides(&self) -> Vec<SideDecl> {
        self.inner.sides()
    }

    fn split(&self, main: AnyNode, sides: BTreeMap<u16, AnyNode>, at: (&str, &TaskControl)) -> Option<AnyNode> {
        self.inner.split(main, sides, at)
    }

    fn build(&self, open: &OpenContext, next: AnyNode) -> Result<AnyNode, TaskError> {
        (self.build)(self.inner.as_ref(), open, next)
    }
}

/// Puts an operator in front of a node that takes what it gives.
///
/// # Errors
/// [`TaskError::Build`] for a node of another type.
pub(crate) fn in_front<O: Operator>(open: &OpenContext, operator: O, next: AnyNode) -> Result<AnyNode, TaskError> {
    let mismatch = |_| TaskError::Build { operator: open.name.clone() };
    let next = next.downcast::<Box<dyn Node<O::Out>>>().map_err(mismatch)?;
    let node: Box<dyn Node<O::In>> = Box::new(Driver::new(open.name.clone(), operator, *next));
    Ok(Box::new(node))
}

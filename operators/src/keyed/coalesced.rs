//! Puts a [`Coalescer`] behind an operator whose every result replaces the one before.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use millstream_runtime::checkpoint::StateDecl;
use millstream_runtime::graph::{OperatorVertex, Shape};
use millstream_runtime::operator::{
    AnyNode, Coalescer, Driver, Emitted, Node, OpenContext, OutputMode, SideDecl, TaskControl, TaskError,
};

/// Writes the bytes of what a row is the result of.
pub(crate) type RowKey<R> = fn(&R, &mut Vec<u8>);

/// The vertex of an operator, and what keeps the last row of each key behind it in update mode.
pub(crate) struct Coalesced<R> {
    inner: Arc<dyn OperatorVertex>,
    key: RowKey<R>,
}

impl<R> Coalesced<R> {
    pub(crate) fn new(inner: Arc<dyn OperatorVertex>, key: RowKey<R>) -> Self {
        Self { inner, key }
    }
}

impl<R> fmt::Debug for Coalesced<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalesced").field("inner", &self.inner.label()).finish_non_exhaustive()
    }
}

impl<R: Send + 'static> OperatorVertex for Coalesced<R> {
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
        if open.output_mode != OutputMode::Update {
            return self.inner.build(open, next);
        }
        let key = self.key;
        if self.inner.sides().is_empty() {
            let rows = move |row: &R, out: &mut Vec<u8>| {
                key(row, out);
                true
            };
            return self.inner.build(open, behind(open, next, rows)?);
        }
        let rows = move |row: &Emitted<R>, out: &mut Vec<u8>| match row {
            Emitted::Main(row) => {
                key(row, out);
                true
            }
            _ => false,
        };
        self.inner.build(open, behind(open, next, rows)?)
    }
}

fn behind<T, F>(open: &OpenContext, next: AnyNode, key: F) -> Result<AnyNode, TaskError>
where
    T: 'static,
    F: Fn(&T, &mut Vec<u8>) -> bool + 'static,
{
    let mismatch = |_| TaskError::Build { operator: open.name.clone() };
    let next = next.downcast::<Box<dyn Node<T>>>().map_err(mismatch)?;
    let node: Box<dyn Node<T>> = Box::new(Driver::new(open.name.clone(), Coalescer::new(open, key), *next));
    Ok(Box::new(node))
}

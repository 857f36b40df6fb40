//! Puts a [`Coalescer`] behind an operator whose every result replaces the one before.

use std::sync::Arc;

use millstream_runtime::graph::OperatorVertex;
use millstream_runtime::operator::{AnyNode, Coalescer, Emitted, OpenContext, OutputMode};

use crate::keyed::around::{Around, in_front};

/// Writes the bytes of what a row is the result of.
pub(crate) type RowKey<R> = fn(&R, &mut Vec<u8>);

/// The vertex of an operator, and what keeps the last row of each key behind it in update mode.
pub(crate) fn coalesced<R: Send + 'static>(
    inner: Arc<dyn OperatorVertex>,
    key: RowKey<R>,
) -> impl OperatorVertex + use<R> {
    let replaces = move |row: &R, out: &mut Vec<u8>| {
        key(row, out);
        true
    };
    Around::new(inner, move |inner: &dyn OperatorVertex, open: &OpenContext, next: AnyNode| {
        let next = match (open.output_mode, inner.sides().is_empty()) {
            (OutputMode::Update, true) => in_front(open, Coalescer::new(open, replaces), next)?,
            (OutputMode::Update, false) => {
                let main_only = move |row: &Emitted<R>, out: &mut Vec<u8>| match row {
                    Emitted::Main(row) => replaces(row, out),
                    Emitted::Side(..) => false,
                };
                in_front(open, Coalescer::new(open, main_only), next)?
            }
            _ => next,
        };
        inner.build(open, next)
    })
}

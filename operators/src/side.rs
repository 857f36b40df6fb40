//! How results leave an operator that may have side outputs.

use std::any::Any;

use millstream_runtime::operator::{Emitted, OutputTag, SideDecl};

/// A record of a side output without its type.
pub(crate) type AnyRecord = Box<dyn Any + Send>;

/// The number of a tag's output among those that are declared.
pub(crate) fn number_of<T: 'static>(tag: &OutputTag<T>, sides: &[SideDecl]) -> Option<u16> {
    sides.iter().position(|side| side.is(tag)).and_then(|side| u16::try_from(side).ok())
}

/// How results leave the operator: only one that declares side outputs pays for them.
pub trait Leaving<T>: Send + Sync + 'static {
    /// What leaves.
    type Out: 'static;

    /// Nothing for what cannot leave.
    fn leave(emitted: Emitted<T>) -> Option<Self::Out>;
}

/// There is only the main output.
#[derive(Debug)]
pub struct MainOnly;

/// A splitter follows.
#[derive(Debug)]
pub(crate) struct WithSides;

impl<T: 'static> Leaving<T> for MainOnly {
    type Out = T;

    #[inline]
    fn leave(emitted: Emitted<T>) -> Option<T> {
        match emitted {
            Emitted::Main(value) => Some(value),
            Emitted::Side(..) => None,
        }
    }
}

impl<T: 'static> Leaving<T> for WithSides {
    type Out = Emitted<T>;

    #[inline]
    fn leave(emitted: Emitted<T>) -> Option<Emitted<T>> {
        Some(emitted)
    }
}

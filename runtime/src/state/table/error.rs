//! What goes wrong with a table.

use crate::codec::CodecError;
use crate::state::form::FormError;

/// State that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The entry's value of an epoch that is being encoded cannot be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The record belongs to another subtask: it was not exchanged by its key. A bug in this library, or a hash that was
    /// computed by other means.
    #[error("hash {hash} belongs to a key group of another subtask")]
    NotMine {
        /// The hash.
        hash: u32,
    },
}

/// A state that its operator did not declare: a bug of the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state {state} is not declared; declare it in `open`, by the same name every time")]
pub struct UnknownState {
    /// Its name.
    pub state: String,
}

/// A state that cannot be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A stored entry is not what this state writes: the key's or value's type changed, or the bytes are damaged.
    #[error("cannot restore state {state}: an entry is not of its key type")]
    Key {
        /// Number of the state.
        state: u16,
    },
    /// A stored value is not of the state's type.
    #[error("cannot restore state {state}")]
    Value {
        /// Number of the state.
        state: u16,
        /// The cause.
        source: FormError,
    },
    /// As the others, of a state that has a name.
    #[error(
        "what the store has of state {state} is not of its type: the type has changed, or the store is damaged; go back to the type \
         that wrote it, give the state a new version that migrates the old one, or give the new state a name of its own"
    )]
    Named {
        /// The state.
        state: String,
        /// The cause.
        source: Box<LoadError>,
    },
}

impl LoadError {
    /// The same, by the name that the user knows.
    pub(crate) fn of(self, state: &str) -> Self {
        Self::Named { state: state.to_owned(), source: Box::new(self) }
    }
}

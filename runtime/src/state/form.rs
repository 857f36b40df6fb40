//! How the values of a state become bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, CodecError};

/// What may be a state's value.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept as state",
    note = "state is written to the checkpoint: derive `serde::Serialize` and `serde::Deserialize`, own the data (no borrows)"
)]
pub trait StateValue: Serialize + DeserializeOwned + Send + 'static {}

impl<V: Serialize + DeserializeOwned + Send + 'static> StateValue for V {}

/// Bytes that are no value of a state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormError {
    /// They are not of the state's type.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// How the values of a state are written and read. What it writes is on disk.
pub trait Form<V>: 'static {
    /// Appends the bytes of a value to `out`, which is left as it was on an error.
    ///
    /// # Errors
    /// [`CodecError`] when the value's `Serialize` fails.
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Returns the value of these bytes.
    ///
    /// # Errors
    /// [`FormError`] when there is none.
    fn decode(&self, bytes: &[u8]) -> Result<V, FormError>;
}

/// The value in MessagePack, and nothing besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl<V: StateValue> Form<V> for Plain {
    #[inline]
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
        codec::encode_into(value, out)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, FormError> {
        Ok(codec::decode(bytes)?)
    }
}

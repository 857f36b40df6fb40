//! Errors that users meet.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What user code returns.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Runs user code.
///
/// # Errors
/// The message of its panic. What it worked on may be half done, and is not to be used again.
pub fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| panic_text(payload.as_ref()))
}

/// The message of a panic.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the panic has no message").to_owned()
}

//! Errors that users meet.

/// What user code returns.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

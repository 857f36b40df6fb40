//! Why a runtime cannot be built, or a pipeline not be started.

use std::io;

use crate::graph::BuildErrors;
use crate::state::store::StoreError;

/// A runtime cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// An option is out of its range. Nothing was started.
    #[error("runtime option {option} is {given}; it must be {range}")]
    OutOfRange {
        /// The builder's method.
        option: &'static str,
        /// What it was given.
        given: String,
        /// What it may be.
        range: &'static str,
    },
    /// An option needs a feature that this build does not have. Nothing was started.
    #[error("runtime option {option} is {given}; it needs the feature {feature}, which is not compiled in")]
    NotCompiledIn {
        /// The option.
        option: &'static str,
        /// What it was given.
        given: String,
        /// The feature.
        feature: &'static str,
    },
    /// There is nothing to listen on for `/metrics`. Nothing was started.
    #[error("cannot listen on {address} for /metrics: {reason}; choose another port, or port 0 for one that is free")]
    #[non_exhaustive]
    Listen {
        /// Where.
        address: String,
        /// What the operating system says.
        reason: String,
    },
}

/// A pipeline cannot be started. Nothing of it runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The pipeline has mistakes; all of them are listed.
    #[error(transparent)]
    Build(#[from] BuildErrors),
    /// The pipeline's store cannot be opened: another job has it
    /// ([`StoreErrorKind::Locked`](crate::state::store::StoreErrorKind::Locked)), it is missing where it should be
    /// resumed, the disk failed, or the open took longer than
    /// [`RuntimeBuilder::open_timeout`](crate::runtime::RuntimeBuilder::open_timeout)
    /// ([`StoreErrorKind::Stuck`](crate::state::store::StoreErrorKind::Stuck)).
    #[error("cannot open the state of pipeline {pipeline}")]
    Store {
        /// The pipeline.
        pipeline: String,
        /// What the store says.
        source: StoreError,
    },
    /// The operating system gives no more threads.
    #[error("cannot start the threads of pipeline {pipeline}")]
    Threads {
        /// The pipeline.
        pipeline: String,
        /// What the operating system says.
        source: io::Error,
    },
}

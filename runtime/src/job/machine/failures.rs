//! What ends attempts, coarsely, for whoever counts.

use crate::job::error::JobError;
use crate::operator::TaskError;

/// What kind of failure ended an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FailureKind {
    /// User code panicked.
    Panic,
    /// User code of an operator or a sink returned an error.
    Error,
    /// A source could not be read.
    Source,
    /// An operator's state could not be read.
    State,
    /// A delivery failed.
    Sink,
    /// An epoch could not be written.
    Commit,
    /// The store could not be used.
    Recovery,
    /// The attempt could not be built.
    Build,
    /// An epoch or a stop took too long.
    Timeout,
}

impl FailureKind {
    /// Those that come from an operator which is neither source nor sink.
    pub(crate) const OF_OPERATORS: [Self; 3] = [Self::Panic, Self::Error, Self::State];
    /// Those that come from a source.
    pub(crate) const OF_SOURCES: [Self; 2] = [Self::Panic, Self::Source];
    /// Those that come from a sink.
    pub(crate) const OF_SINKS: [Self; 2] = [Self::Panic, Self::Error];
    /// Those that are no operator's.
    pub(crate) const OF_NOBODY: [Self; 7] =
        [Self::Panic, Self::Error, Self::Sink, Self::Commit, Self::Recovery, Self::Build, Self::Timeout];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Error => "error",
            Self::Source => "source",
            Self::State => "state",
            Self::Sink => "sink",
            Self::Commit => "commit",
            Self::Recovery => "recovery",
            Self::Build => "build",
            Self::Timeout => "timeout",
        }
    }
}

/// Why a job was restarted, coarsely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RestartReason {
    Panic,
    Error,
    Timeout,
}

impl RestartReason {
    pub(crate) const ALL: [Self; 3] = [Self::Panic, Self::Error, Self::Timeout];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Error => "error",
            Self::Timeout => "timeout",
        }
    }

    pub(super) const fn of(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Panic => Self::Panic,
            FailureKind::Timeout => Self::Timeout,
            _ => Self::Error,
        }
    }
}

/// Where a failure came from, and its kind.
pub(super) fn failure_of(error: &JobError) -> (&str, FailureKind) {
    let JobError::Task { source, .. } = error else {
        let kind = match error {
            JobError::Sink { .. } => FailureKind::Sink,
            JobError::Build { .. } => FailureKind::Build,
            JobError::Commit { .. } => FailureKind::Commit,
            JobError::EpochTimeout { .. } | JobError::Deadline { .. } => FailureKind::Timeout,
            JobError::Recovery { .. } | JobError::AlreadyEnded { .. } => FailureKind::Recovery,
            JobError::Task { .. } | JobError::Gone => FailureKind::Error,
        };
        return ("", kind);
    };
    match source.as_ref() {
        TaskError::Panicked { operator, .. } => (operator, FailureKind::Panic),
        TaskError::Operator { operator, .. } | TaskError::Illegal { operator, .. } | TaskError::Build { operator } => {
            (operator, FailureKind::Error)
        }
        TaskError::Source { operator, .. } => (operator, FailureKind::Source),
        TaskError::Read { operator, .. } => (operator, FailureKind::State),
        TaskError::Panic { .. } => ("", FailureKind::Panic),
        TaskError::Input(_) | TaskError::Output(_) => ("", FailureKind::Error),
    }
}

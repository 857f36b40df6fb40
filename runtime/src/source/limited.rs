//! [`Limited`]: a source of which a micro-batch takes no more than so many records.

use crate::error::BoxError;
use crate::guarantee::SourceDeclaration;
use crate::position::{Position, SplitId};
use crate::source::{EpochLimits, Reader, Source};

/// See [`Source::with_max_records_per_epoch`].
#[derive(Clone, Copy, Debug)]
pub struct Limited<S> {
    source: S,
    records: u64,
}

impl<S> Limited<S> {
    pub(super) const fn new(source: S, records: u64) -> Self {
        Self { source, records }
    }
}

impl<S: Source> Source for Limited<S> {
    type Out = S::Out;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        self.source.splits()
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<Self::Out>>, BoxError> {
        self.source.reader(split, from)
    }

    fn concurrent_splits(&self) -> usize {
        self.source.concurrent_splits()
    }

    fn epoch_limits(&self) -> EpochLimits {
        EpochLimits { records: self.records, ..self.source.epoch_limits() }
    }

    fn declaration(&self) -> SourceDeclaration {
        self.source.declaration()
    }

    fn committed(&self, at: &[(SplitId, Position)]) {
        self.source.committed(at);
    }
}

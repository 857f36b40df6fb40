//! How many records there are.

use millstream_runtime::error::BoxError;

use crate::aggregate::Aggregate;

/// Counts records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count;

impl<In> Aggregate<In> for Count {
    type Acc = u64;
    type Out = u64;

    fn start(&self) -> u64 {
        0
    }

    fn add(&self, count: &mut u64, _record: &In) -> Result<(), BoxError> {
        *count += 1;
        Ok(())
    }

    fn merge(&self, count: &mut u64, other: u64) -> Result<(), BoxError> {
        *count += other;
        Ok(())
    }

    fn finish(&self, count: &u64) -> u64 {
        *count
    }
}

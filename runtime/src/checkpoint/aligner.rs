//! Which inputs may be read while a barrier is on its way. Pure.
//!
//! ```text
//!            barrier e               last open input's barrier e
//!   Open ------------------> Held ------------------------------> Open   (all at once; the barrier goes on)
//!    |                        (not read: what follows belongs to a later epoch)
//!    | end
//!    v
//!   Ended                    counts as aligned for every later epoch
//! ```

use crate::canary::{Canary, planted};
use crate::checkpoint::Barrier;
use crate::id::Epoch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    Held,
    Ended,
}

/// Alignment of the inputs of one subtask.
#[derive(Clone, Debug)]
pub struct Aligner {
    inputs: Vec<Input>,
    pending: Option<Barrier>,
}

/// An input broke the order of barriers: a bug in this library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("input {input} sent barrier {got} while barrier {expected} is being aligned")]
pub struct Misaligned {
    /// Which input.
    pub input: usize,
    /// The epoch of its barrier.
    pub got: Epoch,
    /// The epoch that the other inputs close.
    pub expected: Epoch,
}

impl Aligner {
    /// Begins with all inputs open.
    pub fn new(inputs: usize) -> Self {
        Self { inputs: vec![Input::Open; inputs], pending: None }
    }

    /// Says whether the input may be read now.
    pub fn may_read(&self, input: usize) -> bool {
        match self.inputs.get(input) {
            Some(Input::Open) => true,
            Some(Input::Held) => planted(Canary::NoAlignment),
            _ => false,
        }
    }

    /// Takes note of a barrier and returns it if it was the last that was missing.
    ///
    /// # Errors
    /// [`Misaligned`] if another epoch is being aligned.
    pub fn on_barrier(&mut self, input: usize, barrier: Barrier) -> Result<Option<Barrier>, Misaligned> {
        match self.pending {
            Some(pending) if pending.epoch != barrier.epoch => {
                if planted(Canary::NoAlignment) {
                    return Ok(None);
                }
                return Err(Misaligned { input, got: barrier.epoch, expected: pending.epoch });
            }
            pending => self.pending = Some(pending.map_or(barrier, |pending| barrier.joined(pending))),
        }
        self.set(input, Input::Held);
        Ok(self.release())
    }

    /// Takes note of the end of an input and returns the barrier that was waiting for it alone.
    pub fn on_end(&mut self, input: usize) -> Option<Barrier> {
        self.set(input, Input::Ended);
        self.release()
    }

    /// Says whether every input has ended.
    pub fn all_ended(&self) -> bool {
        self.inputs.iter().all(|input| *input == Input::Ended)
    }

    /// Says whether a barrier waits for other inputs.
    pub const fn is_aligning(&self) -> bool {
        self.pending.is_some()
    }

    fn set(&mut self, input: usize, state: Input) {
        if let Some(slot) = self.inputs.get_mut(input) {
            *slot = state;
        }
    }

    fn release(&mut self) -> Option<Barrier> {
        if self.inputs.contains(&Input::Open) {
            return None;
        }
        for input in &mut self.inputs {
            if *input == Input::Held {
                *input = Input::Open;
            }
        }
        self.pending.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ExecutionMode;

    fn barrier(epoch: u64) -> Barrier {
        Barrier { epoch: Epoch::new(epoch), next_mode: ExecutionMode::Continuous, last: false, had_data: false }
    }

    #[test]
    fn holds_records_behind_a_barrier_until_every_input_has_one() {
        let mut aligner = Aligner::new(2);
        assert_eq!(aligner.on_barrier(0, barrier(1)), Ok(None));
        assert!(!aligner.may_read(0) && aligner.may_read(1));
        assert_eq!(aligner.on_barrier(1, barrier(1)), Ok(Some(barrier(1))));
        assert!(aligner.may_read(0) && aligner.may_read(1) && !aligner.is_aligning());
    }

    #[test]
    fn an_epoch_had_data_where_any_input_had_some() {
        let full = |epoch| Barrier { had_data: true, ..barrier(epoch) };
        for (left, right, joined) in
            [(full(1), barrier(1), full(1)), (barrier(1), full(1), full(1)), (barrier(1), barrier(1), barrier(1))]
        {
            let mut aligner = Aligner::new(2);
            assert_eq!(aligner.on_barrier(0, left), Ok(None));
            assert_eq!(aligner.on_barrier(1, right), Ok(Some(joined)));
        }
    }

    #[test]
    fn an_ended_input_counts_as_aligned() {
        let mut aligner = Aligner::new(2);
        assert_eq!(aligner.on_barrier(1, barrier(4)), Ok(None));
        assert_eq!(aligner.on_end(0), Some(barrier(4)));
        assert_eq!(aligner.on_barrier(1, barrier(5)), Ok(Some(barrier(5))));
        assert_eq!(aligner.on_end(1), None);
        assert!(aligner.all_ended());
    }

    #[test]
    fn refuses_a_barrier_of_another_epoch() {
        let mut aligner = Aligner::new(2);
        assert_eq!(aligner.on_barrier(0, barrier(1)), Ok(None));
        let error = Misaligned { input: 1, got: Epoch::new(2), expected: Epoch::new(1) };
        assert_eq!(aligner.on_barrier(1, barrier(2)), Err(error));
    }
}

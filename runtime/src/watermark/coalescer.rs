//! The watermark of many inputs: the minimum over those that are active.

use crate::time::Timestamp;

/// What changed for the reader of all inputs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No record with a time ≤ this follows on any active input.
    Watermark(Timestamp),
    /// No input is active.
    Idle,
    /// At least one input is active again.
    Active,
}

#[derive(Clone, Copy, Debug)]
struct Input {
    watermark: Timestamp,
    idle: bool,
}

/// Minimum over inputs. An idle input does not hold the others back; an ended one counts as [`Timestamp::MAX`].
#[derive(Clone, Debug)]
pub struct Coalescer {
    inputs: Vec<Input>,
    out: Timestamp,
    idle: bool,
}

impl Coalescer {
    /// Begins with every input active and no watermark.
    pub fn new(inputs: usize) -> Self {
        let input = Input { watermark: Timestamp::MIN, idle: false };
        Self { inputs: vec![input; inputs], out: Timestamp::MIN, idle: false }
    }

    /// The last watermark that was given out; it never goes back.
    pub const fn watermark(&self) -> Timestamp {
        self.out
    }

    /// Takes note of an input's watermark. A lower one than before is ignored.
    pub fn on_watermark(&mut self, input: usize, watermark: Timestamp) -> Option<Progress> {
        let slot = self.inputs.get_mut(input)?;
        slot.watermark = slot.watermark.max(watermark);
        self.advance()
    }

    /// Takes note that an input is idle or active.
    pub fn on_idle(&mut self, input: usize, idle: bool) -> Option<Progress> {
        self.inputs.get_mut(input)?.idle = idle;
        let all_idle = self.inputs.iter().all(|input| input.idle);
        if all_idle != self.idle {
            self.idle = all_idle;
            return Some(if all_idle { Progress::Idle } else { Progress::Active });
        }
        self.advance()
    }

    /// Takes note that an input has ended: it leaves the minimum.
    pub fn on_end(&mut self, input: usize) -> Option<Progress> {
        let slot = self.inputs.get_mut(input)?;
        *slot = Input { watermark: Timestamp::MAX, idle: false };
        self.advance()
    }

    fn advance(&mut self) -> Option<Progress> {
        let active = self.inputs.iter().filter(|input| !input.idle);
        let lowest = active.map(|input| input.watermark).min()?;
        (lowest > self.out).then(|| {
            self.out = lowest;
            Progress::Watermark(lowest)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn is_the_minimum_over_active_inputs_and_never_goes_back() {
        let mut coalescer = Coalescer::new(2);
        assert_eq!(coalescer.on_watermark(0, at(5)), None);
        assert_eq!(coalescer.on_watermark(1, at(3)), Some(Progress::Watermark(at(3))));
        assert_eq!(coalescer.on_idle(1, true), Some(Progress::Watermark(at(5))));
        assert_eq!(coalescer.on_watermark(1, at(4)), None);
        assert_eq!(coalescer.on_idle(0, true), Some(Progress::Idle));
        assert_eq!(coalescer.on_idle(0, false), Some(Progress::Active));
        assert_eq!(coalescer.on_end(0), Some(Progress::Watermark(Timestamp::MAX)));
    }
}

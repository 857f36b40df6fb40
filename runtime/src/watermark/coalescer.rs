//! The watermark of many inputs: the minimum over those that are active.
//!
//! An input is a channel of a gate, or a split of a source. What is noted of inputs takes effect with [`Coalescer::advance`], so
//! that several changes at once give one answer, whatever their order.

use crate::canary::{Canary, planted};
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

/// Changes in the order in which they are to be told.
pub type Steps = std::iter::Flatten<std::array::IntoIter<Option<Progress>, 2>>;

#[derive(Clone, Copy, Debug)]
struct Input {
    watermark: Timestamp,
    idle: bool,
}

impl Input {
    const fn is_final(self) -> bool {
        matches!(self.watermark, Timestamp::MAX)
    }
}

/// Minimum over inputs.
///
/// An **idle** input does not hold the others back; when it delivers again, its records may be late. When all are idle, nobody is
/// waited for, and the watermark rises to the highest that any of them has given, as in Flink's `StatusWatermarkValve`: so it does
/// not matter who fell idle last. An input with the **final** watermark has ended and leaves the minimum for good: others that are
/// idle then keep the stream idle, and only when all have ended the result is final.
#[derive(Clone, Debug)]
pub struct Coalescer {
    inputs: Vec<Input>,
    out: Timestamp,
    idle: bool,
}

impl Coalescer {
    /// Begins with every input active and no watermark.
    pub fn new(inputs: usize) -> Self {
        Self::of(std::iter::repeat_n(true, inputs))
    }

    /// Begins without a watermark, from which inputs carry event time at all: those that do not never hold the others back.
    pub fn of(timed: impl IntoIterator<Item = bool>) -> Self {
        let inputs = timed.into_iter().map(|timed| Input { watermark: Timestamp::MIN, idle: !timed });
        let inputs: Vec<_> = inputs.collect();
        // Who reads a stream without event time knows it from the graph and is not told that it is idle.
        let idle = inputs.iter().all(|input| input.idle);
        Self { inputs, out: Timestamp::MIN, idle }
    }

    /// Makes one input of all, which goes on from the last watermark that was given out.
    #[must_use]
    pub fn merged(&self) -> Self {
        let input = Input { watermark: self.out, idle: self.idle };
        Self { inputs: vec![input], out: self.out, idle: self.idle }
    }

    /// The last watermark that was given out; it never goes back.
    pub const fn watermark(&self) -> Timestamp {
        self.out
    }

    /// The last watermark of one input; absent for one that there is not.
    pub fn input(&self, input: usize) -> Timestamp {
        self.inputs.get(input).map_or(Timestamp::MIN, |input| input.watermark)
    }

    /// Takes note of an input's watermark. A lower one than before is ignored; [`Timestamp::MAX`] ends the input.
    pub fn note_watermark(&mut self, input: usize, watermark: Timestamp) {
        if let Some(slot) = self.inputs.get_mut(input) {
            slot.watermark = slot.watermark.max(watermark);
        }
    }

    /// Takes note that an input is idle or active.
    pub fn note_idle(&mut self, input: usize, idle: bool) {
        if let Some(slot) = self.inputs.get_mut(input) {
            slot.idle = idle;
        }
    }

    /// Takes note that all inputs have ended.
    pub fn note_end(&mut self) {
        self.inputs.iter_mut().for_each(|input| input.watermark = Timestamp::MAX);
    }

    /// Says whether the stream was said to be idle and has an active input again; it counts as told then. For a reader who
    /// has to know it before the records that woke the input.
    pub fn wake(&mut self) -> bool {
        let woken = self.idle && self.inputs.iter().any(|input| !input.idle && !input.is_final());
        self.idle &= !woken;
        woken
    }

    /// Says what changed since the last call.
    pub fn advance(&mut self) -> Steps {
        let mut lowest = Timestamp::MAX;
        let mut highest = Timestamp::MIN;
        let (mut open, mut active) = (false, false);
        for input in self.inputs.iter().filter(|input| !input.is_final()) {
            open = true;
            highest = highest.max(input.watermark);
            if !input.idle {
                active = true;
                lowest = lowest.min(input.watermark);
            }
        }
        let idle = open && !active;
        let watermark = if idle || planted(Canary::WrongWatermark) { highest } else { lowest };
        let risen = (watermark > self.out).then_some(Progress::Watermark(watermark));
        self.out = self.out.max(watermark);
        let was_idle = std::mem::replace(&mut self.idle, idle);
        let steps = match (was_idle, idle) {
            (false, true) => [risen, Some(Progress::Idle)],
            // After the final watermark nothing comes, so it wakes nobody.
            (true, false) if open => [Some(Progress::Active), risen],
            _ => [risen, None],
        };
        steps.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn risen(millis: i64) -> Progress {
        Progress::Watermark(at(millis))
    }

    /// What an input says.
    #[derive(Clone, Copy)]
    enum Said {
        Watermark(i64),
        Idle,
        Active,
        End,
    }
    use Said::{Active, End, Idle, Watermark};

    fn told(coalescer: &mut Coalescer, input: usize, said: Said) -> Vec<Progress> {
        match said {
            Watermark(millis) => coalescer.note_watermark(input, at(millis)),
            Idle => coalescer.note_idle(input, true),
            Active => coalescer.note_idle(input, false),
            End => coalescer.note_watermark(input, Timestamp::MAX),
        }
        coalescer.advance().collect()
    }

    /// Runs a script and compares every answer.
    fn script(mut coalescer: Coalescer, steps: &[(usize, Said, &[Progress])]) {
        for (number, (input, said, expected)) in steps.iter().enumerate() {
            assert_eq!(told(&mut coalescer, *input, *said), *expected, "step {number}");
        }
    }

    const FINAL: Progress = Progress::Watermark(Timestamp::MAX);

    #[test]
    fn is_the_minimum_over_active_inputs_and_never_goes_back() {
        let steps: &[(usize, Said, &[Progress])] = &[
            (0, Watermark(5), &[]),
            (1, Watermark(-3), &[risen(-3)]),
            (1, Watermark(-9), &[]),
            (1, Idle, &[risen(5)]),
            (1, Watermark(4), &[]),
            (1, Active, &[]),
            (0, Watermark(8), &[]),
            (1, Watermark(6), &[risen(6)]),
        ];
        script(Coalescer::new(2), steps);
    }

    #[test]
    fn an_input_that_ended_leaves_the_minimum_at_once() {
        script(Coalescer::new(2), &[(0, Watermark(5), &[]), (1, End, &[risen(5)]), (0, End, &[FINAL])]);
        script(Coalescer::new(2), &[(1, End, &[]), (0, Watermark(5), &[risen(5)]), (0, Idle, &[Progress::Idle])]);
    }

    #[test]
    fn is_not_final_while_an_idle_input_may_come_back() {
        let steps: &[(usize, Said, &[Progress])] = &[
            (1, Watermark(2), &[]),
            (1, Idle, &[]),
            (0, End, &[risen(2), Progress::Idle]),
            (1, Active, &[Progress::Active]),
            (1, Watermark(4), &[risen(4)]),
            (1, Idle, &[Progress::Idle]),
            (1, End, &[FINAL]),
        ];
        script(Coalescer::new(2), steps);
    }

    #[test]
    fn rises_to_the_highest_when_all_are_idle_whoever_was_last() {
        for (first, second, expected) in [(0, 1, &[risen(9)][..]), (1, 0, &[][..])] {
            let steps: &[(usize, Said, &[Progress])] = &[(0, Watermark(5), &[]), (1, Watermark(9), &[risen(5)])];
            let mut coalescer = Coalescer::new(2);
            for (input, said, expected) in steps {
                assert_eq!(told(&mut coalescer, *input, *said), *expected);
            }
            assert_eq!(told(&mut coalescer, first, Idle), expected);
            told(&mut coalescer, second, Idle);
            assert_eq!(coalescer.watermark(), at(9));
            assert_eq!(told(&mut coalescer, first, Active), [Progress::Active]);
        }
    }

    #[test]
    fn an_input_without_event_time_holds_nobody_back_and_still_ends() {
        let mixed = Coalescer::of([true, false]);
        script(mixed, &[(0, Watermark(5), &[risen(5)]), (0, End, &[Progress::Idle]), (1, End, &[FINAL])]);
        script(Coalescer::of([false, false]), &[(0, End, &[]), (1, End, &[FINAL])]);
    }

    #[test]
    fn goes_on_with_one_input_in_place_of_all() {
        let mut coalescer = Coalescer::new(2);
        told(&mut coalescer, 0, Watermark(5));
        told(&mut coalescer, 1, Watermark(3));
        script(coalescer.merged(), &[(0, Watermark(3), &[]), (0, Watermark(4), &[risen(4)])]);
    }

    #[test]
    fn can_be_woken_ahead_of_the_records() {
        let mut coalescer = Coalescer::new(1);
        assert!(!coalescer.wake());
        assert_eq!(told(&mut coalescer, 0, Idle), [Progress::Idle]);
        assert!(!coalescer.wake());
        coalescer.note_idle(0, false);
        assert!(coalescer.wake() && !coalescer.wake());
        assert_eq!(coalescer.advance().count(), 0);
    }
}

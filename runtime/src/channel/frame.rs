//! What a channel carries, and in which order it may come.

use crate::checkpoint::Barrier;
use crate::record::Record;
use crate::time::Timestamp;

/// Most records in one frame.
pub const FRAME_RECORDS: usize = 256;

/// The only thing that travels: a batch of records, or one mark.
///
/// Legal order: `((Records | Watermark | Idle | Active | ProcessingTime)* Barrier)* End`. Nothing stands between the last
/// barrier and the end, so the tail of a finite input has its epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<T> {
    /// 1 to [`FRAME_RECORDS`] records. Frames only amortise the hop: user code sees one record at a time.
    Records(Vec<Record<T>>),
    /// No record with a time ≤ this follows.
    Watermark(Timestamp),
    /// The input has nothing for now and holds nobody's watermark back.
    Idle,
    /// The input is active again.
    Active,
    /// The processing time, for timers.
    ProcessingTime(Timestamp),
    /// Closes an epoch.
    Barrier(Barrier),
    /// Nothing follows.
    End,
}

/// A frame that is no batch of records: has no type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// See [`Frame::Watermark`].
    Watermark(Timestamp),
    /// See [`Frame::Idle`].
    Idle,
    /// See [`Frame::Active`].
    Active,
    /// See [`Frame::ProcessingTime`].
    ProcessingTime(Timestamp),
    /// See [`Frame::Barrier`].
    Barrier(Barrier),
    /// See [`Frame::End`].
    End,
}

impl Mark {
    /// Makes a frame of it.
    pub const fn frame<T>(self) -> Frame<T> {
        match self {
            Self::Watermark(time) => Frame::Watermark(time),
            Self::Idle => Frame::Idle,
            Self::Active => Frame::Active,
            Self::ProcessingTime(time) => Frame::ProcessingTime(time),
            Self::Barrier(barrier) => Frame::Barrier(barrier),
            Self::End => Frame::End,
        }
    }
}

impl<T> Frame<T> {
    /// Splits records from marks.
    ///
    /// # Errors
    /// The mark, if it is one.
    pub fn into_records(self) -> Result<Vec<Record<T>>, Mark> {
        Err(match self {
            Self::Records(records) => return Ok(records),
            Self::Watermark(time) => Mark::Watermark(time),
            Self::Idle => Mark::Idle,
            Self::Active => Mark::Active,
            Self::ProcessingTime(time) => Mark::ProcessingTime(time),
            Self::Barrier(barrier) => Mark::Barrier(barrier),
            Self::End => Mark::End,
        })
    }
}

/// A frame came out of order: a bug in this library, found in debug builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("illegal frame: {0}")]
pub struct IllegalFrame(pub &'static str);

/// Checks the order of frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grammar {
    /// Something came since the last barrier.
    open: bool,
    ended: bool,
    watermark: Option<Timestamp>,
    barrier: Option<Barrier>,
}

impl Grammar {
    /// Takes note of the next frame.
    ///
    /// # Errors
    /// [`IllegalFrame`] says which rule it breaks.
    pub fn check<T>(&mut self, frame: &Frame<T>) -> Result<(), IllegalFrame> {
        if self.ended {
            return Err(IllegalFrame("something after the end"));
        }
        match frame {
            Frame::Records(records) if records.is_empty() => return Err(IllegalFrame("records without a record")),
            Frame::Records(records) if records.len() > FRAME_RECORDS => {
                return Err(IllegalFrame("more records than a frame may have"));
            }
            Frame::Watermark(time) => {
                if self.watermark.is_some_and(|last| *time <= last) {
                    return Err(IllegalFrame("a watermark that does not rise"));
                }
                self.watermark = Some(*time);
            }
            Frame::Barrier(barrier) => {
                if self.barrier.is_some_and(|last| barrier.epoch != last.epoch.next()) {
                    return Err(IllegalFrame("a barrier that skips or repeats an epoch"));
                }
                self.barrier = Some(*barrier);
            }
            Frame::End if self.open => return Err(IllegalFrame("something between the last barrier and the end")),
            _ => {}
        }
        self.open = !matches!(frame, Frame::Barrier(_) | Frame::End);
        self.ended = matches!(frame, Frame::End);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, ExecutionMode};

    fn barrier(epoch: u64) -> Frame<u8> {
        Frame::Barrier(Barrier {
            epoch: Epoch::new(epoch),
            next_mode: ExecutionMode::Continuous,
            last: false,
            had_data: false,
        })
    }

    fn records() -> Frame<u8> {
        Frame::Records(vec![Record::new(1)])
    }

    fn first_illegal(frames: &[Frame<u8>]) -> Option<usize> {
        let mut grammar = Grammar::default();
        frames.iter().position(|frame| grammar.check(frame).is_err())
    }

    #[test]
    fn accepts_the_legal_order_and_names_the_first_illegal_frame() {
        let time = |millis| Frame::Watermark(Timestamp::from_millis(millis));
        assert_eq!(first_illegal(&[records(), time(1), barrier(1), Frame::Idle, barrier(2), Frame::End]), None);
        assert_eq!(first_illegal(&[Frame::End, records()]), Some(1));
        assert_eq!(first_illegal(&[records(), Frame::End]), Some(1));
        assert_eq!(first_illegal(&[barrier(1), barrier(3)]), Some(1));
        assert_eq!(first_illegal(&[time(2), time(2)]), Some(1));
        assert_eq!(first_illegal(&[Frame::Records(vec![])]), Some(0));
        assert_eq!(first_illegal(&[Frame::Records(vec![Record::new(1); FRAME_RECORDS + 1])]), Some(0));
    }
}

//! One output to many: chooses the target of each record, collects batches, sends marks to all.

use std::fmt;
use std::sync::Arc;

use crate::channel::frame::{FRAME_RECORDS, Frame, Mark};
use crate::channel::link::{LinkSender, SendError, Sent};
use crate::record::Record;
use crate::state::key_group::KeyGroups;
use crate::time::Timestamp;

/// Computes the key hash of every record of a frame, in a pass of its own: inside the look-up loop it would double the
/// cost of the look-ups (it starves the overlapping cache misses), here it is nearly free.
pub type HashFrame<T> = Arc<dyn Fn(&mut [Record<T>]) + Send + Sync>;

/// How a router chooses.
pub enum Routing<T> {
    /// There is one target: subtask *i* feeds subtask *i*.
    Forward,
    /// Targets take turns, record by record.
    Rebalance,
    /// Every target gets every record.
    Broadcast {
        /// Copies a record.
        copy: fn(&Record<T>) -> Record<T>,
    },
    /// The owner of the key's group.
    Hash {
        /// Computes the hashes.
        hash: HashFrame<T>,
        /// Which group a hash is in.
        groups: KeyGroups,
    },
}

impl<T> fmt::Debug for Routing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "Forward",
            Self::Rebalance => "Rebalance",
            Self::Broadcast { .. } => "Broadcast",
            Self::Hash { .. } => "Hash",
        })
    }
}

/// The outputs of a subtask along one edge of the graph.
///
/// Flush rule: a batch leaves when it is full, when the task's input runs dry ([`Router::flush`]), and before a mark. Never
/// on a timer: a lone record travels at once, and under load frames fill by themselves.
#[derive(Debug)]
pub struct Router<T> {
    routing: Routing<T>,
    targets: Vec<Target<T>>,
    input: std::vec::IntoIter<Record<T>>,
    /// A mark that still has to reach the targets from this index on.
    mark: Option<(Mark, usize)>,
    flushing: bool,
    turn: usize,
    /// When a source took the records of the frame in work.
    taken: Timestamp,
}

#[derive(Debug)]
struct Target<T> {
    link: LinkSender<T>,
    batch: Vec<Record<T>>,
}

impl<T> Target<T> {
    /// Sends the batch; what comes into it next was taken at that time.
    fn send(&mut self, next: Timestamp) -> Result<Sent, SendError> {
        let sent = self.link.send_records(&mut self.batch)?;
        if sent == Sent::Yes {
            self.link.sends_from(next);
        }
        Ok(sent)
    }
}

impl<T> Router<T> {
    /// Joins outputs, ordered by target subtask.
    pub fn new(routing: Routing<T>, links: Vec<LinkSender<T>>) -> Self {
        let targets = links.into_iter().map(|link| Target { link, batch: Vec::new() }).collect();
        Self {
            routing,
            targets,
            input: Vec::new().into_iter(),
            mark: None,
            flushing: false,
            turn: 0,
            taken: Timestamp::MIN,
        }
    }

    /// Says when a source took the records of the next frame; [`Timestamp::MIN`] if nobody knows. Of records that leave together the
    /// oldest counts.
    pub fn takes_from(&mut self, taken: Timestamp) {
        self.taken = taken;
        self.targets
            .iter_mut()
            .filter(|target| target.batch.is_empty())
            .for_each(|target| target.link.sends_from(taken));
    }

    /// Says when frames are sent from now on.
    pub fn sends_at(&mut self, sent: Timestamp) {
        self.targets.iter_mut().for_each(|target| target.link.sends_at(sent));
    }

    /// Takes a frame. After [`Sent::Full`] nothing may be offered until [`Router::resume`] says [`Sent::Yes`].
    ///
    /// # Errors
    /// [`SendError`] when a receiver is gone.
    pub fn offer(&mut self, frame: Frame<T>) -> Result<Sent, SendError> {
        let taken = self.taken;
        match frame.into_records() {
            Ok(mut records) => {
                if let Routing::Hash { hash, .. } = &self.routing {
                    hash(&mut records);
                }
                if let [target] = self.targets.as_mut_slice()
                    && target.batch.is_empty()
                    && records.len() == FRAME_RECORDS
                {
                    // A full frame for a single target goes on as it is.
                    target.batch = records;
                    return target.send(taken);
                }
                self.input = records.into_iter();
            }
            Err(mark) => self.mark = Some((mark, 0)),
        }
        self.resume()
    }

    /// Sends what is collected.
    ///
    /// # Errors
    /// [`SendError`] when a receiver is gone.
    pub fn flush(&mut self) -> Result<Sent, SendError> {
        self.flushing = true;
        self.resume()
    }

    /// Goes on with what was left.
    ///
    /// # Errors
    /// [`SendError`] when a receiver is gone.
    pub fn resume(&mut self) -> Result<Sent, SendError> {
        let taken = self.taken;
        // A batch that is full must leave before another record is looked at: its target may be any of them.
        for target in &mut self.targets {
            if target.batch.len() >= FRAME_RECORDS && target.send(taken)? == Sent::Full {
                return Ok(Sent::Full);
            }
        }
        let count = self.targets.len();
        for record in self.input.by_ref() {
            let chosen = match &self.routing {
                Routing::Broadcast { copy } => {
                    if spread(&mut self.targets, record, *copy, taken)? == Sent::Full {
                        return Ok(Sent::Full);
                    }
                    continue;
                }
                Routing::Forward => 0,
                Routing::Rebalance => {
                    self.turn = (self.turn + 1) % count.max(1);
                    self.turn
                }
                Routing::Hash { groups, .. } => owner(*groups, record.hash, count),
            };
            let Some(target) = self.targets.get_mut(chosen) else { continue };
            target.batch.push(record);
            if target.batch.len() >= FRAME_RECORDS && target.send(taken)? == Sent::Full {
                return Ok(Sent::Full);
            }
        }
        if (self.flushing || self.mark.is_some()) && self.send_batches()? == Sent::Full {
            return Ok(Sent::Full);
        }
        self.flushing = false;
        self.send_mark()
    }

    fn send_batches(&mut self) -> Result<Sent, SendError> {
        let (mut sent, taken) = (Sent::Yes, self.taken);
        for target in &mut self.targets {
            // The others need not wait for one that is full.
            if target.send(taken)? == Sent::Full {
                sent = Sent::Full;
            }
        }
        Ok(sent)
    }

    fn send_mark(&mut self) -> Result<Sent, SendError> {
        while let Some((mark, next)) = self.mark {
            let Some(target) = self.targets.get_mut(next) else {
                self.mark = None;
                break;
            };
            if target.link.send_mark(mark)? == Sent::Full {
                return Ok(Sent::Full);
            }
            self.mark = Some((mark, next + 1));
        }
        Ok(Sent::Yes)
    }
}

/// Gives every target the record. All their batches have room: none is left full behind a record.
fn spread<T>(
    targets: &mut [Target<T>],
    record: Record<T>,
    copy: fn(&Record<T>) -> Record<T>,
    taken: Timestamp,
) -> Result<Sent, SendError> {
    let mut sent = Sent::Yes;
    let last = targets.len().saturating_sub(1);
    let mut record = Some(record);
    for (index, target) in targets.iter_mut().enumerate() {
        target.batch.extend(if index == last { record.take() } else { record.as_ref().map(copy) });
        // The others go on: one that is full holds back the next record, not this one.
        if target.batch.len() >= FRAME_RECORDS && target.send(taken)? == Sent::Full {
            sent = Sent::Full;
        }
    }
    Ok(sent)
}

fn owner(groups: KeyGroups, hash: u32, count: usize) -> usize {
    let parallelism = u16::try_from(count).unwrap_or(u16::MAX);
    usize::from(groups.owner(groups.group(hash), parallelism))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::bell::Bell;
    use crate::channel::link::{LinkReceiver, link};
    use crate::checkpoint::Barrier;
    use crate::id::{Epoch, ExecutionMode};

    fn drain(receiver: &mut LinkReceiver<u32>) -> Vec<Frame<u32>> {
        std::iter::from_fn(|| receiver.receive().unwrap()).collect()
    }

    fn values(frames: &[Frame<u32>]) -> Vec<u32> {
        let records = frames.iter().filter_map(|frame| match frame {
            Frame::Records(records) => Some(records),
            _ => None,
        });
        records.flatten().map(|record| record.value).collect()
    }

    #[test]
    fn a_barrier_reaches_every_target_after_what_was_collected_for_it_and_before_anything_later() {
        let bell = Bell::default();
        let (links, mut ends): (Vec<_>, Vec<_>) = (0..3).map(|_| link(1, &bell, &bell)).unzip();
        let groups = KeyGroups::default();
        let hash: HashFrame<u32> = Arc::new(|records| records.iter_mut().for_each(|record| record.hash = record.value));
        let mut router = Router::new(Routing::Hash { hash, groups }, links);
        let barrier = Mark::Barrier(Barrier {
            epoch: Epoch::new(1),
            next_mode: ExecutionMode::Continuous,
            last: false,
            had_data: false,
        });

        let mut seen: Vec<Vec<Frame<u32>>> = vec![Vec::new(); 3];
        let mut sent = router.offer(Frame::Records((0..900).step_by(4).map(Record::new).collect())).unwrap();
        let mut steps = vec![barrier.frame(), Frame::Records(vec![Record::new(1)])].into_iter();
        loop {
            if sent == Sent::Yes {
                let Some(step) = steps.next() else { break };
                sent = router.offer(step).unwrap();
            } else {
                for (end, seen) in ends.iter_mut().zip(&mut seen) {
                    seen.extend(drain(end));
                }
                sent = router.resume().unwrap();
            }
        }
        sent = router.flush().unwrap();
        for _ in 0..2 {
            for (end, seen) in ends.iter_mut().zip(&mut seen) {
                seen.extend(drain(end));
            }
            if sent == Sent::Full {
                sent = router.resume().unwrap();
            }
        }
        assert_eq!(sent, Sent::Yes);
        for (index, seen) in seen.into_iter().enumerate() {
            let cut = seen.iter().position(|frame| matches!(frame, Frame::Barrier(_))).unwrap();
            let range = groups.range(u16::try_from(index).unwrap(), 3);
            let mine = (0..900).step_by(4).filter(|value| range.contains(&groups.group(*value)));
            assert_eq!(values(&seen[..cut]), mine.collect::<Vec<_>>());
            assert_eq!(values(&seen[cut..]), if index == 0 { vec![1] } else { vec![] });
        }
    }

    #[test]
    fn records_that_leave_together_are_as_old_as_the_oldest() {
        let bell = Bell::default();
        let (sender, mut end) = link(4, &bell, &bell);
        let mut router = Router::new(Routing::Forward, vec![sender]);
        let at = Timestamp::from_micros;
        let offer = |router: &mut Router<u32>, micros: i64, count: u32| {
            router.takes_from(at(micros));
            assert_eq!(router.offer(Frame::Records((0..count).map(Record::new).collect())), Ok(Sent::Yes));
        };
        // 100 of the first and 156 of the second fill a frame; 44 of the second leave with the third.
        offer(&mut router, 1, 100);
        offer(&mut router, 2, 200);
        offer(&mut router, 3, 10);
        assert_eq!(router.flush(), Ok(Sent::Yes));
        offer(&mut router, 4, 1);
        assert_eq!(router.flush(), Ok(Sent::Yes));
        let mut ages = Vec::new();
        while let Some(Frame::Records(records)) = end.receive().unwrap() {
            ages.push((records.len(), end.oldest().as_micros()));
        }
        assert_eq!(ages, [(256, 1), (54, 2), (1, 4)]);
    }

    #[test]
    fn a_broadcast_gives_every_target_every_record_in_order_whoever_is_full() {
        let bell = Bell::default();
        let (links, mut ends): (Vec<_>, Vec<_>) = (0..3).map(|_| link(1, &bell, &bell)).unzip();
        let mut router = Router::new(Routing::Broadcast { copy: Record::clone }, links);
        let mut sent = Sent::Yes;
        let mut seen = vec![Vec::new(); 3];
        for start in (0..1000u32).step_by(200) {
            assert_eq!(sent, Sent::Yes);
            sent = router.offer(Frame::Records((start..start + 200).map(Record::new).collect())).unwrap();
            // The third target is read last and holds the others up.
            for most in [1, 2, 3] {
                for (end, seen) in ends.iter_mut().zip(&mut seen).take(most) {
                    seen.extend(values(&drain(end)));
                }
                if sent == Sent::Full {
                    sent = router.resume().unwrap();
                }
            }
        }
        assert_eq!(router.flush().unwrap(), Sent::Yes);
        for (end, mut seen) in ends.iter_mut().zip(seen) {
            seen.extend(values(&drain(end)));
            assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        }
    }
}

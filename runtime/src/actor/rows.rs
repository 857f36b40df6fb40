//! The threads that read rows for tasks.
//!
//! ```text
//!   a task waits for it ──> needed ──> shared out over several threads ──┐
//!                                                                        ├──> answer, the task's bell
//!   nobody needs it yet ──> ahead  ──> one thread, below the workers ────┘
//! ```
//! Two ways, so that a read that a task waits for never stands behind a page that nobody has asked for. A row that is in no cache
//! costs a wait for the disk; waits of several threads overlap, so a question with many looks takes little longer than one look.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::actor::threads::{Threads, yield_to_workers};
use crate::channel::{QueueReceiver, QueueRecvError, QueueSendError, QueueSender, queue};
use crate::error::guarded;
use crate::operator::{ReadOrder, Urgency};
use crate::state::read::{Found, StateRead, StateRows};
use crate::state::store::{StoreError, StoreErrorKind, StoreShare};

/// Threads that read what tasks wait for. They sleep or wait for the disk, not for a core, and disks take many reads at a time: four
/// at once were 12,000 cold reads a second on one machine, 16 were 33,000.
const READERS: usize = 16;
/// Looks that are not worth sharing out.
const SHARE_LOOKS: usize = 4;
/// Pause while there is no store to read through.
const PAUSE: Duration = Duration::from_millis(1);
/// Sleep for a question; a closed queue wakes it.
const NO_TIME: Duration = Duration::from_secs(3600);

/// The questions' way to the threads. They end when the last clone is gone.
#[derive(Clone, Debug)]
pub(super) struct RowReads {
    needed: QueueSender<Part>,
    ahead: QueueSender<ReadOrder>,
}

impl RowReads {
    /// Starts the threads; there is room for so many questions of each urgency.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn start(threads: &Threads, pipeline: &str, questions: usize, share: &StoreShare) -> io::Result<Self> {
        // Twice, since those of an attempt that is over may not be thrown away yet.
        let room = 2 * questions.max(1);
        let (needed, parts) = queue(room * READERS);
        let parts = Arc::new(parts);
        for number in 0..READERS {
            let (parts, share) = (Arc::clone(&parts), share.clone());
            threads.spawn(format!("millstream-rows-{number}-{pipeline}"), move || {
                each(&parts, |part: Part| part.read(&share));
            })?;
        }
        let (ahead, orders) = queue(room);
        let share = share.clone();
        threads.spawn(format!("millstream-warm-{pipeline}"), move || {
            yield_to_workers();
            each(&orders, |order| Whole::parts(order, 1).for_each(|part| part.read(&share)));
        })?;
        Ok(Self { needed, ahead })
    }

    /// Asks; never blocks. There is room for every question that the job's tasks can have at a time.
    pub(super) fn ask(&self, order: ReadOrder) {
        match order.urgency {
            Urgency::Needed => {
                for part in Whole::parts(order, READERS) {
                    if let Err(QueueSendError::Full(part) | QueueSendError::Closed(part)) = self.needed.try_send(part) {
                        part.whole.fail(nobody());
                    }
                }
            }
            Urgency::Ahead => {
                if let Err(QueueSendError::Full(order) | QueueSendError::Closed(order)) = self.ahead.try_send(order) {
                    order.answer(Err(nobody()));
                }
            }
        }
    }
}

fn nobody() -> StoreError {
    StoreError::new(StoreErrorKind::Misuse, "read", "the readers' queue", "nobody reads rows any more")
}

fn panicked(message: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Misuse, "read", "a thread that reads rows", format!("it panicked: {message}"))
}

fn each<T>(orders: &QueueReceiver<T>, mut carry_out: impl FnMut(T)) {
    loop {
        match orders.recv_timeout(NO_TIME) {
            Ok(order) => carry_out(order),
            Err(QueueRecvError::Empty) => {}
            Err(QueueRecvError::Closed) => return,
        }
    }
}

/// A question, and what is answered of it so far.
#[derive(Debug)]
struct Whole {
    read: Arc<StateRead>,
    answers: Mutex<Answers>,
}

#[derive(Debug)]
struct Answers {
    /// Taken by the answer.
    order: Option<ReadOrder>,
    /// By part.
    found: Vec<Vec<Found>>,
    left: usize,
}

/// Looks of a question that one thread takes.
#[derive(Debug)]
struct Part {
    whole: Arc<Whole>,
    number: usize,
    looks: Range<usize>,
}

impl Whole {
    /// Cuts a question into at most so many parts, one at least.
    fn parts(order: ReadOrder, most: usize) -> impl Iterator<Item = Part> {
        let read = Arc::clone(&order.read);
        let looks = read.looks.len();
        let count = looks.div_ceil(SHARE_LOOKS).clamp(1, most.max(1));
        let each = looks.div_ceil(count).max(1);
        let answers = Answers { order: Some(order), found: vec![Vec::new(); count], left: count };
        let whole = Arc::new(Self { read, answers: Mutex::new(answers) });
        (0..count).map(move |number| {
            let looks = (number * each).min(looks)..((number + 1) * each).min(looks);
            Part { whole: Arc::clone(&whole), number, looks }
        })
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether the asking task is gone, or has its answer: one part has failed.
    fn is_over(&self) -> bool {
        self.answers().order.as_ref().is_none_or(ReadOrder::is_abandoned)
    }

    fn fail(&self, error: StoreError) {
        if let Some(order) = self.answers().order.take() {
            order.answer(Err(error));
        }
    }

    /// Takes what a part has found; the last one answers.
    fn take(&self, number: usize, found: Vec<Found>) {
        let mut answers = self.answers();
        if let Some(place) = answers.found.get_mut(number) {
            *place = found;
        }
        answers.left -= 1;
        if answers.left == 0
            && let Some(order) = answers.order.take()
        {
            let found = std::mem::take(&mut answers.found).into_iter().flatten().collect();
            drop(answers);
            order.answer(Ok(StateRows { found }));
        }
    }
}

impl Part {
    /// Reads, and waits while the committer opens its store anew: there is nothing to read through then. The task waits as long; it
    /// is not lost, since the committer either goes on or ends the attempt. A panic is an answer as well, or the task would wait
    /// for ever; the thread goes on with the next question.
    fn read(self, share: &StoreShare) {
        let Self { whole, number, looks } = self;
        while !whole.is_over() {
            match guarded(|| share.with(|store| whole.read.carry_out_some(looks.clone(), store))) {
                Ok(Some(Ok(found))) => return whole.take(number, found),
                Ok(Some(Err(error))) => return whole.fail(error),
                Ok(None) => std::thread::park_timeout(PAUSE),
                Err(message) => return whole.fail(panicked(&message)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;
    use crate::channel::Bell;
    use crate::operator::Waiting;
    use crate::state::read::Look;
    use crate::state::store::{RunEntry, SortedRun, Space, StoreRead, Visit};

    /// Rows of which every `multi_get` finds its keys; a scan takes until it is let go.
    #[derive(Debug)]
    struct Rows {
        scanning: SyncSender<()>,
        go: Mutex<Receiver<()>>,
        /// Keys of each `multi_get`.
        asked: Mutex<Vec<usize>>,
    }

    impl StoreRead for Rows {
        fn place(&self) -> &Path {
            Path::new("rows")
        }

        fn multi_get(&self, _: Space, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
            if keys.iter().any(|key| key == b"panic") {
                std::panic::resume_unwind(Box::new("planned"));
            }
            if keys.iter().any(|key| key == b"bad") {
                return Err(StoreError::new(StoreErrorKind::Corrupt, "read", "rows", "it is bad"));
            }
            self.asked.lock().unwrap().push(keys.len());
            Ok(keys.iter().map(|key| Some(key.clone())).collect())
        }

        fn scan(&self, _: Space, _: &[u8], _: Option<&[u8]>, _: &mut Visit<'_>) -> Result<(), StoreError> {
            self.scanning.send(()).unwrap();
            self.go.lock().unwrap().recv().unwrap();
            Ok(())
        }

        fn write_run(&self, _: Space, _: &mut dyn Iterator<Item = RunEntry<'_>>) -> Result<SortedRun, StoreError> {
            unreachable!("nobody folds here")
        }
    }

    struct Host {
        threads: Threads,
        reads: RowReads,
        share: StoreShare,
        rows: Arc<Rows>,
        scanning: Receiver<()>,
        go: SyncSender<()>,
    }

    impl Host {
        fn start() -> Self {
            let (scanning, is_scanning) = sync_channel(8);
            let (go, going) = sync_channel(8);
            let rows = Arc::new(Rows { scanning, go: Mutex::new(going), asked: Mutex::default() });
            let share = StoreShare::default();
            share.set_reader(Some(Arc::clone(&rows) as _));
            let threads = Threads::default();
            let reads = RowReads::start(&threads, "test", 4, &share).unwrap();
            Self { threads, reads, share, rows, scanning: is_scanning, go }
        }

        /// Asks, and returns the end that waits.
        fn ask(&self, urgency: Urgency, looks: Vec<Look>) -> (Waiting, Bell) {
            let bell = Bell::default();
            let (waiting, order) = Waiting::new(StateRead { looks }, urgency, bell.clone());
            self.reads.ask(order);
            (waiting, bell)
        }

        fn end(self) {
            let Self { threads, reads, .. } = self;
            drop(reads);
            let clock: crate::time::SharedClock = Arc::new(crate::time::SystemClock::new());
            assert!(threads.join(Duration::from_secs(60), &clock).is_empty());
        }
    }

    fn answer((waiting, bell): &(Waiting, Bell)) -> Result<StateRows, StoreError> {
        crate::actor::link::block_on(bell.wait());
        waiting.take().unwrap()
    }

    fn page() -> Vec<Look> {
        vec![Look::Scan { from: vec![0], to: vec![1], limit: 10 }]
    }

    fn gets(keys: Range<u8>) -> Vec<Look> {
        keys.map(|key| Look::Get(vec![key])).collect()
    }

    #[test]
    fn what_is_needed_never_waits_for_what_is_read_ahead() {
        let host = Host::start();
        let ahead = [host.ask(Urgency::Ahead, page()), host.ask(Urgency::Ahead, page())];
        // The first page is being read, and goes on being read until everything that is needed is answered.
        host.scanning.recv().unwrap();
        for _ in 0..3 {
            let needed = host.ask(Urgency::Needed, gets(0..1));
            assert_eq!(answer(&needed).unwrap().found.len(), 1);
        }
        assert!(ahead.iter().all(|(waiting, _)| waiting.take().is_none()));
        host.go.send(()).unwrap();
        host.go.send(()).unwrap();
        ahead.iter().for_each(|ahead| assert_eq!(answer(ahead).unwrap().found.len(), 1));
        host.end();
    }

    #[test]
    fn a_question_is_shared_out_and_answered_in_the_order_of_its_looks() {
        let host = Host::start();
        for count in [0, 1, 3, 4, 5, 17, 100] {
            let needed = host.ask(Urgency::Needed, gets(0..count));
            let found = answer(&needed).unwrap().found;
            let keys: Vec<u8> = found.iter().map(|found| found.rows[0].0[0]).collect();
            assert_eq!(keys, (0..count).collect::<Vec<_>>());
            let asked = std::mem::take(&mut *host.rows.asked.lock().unwrap());
            assert_eq!(
                asked.len(),
                usize::from(count).div_ceil(SHARE_LOOKS).clamp(1, READERS),
                "{count} looks: {asked:?}"
            );
        }
        host.end();
    }

    #[test]
    fn one_failed_part_is_the_answer() {
        let host = Host::start();
        let looks = gets(0..20).into_iter().chain([Look::Get(b"bad".to_vec())]).chain(gets(20..40)).collect();
        let needed = host.ask(Urgency::Needed, looks);
        assert_eq!(answer(&needed).unwrap_err().kind, StoreErrorKind::Corrupt);
        host.end();
    }

    #[test]
    fn a_panic_of_a_reader_is_an_answer_and_leaves_all_threads_at_work() {
        let host = Host::start();
        for urgency in [Urgency::Needed, Urgency::Ahead] {
            // More often than there are threads.
            for _ in 0..2 * READERS {
                let error = answer(&host.ask(urgency, vec![Look::Get(b"panic".to_vec())])).unwrap_err();
                assert!(error.source.to_string().contains("panicked: planned"), "{}", error.source);
            }
            assert_eq!(answer(&host.ask(urgency, gets(0..40))).unwrap().found.len(), 40);
        }
        host.end();
    }

    #[test]
    fn a_question_waits_for_a_store_that_is_opened_anew_unless_nobody_waits_for_it() {
        let host = Host::start();
        host.share.set_reader(None);
        let (needed, given_up) = (host.ask(Urgency::Needed, gets(0..1)), host.ask(Urgency::Needed, gets(0..9)));
        drop(given_up);
        host.share.set_reader(Some(Arc::clone(&host.rows) as _));
        assert_eq!(answer(&needed).unwrap().found.len(), 1);
        host.end();
    }
}

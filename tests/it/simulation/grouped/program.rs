//! What the function on groups does, as a step from one session to the next: the same for the runtime and the reference.

use millstream::runtime::testing::Numbered;
use serde::{Deserialize, Serialize};

use super::{BEGIN, MILLI, time};

/// The state of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    count: u64,
    sum: u64,
    last: i64,
}

impl Session {
    /// What a key has before its first record.
    pub(super) const fn initial(key: u64) -> Self {
        Self { count: 1_000, sum: key, last: BEGIN - 100 * MILLI }
    }

    fn tell(&self, why: &str) -> String {
        format!("{why} {} {} {}", self.count, self.sum, self.last)
    }
}

/// What comes of a call.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) tells: Vec<String>,
    pub(super) session: Option<Session>,
    pub(super) timeout: Option<i64>,
}

/// Sessions that end when a key has had no record for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// How long, in microseconds.
    pub(super) gap: i64,
    /// Watermarks fall where a script says, so that the result may depend on them.
    pub(super) scripted: bool,
}

impl Program {
    pub(super) fn on_record(self, session: Option<Session>, record: Numbered, watermark: i64) -> Turn {
        let (time, seq) = (time(record), record.seq);
        let mut tells = Vec::new();
        // The timeout would have ended it, if the watermark had come by.
        let going_on = session.filter(|session| {
            let ends = !self.scripted && time - session.last > self.gap;
            tells.extend(ends.then(|| session.tell("ended")));
            !ends
        });
        let before = going_on.unwrap_or(Session { count: 0, sum: 0, last: i64::MIN });
        let session = Session { count: before.count + 1, sum: before.sum + seq, last: before.last.max(time) };
        if seq % 9 == 4 {
            // Removed, and without a timeout.
            tells.push(session.tell("removed"));
            return Turn { tells, session: None, timeout: None };
        }
        if !self.scripted {
            let timeout = Some(session.last + self.gap);
            return Turn { tells, session: Some(session), timeout };
        }
        tells.push(format!("{} behind {watermark}", session.tell("row")));
        let timeout = match seq % 7 {
            // None, so that the one before is gone.
            0 => None,
            // The earliest that is legal.
            1 => Some(watermark.max(1)),
            _ => Some((session.last + self.gap).max(watermark)),
        };
        // With a timeout only.
        let session = (seq % 5 != 2).then_some(session);
        Turn { tells, session, timeout }
    }

    pub(super) fn on_timeout(self, session: Option<Session>, watermark: i64) -> Turn {
        if !self.scripted {
            let tells = session.iter().map(|session| session.tell("ended")).collect();
            return Turn { tells, session: None, timeout: None };
        }
        let told = session.as_ref().map_or_else(|| "nobody".to_owned(), |session| session.tell("timeout"));
        let tells = vec![format!("{told} behind {watermark}")];
        // Now and then once more, with the state or without.
        let again = session.filter(|session| session.count % 3 != 0);
        let timeout = again.as_ref().map(|session| watermark.saturating_add(self.gap * (1 + session.count as i64 % 2)));
        let session = again.map(|session| Session { count: session.count + 1, ..session });
        Turn { tells, session: session.filter(|session| session.count % 4 != 0), timeout }
    }

    pub(super) fn on_initial(self, session: Option<Session>) -> Turn {
        let tells = session.iter().map(|session| session.tell("initial")).collect();
        let timeout = session.as_ref().map(|session| session.last + self.gap);
        Turn { tells, session, timeout }
    }
}

//! How the watermark of one split follows from its records.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Timestamp;

/// How far ahead of the clock a record may pull the watermark, unless said otherwise.
const MAX_AHEAD: Duration = Duration::from_secs(24 * 3600);
const MICRO: Duration = Duration::from_micros(1);

/// How a stream's watermark follows from its records, and what must not stop or spoil it.
///
/// There is one watermark per split of a source, and the stream's is the minimum over them. A split that has ended leaves the
/// minimum at once; one that is idle leaves it until its next record, if [`WatermarkStrategy::idle_after`] says so.
///
/// Records with the time [`Timestamp::MIN`] have no event time: they never pull.
///
/// **Splits that are not opened yet** count as active and without a watermark: what they hold may have any time. A directory of
/// more files than are read at once has no watermark before the last of them is opened.
///
/// **After a restart** a split goes on with the watermark that was saved with its position, never with a lower one, even if the
/// strategy has changed. Which splits were idle is not saved: all count as active until they have been idle again.
#[must_use]
pub struct WatermarkStrategy<T> {
    generate: Generate<T>,
    idle_after: Option<Duration>,
    max_ahead: Duration,
}

type Punctuation<T> = Arc<dyn Fn(&T) -> Option<Timestamp> + Send + Sync>;

enum Generate<T> {
    Bounded(Duration),
    Delayed(Duration),
    Punctuated(Punctuation<T>),
}

// Not derived: the record needs neither.
impl<T> Clone for WatermarkStrategy<T> {
    fn clone(&self) -> Self {
        let generate = match &self.generate {
            Generate::Bounded(disorder) => Generate::Bounded(*disorder),
            Generate::Delayed(delay) => Generate::Delayed(*delay),
            Generate::Punctuated(mark) => Generate::Punctuated(Arc::clone(mark)),
        };
        Self { generate, ..*self }
    }
}

impl<T> fmt::Debug for WatermarkStrategy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("WatermarkStrategy");
        match &self.generate {
            Generate::Bounded(disorder) => shown.field("bounded", disorder),
            Generate::Delayed(delay) => shown.field("delayed", delay),
            Generate::Punctuated(_) => shown.field("punctuated", &true),
        };
        shown.field("idle_after", &self.idle_after).field("max_ahead", &self.max_ahead).finish()
    }
}

impl<T> WatermarkStrategy<T> {
    const fn of(generate: Generate<T>) -> Self {
        Self { generate, idle_after: None, max_ahead: MAX_AHEAD }
    }

    /// Bounded out-of-orderness: within a split no record comes more than `disorder` behind the latest one before it; exactly
    /// `disorder` behind is still in order.
    ///
    /// The watermark is *latest − disorder − 1 µs*, down to the whole millisecond: the highest that keeps the promise "nothing
    /// ≤ the watermark follows" for a bound that is **inclusive**, as in Flink (`BoundedOutOfOrdernessWatermarks`, which
    /// subtracts 1 ms). Spark's `withWatermark` gives *latest − delay* and so calls a record that is exactly `delay` behind late.
    /// In times of whole milliseconds this one is 1 ms lower than Spark's, which is [`WatermarkStrategy::delayed`].
    pub const fn bounded(disorder: Duration) -> Self {
        Self::of(Generate::Bounded(disorder))
    }

    /// The watermark is *latest − delay*, down to the whole millisecond: that of Spark's `withWatermark`. What is exactly `delay` behind
    /// the latest record counts as late.
    pub const fn delayed(delay: Duration) -> Self {
        Self::of(Generate::Delayed(delay))
    }

    /// Times within a split never fall; equal ones may follow each other. The same as [`WatermarkStrategy::bounded`] without
    /// any disorder.
    pub const fn monotonous() -> Self {
        Self::bounded(Duration::ZERO)
    }

    /// The records themselves say it: where `mark` returns a time *t*, nothing ≤ *t* follows in the split. It counts down to
    /// the whole millisecond, and from the end of the frame (at most 256 records) that the record came in.
    pub fn punctuated(mark: impl Fn(&T) -> Option<Timestamp> + Send + Sync + 'static) -> Self {
        Self::of(Generate::Punctuated(Arc::new(mark)))
    }

    /// Leaves a split out of the minimum that has had nothing for this long (at least 1 µs), until its next record, which may
    /// then be late. When all splits are idle, the stream is. Default: never, so that a silent split holds the watermark.
    ///
    /// Time counts only while the source was asked and had nothing: not under back pressure, when nobody asks (Flink had to
    /// mend that: FLIP-471), not while a split waits for its turn to be opened.
    ///
    /// It is known of the splits of a source, so it works where event time is assigned in the source's own task: behind `map`,
    /// `filter` and their like. Behind a union or an exchange a subtask has no splits: it falls idle with its inputs if they have
    /// watermarks of their own, and otherwise the pipeline is refused (`BuildError::IdleUnknown`).
    pub fn idle_after(mut self, idle_after: Duration) -> Self {
        self.idle_after = Some(idle_after.max(MICRO));
        self
    }

    /// How far ahead of the runtime's clock a record may pull the watermark. Default one day; `Duration::MAX` for no limit.
    ///
    /// One absurd time would otherwise make everything after it late. Such a record's pull is refused and counted
    /// (`SubtaskStatus::refused_pulls`); the record goes on with its time. It is not dropped: it is ahead of every watermark,
    /// so nothing is wrong with it but its promise, and a `filter` in front can treat it as bad. It waits wherever its time
    /// is waited for.
    pub const fn max_ahead(mut self, max_ahead: Duration) -> Self {
        self.max_ahead = max_ahead;
        self
    }

    /// After which idle time a split is left out; nothing for never.
    pub const fn idle_time(&self) -> Option<Duration> {
        self.idle_after
    }

    /// Begins a frame of records at the clock's time `now`.
    pub fn pull(&self, now: Timestamp) -> Pull<'_, T> {
        let limit = now.saturating_add(self.max_ahead);
        let limit = match self.generate {
            Generate::Bounded(by) | Generate::Delayed(by) => limit.saturating_add(by),
            Generate::Punctuated(_) => limit,
        };
        Pull { generate: &self.generate, limit, refused: 0 }
    }
}

/// What the records of one frame do to the watermark.
pub struct Pull<'a, T> {
    generate: &'a Generate<T>,
    /// The latest [`Pull::of`] that counts.
    limit: Timestamp,
    refused: u64,
}

impl<T> fmt::Debug for Pull<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pull").field("limit", &self.limit).field("refused", &self.refused).finish()
    }
}

impl<T> Pull<'_, T> {
    /// How strongly a record pulls; [`Timestamp::MIN`] for not at all. The highest of a split's records gives its watermark,
    /// by [`Pull::watermark`].
    #[inline]
    pub fn of(&mut self, value: &T, time: Timestamp) -> Timestamp {
        let pull = match self.generate {
            Generate::Bounded(_) | Generate::Delayed(_) => time,
            Generate::Punctuated(mark) => mark(value).unwrap_or(Timestamp::MIN),
        };
        if pull > self.limit {
            self.refused += 1;
            return Timestamp::MIN;
        }
        pull
    }

    /// The watermark of a split whose records pull by `pull` at most: whole milliseconds, never final, absent if it would be
    /// out of range.
    pub fn watermark(&self, pull: Timestamp) -> Timestamp {
        whole_millis(match self.generate {
            Generate::Bounded(disorder) => pull.saturating_sub(*disorder).saturating_sub(MICRO),
            Generate::Delayed(delay) => pull.saturating_sub(*delay),
            Generate::Punctuated(_) => pull,
        })
    }

    /// How many pulls were refused because they were too far ahead.
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

/// Down to the whole millisecond, also before 1970. Keeps [`Timestamp::MIN`], and never gives [`Timestamp::MAX`], which is none.
const fn whole_millis(time: Timestamp) -> Timestamp {
    let micros = time.as_micros();
    Timestamp::from_micros(micros.saturating_sub(micros.rem_euclid(1_000)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn watermark(strategy: &WatermarkStrategy<i64>, micros: i64) -> Timestamp {
        let mut pull = strategy.pull(NOW);
        let highest = pull.of(&micros, Timestamp::from_micros(micros));
        pull.watermark(highest)
    }

    #[test]
    fn stays_one_microsecond_and_the_rest_of_a_millisecond_below_the_bound() {
        let five = WatermarkStrategy::bounded(Duration::from_millis(5));
        let monotonous = WatermarkStrategy::monotonous();
        let delayed = WatermarkStrategy::delayed(Duration::from_millis(5));
        let table = [
            (&five, 10_000, 4),
            (&five, 10_001, 5),
            (&five, 10_999, 5),
            (&five, 0, -6),
            (&five, -1, -6),
            (&five, -1_000, -7),
            (&monotonous, 10_000, 9),
            (&monotonous, 10_001, 10),
            (&monotonous, 0, -1),
            (&delayed, 10_000, 5),
            (&delayed, 10_999, 5),
            (&delayed, 0, -5),
            (&delayed, -1, -6),
        ];
        for (strategy, time, millis) in table {
            assert_eq!(watermark(strategy, time), Timestamp::from_millis(millis), "{strategy:?} at {time} us");
        }
    }

    #[test]
    fn punctuation_counts_as_it_is_said() {
        let strategy = WatermarkStrategy::punctuated(|n: &i64| (*n % 2 == 0).then(|| Timestamp::from_micros(*n)));
        assert_eq!(watermark(&strategy, 7_001), Timestamp::MIN);
        assert_eq!(watermark(&strategy, 7_002), Timestamp::from_millis(7));
    }

    #[test]
    fn refuses_and_counts_what_would_pull_too_far_ahead() {
        let ahead = Duration::from_secs(60);
        let disorder = Duration::from_secs(5);
        let strategy = WatermarkStrategy::bounded(disorder).max_ahead(ahead);
        let mut pull = strategy.pull(NOW);
        let last = NOW.saturating_add(ahead).saturating_add(disorder);
        assert_eq!(pull.of(&0, last), last);
        assert_eq!(pull.refused(), 0);
        for absurd in [last.saturating_add(MICRO), Timestamp::MAX] {
            assert_eq!(pull.of(&0, absurd), Timestamp::MIN);
        }
        assert_eq!(pull.refused(), 2);
    }

    fn edges() -> impl Strategy<Value = i64> {
        prop_oneof![
            any::<i64>(),
            (i64::MAX - 2_000)..=i64::MAX,
            i64::MIN..=(i64::MIN + 2_000),
            -5_000i64..5_000,
            Just(i64::MAX),
            Just(i64::MIN),
        ]
    }

    proptest! {
        #[test]
        fn keeps_its_promise_at_every_time_and_bound(micros in edges(), bound in any::<u64>(), behind in any::<u64>()) {
            let disorder = Duration::from_micros(bound);
            let strategy = WatermarkStrategy::bounded(disorder).max_ahead(Duration::MAX);
            let got = watermark(&strategy, micros);
            // The furthest behind that is still in order.
            let late = Timestamp::from_micros(micros).saturating_sub(Duration::from_micros(behind.min(bound)));
            prop_assert!(got < late || late == Timestamp::MIN, "{got} promises what {late} breaks");
            prop_assert!(got == Timestamp::MIN || got.as_micros().rem_euclid(1_000) == 0);
            prop_assert!(got < Timestamp::MAX);
        }

        #[test]
        fn no_mark_is_final_or_beyond_the_limit(mark in edges(), ahead in any::<u64>()) {
            let strategy = WatermarkStrategy::punctuated(|n: &i64| Some(Timestamp::from_micros(*n)))
                .max_ahead(Duration::from_micros(ahead));
            let got = watermark(&strategy, mark);
            prop_assert!(got < Timestamp::MAX && got <= NOW.saturating_add(Duration::from_micros(ahead)));
        }
    }
}

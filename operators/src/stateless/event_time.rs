//! Gives records their event time.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use millstream_runtime::graph::{EventTimeOf, VertexKind};
use millstream_runtime::time::Timestamp;
use millstream_runtime::watermark::WatermarkStrategy;

use crate::stateless::Chain;
use crate::stream::Stream;

impl<T: Send + 'static, C: Chain<T>> Stream<T, C> {
    /// Gives every record its event time, and the stream a watermark: within a split of the source, no record comes more than
    /// `disorder` behind the latest one before it (inclusive). `Timestamp::MIN` says that a record has no time: it is never
    /// late and never moves the watermark.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream_operators::Stream;
    /// # use millstream_runtime::time::Timestamp;
    /// struct Reading { at_ms: i64 }
    /// fn timed(readings: Stream<Reading>) -> Stream<Reading> {
    ///     readings.event_time(|reading| Timestamp::from_millis(reading.at_ms), Duration::from_secs(5))
    /// }
    /// ```
    ///
    /// **Where to call it**: as near to the source as the time is known, before `rebalance`, `union` and `key_by`. There every
    /// split has a watermark of its own, a split that lags is not late, and watermarks are saved with the positions. Further
    /// behind it works per subtask: the order between the splits is lost by then, so `disorder` has to cover it, and after a
    /// restart the watermark begins anew.
    ///
    /// Otherwise as [`Stream::event_time_by`] with [`WatermarkStrategy::bounded`].
    #[track_caller]
    pub fn event_time<F>(self, time: F, disorder: Duration) -> Stream<T>
    where
        F: Fn(&T) -> Timestamp + Clone + Send + Sync + 'static,
    {
        self.event_time_by(time, WatermarkStrategy::bounded(disorder))
    }

    /// Gives every record its event time, and the stream a watermark by a strategy: how much disorder there is, when a split
    /// counts as idle, how far ahead of the clock a record may pull.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream_operators::{Stream, WatermarkStrategy};
    /// # use millstream_runtime::time::Timestamp;
    /// struct Reading { at_ms: i64 }
    /// fn timed(readings: Stream<Reading>) -> Stream<Reading> {
    ///     let strategy = WatermarkStrategy::monotonous().idle_after(Duration::from_secs(30));
    ///     readings.event_time_by(|reading| Timestamp::from_millis(reading.at_ms), strategy)
    /// }
    /// ```
    ///
    /// Watermarks of this stream from further up are replaced. `time` is called once per record and must not depend on anything
    /// but the record.
    #[track_caller]
    pub fn event_time_by<F>(self, time: F, strategy: WatermarkStrategy<T>) -> Stream<T>
    where
        F: Fn(&T) -> Timestamp + Clone + Send + Sync + 'static,
    {
        let vertex = EventTimeOf::new(move |value: &T, _| time(value), strategy);
        self.erase().then(None, VertexKind::Operator(Arc::new(vertex)), Location::caller())
    }

    /// Gives the stream a watermark by a strategy, where the records bring their event time along: a feed's `send_at`, a
    /// source that knows it. Otherwise as [`Stream::event_time_by`].
    #[track_caller]
    pub fn watermark_by(self, strategy: WatermarkStrategy<T>) -> Stream<T> {
        let vertex = EventTimeOf::new(|_: &T, time| time, strategy);
        self.erase().then(None, VertexKind::Operator(Arc::new(vertex)), Location::caller())
    }
}

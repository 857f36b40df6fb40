//! Spans of activity: an account's bookings between two pauses, by session windows, and the same by hand as group state with a timeout.

use std::time::Duration;

use millstream::prelude::*;
use serde::{Deserialize, Serialize};

use super::input::{Booking, GAP_MICROS, comes_from_one_partition, value_date};

const GAP: Duration = Duration::from_micros(GAP_MICROS);

/// What is known of a span while it is open.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Span {
    first: i64,
    last: i64,
    bookings: u64,
    sum: i64,
}

impl Span {
    fn row(&self, account: u64) -> String {
        let Self { first, last, bookings, sum } = self;
        format!("group {account} {first} {last} {bookings} {sum}")
    }
}

/// Gives a row for each span, with its account, first and last value date in microseconds, number and sum: `window` rows of every
/// account, and `group` rows of those that come from one partition: only their bookings come in the order of their dates.
pub(crate) fn spans(bookings: Stream<Booking>) -> Stream<String> {
    let all = (Count, Sum::of(|booking: &Booking| booking.amount));
    let bookings = bookings.event_time(|booking| Timestamp::from_micros(value_date(booking)), Duration::ZERO).erase();
    let windows =
        bookings.clone().key_by(|booking| booking.account).window(Session::gap(GAP)).aggregate("sessions", all).map(
            |Windowed { key, window, value: (bookings, sum) }| {
                let (first, end) = (window.start.as_micros(), window.end.saturating_sub(GAP).as_micros());
                format!("window {key} {first} {end} {bookings} {sum}")
            },
        );
    let groups = bookings
        .filter(|booking| comes_from_one_partition(booking.account))
        .key_by(|booking| booking.account)
        .flat_map_groups_with_state(
            "spans",
            OutputMode::Append,
            GroupTimeout::EventTime,
            |account: &u64, rows, state: &mut GroupState<Span>, out| {
                if state.has_timed_out() {
                    out.emit(state.get()?.row(*account));
                    state.remove();
                    return Ok(());
                }
                for booking in rows {
                    let date = value_date(&booking);
                    let open = state.get_option().map(|span| span.clone());
                    let span = match open {
                        // The timeout comes once the watermark has passed it, which may be long after.
                        Some(span) if date > span.last + GAP_MICROS as i64 => {
                            out.emit(span.row(*account));
                            None
                        }
                        open => open,
                    };
                    let Span { first, bookings, sum, .. } =
                        span.unwrap_or(Span { first: date, last: date, bookings: 0, sum: 0 });
                    state.update(Span { first, last: date, bookings: bookings + 1, sum: sum + booking.amount })?;
                }
                let last = state.get()?.last;
                Ok(state.set_timeout_timestamp(Timestamp::from_micros(last + GAP_MICROS as i64))?)
            },
        );
    windows.union(groups)
}

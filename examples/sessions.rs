//! Teaches `flat_map_groups_with_state` with a timeout by event time: a user's session ends when nothing came for five seconds, or
//! with its 1000th event.
//!
//! ```sh
//! cargo run --example sessions
//! ```

use std::time::Duration;

use anyhow::ensure;
use millstream::prelude::*;
use serde::{Deserialize, Serialize};

/// An event of a user.
#[derive(Clone, Debug)]
struct Event {
    user: String,
    at: Timestamp,
}

/// A session that is open.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Session {
    events: u32,
    last_ms: i64,
}

const MOST: u32 = 1_000;

fn event(user: &str, at_ms: i64) -> Event {
    Event { user: user.to_owned(), at: Timestamp::from_millis(at_ms) }
}

/// Ada has two sessions with a pause between them; bob has one that is too long, and what is left over.
fn events() -> Vec<Event> {
    let mut events = vec![event("ada", 1_000), event("ada", 2_000)];
    events.extend((0..1_200).map(|n| event("bob", 20_000 + n)));
    events.push(event("ada", 21_000));
    events
}

/// Sends the session and ends it.
fn close(user: &str, events: u32, state: &mut GroupState<Session>, out: &mut GroupOut<'_, (String, u32)>) {
    out.emit((user.to_owned(), events));
    state.remove();
}

fn main() -> anyhow::Result<()> {
    let (sink, sessions) = Collect::new();
    let pipeline = Pipeline::new("sessions");
    pipeline
        .source("events", IterSource::new(events()))
        .event_time(|event: &Event| event.at, Duration::from_secs(5))
        .key_by_ref(|event| event.user.as_str())
        .flat_map_groups_with_state(
            "sessions",
            OutputMode::Append,
            GroupTimeout::EventTime,
            |user, rows, state: &mut GroupState<Session>, out| {
                // Ask for the timeout before the rows: its call has none.
                if state.has_timed_out() {
                    let events = state.get()?.events;
                    close(user, events, state, out);
                    return Ok(());
                }
                for event in rows {
                    let mut session = state.get_option().map_or_else(Session::default, |session| session.clone());
                    session.events += 1;
                    session.last_ms = session.last_ms.max(event.at.as_micros() / 1_000);
                    if session.events == MOST {
                        close(user, session.events, state, out);
                    } else {
                        state.update(session)?;
                    }
                }
                // The timeout was cleared before the call: every call that wants one sets it.
                let last_ms = state.get_option().map(|session| session.last_ms);
                if let Some(last_ms) = last_ms {
                    state.set_timeout_timestamp_plus(Timestamp::from_millis(last_ms), "5 seconds")?;
                }
                Ok(())
            },
        )
        .sink("out", sink);
    Runtime::builder().build()?.start(pipeline)?.join()?;

    // Sessions that are open when the input ends are ended by that.
    let mut sessions: Vec<(String, u32)> = sessions.take();
    sessions.sort();
    for (user, events) in &sessions {
        println!("{user}: a session of {events} events");
    }
    let session = |user: &str, events| (user.to_owned(), events);
    let wanted = [session("ada", 1), session("ada", 2), session("bob", 200), session("bob", 1_000)];
    ensure!(sessions == wanted, "{sessions:?}");
    Ok(())
}

//! Teaches `map_groups_with_state`: what each user did last, and from when to when.
//!
//! ```sh
//! cargo run --example activity_span
//! ```

use std::collections::BTreeMap;

use anyhow::ensure;
use millstream::prelude::*;
use serde::{Deserialize, Serialize};

/// What a phone reports.
#[derive(Clone, Debug)]
struct Input {
    user: String,
    activity: String,
    at_ms: i64,
}

/// A user's present activity, and when it was seen first and last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct UserState {
    user: String,
    activity: String,
    start_ms: i64,
    end_ms: i64,
}

impl UserState {
    fn begin(input: Input) -> Self {
        Self { user: input.user, activity: input.activity, start_ms: input.at_ms, end_ms: input.at_ms }
    }

    /// Takes one more report in. One of another activity that comes too late changes nothing.
    fn then(mut self, input: Input) -> Self {
        if input.activity == self.activity {
            self.start_ms = self.start_ms.min(input.at_ms);
            self.end_ms = self.end_ms.max(input.at_ms);
            self
        } else if input.at_ms > self.end_ms {
            Self::begin(input)
        } else {
            self
        }
    }
}

fn inputs() -> Vec<Input> {
    let report =
        |user: &str, activity: &str, at_ms| Input { user: user.to_owned(), activity: activity.to_owned(), at_ms };
    vec![
        report("g", "walk", 10_001),
        report("h", "stand", 10_002),
        report("g", "walk", 10_005),
        report("g", "sit", 10_007),
        report("g", "walk", 10_003), // older than what is known
        report("h", "stand", 10_020),
    ]
}

fn main() -> anyhow::Result<()> {
    let (sink, states) = Collect::new();
    let pipeline = Pipeline::new("activity-span").output_mode(OutputMode::Update);
    pipeline
        .source("reports", IterSource::new(inputs()))
        .key_by_ref(|input: &Input| input.user.as_str())
        .map_groups_with_state("spans", GroupTimeout::None, |_user, rows, state: &mut GroupState<UserState>| {
            // How many rows a call has depends on the mode: take them all.
            let before = state.get_option().map(|state| state.clone());
            let after = rows.fold(before, |state, input| {
                Some(match state {
                    Some(state) => state.then(input),
                    None => UserState::begin(input),
                })
            });
            let after = after.ok_or("a call without rows and without timeout")?;
            state.update(after.clone())?;
            Ok(after)
        })
        .sink("states", sink);
    Runtime::builder().build()?.start(pipeline)?.join()?;

    // In update mode the last row of a key is its present state.
    let states: Vec<UserState> = states.take();
    let last: BTreeMap<String, UserState> = states.into_iter().map(|state| (state.user.clone(), state)).collect();
    for state in last.values() {
        println!("{}: {} from {} to {} ms", state.user, state.activity, state.start_ms, state.end_ms);
    }
    let span = |user: &str| last.get(user).map(|state| (state.activity.as_str(), state.start_ms, state.end_ms));
    ensure!(span("g") == Some(("sit", 10_007, 10_007)), "g: {:?}", span("g"));
    ensure!(span("h") == Some(("stand", 10_002, 10_020)), "h: {:?}", span("h"));
    Ok(())
}

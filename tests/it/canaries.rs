//! Planted bugs: a simulator that does not find them proves nothing. `MILLSTREAM_CANARY=name` plants one only.

use millstream::runtime::canary::Canary;

use crate::simulation;

/// Within how many seeds each bug must be found.
const SEEDS: u64 = 2_000;

#[test]
fn every_planted_bug_is_found() {
    std::panic::set_hook(Box::new(|_| ()));
    let mut missed = Vec::new();
    let only = std::env::var("MILLSTREAM_CANARY").ok();
    for canary in Canary::ALL.iter().filter(|canary| only.as_deref().is_none_or(|name| name == canary.name())) {
        match simulation::find(*canary, SEEDS) {
            Some((seed, text)) => {
                let first = text.lines().next().unwrap_or_default();
                println!("{:24} seed {seed:4}: {}", canary.name(), first.chars().take(140).collect::<String>());
            }
            None => missed.push(canary.name()),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}

//! Planted bugs: a simulator that does not find them proves nothing.

use millstream::runtime::canary::Canary;

use crate::simulation;

/// Within how many seeds each bug must be found.
const SEEDS: u64 = 2_000;

#[test]
fn every_planted_bug_is_found() {
    std::panic::set_hook(Box::new(|_| ()));
    let mut missed = Vec::new();
    for canary in Canary::ALL {
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

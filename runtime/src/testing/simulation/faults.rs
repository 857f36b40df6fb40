//! Crash points that end a life by the seed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::fault::{CrashPoint, Crashed, Faults};

/// How often, by crash point.
type Counts = BTreeMap<CrashPoint, u64>;

/// Draws whether a crash point ends the life.
#[derive(Debug)]
pub(super) struct SimFaults {
    inner: Mutex<FaultState>,
}

#[derive(Debug)]
struct FaultState {
    rng: ChaCha8Rng,
    chance: f64,
    only: Option<CrashPoint>,
    left: u32,
    passed: Counts,
    hit: Counts,
}

impl SimFaults {
    /// Draws from `seed`: each point ends the life with about `chance`, `crashes` times in all.
    pub(super) fn new(seed: u64, (chance, only): (f64, Option<CrashPoint>), crashes: u32) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let state = FaultState { rng, chance, only, left: crashes, passed: BTreeMap::new(), hit: BTreeMap::new() };
        Self { inner: Mutex::new(state) }
    }

    /// Takes how often each point was passed and hit.
    pub(super) fn take_counts(&self) -> (Counts, Counts) {
        self.with(|state| (std::mem::take(&mut state.passed), std::mem::take(&mut state.hit)))
    }

    fn with<R>(&self, f: impl FnOnce(&mut FaultState) -> R) -> R {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Faults for SimFaults {
    fn pass(&self, point: CrashPoint) -> Result<(), Crashed> {
        self.with(|state| {
            *state.passed.entry(point).or_default() += 1;
            // Every life passes the first points and few get to the last ones: else all crashes would go to the start.
            let chance = match point {
                _ if state.only == Some(point) => state.chance,
                _ if state.only.is_some() => 0.0,
                CrashPoint::GenesisBefore
                | CrashPoint::GenesisAfter
                | CrashPoint::AttemptBefore
                | CrashPoint::AttemptAfter
                | CrashPoint::RecoverBefore
                | CrashPoint::RecoverAfter => state.chance / 2.0,
                CrashPoint::BarrierOut | CrashPoint::PartIn => state.chance / 8.0,
                _ => (state.chance * 2.0).min(1.0),
            };
            if state.left == 0 || !state.rng.random_bool(chance) {
                return Ok(());
            }
            state.left -= 1;
            *state.hit.entry(point).or_default() += 1;
            Err(Crashed(point))
        })
    }
}

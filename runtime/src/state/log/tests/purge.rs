//! States that an operator gave up: their rows go, and nothing else does.

use std::ops::ControlFlow;

use super::*;
use crate::state::store::Space;

/// The operators of [`decls`], of which the one that counts has given up its first state.
fn without() -> Vec<OperatorDecl> {
    let mut operators = decls();
    operators[1].states[0] = StateDecl::removed("n");
    operators
}

/// How many rows each state of the operator that counts has in the store, sentinels included.
fn rows_of(log: &CommitLog, state: u16) -> usize {
    let [from, to] = [state, state + 1].map(|state| keys::sentinel(COUNT, state));
    let mut rows = 0;
    let mut count = |_: &[u8], _: &[u8]| {
        rows += 1;
        ControlFlow::Continue(())
    };
    log.store.as_ref().unwrap().scan(Space::Rows, &from, Some(&to), &mut count).unwrap();
    rows
}

#[test]
fn rows_of_a_state_that_was_given_up_go_with_the_next_commit_and_those_of_the_log_with_its_fold() {
    let mut wanted = expected(LAST);
    wanted.state.retain(|key, _| key.starts_with(&1u16.to_be_bytes()));
    for (last, crash) in (4..LAST).flat_map(|last| [(last, false), (last, true)]) {
        let disk = SimDisk::new();
        drop(live(&disk, Arc::new(NoFaults), &mut World::default(), last).unwrap());
        let mut log = open(&disk, Arc::new(NoFaults)).unwrap();
        assert!(rows_of(&log, 0) > 1 && rows_of(&log, 1) > 1, "epoch 4 was folded");
        let attempt = log.raise_attempt().unwrap();
        assert_eq!(log.register(&without()).unwrap(), [SOURCE, COUNT, SINK]);
        let restored = log.restore().unwrap();
        let states: Vec<(u16, &str)> =
            restored.states[&COUNT].iter().map(|state| (state.number, state.name.as_str())).collect();
        assert_eq!(states, [(1, "last")]);
        for epoch in last + 1..=LAST {
            let delivered = [Delivered { operator: SINK, next: Epoch::new(delivered_before(epoch)) }];
            let mut next = bundle(attempt, epoch);
            for (part, index) in next.parts.iter_mut().zip(0..) {
                // It writes nothing of it any more.
                let kept: Vec<_> = changes(epoch, index).into_iter().filter(|(state, ..)| *state == 1).collect();
                let entries = kept.len() as u64;
                part.deltas = vec![Delta { operator: COUNT, chunks: vec![chunk(&kept)], entries }];
            }
            log.commit(vec![next], &delivered).unwrap();
            // After a crash there may be rows of a fold that no commit noted, until it is done again.
            assert!(crash || rows_of(&log, 0) == 0, "from the first commit on, a noted fold included");
            log.fold_if_full().unwrap();
            if crash {
                drop(log);
                disk.crash_with(|| false);
                log = open(&disk, Arc::new(NoFaults)).unwrap();
                log.raise_attempt().unwrap();
                // What was given up need not be said again.
                let mut silent = without();
                silent[1].states.remove(0);
                log.register(&silent).unwrap();
            }
        }
        // Nor did anyone note the last fold, if there was a crash: it is done again.
        log.fold_if_full().unwrap();
        log.forget(&[]).unwrap();
        assert_eq!(rows_of(&log, 0), 0, "given up behind epoch {last}, crashes: {crash}");
        let mut found = everything(&log).unwrap();
        // The log may have it until it is folded; nobody reads it.
        found.state.retain(|key, _| !key.starts_with(&0u16.to_be_bytes()));
        assert_eq!(found, wanted, "given up behind epoch {last}, crashes: {crash}");
    }
}

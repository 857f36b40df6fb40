//! A daemon in which every panic ends the process, as with `panic = "abort"`: its deaths lose and double nothing.
//!
//! The child is the example `ledger` with a panic hook that aborts, which ends the process in the same place and way: no stack is unwound,
//! nothing is dropped.

use crate::kill9::life::{self, live};
use crate::kill9::oracle::Oracle;

const SEED: u64 = 11;
const RECORDS: u64 = 4_000;

fn arguments(panic_at: Option<u64>) -> Vec<String> {
    let mut arguments = vec![format!("--seed={SEED}"), format!("--records={RECORDS}"), "--fold-epochs=2".to_owned()];
    // So that epochs are committed before the panic.
    arguments.extend(panic_at.map(|_| "--rate=20000".to_owned()));
    arguments.extend(panic_at.map(|at| format!("--panic-at={at}")));
    arguments.push("--abort".to_owned());
    arguments
}

#[test]
fn a_process_that_aborts_at_every_panic_loses_and_doubles_nothing() {
    let (exe, dir) = (life::executable(), tempfile::tempdir().unwrap());
    let mut oracle = Oracle::ledger(SEED, RECORDS);
    // The last three die at their first record, as with a record that is poison: each comes no further, and none does harm.
    for at in [700, 400, 900, 1, 1, 1] {
        let text = live(&exe, dir.path(), &arguments(Some(at)), &[]).err().unwrap_or_default();
        assert!(text.contains("Gone"), "a life that was to die at record {at}: {text}");
        oracle.look(&dir.path().join("out")).unwrap();
    }
    let last = live(&exe, dir.path(), &arguments(None), &[]).unwrap();
    assert!(last.restored.is_some_and(|restored| restored > 0), "no life before it committed an epoch");
    oracle.judge(&dir.path().join("out")).unwrap();
}

//! What may change between two lives, and what is refused.

use super::*;

fn decl(name: &str, kind: OperatorKind, states: &[(&str, u32)]) -> OperatorDecl {
    let states = states.iter().map(|(name, version)| StateDecl::value(*name, *version)).collect();
    OperatorDecl { name: name.to_owned(), kind, states }
}

#[test]
fn numbers_go_by_name_and_are_never_given_away() {
    use OperatorKind::{Sink, Source, Stateful};
    let first = [decl("in", Source, &[]), decl("count", Stateful, &[("n", 1)])];
    let nobody = BTreeSet::new();
    let one = NameTable::default().register(&first, &nobody).unwrap();
    assert_eq!((one.ids.len(), one.new.len()), (2, 2));

    let second = [decl("out", Sink, &[]), decl("count", Stateful, &[("last", 1), ("n", 1)])];
    let used = BTreeSet::from([one.ids[1]]);
    let two = one.table.register(&second, &used).unwrap();
    assert_eq!((two.ids[1], two.new.as_slice()), (one.ids[1], &two.ids[..1]));
    assert!(!one.ids.contains(&two.ids[0]), "a number once given stays with its name");
    let count = two.table.named("count").unwrap();
    assert_eq!((count.state("n"), count.state("last"), count.state("x")), (Some(0), Some(1), None));
    assert_eq!(two.table.get(one.ids[0]).unwrap().name, "in");
}

#[test]
fn a_state_that_is_given_up_may_go_and_come_back_as_another_one() {
    let declared = |states: Vec<StateDecl>| [OperatorDecl { states, ..decl("a", OperatorKind::Stateful, &[]) }];
    let value = |name| StateDecl::value(name, 1);
    let used = BTreeSet::from([OperatorId::new(0)]);
    let of = |table: &NameTable| table.named("a").unwrap().clone();
    let one = NameTable::default().register(&declared(vec![value("s"), value("t")]), &BTreeSet::new()).unwrap();
    let two = one.table.register(&declared(vec![StateDecl::removed("s"), value("t")]), &used).unwrap();
    assert_eq!((of(&two.table).state("s"), of(&two.table).state("t")), (None, Some(1)));
    assert!(two.table.is_removed(used.first().copied().unwrap(), 0) && !two.table.is_removed(OperatorId::new(0), 1));
    // Neither that it is said again nor that it is said no more is a change.
    assert_eq!(
        two.table.register(&declared(vec![value("t"), StateDecl::removed("s")]), &used).unwrap().table,
        two.table
    );
    assert_eq!(two.table.register(&declared(vec![value("t")]), &used).unwrap().table, two.table);
    let list = StateDecl { kind: StateKind::List, ..value("s") };
    let three = two.table.register(&declared(vec![list, value("t")]), &used).unwrap();
    assert_eq!(of(&three.table).state("s"), Some(2), "a new one, so nothing of the old one is in it");
    assert!(one.table.register(&declared(vec![value("t")]), &used).is_err(), "none goes without a word");
}

#[test]
fn what_does_not_fit_is_refused_by_name_once_there_is_data() {
    use OperatorKind::{Sink, Stateful};
    let fits = [decl("a", Stateful, &[("s", 2)]), decl("b", Sink, &[])];
    let known = NameTable::default().register(&fits, &BTreeSet::new()).unwrap();
    let used = BTreeSet::from([known.ids[0]]);
    let a = |kind, states: &[(&str, u32)]| vec![decl("a", kind, states), decl("b", Sink, &[])];
    let table: [(Vec<OperatorDecl>, &str); 5] = [
        (vec![decl("b", Sink, &[])], "the pipeline lacks: a (the store has: a; the pipeline has: b)"),
        (a(Sink, &[("s", 2)]), "operator a was a stateful operator and is a sink now"),
        (a(Stateful, &[]), "had a state s that it lacks now (it declares: none)"),
        (a(Stateful, &[("s", 3)]), "was written by version 2, the pipeline declares 3"),
        (vec![decl("a", Stateful, &[("s", 2)]); 2], "two operators have one name"),
    ];
    for (declared, text) in table {
        let error = known.table.register(&declared, &used).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    let changed = |change: fn(&mut StateDecl)| {
        let mut declared = a(Stateful, &[("s", 3)]);
        declared[0].states.iter_mut().for_each(change);
        known.table.register(&declared, &used)
    };
    assert_eq!(changed(|state| state.migrates = true).unwrap().table.named("a").unwrap().states[0].version, 3);
    let newer = changed(|state| (state.migrates, state.version) = (true, 1)).unwrap_err();
    assert!(matches!(newer, NameError::Version { stored: 2, declared: 1, .. }));
    let list = changed(|state| state.kind = StateKind::List).unwrap_err().to_string();
    assert!(list.contains("was a value and is a list now"), "{list}");
    known.table.register(&a(Sink, &[("s", 3)]), &BTreeSet::new()).unwrap();
    known.table.register(&fits[..1], &used).unwrap();
}

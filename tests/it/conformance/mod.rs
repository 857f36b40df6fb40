//! The conformance suite: the rows of the specification, each with the test that shows it, or with the reason why there is none.
//!
//! A row stands in the file of its group, above its test. `docs/conformance.md` is made of the rows; a row that claims a test which does
//! not exist fails, and so does a test in one of these files that no row names.

mod aggregate;
mod dam;
mod dedup;
mod drive;
mod event_time;
mod exec;
mod group_state;
mod lives;
mod mode;
mod operator;
mod pieces;
mod restart;
mod session;
mod table;
mod transform;
mod trigger;
mod window;

use std::collections::BTreeSet;

use self::table::{Group, Row, Standing};
use crate::generated::keep;

const GROUPS: &[Group] = &[
    exec::GROUP,
    mode::GROUP,
    trigger::GROUP,
    event_time::GROUP,
    window::GROUP,
    session::GROUP,
    dedup::GROUP,
    group_state::GROUP,
    transform::GROUP,
    aggregate::GROUP,
    operator::GROUP,
    restart::GROUP,
];

const INTRODUCTION: &str = "\
# Conformance

What the specification of the operators says, row by row, and how far this repository is. The words are those of Spark Structured
Streaming; every row has a number, under which tests and commits name it. Each row is looked at in both modes: continuous (**C**) and in
micro-batches (**M**).

- **passes**: the test named beside it checks exactly what the row says.
- **n/a**: the row says nothing of this mode, or of an API with types. The reason stands behind it.
- **open**: nothing shows it yet, or it is not built. The reason stands behind it.

This page is written by `make pages` from `tests/it/conformance/`; a row cannot claim a test that does not exist.

";

impl Group {
    /// The test as the harness names it: one of the group's own, or one of another theme.
    fn path(&self, test: &str, there: &BTreeSet<String>) -> String {
        let own = format!("conformance::{}::{test}", self.module);
        if test.contains("::") && !there.contains(&own) { test.to_owned() } else { own }
    }
}

fn cell(standing: Standing) -> String {
    match standing {
        Standing::Passes(_) => "passes".to_owned(),
        Standing::NotApplicable(reason) => format!("n/a: {reason}"),
        Standing::Open(reason) => format!("open: {reason}"),
    }
}

fn tests(row: &Row) -> BTreeSet<&'static str> {
    let named = |standing| match standing {
        Standing::Passes(test) => Some(test),
        Standing::NotApplicable(_) | Standing::Open(_) => None,
    };
    [row.continuous, row.batches].into_iter().filter_map(named).collect()
}

/// Passed, not applicable, open.
fn count<'a>(standings: impl Iterator<Item = &'a Standing>) -> [usize; 3] {
    let mut counts = [0; 3];
    for standing in standings {
        let place = match standing {
            Standing::Passes(_) => 0,
            Standing::NotApplicable(_) => 1,
            Standing::Open(_) => 2,
        };
        counts[place] += 1;
    }
    counts
}

fn page(groups: &[Group]) -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str(
        "| group | rows | C passes | n/a | open | M passes | n/a | open |\n|---|---|---|---|---|---|---|---|\n",
    );
    let line = |name: &str, rows: &[&Row]| {
        let counts = [count(rows.iter().map(|row| &row.continuous)), count(rows.iter().map(|row| &row.batches))];
        let counts: Vec<_> = counts.concat().iter().map(usize::to_string).collect();
        format!("| {name} | {} | {} |\n", rows.len(), counts.join(" | "))
    };
    for Group { name, title, rows, .. } in groups {
        text.push_str(&line(&format!("S-{name}, {}", title.to_lowercase()), &rows.iter().collect::<Vec<_>>()));
    }
    text.push_str(&line("all", &groups.iter().flat_map(|group| group.rows).collect::<Vec<_>>()));
    for group in groups {
        text.push_str(&format!(
            "\n## {}\n\n| row | what it checks | C | M | test |\n|---|---|---|---|---|\n",
            group.title
        ));
        for row in group.rows {
            let named: Vec<_> = tests(row).iter().map(|test| format!("`{test}`")).collect();
            let (c, m) = (cell(row.continuous), cell(row.batches));
            text.push_str(&format!("| {} | {} | {c} | {m} | {} |\n", row.id, row.checks, named.join(", ")));
        }
    }
    text
}

/// What is wrong between the rows and the tests that there are.
fn contradictions(groups: &[Group], there: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut claimed, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for group in groups {
        for row in group.rows {
            if !row.id.starts_with(&format!("S-{}-", group.name)) || !ids.insert(row.id) {
                wrong.push(format!("{} is in the wrong group, or there twice", row.id));
            }
            for test in tests(row) {
                let path = group.path(test, there);
                if !there.contains(&path) {
                    wrong.push(format!("{} claims {path}, which is no test", row.id));
                }
                claimed.insert(path);
            }
        }
        let own = there.iter().filter(|test| test.starts_with(&format!("conformance::{}::", group.module)));
        wrong.extend(own.filter(|test| !claimed.contains(*test)).map(|test| format!("no row names {test}")));
    }
    wrong
}

/// All tests of this binary, as it lists them itself.
#[cfg(feature = "rocksdb")]
fn listed() -> BTreeSet<String> {
    let listed = std::process::Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

#[test]
fn the_page_has_every_row() {
    keep("docs/conformance.md", &page(GROUPS));
}

/// Some of the tests need the store on disk.
#[cfg(feature = "rocksdb")]
#[test]
fn every_claim_has_its_test_and_every_test_its_row() {
    let wrong = contradictions(GROUPS, &listed());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_false_claim_and_a_test_without_a_row_are_found() {
    const ROWS: &[Row] = &[
        table::row("S-X-01", "true").passes("is_there"),
        table::row("S-X-02", "false").passes("is_not_there"),
        table::row("S-X-02", "twice").passes("elsewhere::is_there"),
    ];
    let group = Group { name: "X", title: "X", module: "x", rows: ROWS };
    let there = ["conformance::x::is_there", "conformance::x::nobody_names_it", "elsewhere::is_there", "elsewhere::b"];
    let wrong = contradictions(&[group], &there.map(str::to_owned).into());
    assert_eq!(
        wrong,
        [
            "S-X-02 claims conformance::x::is_not_there, which is no test",
            "S-X-02 is in the wrong group, or there twice",
            "no row names conformance::x::nobody_names_it",
        ]
    );
}

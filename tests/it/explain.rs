//! `explain` and `to_dot` show what will run and what is guaranteed, as in the snapshots in tests/fixtures/explain.

use std::num::NonZeroU16;
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::graph::Graph;
use millstream::runtime::plan::Plan;
use millstream::runtime::state::key_group::KeyGroups;

use crate::generated::keep;

/// A pipeline with every kind of exchange, a branch, a side output and sinks of both levels.
fn pipeline() -> Pipeline {
    let pipeline = Pipeline::new("orders").epoch_interval(Duration::from_millis(20));
    let orders = pipeline.source("orders", Lines::at("in")).map(|line: String| (line.len() as u64, line)).erase();
    let rules = pipeline.source("rules", feed::<(u64, String)>(10).1).broadcast();
    let counts = orders.clone().union(rules).key_by(|(key, _)| *key).count("counts");
    counts.map(|(key, count)| format!("{key} {count}")).sink("totals", FileSink::at("out").roll_bytes(1 << 20));
    orders.rebalance().sink("seen", Blackhole::new());
    pipeline
}

#[test]
fn a_pipeline_is_explained_by_task_with_its_exchanges_states_and_guarantees() {
    keep("tests/fixtures/explain/orders.txt", &pipeline().explain());
}

#[test]
fn a_pipeline_is_drawn_by_task() {
    keep("tests/fixtures/explain/orders.dot", &pipeline().to_dot());
}

#[test]
fn a_plan_says_who_owns_which_key_groups() {
    let plan = Plan::new(Graph::from(pipeline()), 2).unwrap();
    let text = plan.explain(KeyGroups::new(NonZeroU16::new(960).unwrap()));
    assert!(text.starts_with("pipeline orders: 2 subtasks per task, epochs of 20ms\n"), "{text}");
    assert!(text.contains(": key groups 0 to 479 | 480 to 959\n"), "{text}");
    let plan = Plan::new(Graph::from(pipeline()), 3).unwrap();
    let text = plan.explain(KeyGroups::new(NonZeroU16::new(2).unwrap()));
    assert!(text.contains("none"), "{text}");
}

#[test]
fn names_that_cannot_be_do_not_break_the_drawing() {
    let pipeline = Pipeline::new("a \"quoted\"\nname");
    pipeline.source("new\nline", feed::<u64>(1).1).sink("quote\"d", Blackhole::new());
    let text = pipeline.explain();
    assert!(text.contains("pipeline a \\\"quoted\\\"\\nname:") && text.contains("source new\\nline\n"), "{text}");
    let dot = pipeline.to_dot();
    assert!(dot.starts_with("digraph \"a \\\"quoted\\\"\\nname\" {\n") && dot.contains("quote\\\"d"), "{dot}");
    assert!(pipeline.validate().is_err());
}

//! What a runtime tells of its jobs, as a function from a request to its answer.

use millstream::prelude::*;
use millstream::runtime::config::RuntimeOptions;
use serde_json::Value as Json;

use super::{LONG, runtime, words};

#[track_caller]
fn json(runtime: &Runtime, target: &str) -> Json {
    let answer = runtime.status().respond("GET", target);
    assert_eq!((answer.status, answer.content_type), (200, "application/json"), "{}", answer.body);
    let json: Json = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(json["schema"], 1);
    json
}

#[track_caller]
fn text(runtime: &Runtime, target: &str) -> String {
    let answer = runtime.status().respond("GET", target);
    assert_eq!((answer.status, answer.content_type), (200, "text/plain; charset=utf-8"), "{}", answer.body);
    answer.body
}

#[test]
fn a_job_is_told_of_with_all_its_series() {
    let (pipeline, feed, collected) = words("words");
    let runtime = runtime();
    let status = runtime.status();
    let job = runtime.start(pipeline).unwrap();
    ["a", "drop", "b"].iter().for_each(|word| feed.send((*word).to_owned()).unwrap());
    collected.wait_for(2).unwrap();
    let all = json(&runtime, "/status");
    let words = &all["pipelines"]["words"];
    assert_eq!((&words["state"], &words["job"]["restarts"]), (&"running".into(), &0.into()));
    assert!(words["job"]["committed_epoch"].as_u64().unwrap() >= 1);
    assert_eq!(words["job"]["last_failure"], Json::Null);
    assert!(words["job"]["state"]["memory_limit"].as_u64().unwrap() > 0);
    let count = &words["operators"]["count"]["operator_records_in_total"];
    assert_eq!(count["0"].as_u64().unwrap() + count["1"].as_u64().unwrap(), 2, "{count}");
    assert!(words["channels"].as_object().unwrap().len() == 1 && words["sinks"]["out"].is_object());
    let completed = &words["pipeline"]["checkpoints_total"]["completed"];
    assert!(completed.as_u64().unwrap() >= 1, "{completed}");
    let other = json(&runtime, "/status?pipeline=none");
    assert_eq!(other["pipelines"], serde_json::json!({}));
    assert_eq!(json(&runtime, "/status?pipeline=words")["pipelines"].as_object().unwrap().len(), 1);
    job.stop_blocking(LONG).unwrap();
    assert_eq!(json(&runtime, "/status")["pipelines"]["words"]["state"], "finished");
    drop(runtime);
    assert_eq!(status.respond("GET", "/status").status, 200, "it outlives its runtime");
}

#[test]
fn a_failure_is_told_with_its_text() {
    let runtime = Runtime::builder().workers(1).restart(RestartPolicy::never()).build().unwrap();
    let pipeline = Pipeline::new("p").parallelism(1);
    let fails = |_: u64| Err::<u64, _>("a \"planned\"\nfailure");
    pipeline.source("numbers", IterSource::new(vec![1_u64])).try_map(fails).sink("out", Blackhole::new());
    runtime.start(pipeline).unwrap().join().unwrap_err();
    let p = &json(&runtime, "/status")["pipelines"]["p"];
    assert_eq!(p["state"], "failed");
    let failure = p["job"]["last_failure"].as_str().unwrap();
    assert!(failure.contains("a \"planned\"\nfailure") && failure.contains("try_map"), "{failure}");
}

#[test]
fn a_pipeline_is_drawn() {
    let (pipeline, _feed, _collected) = words("words");
    let runtime = runtime();
    let job = runtime.start(pipeline).unwrap();
    let topology = &json(&runtime, "/status/topology")["pipelines"]["words"];
    let names = topology["vertices"].as_array().unwrap().iter().map(|vertex| vertex["name"].as_str().unwrap());
    let names: Vec<_> = names.collect();
    for name in ["words", "count", "out"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let edges = topology["edges"].as_array().unwrap();
    assert_eq!(edges.len(), names.len() - 1);
    assert!(edges.iter().any(|edge| edge["exchange"] == "hash" && edge["to"] == "count"), "{edges:?}");
    assert!(text(&runtime, "/status/topology?format=dot").starts_with("digraph"));
    let mermaid = text(&runtime, "/status/topology?format=mermaid&pipeline=words");
    assert!(mermaid.starts_with("flowchart LR\n") && mermaid.contains("[\"count\"]"), "{mermaid}");
    job.stop_blocking(LONG).unwrap();
}

#[test]
fn the_last_checkpoints_are_told_with_their_phases() {
    let (pipeline, feed, _collected) = words("words");
    let runtime = runtime();
    let job = runtime.start(pipeline).unwrap();
    let epochs = || -> Vec<u64> {
        let told = json(&runtime, "/status/checkpoints");
        let told = told["pipelines"]["words"].as_array().unwrap().iter();
        told.map(|checkpoint| checkpoint["epoch"].as_u64().unwrap()).collect()
    };
    while epochs().len() < 32 || epochs().last() == Some(&1) {
        feed.send_durable("a".to_owned()).unwrap().wait().unwrap();
    }
    let found = epochs();
    assert_eq!(found.len(), 32);
    assert!(found.windows(2).all(|pair| pair[0] == pair[1] + 1), "newest first, without a gap: {found:?}");
    let told = json(&runtime, "/status/checkpoints?pipeline=words");
    let newest = &told["pipelines"]["words"][0];
    assert!(newest["duration_seconds"].as_f64().unwrap() >= newest["persist_seconds"].as_f64().unwrap(), "{newest}");
    let tasks = newest["tasks"].as_array().unwrap();
    let count = tasks.iter().find(|task| task["operators"].as_array().unwrap().contains(&"count".into())).unwrap();
    for phase in ["start_delay_seconds", "alignment_seconds", "snapshot_seconds"] {
        assert!(count[phase].is_number(), "{phase} in {count}");
    }
    job.stop_blocking(LONG).unwrap();
}

#[test]
fn the_options_that_a_job_runs_with_can_be_given_to_another_runtime() {
    let told = |runtime: &Runtime| {
        let (pipeline, _feed, _collected) = words("words");
        let job = runtime.start(pipeline).unwrap();
        let config = json(runtime, "/status/config")["pipelines"]["words"].clone();
        job.stop_blocking(LONG).unwrap();
        config
    };
    let first = Runtime::builder().workers(3).state_memory(300 << 20).channel_frames(7).build().unwrap();
    let config = told(&first);
    assert_eq!((&config["workers"], &config["channel_frames"]), (&3.into(), &7.into()));
    assert_eq!(config["max_unfolded_bytes"], 75 << 20, "it follows from the memory");
    assert_eq!(config["epoch_interval_ms"], 10, "the pipeline's own");
    let missing: Vec<_> = config.as_object().unwrap().iter().filter(|(_, value)| value.is_null()).collect();
    assert_eq!(missing.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["http", "state_directory"]);
    let options: RuntimeOptions = serde_json::from_value(config.clone()).unwrap();
    assert_eq!(told(&Runtime::builder().options(options).build().unwrap()), config);
}

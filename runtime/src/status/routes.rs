//! Which answer a request gets.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::{Response, Status, facts, topology};
use crate::actor::JobLink;
use crate::metrics::{Metrics, PipelineState, Value, names};

const PATHS: [&str; 7] =
    ["/metrics", "/healthz", "/readyz", "/status", "/status/topology", "/status/checkpoints", "/status/config"];

impl Response {
    fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    fn json(body: &Json) -> Self {
        Self { status: 200, content_type: "application/json", body: format!("{body}\n") }
    }
}

/// The query of a target, undone of its encoding.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(name, value)| (decoded(name), decoded(value))).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Undoes `%2F` and `+`. What is no such thing stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let hex = behind.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            (byte, _) => {
                bytes.push(if *byte == b'+' { b' ' } else { *byte });
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn respond(status: &Status, method: &str, target: &str) -> Response {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if !PATHS.contains(&path) {
        return Response::text(404, format!("there is nothing here; there are {}\n", PATHS.join(", ")));
    }
    if !["GET", "HEAD"].contains(&method) {
        return Response::text(405, "only GET and HEAD are answered\n");
    }
    let query = Query::of(query);
    let only = query.get("pipeline");
    match path {
        "/metrics" => Response { status: 200, content_type: Metrics::CONTENT_TYPE, body: status.metrics.render() },
        "/readyz" => ready(&status.metrics),
        "/status" => Response::json(&facts::status(status, only)),
        "/status/topology" => topologies(status, only, query.get("format")),
        "/status/checkpoints" => by_pipeline(status, only, facts::checkpoints),
        "/status/config" => by_pipeline(status, only, facts::config),
        _ => Response::text(200, "it answers\n"),
    }
}

fn by_pipeline(status: &Status, only: Option<&str>, of: impl Fn(&JobLink) -> Json) -> Response {
    let jobs = facts::jobs(status, only);
    let pipelines: Map<_, _> = jobs.iter().map(|job| (job.pipeline().to_owned(), of(job))).collect();
    Response::json(&json!({ "schema": facts::SCHEMA, "pipelines": pipelines }))
}

fn topologies(status: &Status, only: Option<&str>, format: Option<&str>) -> Response {
    let drawing = |draw: fn(&JobLink) -> String| {
        Response::text(200, facts::jobs(status, only).iter().map(|job| draw(job)).collect::<String>())
    };
    match format {
        None | Some("json") => by_pipeline(status, only, topology::json),
        Some("dot") => drawing(|job| job.topology().dot.clone()),
        Some("mermaid") => drawing(topology::mermaid),
        Some(_) => Response::text(400, "format is one of json, dot and mermaid\n"),
    }
}

/// Whether every pipeline runs, or has ended well; the others, by name.
fn ready(metrics: &Metrics) -> Response {
    let well = [PipelineState::Running, PipelineState::Finished].map(PipelineState::label);
    let mut others = String::new();
    for sample in metrics.collect().iter() {
        let [pipeline, state] = sample.labels else { continue };
        let is_in_it = *sample.family == names::PIPELINE_STATE && *sample.value == Value::Gauge(1.0);
        if is_in_it && !well.contains(&&**state) {
            let _ = writeln!(others, "{pipeline} is {state}");
        }
    }
    if others.is_empty() {
        Response::text(200, "every pipeline is running or has ended well\n")
    } else {
        Response::text(503, others)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::actor::JobList;
    use crate::metrics::{Collect, MetricsHub, Samples};
    use crate::time::SystemClock;

    fn without_jobs(hub: &Arc<MetricsHub>) -> Status {
        Status::new(Metrics::new(Arc::clone(hub)), JobList::default())
    }

    fn hub() -> Arc<MetricsHub> {
        MetricsHub::new(Arc::new(SystemClock::new()))
    }

    #[test]
    fn it_is_ready_while_every_pipeline_runs_or_has_ended_well() {
        struct In(PipelineState);
        impl Collect for In {
            fn collect(&self, into: &mut Samples) {
                self.0.put("p", into);
            }
        }
        let hub = hub();
        let status = without_jobs(&hub);
        let asked = || status.respond("GET", "/readyz");
        let mut job = hub.pipeline("p");
        for state in PipelineState::ALL {
            job.begin_job(Arc::new(In(state)));
            let is_well = [PipelineState::Running, PipelineState::Finished].contains(&state);
            let Response { status, body, .. } = asked();
            assert_eq!(status, if is_well { 200 } else { 503 }, "{body}");
            assert!(is_well || body == format!("p is {}\n", state.label()), "{body}");
        }
        job.ends_as(PipelineState::Finished);
        drop(job);
        assert_eq!(asked().status, 200);
        drop(hub.pipeline("q"));
        assert_eq!((asked().status, asked().body.as_str()), (503, "q is failed\n"));
    }

    #[test]
    fn what_is_there_is_only_to_be_read() {
        let answer = |method, target| without_jobs(&hub()).respond(method, target);
        for path in PATHS {
            for (method, expected) in [("GET", 200), ("HEAD", 200), ("POST", 405), ("DELETE", 405), ("", 405)] {
                assert_eq!(answer(method, path).status, expected, "{method} {path}");
            }
        }
        for (target, expected) in [
            ("/", 404),
            ("", 404),
            ("/metrics/", 404),
            ("/status/../metrics", 404),
            ("/metrics?name=up", 200),
            ("/status?pipeline=none", 200),
            ("/status/topology?format=dot", 200),
            ("/status/topology?format=png", 400),
            ("/status?&&=&%&%2&%zz=%ff&pipeline=%F0%9F", 200),
        ] {
            assert_eq!(answer("GET", target).status, expected, "{target}");
        }
        let found = answer("GET", "/metrics");
        assert_eq!(found.content_type, "text/plain; version=0.0.4; charset=utf-8");
        assert!(found.body.contains("millstream_build_info{"), "{}", found.body);
        let found = answer("GET", "/status/config");
        assert_eq!(
            (found.content_type, found.body.as_str()),
            ("application/json", "{\"pipelines\":{},\"schema\":1}\n")
        );
    }

    #[test]
    fn a_query_is_undone_of_its_encoding() {
        let query = Query::of("pipeline=a%2Db+c&format=%&x");
        let found = ["pipeline", "format", "x", "y"].map(|name| query.get(name));
        assert_eq!(found, [Some("a-b c"), Some("%"), Some(""), None]);
    }
}

//! What is answered to which request. Pure.

use std::fmt::Write as _;

use crate::metrics::{Metrics, PipelineState, Value, names};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Answer {
    fn text(status: u16, body: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.to_owned() }
    }
}

/// Answers a request by its method and path, without the query.
pub(crate) fn answer(metrics: &Metrics, method: &str, path: &str) -> Answer {
    if !["/metrics", "/healthz", "/readyz"].contains(&path) {
        return Answer::text(404, "there is nothing here; there are /metrics, /healthz and /readyz\n");
    }
    match (method, path) {
        ("GET" | "HEAD", "/metrics") => {
            Answer { status: 200, content_type: Metrics::CONTENT_TYPE, body: metrics.render() }
        }
        ("GET" | "HEAD", "/readyz") => ready(metrics),
        // Says nothing of pipelines: whoever restarts a daemon because a peer of it is away makes things worse.
        ("GET" | "HEAD", _) => Answer::text(200, "it answers\n"),
        _ => Answer::text(405, "only GET and HEAD are answered\n"),
    }
}

/// Whether every pipeline runs, or has ended well; the others, by name.
fn ready(metrics: &Metrics) -> Answer {
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
        Answer::text(200, "every pipeline is running or has ended well\n")
    } else {
        Answer::text(503, &others)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::{Collect, MetricsHub, Samples};
    use crate::time::SystemClock;

    #[test]
    fn it_is_ready_while_every_pipeline_runs_or_has_ended_well() {
        struct In(PipelineState);
        impl Collect for In {
            fn collect(&self, into: &mut Samples) {
                self.0.put("p", into);
            }
        }
        let hub = MetricsHub::new(Arc::new(SystemClock::new()));
        let metrics = Metrics::new(Arc::clone(&hub));
        let asked = || answer(&metrics, "GET", "/readyz");
        let mut job = hub.pipeline("p");
        for state in PipelineState::ALL {
            job.begin_job(Arc::new(In(state)));
            let is_well = [PipelineState::Running, PipelineState::Finished].contains(&state);
            let Answer { status, body, .. } = asked();
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
    fn only_metrics_are_there_and_only_to_be_read() {
        let metrics = Metrics::new(MetricsHub::new(Arc::new(SystemClock::new())));
        let status = |method, path| answer(&metrics, method, path).status;
        for (method, path, expected) in [
            ("GET", "/metrics", 200),
            ("HEAD", "/metrics", 200),
            ("POST", "/metrics", 405),
            ("GET", "/healthz", 200),
            ("GET", "/readyz", 200),
            ("PUT", "/readyz", 405),
            ("GET", "/", 404),
            ("GET", "/metrics/", 404),
            ("DELETE", "/", 404),
        ] {
            assert_eq!(status(method, path), expected, "{method} {path}");
        }
        let found = answer(&metrics, "GET", "/metrics");
        assert_eq!(found.content_type, "text/plain; version=0.0.4; charset=utf-8");
        assert!(found.body.contains("millstream_build_info{"), "{}", found.body);
    }
}

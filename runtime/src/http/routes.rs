//! What is answered to which request. Pure.

use crate::metrics::Metrics;

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
    if path != "/metrics" {
        return Answer::text(404, "there is nothing here; metrics are at /metrics\n");
    }
    match method {
        "GET" | "HEAD" => Answer { status: 200, content_type: Metrics::CONTENT_TYPE, body: metrics.render() },
        _ => Answer::text(405, "only GET and HEAD are answered\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::MetricsHub;
    use crate::time::SystemClock;

    #[test]
    fn only_metrics_are_there_and_only_to_be_read() {
        let metrics = Metrics::new(MetricsHub::new(Arc::new(SystemClock::new())));
        let status = |method, path| answer(&metrics, method, path).status;
        for (method, path, expected) in [
            ("GET", "/metrics", 200),
            ("HEAD", "/metrics", 200),
            ("POST", "/metrics", 405),
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

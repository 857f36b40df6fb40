//! Where a runtime answers HTTP requests.

use std::net::SocketAddr;
use std::sync::Arc;

use super::RuntimeError;
use crate::actor::JobList;
use crate::http::HttpServer;
use crate::metrics::{Metrics, MetricsHub};
use crate::status::Status;

/// Answers what is asked at an address, of these jobs and what they count.
///
/// # Errors
/// [`RuntimeError::OutOfRange`] for what is no address and port; [`RuntimeError::Listen`] when there is no listening there.
pub(super) fn listen(
    address: String,
    (metrics, jobs): (&Arc<MetricsHub>, &JobList),
) -> Result<HttpServer, RuntimeError> {
    let parsed = address.parse::<SocketAddr>().map_err(|_| RuntimeError::OutOfRange {
        option: "http",
        given: address.clone(),
        range: "an IP address and a port, as in 127.0.0.1:9464",
    })?;
    let status = Status::new(Metrics::new(Arc::clone(metrics)), Arc::clone(jobs));
    HttpServer::start(parsed, move |method, target| status.respond(method, target))
        .map_err(|error| RuntimeError::Listen { address, reason: error.to_string() })
}

//! The server: a thread, a listener, and connections of one request each.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

use crate::status::Response as Answer;

/// Connections that are open at a time; one more closes the oldest.
pub(super) const MOST_CONNECTIONS: usize = 64;
/// How long a client may take to ask.
const ASKING: Duration = Duration::from_secs(10);
/// How long a connection may take in all.
const LONGEST: Duration = Duration::from_secs(30);
/// What of a request is read; more is refused.
const REQUEST_BYTES: usize = 16 * 1024;
/// A pause where the system has no descriptor left for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers a method and a target.
type Answers = Arc<dyn Fn(&str, &str) -> Answer + Send + Sync>;

/// Listens until it is dropped. Dropping waits for its thread, which takes as long as the answer that it works on.
#[derive(Debug)]
pub(crate) struct HttpServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Listens at an address; port 0 is one that is free.
    ///
    /// # Errors
    /// What the operating system says: the port is taken, the address is not this machine's, there is no thread to be had.
    pub(crate) fn start(
        address: SocketAddr,
        answers: impl Fn(&str, &str) -> Answer + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let (ready, made) = sync_channel(1);
        let answers: Answers = Arc::new(answers);
        let thread = std::thread::Builder::new().name("millstream-http".to_owned()).spawn(move || {
            // Made here and dropped here: on the caller's thread, which may be in async code, neither is allowed.
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            drop(ready.send(Ok(())));
            if let Err(error) = runtime.block_on(serve(listener, answers, stopped)) {
                tracing::error!(%error, %address, "the http server ended");
            }
        })?;
        let server = Self { address, stop: Some(stop), thread: Some(thread) };
        made.recv().map_err(|_| io::Error::other("the thread died while it was started"))??;
        Ok(server)
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn serve(listener: TcpListener, answers: Answers, mut stopped: oneshot::Receiver<()>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    let mut oldest: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    oldest.retain(|connection| !connection.is_finished());
                    if oldest.len() >= MOST_CONNECTIONS && let Some(connection) = oldest.pop_front() {
                        connection.abort();
                    }
                    oldest.push_back(connections.spawn(connection(stream, Arc::clone(&answers))));
                }
                Err(error) => {
                    tracing::warn!(%error, "the http server cannot take a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn connection(stream: TcpStream, answers: Answers) {
    let service = service_fn(move |request: Request<Incoming>| {
        let target = request.uri().path_and_query().map_or("", hyper::http::uri::PathAndQuery::as_str);
        let answer = answers(request.method().as_str(), target);
        std::future::ready(Ok::<_, Infallible>(response(answer)))
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(ASKING).max_buf_size(REQUEST_BYTES).keep_alive(false);
    match tokio::time::timeout(LONGEST, http.serve_connection(TokioIo::new(stream), service)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an http client went away or asked for nonsense"),
        Err(_) => tracing::debug!("an http client took too long"),
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(answer.content_type));
    response
}

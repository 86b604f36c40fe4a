//! A small HTTP/1 server for metrics and health: routes by axum, the protocol by hyper, the limits by us.
//!
//! It must never disturb the pipeline, whatever clients do. One thread serves all connections, so slow clients hold nobody
//! up. The number of connections is bounded (one more closes the oldest), and each has a time limit for the whole exchange
//! and a size limit for the head of its request. A connection carries one request.
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::error::{Error, Result};
use crate::shutdown::{LAST_WORDS, join_by};

/// Connections at once; one more closes the oldest.
const MAX_CONNECTIONS: usize = 64;
/// Time limit of a connection, from its first byte to its last.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(5);
/// A request with a longer head is refused, bytes (the least that hyper allows).
const MAX_HEAD: usize = 8 << 10;
/// What a client sends beyond its request is read and discarded up to here, so that it sees the response, bytes ...
const MAX_REST: usize = 64 << 10;
/// ... and for so long.
const REST_LIMIT: Duration = Duration::from_millis(200);
/// Pause after a connection that could not be accepted (no file descriptors are left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    end: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `routes` at `listen`, where port 0 takes a free one. `key` names the configuration key in messages.
    ///
    /// # Errors
    /// The address is in use, belongs to no network of this machine, or needs more privileges.
    pub fn start(listen: SocketAddr, key: &str, routes: Router) -> Result<Self> {
        let refused = |e| cannot_listen(listen, key, e);
        let failed = |e| Error::runtime("cannot start the web server").with_source(e);
        let listener = std::net::TcpListener::bind(listen).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).map_err(failed)?
        };
        let end = Arc::new(Notify::new());
        let ended = end.clone();
        let routes = routes.layer(map_response(with_headers));
        let serve = async move {
            tokio::select! {
                () = accept(&listener, &routes) => {}
                () = ended.notified() => {}
            }
        };
        let thread = std::thread::Builder::new()
            .name("http".into())
            .spawn(move || {
                runtime.block_on(serve);
                runtime.shutdown_background();
            })
            .map_err(failed)?;
        Ok(Self { address, end, thread: Some(thread) })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.notify_one();
        if let Some(thread) = self.thread.take() {
            join_by(thread, Instant::now() + LAST_WORDS);
        }
    }
}

fn cannot_listen(listen: SocketAddr, key: &str, error: std::io::Error) -> Error {
    let what = match error.kind() {
        std::io::ErrorKind::AddrInUse => "another program listens there; stop it, or choose another port",
        std::io::ErrorKind::AddrNotAvailable => {
            "no network of this machine has that address; choose 127.0.0.1 or 0.0.0.0"
        }
        std::io::ErrorKind::PermissionDenied => "ports below 1024 need more privileges; choose a higher one",
        _ => "cannot listen there",
    };
    Error::runtime(format!("{key} = \"{listen}\": {what}")).with_source(error)
}

/// Adds the headers that every response has: what is served changes all the time, and is no web page.
async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Accepts connections until the future is dropped.
async fn accept(listener: &TcpListener, routes: &Router) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        while open.len() >= MAX_CONNECTIONS {
            if let Some(oldest) = open.pop_front() {
                oldest.abort();
            }
        }
        let exchange = tokio::time::timeout(EXCHANGE_LIMIT, exchange(stream, routes.clone()));
        let exchange = async {
            if exchange.await.is_err() {
                tracing::debug!("a web client took too long");
            }
        };
        open.push_back(tokio::spawn(exchange).abort_handle());
        // Its request may be complete already, and then comes before the next connection.
        tokio::task::yield_now().await;
    }
}

/// One request and its response.
async fn exchange(mut stream: TcpStream, routes: Router) {
    let mut http = http1::Builder::new();
    http.keep_alive(false).half_close(true).max_buf_size(MAX_HEAD).title_case_headers(true);
    let service = TowerToHyperService::new(routes);
    if let Err(e) = http.serve_connection(TokioIo::new(&mut stream), service).await {
        tracing::debug!("a web client sent no complete request: {e}");
    }
    discard_rest(&mut stream).await;
}

/// Waits a moment until the client closes: closing before its last bytes are read would take the response from it.
async fn discard_rest(stream: &mut TcpStream) {
    let (mut part, mut read) = ([0; 4096], 0);
    let reading = async {
        stream.shutdown().await.ok();
        while read < MAX_REST {
            match stream.read(&mut part).await {
                Ok(0) | Err(_) => break,
                Ok(count) => read += count,
            }
        }
    };
    // After the time limit the connection is closed all the same.
    tokio::time::timeout(REST_LIMIT, reading).await.ok();
}

#[cfg(test)]
mod tests;

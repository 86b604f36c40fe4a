//! A small web server for figures: GET, a few fixed paths, one answer a connection.
//!
//! It must never trouble the pipeline, whoever talks to it, and must answer whoever asks properly: one thread waits for all
//! connections at once, so that slow clients hold nobody up. Connections are bounded in number (the oldest goes when one
//! more comes), each has a time limit for the whole exchange and a limit for what is read; no state, no cache, nothing is
//! taken in.
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::error::{Error, Result};
use crate::shutdown::{LAST_WORDS, join_by};

pub use exchange::Answer;

/// Connections at once; with one more the oldest is hung up on.
const MOST: usize = 64;
/// For one exchange, from its first byte to its last.
const LIMIT: Duration = Duration::from_secs(5);
/// Rest after a connection that could not be taken (no file handles are left).
const REST: Duration = Duration::from_millis(200);

/// What the paths answer; `None`: there is nothing.
pub type Pages = dyn Fn(&str) -> Option<Answer> + Send + Sync;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    end: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `listen`; `key` is where that was asked for, for the message. Port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be listened at: another program is there, it is none of this machine, or needs more rights.
    pub fn start(listen: SocketAddr, key: &str, pages: Arc<Pages>) -> Result<Self> {
        let wrong = |e| refused(listen, key, e);
        let failed = |e| Error::runtime("cannot start the web server").with_source(e);
        let listener = std::net::TcpListener::bind(listen).map_err(wrong)?;
        listener.set_nonblocking(true).map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).map_err(failed)?
        };
        let end = Arc::new(Notify::new());
        let ended = end.clone();
        let serve = async move {
            tokio::select! {
                () = serve(&listener, &pages) => {}
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

    /// Where it listens.
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

fn refused(listen: SocketAddr, key: &str, error: std::io::Error) -> Error {
    let what = match error.kind() {
        std::io::ErrorKind::AddrInUse => "another program listens there; end it, or take another port",
        std::io::ErrorKind::AddrNotAvailable => {
            "no network of this machine has that address; take 127.0.0.1 or 0.0.0.0"
        }
        std::io::ErrorKind::PermissionDenied => "ports below 1024 need more rights; take a higher one",
        _ => "it cannot be listened there",
    };
    Error::runtime(format!("{key} = \"{listen}\": {what}")).with_source(error)
}

/// Until the future is dropped.
async fn serve(listener: &TcpListener, pages: &Arc<Pages>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(REST).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        while open.len() >= MOST {
            if let Some(oldest) = open.pop_front() {
                oldest.abort();
            }
        }
        let exchange = exchange::answer(stream, pages.clone());
        let exchange = async {
            if !tokio::time::timeout(LIMIT, exchange).await.is_ok_and(|done| done.is_ok()) {
                tracing::debug!("a web client broke off, or took too long");
            }
        };
        open.push_back(tokio::spawn(exchange).abort_handle());
        // It may have said everything already: its turn comes before the next connection.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests;

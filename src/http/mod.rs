//! A small web server for figures: GET, a few fixed paths, one answer a connection.
//!
//! It must never trouble the pipeline, whoever talks to it: a bounded number of connections, each with a time limit for
//! the whole exchange and a limit for what is read; no state, no cache, nothing is taken in.
mod exchange;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

pub use exchange::Answer;

/// Connections at once; who comes beyond is told to come again.
const MOST: usize = 8;
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
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `listen`; `key` is where that was asked for, for the message. Port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be listened at: another program is there, it is none of this machine, or needs more rights.
    pub fn start(listen: SocketAddr, key: &str, pages: Arc<Pages>) -> Result<Self> {
        let listener = TcpListener::bind(listen).map_err(|e| refused(listen, key, e))?;
        let address = listener.local_addr().map_err(|e| refused(listen, key, e))?;
        let end = Arc::new(AtomicBool::new(false));
        let ended = end.clone();
        let thread = std::thread::Builder::new()
            .name("http".into())
            .spawn(move || serve(&listener, &pages, &ended))
            .map_err(|e| Error::work("cannot start the http thread").because(e))?;
        Ok(Self { address, end, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for a connection. Where that fails it goes on waiting, and ends with the process.
        let own = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let woken = TcpStream::connect_timeout(&SocketAddr::new(own, self.address.port()), LIMIT).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            // A panic there has been told by the runtime; figures are not worth more.
            thread.join().ok();
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
    Error::work(format!("{key} = \"{listen}\": {what}")).because(error)
}

fn serve(listener: &TcpListener, pages: &Arc<Pages>, end: &AtomicBool) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if end.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else {
            std::thread::sleep(REST);
            continue;
        };
        let place = Place::take(&open);
        if place.0.is_none() {
            exchange::turn_away(stream);
            continue;
        }
        let pages = pages.clone();
        let work = move || {
            let _place = place;
            exchange::answer(stream, Instant::now() + LIMIT, &*pages);
        };
        if let Err(e) = std::thread::Builder::new().name("http".into()).spawn(work) {
            tracing::debug!("no thread for a connection: {e}");
        }
    }
}

/// A place among the connections that may be open at once; given back when dropped.
struct Place(Option<Arc<AtomicUsize>>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        let taken = open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < MOST).then_some(n + 1));
        Self(taken.is_ok().then(|| open.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(open) = &self.0 {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;

//! One request and its answer (RFC 9112, the part of it that a scraper uses).
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Pages;

/// A request whose head is longer is refused, bytes.
const MAX_HEAD: usize = 8 << 10;
/// What a client sends beyond its head is read and thrown away up to here, so that it sees the answer, bytes.
const MAX_REST: usize = 64 << 10;
/// And for so long.
const REST: Duration = Duration::from_millis(200);

/// What is sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200, 503 and so on.
    pub status: u16,
    /// `Content-Type`.
    pub kind: &'static str,
    /// The text.
    pub body: String,
}

impl Answer {
    /// Plain text, one line.
    pub fn line(status: u16, text: &str) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: format!("{text}\n") }
    }
}

/// Reads a request and answers it. A client that breaks off is let go; whoever calls sets the time limit.
pub(super) async fn answer(mut stream: TcpStream, pages: Arc<Pages>) -> io::Result<()> {
    let (answer, body) = match read_head(&mut stream).await? {
        Head::Whole(head) => to(&head, &*pages),
        Head::TooLong => (Answer::line(431, "the head of a request may have 8 KiB"), true),
    };
    send(&mut stream, &answer, body).await?;
    drain(&mut stream).await
}

/// The answer to a request, and whether its body is sent.
pub(super) fn to(head: &str, pages: &Pages) -> (Answer, bool) {
    let mut words = head.lines().next().unwrap_or("").split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return (Answer::line(400, "no request line of HTTP"), true);
    };
    if !version.starts_with("HTTP/1.") {
        return (Answer::line(505, "HTTP/1.0 and HTTP/1.1 are spoken here"), true);
    }
    if !matches!(method, "GET" | "HEAD") {
        return (Answer::line(405, "only GET and HEAD"), true);
    }
    let path = path_of(target);
    let answer = pages(path).unwrap_or_else(|| Answer::line(404, "nothing here; there are /metrics and /health"));
    (answer, method == "GET")
}

/// The path of what is asked for, also where that is a whole address (RFC 9112, 3.2.2).
fn path_of(target: &str) -> &str {
    let rest = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
            rest.find(['/', '?']).map_or("", |at| &rest[at..])
        }
        _ => target,
    };
    match rest.split('?').next() {
        None | Some("") => "/",
        Some(path) => path,
    }
}

enum Head {
    Whole(String),
    TooLong,
}

/// Until the empty line that ends the head of a request. One empty line before it is passed over, and lines may end without
/// a carriage return (RFC 9112, 2.2).
async fn read_head(stream: &mut TcpStream) -> io::Result<Head> {
    let mut bytes = Vec::with_capacity(1024);
    let mut part = [0; 1024];
    loop {
        let count = stream.read(&mut part).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&part[..count]);
        let head = [&b"\r\n"[..], b"\n"].iter().find_map(|empty| bytes.strip_prefix(*empty)).unwrap_or(&bytes);
        if let Some(end) = end_of(head).filter(|end| *end <= MAX_HEAD) {
            return Ok(Head::Whole(String::from_utf8_lossy(&head[..end]).into_owned()));
        }
        if bytes.len() > MAX_HEAD {
            return Ok(Head::TooLong);
        }
    }
}

/// Where the empty line after a head begins.
fn end_of(head: &[u8]) -> Option<usize> {
    let mut start = 0;
    loop {
        let line = start + head[start..].iter().position(|byte| *byte == b'\n')?;
        if matches!(&head[start..line], b"" | b"\r") {
            return Some(start);
        }
        start = line + 1;
    }
}

async fn send(stream: &mut TcpStream, answer: &Answer, body: bool) -> io::Result<()> {
    let Answer { status, kind, body: text } = answer;
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    };
    let allow = if *status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let mut out = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n{allow}Connection: close\r\n\r\n",
        text.len()
    );
    if body {
        out.push_str(text);
    }
    stream.write_all(out.as_bytes()).await
}

/// Waits for the client to hang up, for a moment: closing on bytes that were not read would take the answer from it.
async fn drain(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let (mut part, mut read) = ([0; 4096], 0);
    let reading = async {
        while read < MAX_REST {
            match stream.read(&mut part).await {
                Ok(0) | Err(_) => break,
                Ok(count) => read += count,
            }
        }
    };
    // Over time is as good as hung up.
    tokio::time::timeout(REST, reading).await.ok();
    Ok(())
}

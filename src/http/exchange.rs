//! One request and its answer (RFC 9112, the part of it that a scraper uses).
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

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

/// Reads a request and answers it, all until `deadline`. A client that breaks off, or says nothing, is let go.
pub(super) fn answer(mut stream: TcpStream, deadline: Instant, pages: &Pages) {
    let done = read_head(&mut stream, deadline).and_then(|head| {
        let (answer, body) = match head {
            Head::Whole(head) => to(&head, pages),
            Head::TooLong => (Answer::line(431, "the head of a request may have 8 KiB"), true),
        };
        send(&mut stream, deadline, &answer, body)?;
        drain(&mut stream, deadline)
    });
    if let Err(e) = done {
        tracing::debug!("a web client: {e}");
    }
}

/// Too many are connected.
pub(super) fn turn_away(mut stream: TcpStream) {
    let soon = Instant::now() + REST;
    let answer = Answer::line(503, "too many connections; come again");
    if let Err(e) = send(&mut stream, soon, &answer, true) {
        tracing::debug!("a web client that was turned away: {e}");
    }
}

/// The answer to a request, and whether its body is sent.
fn to(head: &str, pages: &Pages) -> (Answer, bool) {
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
    let path = target.split('?').next().unwrap_or("");
    let answer = pages(path).unwrap_or_else(|| Answer::line(404, "nothing here; there are /metrics and /health"));
    (answer, method == "GET")
}

enum Head {
    Whole(String),
    TooLong,
}

/// Until the empty line that ends the head of a request.
fn read_head(stream: &mut TcpStream, deadline: Instant) -> io::Result<Head> {
    let mut bytes = Vec::with_capacity(1024);
    let mut part = [0; 1024];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let count = stream.read(&mut part)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up before its request was complete"));
        }
        bytes.extend_from_slice(&part[..count]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n").filter(|end| *end <= MAX_HEAD) {
            return Ok(Head::Whole(String::from_utf8_lossy(&bytes[..end]).into_owned()));
        }
        if bytes.len() > MAX_HEAD {
            return Ok(Head::TooLong);
        }
    }
}

fn send(stream: &mut TcpStream, deadline: Instant, answer: &Answer, body: bool) -> io::Result<()> {
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
    let mut rest = out.as_bytes();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(rest)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => rest = &rest[count..],
        }
    }
    Ok(())
}

/// Waits for the client to hang up, for a moment: closing on bytes that were not read would take the answer from it.
fn drain(stream: &mut TcpStream, deadline: Instant) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let deadline = deadline.min(Instant::now() + REST);
    let (mut part, mut read) = ([0; 4096], 0);
    while read < MAX_REST {
        let Ok(left) = left(deadline) else { break };
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(count) => read += count,
        }
    }
    Ok(())
}

/// Time left, never nothing: a limit of nothing means none.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")) } else { Ok(left) }
}

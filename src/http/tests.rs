#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;

use axum::routing::get;

fn server() -> Server {
    let routes = Router::new().route("/page", get(|| async { "here\n" }));
    Server::start("127.0.0.1:0".parse().unwrap(), "listen", routes).unwrap()
}

/// The response to `request`, up to the end of the connection.
fn ask(server: &Server, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // The server may close before it has read all of a long request.
    stream.write_all(request).ok();
    let mut answer = Vec::new();
    // A refused client may be cut off before it has read everything.
    stream.read_to_end(&mut answer).ok();
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("")
}

#[test]
fn answers_requests_and_nothing_else() {
    let server = server();
    let page = ask(&server, b"GET /page?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Content-Length: 5"), "{head}");
    assert_eq!(body, "here\n");
    for header in ["Connection: close", "Cache-Control: no-store", "X-Content-Type-Options: nosniff", "text/plain"] {
        assert!(head.contains(header), "{header}: {head}");
    }
    let refused = ask(&server, b"PUT /page HTTP/1.1\r\n\r\n");
    assert!(refused.contains("Allow: GET,HEAD"), "{refused}");
    let head = ask(&server, b"HEAD /page HTTP/1.0\r\n\r\n");
    assert!(head.contains("Content-Length: 5") && head.ends_with("\r\n\r\n"), "{head}");
    for (request, code) in [
        (&b"GET /other HTTP/1.1\r\n\r\n"[..], "404"),
        (b"GET //page HTTP/1.1\r\n\r\n", "404"),
        (b"POST /page HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
        (b"GET /page HTTP/2.0\r\n\r\n", "400"),
        (b"GET /page\r\n\r\n", "400"),
        (b"GET  /page HTTP/1.1\r\n\r\n", "400"),
        (b"\xff\xfe\x00\r\n\r\n", "400"),
        // Clients also send a whole address, an empty line first, and lines without a carriage return.
        (b"GET http://127.0.0.1:9090/page HTTP/1.1\r\nHost: a\r\n\r\n", "200"),
        (b"GET HTTP://a/page?x HTTP/1.1\r\n\r\n", "200"),
        (b"GET http://a HTTP/1.1\r\n\r\n", "404"),
        (b"\r\nGET /page HTTP/1.1\r\n\r\n", "200"),
        (b"\nGET /page HTTP/1.1\nHost: a\n\n", "200"),
        (b"GET /page HTTP/1.1\r\nHost: a\n\r\n", "200"),
    ] {
        let answer = ask(&server, request);
        assert_eq!(status(&answer), code, "{} answered by {answer}", String::from_utf8_lossy(request));
    }
}

#[test]
fn a_request_without_end_is_refused_and_answered() {
    let server = server();
    let long = [b"GET /page HTTP/1.1\r\nX: ", &b"a".repeat(20_000)[..]].concat();
    assert_eq!(status(&ask(&server, &long)), "431");
    assert_eq!(status(&ask(&server, b"GET /page HTTP/1.1\r\n\r\n")), "200");
}

#[test]
fn slow_clients_shut_nobody_out() {
    let server = server();
    let address = server.address();
    let silent = |said: &[u8]| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(said).unwrap();
        stream
    };
    // More than may be open at once, some of which send nothing at all ...
    let mut many: Vec<TcpStream> =
        (0..3 * MAX_CONNECTIONS).map(|i| silent(&b"GET /page HTTP/1.1\r\nX: "[..i % 20])).collect();
    assert_eq!(status(&ask(&server, b"GET /page HTTP/1.1\r\n\r\n")), "200");
    // ... the oldest of which were closed ...
    many[0].set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert!(matches!(many[0].read(&mut [0; 1]), Ok(0) | Err(_)));
    // ... and many that reconnect as soon as they are closed.
    let end = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                while !end.load(std::sync::atomic::Ordering::Relaxed) {
                    let mut stream = silent(b"GET /");
                    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                    let _hung_up = stream.read(&mut [0; 1]);
                }
            });
        }
        for _ in 0..20 {
            assert_eq!(status(&ask(&server, b"GET /page HTTP/1.1\r\n\r\n")), "200");
        }
        end.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_server_ends_at_once_with_clients_in_the_middle_of_a_request() {
    let server = server();
    let mut slow: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    slow.iter_mut().for_each(|stream| stream.write_all(b"GET /page HT").unwrap());
    let began = Instant::now();
    drop(server);
    assert!(began.elapsed() < EXCHANGE_LIMIT / 2, "{:?}", began.elapsed());
}

#[test]
fn a_client_that_does_not_finish_its_request_is_closed() {
    let server = server();
    let mut silent = TcpStream::connect(server.address()).unwrap();
    silent.write_all(b"GET /page HTTP/1.1\r\nX: ").unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(silent.read(&mut [0; 10]).unwrap(), 0, "closed");
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let server = server();
    let error = Server::start(server.address(), "metrics.listen", Router::new()).unwrap_err();
    let text = error.chain();
    assert!(text.starts_with(&format!("metrics.listen = \"{}\": another program listens", server.address())), "{text}");
    let elsewhere = "192.0.2.7:9090".parse().unwrap();
    let text = Server::start(elsewhere, "metrics.listen", Router::new()).unwrap_err().chain();
    assert!(text.contains("no network of this machine"), "{text}");
    // A server that has ended releases its port.
    let address = server.address();
    drop(server);
    drop(Server::start(address, "metrics.listen", Router::new()).unwrap());
}

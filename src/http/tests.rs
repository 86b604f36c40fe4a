#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use std::io::{Read, Write};

fn server() -> Server {
    let pages = |path: &str| (path == "/page").then(|| Answer::line(200, "here"));
    Server::start("127.0.0.1:0".parse().unwrap(), "listen", Arc::new(pages)).unwrap()
}

/// What the server answers to `request`; it hangs up by itself.
fn ask(server: &Server, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // It may hang up before a long request is through.
    stream.write_all(request).ok();
    let mut answer = Vec::new();
    // Who is turned away may be cut off before everything is read.
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
    let head = ask(&server, b"HEAD /page HTTP/1.0\r\n\r\n");
    assert!(head.contains("Content-Length: 5") && head.ends_with("\r\n\r\n"), "{head}");
    for (request, code) in [
        (&b"GET /other HTTP/1.1\r\n\r\n"[..], "404"),
        (b"GET //page HTTP/1.1\r\n\r\n", "404"),
        (b"POST /page HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
        (b"GET /page HTTP/2.0\r\n\r\n", "505"),
        (b"GET /page\r\n\r\n", "400"),
        (b"GET  /page HTTP/1.1\r\n\r\n", "400"),
        (b"\xff\xfe\x00\r\n\r\n", "400"),
        (b"\r\n\r\n", "400"),
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
fn silent_clients_take_their_places_and_no_more() {
    let server = server();
    let mut silent = Vec::new();
    // Connections are taken in their order, so that whoever comes after these is turned away at once (or, on a machine
    // where this takes long, waits for one of them to be hung up on) ...
    let began = Instant::now();
    loop {
        silent.extend((0..MOST).map(|_| TcpStream::connect(server.address()).unwrap()));
        let mut late = TcpStream::connect(server.address()).unwrap();
        late.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut answer = String::new();
        late.read_to_string(&mut answer).unwrap();
        if status(&answer) == "503" {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nobody is turned away");
    }
    // ... and places that are given up are free again.
    drop(silent);
    while status(&ask(&server, b"GET /page HTTP/1.1\r\n\r\n")) != "200" {
        assert!(began.elapsed() < Duration::from_secs(60), "places stay taken");
    }
}

#[test]
fn a_place_is_taken_from_a_client_that_says_nothing() {
    let server = server();
    let mut silent = TcpStream::connect(server.address()).unwrap();
    silent.write_all(b"GET /page HTTP/1.1\r\nX: ").unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(silent.read(&mut [0; 10]).unwrap(), 0, "hung up on");
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let server = server();
    let error = Server::start(server.address(), "metrics.listen", Arc::new(|_: &str| None)).unwrap_err();
    let text = error.chain();
    assert!(text.starts_with(&format!("metrics.listen = \"{}\": another program listens", server.address())), "{text}");
    let elsewhere = "192.0.2.7:9090".parse().unwrap();
    let text = Server::start(elsewhere, "metrics.listen", Arc::new(|_: &str| None)).unwrap_err().chain();
    assert!(text.contains("no network of this machine"), "{text}");
    // An ended server leaves its port.
    let address = server.address();
    drop(server);
    drop(Server::start(address, "metrics.listen", Arc::new(|_: &str| None)).unwrap());
}

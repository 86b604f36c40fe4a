//! `https:` sources: a server with its own certificate, read by the real ffmpeg.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use afterimage::config;
use afterimage::frame::Frame;
use afterimage::source::{self, Pull};
use common::skip::{Needs, installed};
use common::{PATIENCE, TestDir};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/https_server.py");
const CERTIFICATE: &str = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -days 3650 -subj /CN=localhost -addext \
                           subjectAltName=DNS:localhost,IP:127.0.0.1 -out";

fn make(folder: &Path, program: &str, args: &str) {
    let done = Command::new(program).args(args.split(' ')).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "{program} {args}: {}", done.stderr.escape_ascii());
}

/// A server; gone with its value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn serve(folder: &Path) -> (Server, u16) {
    let mut command = Command::new("python3");
    let child = command.arg(SERVER).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut server = Server(child.unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.strip_prefix("ready ").unwrap_or_else(|| panic!("the server says {line:?}")).trim().parse();
    (server, port.unwrap())
}

/// How many frames come, or why none does.
fn frames(uri: &str, certificates: &str) -> Result<u64, String> {
    let config = config::Source { stall_secs: 20.0, certificates: certificates.into(), ..config::Source::default() };
    let mut source = source::open(uri, &config).map_err(|error| error.chain())?;
    let (began, mut frame) = (Instant::now(), Frame::default());
    while source.next(&mut frame, Duration::from_millis(50)).unwrap() != Pull::End {
        assert!(began.elapsed() < PATIENCE, "no end");
    }
    let counts = source.counts();
    assert_eq!(counts.failures, 0);
    Ok(counts.frames + counts.dropped)
}

#[test]
fn a_certificate_that_is_not_trusted_is_refused_until_it_is_named() {
    for (needs, program) in [(Needs::Ffmpeg, "ffmpeg"), (Needs::Openssl, "openssl"), (Needs::Python, "python3")] {
        if !installed(needs, &[program]) {
            return;
        }
    }
    let place = TestDir::new();
    let film = "-nostdin -v error -f lavfi -i testsrc=size=64x48:rate=10 -frames:v 5 -movflags +faststart film.mp4";
    make(place.path(), "ffmpeg", film);
    make(place.path(), "openssl", &format!("{CERTIFICATE} other.pem"));
    make(place.path(), "openssl", &format!("{CERTIFICATE} cert.pem"));
    let (_server, port) = serve(place.path());
    let name = |file: &str| place.at(file).display().to_string();
    for login in ["", "me:secret@"] {
        let uri = format!("https://{login}127.0.0.1:{port}/film.mp4");
        for certificates in ["system", &name("other.pem")] {
            let why = frames(&uri, certificates).unwrap_err();
            for part in ["certificate of the server is not trusted", "source.certificates=FILE", "certificates=any"] {
                assert!(why.contains(part), "{certificates}: {why}");
            }
            assert!(!why.contains("secret"), "{why}");
        }
        assert_eq!(frames(&uri, &name("cert.pem")), Ok(5), "{login}");
        assert_eq!(frames(&uri, "any"), Ok(5), "{login}");
        let why = frames(&uri, &name("none.pem")).unwrap_err();
        assert!(why.contains("none.pem\" is no file") && why.contains("\"system\" or \"any\""), "{why}");
    }
}

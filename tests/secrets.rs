//! Passwords and tokens of sources never appear in anything shown or written.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::skip::{Needs, skip};
use common::{ENCODER, TestDir, search_first, tree};

const SECRET: &str = "Sekret1";
/// As people write them: with what belongs into an address as %23 and friends, without a slash, in a query, in a path. Nothing
/// listens there.
const ADDRESSES: [&str; 12] = [
    "rtsp://admin:Pa#Sekret1@127.0.0.1:9/x",
    "rtsp://admin:Pa/Sekret1@127.0.0.1:9/x",
    "rtsp://admin:Pa?Sekret1@127.0.0.1:9/x",
    "rtsp://admin:Pa<Sekret1>@127.0.0.1:9/x",
    "rtsp://admin:Pa Sekret1@127.0.0.1:9/x",
    "rtsp://admin:Pa'Sekret1\"@127.0.0.1:9/x",
    "rtsp:/admin:Sekret1@127.0.0.1:9/x",
    "rtsp:admin:Sekret1@127.0.0.1:9/x",
    "rtsp://127.0.0.1:9/x?usr=admin&pass=Sekret1",
    "rtsp://127.0.0.1:9/x?a=b&TOKEN=Sekret1#top",
    "rtsp://127.0.0.1:9/user=admin&psw=Sekret1&c=1",
    "rtsp://127.0.0.1:9/user=admin_password=Sekret1_channel=1.sdp",
];

#[test]
fn no_message_of_any_verb_has_the_password() {
    let place = TestDir::new();
    for address in ADDRESSES {
        let calls = [
            vec!["-vv", "embed", "--source", address, "--encoder", ENCODER, "--out", "new"],
            vec!["-vv", "learn", "--source", address, "--encoder", ENCODER, "--out", "new"],
            vec!["-vv", "search", "--run", "none", "--image", address],
            // In the wrong place: the command line is repeated, or taken for a path.
            vec!["embed", "--source", "pattern://1", "--encoder", address, "--out", "new"],
            vec!["embed", address],
            vec!["learn", "--source", address],
        ];
        for call in calls {
            let ran = place.run(&call);
            assert!(!ran.status.success() && !ran.err.is_empty(), "{call:?}");
            assert!(!ran.err.contains(SECRET) && !ran.out.contains(SECRET), "{call:?} says {}", ran.err);
        }
    }
    assert!(!place.at("new").exists(), "{:?}", tree(&place.at("new")).keys());
}

#[test]
fn nothing_of_a_run_has_the_password() {
    let place = TestDir::new();
    // Stands in for ffmpeg: the real one, with pictures of its own in place of the camera's.
    let stub = "#!/bin/bash\nargs=()\nwhile [ $# -gt 0 ]; do case $1 in\n\
                -rtsp_transport | -safe | -protocol_whitelist) shift ;;\n\
                -f) if [ $2 = concat ]; then shift; else args+=(-f); fi ;;\n\
                -i) shift; args+=(-re -f lavfi -i testsrc2=size=64x48:rate=50) ;;\n\
                *) args+=(\"$1\") ;; esac; shift; done\nexec REAL \"${args[@]}\"\n";
    let path = std::env::var_os("PATH").unwrap();
    let mut real = std::env::split_paths(&path).map(|folder| folder.join("ffmpeg"));
    let Some(real) = real.find(|path| path.exists()) else {
        return skip(Needs::Ffmpeg, "ffmpeg is not installed");
    };
    fs::create_dir(place.at("stub")).unwrap();
    fs::write(place.at("stub/ffmpeg"), stub.replace("REAL", real.to_str().unwrap())).unwrap();
    fs::set_permissions(place.at("stub/ffmpeg"), fs::Permissions::from_mode(0o755)).unwrap();
    for address in ["rtsp://admin:Sekret1@127.0.0.1:9/x", "rtsp://127.0.0.1:9/x?usr=admin&pass=Sekret1"] {
        let call = ["-vv", "learn", "--source", address, "--encoder", ENCODER, "--out", "run", "--json"];
        let stub = place.at("stub");
        let mut running = place.start_with(&call, search_first(stub.as_os_str()));
        running.wait("to write rows", |_| {
            let open = fs::read_dir(place.at("run/embeddings")).into_iter().flatten().flatten();
            open.count() > 0
        });
        running.signal("TERM");
        let ran = running.end().ok();
        assert!(!ran.err.contains(SECRET) && !ran.out.contains(SECRET), "{}\n{}", ran.err, ran.out);
        let files = tree(&place.at("run"));
        assert!(files.contains_key("run.json") && files.contains_key("journal.jsonl"));
        for (name, bytes) in files {
            assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{name}");
        }
        fs::remove_dir_all(place.at("run")).unwrap();
    }
}

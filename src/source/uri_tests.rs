use super::*;

fn refused(text: &str) -> String {
    let error = Uri::parse(text).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{text}");
    error.chain()
}

#[test]
fn every_kind_is_known() {
    let camera = |path: &str| Uri::Camera(CameraSelector::Path(path.into()));
    assert_eq!(Uri::parse("v4l2:///dev/video0").unwrap(), camera("/dev/video0"));
    assert_eq!(Uri::parse("V4L2:/dev/video1").unwrap(), camera("/dev/video1"));
    for text in ["v4l2:3", "v4l2://3"] {
        assert_eq!(Uri::parse(text).unwrap(), camera("/dev/video3"));
    }
    assert_eq!(Uri::parse("v4l2:name=HD Cam: C9").unwrap(), Uri::Camera(CameraSelector::Name("HD Cam: C9".into())));
    assert_eq!(Uri::parse("v4l2:bus=usb-1.2").unwrap(), Uri::Camera(CameraSelector::Bus("usb-1.2".into())));
    assert_eq!(Uri::parse("csi://1").unwrap(), Uri::Csi(1));
    let network = "rtsp://user:p@ss@host:554/a?b=c";
    assert_eq!(Uri::parse(network).unwrap(), Uri::Rtsp(network.into()));
    for address in ["http://me:p@host:80/a?b=c", "https://host/live.m3u8"] {
        assert_eq!(Uri::parse(address).unwrap(), Uri::Http(address.into()));
    }
    let pipeline = "videotestsrc pattern=ball ! queue";
    assert_eq!(Uri::parse(&format!("gst: {pipeline}")).unwrap(), Uri::Gst(format!("gst:{pipeline}").into()));
    assert_eq!(Uri::parse("dir:///frames").unwrap(), Uri::Folder("/frames".into()));
    assert_eq!(Uri::parse("dir:frames/a").unwrap(), Uri::Folder("frames/a".into()));
    assert_eq!(Uri::parse("file:///a b%20.mp4").unwrap(), Uri::Video("/a b%20.mp4".into()));
    assert_eq!(Uri::parse("/dev/video12").unwrap(), camera("/dev/video12"));
    assert_eq!(Uri::parse("/dev/video").unwrap(), Uri::Path("/dev/video".into()));
    assert_eq!(Uri::parse("frames").unwrap(), Uri::Path("frames".into()));
    assert_eq!((Uri::parse("-").unwrap(), Uri::parse("./-").unwrap()), (Uri::Input, Uri::Path("./-".into())));
    assert_eq!(Uri::parse("clip:1.mp4").unwrap(), Uri::Path("clip:1.mp4".into()));
    let Uri::Pattern(recipe) =
        Uri::parse("pattern://7?frames=30&rate=12.5&width=64&height=48&segments=3&live=true").unwrap()
    else {
        unreachable!()
    };
    let expected =
        SyntheticSpec { seed: 7, frames: Some(30), rate: 12.5, width: 64, height: 48, segments: Some(3), live: true };
    assert_eq!(recipe, expected);
}

#[test]
fn unknown_and_incomplete_names_are_refused_with_what_is_known() {
    let message = refused("ftp://me:secret@host/clip.mp4");
    assert!(message.contains("unknown kind of source `ftp:`") && message.contains("pattern://SEED"), "{message}");
    assert!(!message.contains("secret"), "{message}");
    assert!(refused("").contains("empty"));
    assert!(refused("dir://").contains("names no path"));
    for text in ["v4l2://", "v4l2:name=", "v4l2:bus="] {
        assert!(refused(text).contains("names no device"));
    }
    assert!(refused("v4l2:///dev/video0?width=9").contains("source.camera_width"));
    for text in ["csi://", "csi://x", "csi://64"] {
        assert!(refused(text).contains("0 to 63"));
    }
    assert!(refused("http:///x").contains("http://HOST/PATH"));
    for text in ["rtsp://", "rtsp:host", "rtsp://me:secret@/x", "rtsp://host/a b"] {
        let message = refused(text);
        assert!(message.contains("rtsp://HOST/PATH") && !message.contains("secret"), "{message}");
    }
    assert!(refused("gst: ").contains("names no pipeline"));
}

#[test]
fn characters_that_end_an_address_are_to_be_escaped() {
    for sign in ["#", "/", "?"] {
        let message = refused(&format!("rtsp://admin:Pa{sign}Sekret1@10.0.0.1:9/x"));
        assert!(message.contains("%23") && message.contains("%2F") && !message.contains("Sekret1"), "{message}");
    }
    for text in ["rtsp://10.0.0.1:9/x", "rtsp://[::1]:9/a@b", "rtsp://a:b%23c@10.0.0.1/x?y=1", "rtsp://10.0.0.1/a@b"] {
        assert!(Uri::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn all_mistakes_of_a_pattern_are_told_at_once() {
    let message = refused("pattern://x?frames=0&colour=red&rate=nan&frames=2&live=maybe&width=9999999");
    for part in ["seed `x`", "frames", "colour", "rate", "twice", "live", "width", "segments"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(refused("pattern://1?frames=10&segments=11").contains("segments"));
    assert!(refused("pattern://1?frames").contains("frames"));
    assert!(refused("pattern://-1").contains("seed"));
}

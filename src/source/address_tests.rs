//! Secrets in every place where people put them.
use proptest::prelude::*;

use super::Address;
use crate::source::uri::Uri;

fn shown(text: &str) -> String {
    Address::new(text).to_string()
}

#[test]
fn what_is_shown_has_no_secret_and_all_the_rest() {
    for (text, right) in [
        ("rtsp://user:secret@host:554/a", "rtsp://user:***@host:554/a"),
        ("rtsp://user:se@cret@host", "rtsp://user:***@host"),
        ("rtsp://user:se#cr/et?x@host/a", "rtsp://user:***@host/a"),
        ("rtsp:/user:secret@host/a", "rtsp:/user:***@host/a"),
        ("rtsp:user:secret@host/a", "rtsp:user:***@host/a"),
        ("rtsp//user:secret@host/a", "rtsp//user:***@host/a"),
        ("user:secret@host/a", "user:***@host/a"),
        ("\"rtsp://user:secret@host/a\"", "\"rtsp:***@host/a\""),
        (" rtsp://h/x?pass=secret", " rtsp://h/x?pass=***"),
        ("rtsp://token@host/a", "rtsp://***@host/a"),
        ("rtsp://host:554/a", "rtsp://host:554/a"),
        ("rtsp://h/cam?user=a&Password=secret&n=1", "rtsp://h/cam?user=a&Password=***&n=1"),
        ("rtsp://h/cam?user=a&p%61ss=se&cret&n=1", "rtsp://h/cam?user=a&p%61ss=***&***&n=1"),
        ("rtsp://h/user=admin&psw=secret&c=1", "rtsp://h/user=admin&psw=***&c=1"),
        ("rtsp://h/user=admin_password=secret_channel=1.sdp", "rtsp://h/user=admin_password=***"),
        ("https://h/live.m3u8?access_token=se/c?r#et", "https://h/live.m3u8?access_token=***"),
        ("gst:rtspsrc user-id=me user-pw=secret ! x", "gst:rtspsrc user-id=me user-pw=*** ! x"),
        ("gst:rtspsrc user-pw=\"se cret\" ! x", "gst:rtspsrc user-pw=*** ! x"),
        ("gst:a location=\"rtsp://u:se cret@h/x\" ! b", "gst:a location=\"rtsp://u:***@h/x\" ! b"),
        ("gst:a user-pw=\"se cret", "gst:a user-pw=***"),
        ("gst:a ! video/x-raw,width=64 ! queue", "gst:a ! video/x-raw,width=64 ! queue"),
        ("dir:///camera=1/key=2", "dir:///camera=1/key=2"),
        ("/data/key=2/a@b:c", "/data/key=2/a@b:c"),
        ("clip:1.mp4", "clip:1.mp4"),
        ("file:///a:b@c", "file:///a:b@c"),
        ("a\nb", "a\\nb"),
    ] {
        assert_eq!(shown(text), right);
        assert_eq!(Address::new(text).reveal(), text);
    }
}

#[test]
fn words_of_others_lose_the_secret_in_every_form() {
    let address = Address::new("rtsp://me:Pa%23Sek ret@host/a?token=T0ken");
    let words = "opening rtsp://me:Pa%23Sek ret@host failed; pw Pa#Sek ret; T0ken of `ret@host`";
    assert_eq!(address.scrub(words), "opening rtsp://me:***@host failed; pw ***; *** of `***@host`");
    let short = Address::new("rtsp://me:a@host");
    assert_eq!(short.scrub("a camera at rtsp://me:a@host"), "a camera at rtsp://me***host");
}

/// Addresses with `secret` in all the places where people write it.
fn places(secret: &str) -> Vec<String> {
    vec![
        format!("rtsp://admin:{secret}@10.0.0.1:554/x"),
        format!("rtsp:/admin:{secret}@10.0.0.1/x"),
        format!("rtsps:admin:{secret}@10.0.0.1/x"),
        format!("rtsp//admin:{secret}@10.0.0.1/x"),
        format!("admin:{secret}@10.0.0.1/x"),
        format!("rtsp://10.0.0.1/x?usr=admin&pass={secret}"),
        format!("rtsp://10.0.0.1/user=admin&psw={secret}&c=1"),
        format!("rtsp://10.0.0.1/x?auth_token={secret}"),
        format!("rtsp://admin:other@10.0.0.1/x?api-key={secret}"),
        format!("http://admin:{secret}@10.0.0.1/video"),
        format!("https://10.0.0.1/live.m3u8?sig={secret}&x=1"),
        format!("mqtt://me:{secret}@hub"),
        format!("gst:rtspsrc location=\"rtsp://a:{secret}@h/x\" ! x"),
        format!("gst:rtspsrc location=rtsp://h/x user-pw=\"{secret}\" ! x"),
    ]
}

proptest! {
    #[test]
    fn no_secret_is_ever_shown(inner in "[A-Za-z0-9#/?<>@:&%!* ,;~-]{0,12}", tail in "[#/?@:& ]{0,2}") {
        // Two markers, one in each half, that do not occur in the rest of the line: neither may survive.
        let secret = format!("QzX7{inner}W9kY{tail}");
        for text in places(&secret) {
            let address = Address::new(&text);
            let words = format!("cannot open {text}: {} {secret}", super::unescaped(&secret));
            let (parsed, error) = match Uri::parse(&text) {
                Ok(uri) => (format!("{uri:?}"), String::new()),
                Err(error) => (format!("{error:?}"), error.chain()),
            };
            for out in [address.to_string(), format!("{address:?}"), address.shown(), address.scrub(&words), parsed, error] {
                prop_assert!(!out.contains("QzX7") && !out.contains("W9kY"), "{} -> {}", text, out);
            }
            prop_assert_eq!(address.reveal(), text.as_str());
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}", words in "\\PC{0,60}") {
        let address = Address::new(&text);
        address.scrub(&words);
        prop_assert_eq!(!Address::new(&address.shown()).shown().is_empty(), !text.is_empty());
    }
}

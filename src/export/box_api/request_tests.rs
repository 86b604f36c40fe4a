#![allow(clippy::unwrap_used, reason = "tests")]
use std::sync::{Arc, Mutex};

use super::super::connection::ConnectionLimit;
use super::super::response::ResponseSink;
use super::*;

/// Records the answers as text.
#[derive(Debug, Default, Clone)]
struct Kept(Arc<Mutex<Vec<String>>>);

impl ResponseSink for Kept {
    fn send(&self, answer: &BoxResponse<'_>) -> crate::error::Result<()> {
        self.0.lock().unwrap().push(serde_json::to_string(answer).unwrap());
        Ok(())
    }
}

fn read(text: &str) -> (Option<BoxRequest>, Vec<String>) {
    let kept = Kept::default();
    let place = ConnectionLimit::new(1).take().unwrap();
    let request = BoxRequest::read(text.as_bytes(), None, ResponseSender::new(kept.clone()), place);
    let answers = kept.0.lock().unwrap().clone();
    (request, answers)
}

fn boxes(count: usize) -> String {
    vec![r#"{"box":[0,0,9,9]}"#; count].join(",")
}

#[test]
fn whatever_is_wrong_has_one_short_answer() {
    let long = "\\u0001".repeat(30_000);
    for (text, says) in [
        (format!(r#"{{"id":3,"boxes":[{}],"{long}":1}}"#, boxes(1)), "unknown field"),
        (format!(r#"{{"id":3,"camera":"{long}","boxes":[{}]}}"#, boxes(1000)), "no name has more than 256"),
        (format!(r#"{{"id":3,"boxes":[{}]}}"#, boxes(1001)), "more than 1000 boxes"),
        (format!(r#"{{"id":3,"boxes":[{}]}}"#, vec!["0"; 100_000].join(",")), "wanted is"),
        (format!(r#"{{"id":3,"boxes":"{long}"}}"#), "wanted is"),
        (r#"{"id":3,"boxes":[]}"#.into(), "0 boxes"),
    ] {
        let (request, answers) = read(&text);
        assert!(request.is_none() && answers.len() == 1, "{} answers", answers.len());
        let answer = &answers[0];
        assert!(answer.len() < 1000 && answer.contains(says) && answer.contains(r#""id":3"#), "{answer}");
        assert!(answer.contains("bad-request") && !answer.contains("index"), "{answer}");
    }
    let (_, answers) = read(&"[".repeat(200_000));
    assert!(answers.len() == 1 && answers[0].len() < 500, "{answers:?}");
}

#[test]
fn as_many_boxes_as_are_allowed_are_taken() {
    let (request, answers) = read(&format!(r#"{{"id":5,"camera":"{}","boxes":[{}]}}"#, "x".repeat(256), boxes(1000)));
    let request = request.unwrap();
    assert_eq!((request.id, request.boxes.len(), answers.len()), (5, 1000, 0));
    let whole = vec![r#"{"box":[1010.25,1020.25,1110.5,1220.75],"track":123456,"class":17,"score":0.987654}"#; 1000];
    assert!(format!(r#"{{"boxes":[{}]}}"#, whole.join(", ")).len() < MAX_BYTES);
}

#[test]
fn places_are_given_back() {
    let places = ConnectionLimit::new(2);
    let (first, second) = (places.take(), places.take());
    assert!(first.is_some() && second.is_some() && places.take().is_none());
    drop(first);
    assert!(places.take().is_some());
}

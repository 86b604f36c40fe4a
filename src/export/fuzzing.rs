//! The parsers of untrusted bytes in this module, for [`crate::fuzzing`].
use super::box_api::{BoxRequest, BoxResponse, ConnectionLimit, ResponseSender, ResponseSink};
use crate::error::Result;

/// Maximum size of an answer in bytes: it must not echo a long request.
const MAX_ANSWER: usize = 1 << 16;

/// Discards answers to a client that is not there.
#[derive(Debug)]
struct Nowhere;

impl ResponseSink for Nowhere {
    fn send(&self, answer: &BoxResponse<'_>) -> Result<()> {
        let length = answer.bytes()?.len();
        assert!(length <= MAX_ANSWER, "an answer of {length} bytes");
        Ok(())
    }
}

/// Parses a box request; `camera` comes from the broker's topic, if there is one.
pub(crate) fn box_request(text: &[u8], camera: Option<&str>) -> Option<BoxRequest> {
    ConnectionLimit::new(1).take().and_then(|place| BoxRequest::read(text, camera, ResponseSender::new(Nowhere), place))
}

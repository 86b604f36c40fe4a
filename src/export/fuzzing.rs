//! What of this module reads bytes of others, for [`crate::fuzzing`].
use super::box_api::{BoxRequest, BoxResponse, ConnectionLimit, ResponseSender, ResponseSink};
use crate::error::Result;

/// An answer may be as long as this, bytes: no echo of a long request.
const MAX_ANSWER: usize = 1 << 16;

/// Where answers end whose asker is not there.
#[derive(Debug)]
struct Nowhere;

impl ResponseSink for Nowhere {
    fn send(&self, answer: &BoxResponse<'_>) -> Result<()> {
        let length = answer.bytes()?.len();
        assert!(length <= MAX_ANSWER, "an answer of {length} bytes");
        Ok(())
    }
}

/// A detector's request; `camera` where the topic of a broker names it.
pub(crate) fn box_request(text: &[u8], camera: Option<&str>) -> Option<BoxRequest> {
    ConnectionLimit::new(1).take().and_then(|place| BoxRequest::read(text, camera, ResponseSender::new(Nowhere), place))
}

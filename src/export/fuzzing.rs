//! What of this module reads bytes of others, for [`crate::fuzzing`].
use super::asked::{Answer, Places, Reply, Request, Way};
use crate::error::Result;

/// An answer may be as long as this, bytes: no echo of a long request.
const MAX_ANSWER: usize = 1 << 16;

/// Where answers end whose asker is not there.
#[derive(Debug)]
struct Nowhere;

impl Way for Nowhere {
    fn send(&self, answer: &Answer<'_>) -> Result<()> {
        let length = answer.bytes()?.len();
        assert!(length <= MAX_ANSWER, "an answer of {length} bytes");
        Ok(())
    }
}

/// A detector's request; `camera` where the topic of a broker names it.
pub(crate) fn box_request(text: &[u8], camera: Option<&str>) -> Option<Request> {
    Places::new(1).take().and_then(|place| Request::read(text, camera, Reply::new(Nowhere), place))
}

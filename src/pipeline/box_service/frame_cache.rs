//! The newest frames, for boxes that come later.
use std::collections::VecDeque;
use std::sync::Arc;

use crate::export::box_api::FrameSelector;
use crate::frame::Frame;
use crate::learner::Snapshot;

/// How far from the wanted time the nearest frame may lie.
const NEAR_NS: u64 = 500_000_000;

/// What is kept of a frame.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct CachedFrame {
    /// With pixels, where boxes are cut out of it.
    pub(in crate::pipeline) frame: Frame,
    /// Its unit latent, where boxes are pooled from it.
    pub(in crate::pipeline) latent: Vec<f32>,
    /// Left, top, width and height of the part of it that was encoded.
    pub(in crate::pipeline) region: [f64; 4],
    pub(in crate::pipeline) wall_ns: Option<i64>,
    pub(in crate::pipeline) segment: u64,
    /// The head that embedded it.
    pub(in crate::pipeline) snapshot: Option<Arc<Snapshot>>,
}

impl CachedFrame {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.frame.pixels.len() + size_of_val(self.latent.as_slice())
    }
}

/// As many frames as fit, oldest first.
#[derive(Debug)]
pub(super) struct FrameCache {
    frames: VecDeque<Arc<CachedFrame>>,
    bytes: usize,
    max_bytes: usize,
}

/// The result of looking for a frame.
#[derive(Debug)]
pub(super) enum CacheLookup {
    Here(Arc<CachedFrame>),
    /// It may still come.
    NotYet,
    /// It was probably here; the number of the oldest frame that still is.
    Gone(u64),
    /// Later frames have come: it was dropped.
    Never,
}

impl FrameCache {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, max_bytes }
    }

    /// Adds the newest frame; the frames that make room for it, for their buffers. The newest always stays.
    pub(super) fn push(&mut self, kept: CachedFrame) -> Vec<CachedFrame> {
        self.bytes += kept.bytes();
        self.frames.push_back(Arc::new(kept));
        let mut gone = Vec::new();
        while self.bytes > self.max_bytes && self.frames.len() > 1 {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.bytes();
            // A frame that is still in use is dropped by its user.
            gone.extend(Arc::into_inner(oldest));
        }
        gone
    }

    /// The frame of `camera` that `at` selects. `late`: it is no use to wait for a better one.
    pub(super) fn find(&self, camera: u16, at: FrameSelector, late: bool) -> CacheLookup {
        let mut of_camera = self.frames.iter().filter(|kept| kept.frame.camera == camera);
        let Some(oldest) = of_camera.clone().next() else { return CacheLookup::NotYet };
        let newest = of_camera.clone().next_back().unwrap_or(oldest);
        match at {
            FrameSelector::Newest => CacheLookup::Here(newest.clone()),
            FrameSelector::Frame(number) if number > newest.frame.index => CacheLookup::NotYet,
            FrameSelector::Frame(number) if number < oldest.frame.index => CacheLookup::Gone(oldest.frame.index),
            FrameSelector::Frame(number) => of_camera
                .find(|kept| kept.frame.index == number)
                .map_or(CacheLookup::Never, |kept| CacheLookup::Here(kept.clone())),
            FrameSelector::Wall(wall) => {
                if !late && newest.wall_ns.is_some_and(|newest| newest < wall) {
                    return CacheLookup::NotYet;
                }
                let far = |kept: &CachedFrame| kept.wall_ns.map_or(u64::MAX, |there| there.abs_diff(wall));
                match of_camera.min_by_key(|kept| far(kept)) {
                    Some(kept) if far(kept) <= NEAR_NS => CacheLookup::Here(kept.clone()),
                    _ if oldest.wall_ns.is_some_and(|oldest| wall < oldest) => CacheLookup::Gone(oldest.frame.index),
                    _ => CacheLookup::Never,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(camera: u16, index: u64, wall_ms: i64) -> CachedFrame {
        let frame = Frame { camera, index, pixels: vec![0; 1000], ..Frame::default() };
        CachedFrame { frame, wall_ns: Some(wall_ms * 1_000_000), ..CachedFrame::default() }
    }

    /// The number of the frame that is found, or the first letter of why there is none.
    fn found(cache: &FrameCache, camera: u16, at: FrameSelector, late: bool) -> Result<u64, &'static str> {
        match cache.find(camera, at, late) {
            CacheLookup::Here(kept) => Ok(kept.frame.index),
            CacheLookup::NotYet => Err("not yet"),
            CacheLookup::Gone(oldest) => Err(if oldest == 4 { "gone" } else { "gone, but another is the oldest" }),
            CacheLookup::Never => Err("never"),
        }
    }

    #[test]
    fn frames_are_found_by_number_and_by_the_clock_while_they_are_there() {
        let room = 3 * kept(0, 0, 0).bytes();
        let mut cache = FrameCache::new(room);
        assert_eq!(found(&cache, 0, FrameSelector::Newest, true), Err("not yet"));
        let mut gone = Vec::new();
        for (index, wall) in [(2, 200), (3, 300), (4, 400), (6, 1200), (7, 1300)] {
            gone.extend(cache.push(kept(0, index, wall)));
        }
        assert_eq!(gone.iter().map(|kept| kept.frame.index).collect::<Vec<_>>(), [2, 3]);
        let number = |number| found(&cache, 0, FrameSelector::Frame(number), false);
        assert_eq!([number(3), number(4), number(5)], [Err("gone"), Ok(4), Err("never")]);
        assert_eq!([number(7), number(8)], [Ok(7), Err("not yet")]);
        assert_eq!(
            (found(&cache, 0, FrameSelector::Newest, false), found(&cache, 1, FrameSelector::Newest, false)),
            (Ok(7), Err("not yet"))
        );
        let wall = |ms: i64, late| found(&cache, 0, FrameSelector::Wall(ms * 1_000_000), late);
        assert_eq!([wall(440, false), wall(1240, false), wall(1300, false)], [Ok(4), Ok(6), Ok(7)]);
        // What is near enough to the oldest is that; from another day, nothing.
        assert_eq!([wall(100, false), wall(-200, false)], [Ok(4), Err("gone")]);
        assert_eq!([wall(1310, false), wall(1310, true), wall(9000, true)], [Err("not yet"), Ok(7), Err("never")]);
    }

    #[test]
    fn the_newest_stays_however_large_it_is() {
        let mut cache = FrameCache::new(10);
        assert!(cache.push(kept(0, 1, 1)).is_empty());
        assert_eq!(cache.push(kept(0, 2, 2)).len(), 1);
        assert_eq!(found(&cache, 0, FrameSelector::Newest, false), Ok(2));
    }
}

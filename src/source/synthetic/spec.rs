//! The options of a synthetic source, and their ranges.

/// Default number of frames, divided into [`SEGMENTS`].
const FRAMES: u64 = 300;
const SEGMENTS: u64 = 20;

/// The options of `pattern://SEED?...`.
#[derive(Debug, Clone, PartialEq)]
pub struct SyntheticSpec {
    /// Seed of everything that is random.
    pub seed: u64,
    /// Total number of frames, divided into `segments`. `None`: 300, or endless (segments of the same length) when
    /// live.
    pub frames: Option<u64>,
    /// Frames per second.
    pub rate: f64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Number of segments that the frames are divided into, as evenly as possible. `None`: 20, or one per frame if
    /// there are fewer frames.
    pub segments: Option<u64>,
    /// Paced like a camera; drops frames that nobody takes in time.
    pub live: bool,
}

impl Default for SyntheticSpec {
    fn default() -> Self {
        Self { seed: 0, frames: None, rate: 10.0, width: 160, height: 120, segments: None, live: false }
    }
}

impl SyntheticSpec {
    /// Sets one option from text; [`SyntheticSpec::check`] checks the range.
    /// # Errors
    /// An unknown option, or a value of the wrong type; the message says which.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, String> {
            value.parse().map_err(|_| format!("`{key}={value}`: not a number that {key} can have"))
        }
        match key {
            "frames" => self.frames = Some(number(key, value)?),
            "rate" => self.rate = number(key, value)?,
            "width" => self.width = number(key, value)?,
            "height" => self.height = number(key, value)?,
            "segments" => self.segments = Some(number(key, value)?),
            "live" => self.live = value.parse().map_err(|_| format!("`live={value}`: true or false is wanted"))?,
            _ => {
                let known = "frames, rate, width, height, segments, live";
                return Err(format!("unknown option `{key}`; known are {known}"));
            }
        }
        Ok(())
    }

    /// A message for each value out of range. The comparisons treat NaN as out of range.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut range = |key: &str, value: f64, least: f64, most: f64| {
            if !(least..=most).contains(&value) {
                problems.push(format!("`{key}={value}` is out of range ({least} to {most})"));
            }
        };
        range("frames", self.period() as f64, 1.0, 1e9);
        range("rate", self.rate, 0.001, 1000.0);
        range("width", f64::from(self.width), 16.0, 4096.0);
        range("height", f64::from(self.height), 16.0, 4096.0);
        range("segments", self.segments() as f64, 1.0, (self.period() as f64).clamp(1.0, 1e9));
        problems
    }

    /// Total number of frames; `None` for an endless source.
    pub fn length(&self) -> Option<u64> {
        if self.live { self.frames } else { Some(self.period()) }
    }

    /// The number of frames that `segments` divide.
    fn period(&self) -> u64 {
        self.frames.unwrap_or(FRAMES)
    }

    /// The number of segments that they are divided into.
    fn segments(&self) -> u64 {
        self.segments.unwrap_or(SEGMENTS.min(self.period()).max(1))
    }

    /// Segment of the frame at `index`.
    pub(super) fn segment(&self, index: u64) -> u64 {
        let segment = u128::from(index) * u128::from(self.segments()) / u128::from(self.period().max(1));
        u64::try_from(segment).unwrap_or(u64::MAX)
    }

    /// Index of the first frame of `segment`.
    pub(super) fn first_of(&self, segment: u64) -> u64 {
        let first = (u128::from(segment) * u128::from(self.period())).div_ceil(u128::from(self.segments().max(1)));
        u64::try_from(first).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_divide_the_frames() {
        let recipe = SyntheticSpec { frames: Some(23), segments: Some(4), ..SyntheticSpec::default() };
        assert!(recipe.check().is_empty());
        let mut last = 0;
        for index in 0..23 {
            let segment = recipe.segment(index);
            assert!(recipe.first_of(segment) <= index && index < recipe.first_of(segment + 1));
            assert!(segment == last || segment == last + 1);
            last = segment;
        }
        assert_eq!(last, 3);
    }

    #[test]
    fn few_frames_have_few_segments_unless_more_are_asked_for() {
        for (frames, segments) in [(1, 1), (7, 7), (20, 20), (21, 20), (300, 20)] {
            let recipe = SyntheticSpec { frames: Some(frames), ..SyntheticSpec::default() };
            assert!(recipe.check().is_empty(), "{frames}: {:?}", recipe.check());
            assert_eq!(recipe.segment(frames - 1) + 1, segments, "{frames}");
        }
        let asked = SyntheticSpec { frames: Some(7), segments: Some(8), ..SyntheticSpec::default() };
        assert!(asked.check().iter().any(|problem| problem.contains("segments")), "{:?}", asked.check());
    }

    #[test]
    fn ranges_hold_and_live_without_frames_has_no_end() {
        let bad = SyntheticSpec { rate: f64::NAN, width: 0, frames: Some(0), ..SyntheticSpec::default() };
        assert_eq!(bad.check().len(), 3, "{:?}", bad.check());
        assert_eq!(SyntheticSpec::default().length(), Some(300));
        assert_eq!(SyntheticSpec { live: true, ..SyntheticSpec::default() }.length(), None);
        assert_eq!(SyntheticSpec { live: true, frames: Some(9), ..SyntheticSpec::default() }.length(), Some(9));
    }
}

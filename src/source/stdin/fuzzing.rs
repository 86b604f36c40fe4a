//! Entry points of this module that parse untrusted bytes, for [`crate::fuzzing`].
use std::io::{self, Cursor, Read};
use std::time::Duration;

use super::image_splitter::{ImageSplitter, JPEG, PNG, SplitItem};
use crate::config;
use crate::frame::Frame;
use crate::source::Pull;

/// Returns at most `step` bytes at once, as a pipe does.
struct InSteps<'a> {
    left: &'a [u8],
    step: usize,
}

impl Read for InSteps<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = self.step.min(out.len());
        self.left.read(&mut out[..most])
    }
}

/// Splits a stream into images, reading as many bytes at once as the first byte says; returns the number of images.
pub(crate) fn cut_pictures(bytes: &[u8]) -> usize {
    let Some((step, stream)) = bytes.split_first() else { return 0 };
    let mut cutter = ImageSplitter::new(InSteps { left: stream, step: usize::from(*step).max(1) });
    let mut pictures = 0;
    while let SplitItem::Picture(picture) = cutter.next() {
        assert!(!picture.is_empty(), "an empty picture");
        pictures += 1;
        assert!(pictures <= bytes.len(), "more pictures than bytes");
    }
    pictures
}

/// Decodes images from standard input to frames; returns the number of frames. No video: that would start a decoder.
pub(crate) fn piped_pictures(bytes: &[u8]) -> usize {
    if !bytes.starts_with(JPEG) && !bytes.starts_with(PNG) && !super::multipart(bytes) {
        return 0;
    }
    let Ok(mut source) = super::open(Cursor::new(bytes.to_vec()), &config::Source::default()) else { return 0 };
    let mut frame = Frame::default();
    let mut frames = 0;
    loop {
        match source.next(&mut frame, Duration::from_secs(5)) {
            Ok(Pull::Frame) => frames += 1,
            Ok(Pull::Idle) => {}
            Ok(Pull::End) | Err(_) => return frames,
        }
    }
}

//! A source of images from a byte stream.
use std::io::Read;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::NAME;
use super::image_splitter::{ImageSplitter, SplitItem};
use crate::config;
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::source::image_decode::decode;
use crate::source::{Pull, Source, SourceCounts, stamp_at, unreadable};

/// Number of images that may wait; the stream blocks when it is ahead.
const WAITING: usize = 2;

/// The images of a stream, read on their own thread, at `source.frame_rate` frames per second.
#[derive(Debug)]
pub(super) struct ImageStream {
    cuts: Receiver<SplitItem>,
    rate: f64,
    /// Position of the next image.
    index: u64,
    over: bool,
    counts: SourceCounts,
}

impl ImageStream {
    /// Starts the reading thread.
    /// # Errors
    /// A runtime error: the thread cannot be started.
    pub(super) fn start(stream: impl Read + Send + 'static, config: &config::Source) -> Result<Self> {
        let (send, cuts) = bounded(WAITING);
        let work = move || {
            let mut cutter = ImageSplitter::new(stream);
            loop {
                let cut = cutter.next();
                let last = !matches!(cut, SplitItem::Picture(_));
                if send.send(cut).is_err() || last {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("pictures".into()).spawn(work);
        thread.map_err(|e| Error::runtime("cannot start the thread that reads pictures").with_source(e))?;
        Ok(Self { cuts, rate: config.frame_rate, index: 0, over: false, counts: SourceCounts::default() })
    }

    fn end(&mut self, broken: Option<String>) -> Result<Pull> {
        self.over = true;
        let count = self.counts.frames;
        match broken {
            Some(why) if count == 0 => {
                Err(Error::runtime(format!("the stream of pictures {NAME} gave no whole picture: {why}")))
            }
            None if count == 0 => Err(Error::runtime(format!(
                "none of the {} pictures {NAME} can be read; the first ones are named above",
                self.counts.unreadable
            ))),
            Some(why) => {
                self.counts.unreadable += 1;
                tracing::warn!("the stream of pictures {NAME} broke off after {count} pictures: {why}");
                Ok(Pull::End)
            }
            None => Ok(Pull::End),
        }
    }
}

impl Source for ImageStream {
    fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        if self.over {
            return Ok(Pull::End);
        }
        let bytes = match self.cuts.recv_timeout(wait) {
            Ok(SplitItem::Picture(bytes)) => bytes,
            Ok(SplitItem::End) => return self.end(None),
            Ok(SplitItem::Broken(why)) => return self.end(Some(why)),
            Err(RecvTimeoutError::Timeout) => return Ok(Pull::Idle),
            Err(RecvTimeoutError::Disconnected) => return self.end(Some("the thread that reads it ended".into())),
        };
        let index = self.index;
        self.index += 1;
        if let Err(error) = decode(&bytes, frame) {
            // As in a folder, it leaves a gap in positions and timestamps.
            self.counts.unreadable += 1;
            let error = Error::runtime(format!("picture {index} {NAME}")).with_source(error);
            unreadable::tell(self.counts.unreadable, &error);
            return Ok(Pull::Idle);
        }
        (frame.index, frame.stamp, frame.cut, frame.arrived) = (index, stamp_at(index, self.rate), false, None);
        self.counts.frames += 1;
        Ok(Pull::Frame)
    }

    fn skip_to(&mut self, index: u64) -> Result<()> {
        if index == 0 {
            return Ok(());
        }
        Err(Error::usage(format!("frames {NAME} come once: going on at frame {index} needs a file or a folder")))
    }

    fn live(&self) -> bool {
        false
    }

    fn counts(&self) -> SourceCounts {
        self.counts.clone()
    }
}

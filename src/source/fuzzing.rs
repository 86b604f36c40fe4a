//! What of this module reads bytes of others, for [`crate::fuzzing`].
pub(crate) use super::camera::fuzzing::camera_buffer;
pub(crate) use super::child::fuzzing::{decoder_header, matroska, nut, ppm, video_kind};
pub(crate) use super::piped::fuzzing::{cut_pictures, piped_pictures};

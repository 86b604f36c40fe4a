//! Entry points of this module that parse untrusted bytes, for [`crate::fuzzing`].
pub(crate) use super::camera::fuzzing::camera_buffer;
pub(crate) use super::stdin::fuzzing::{cut_pictures, piped_pictures};
pub(crate) use super::subprocess::fuzzing::{decoder_header, matroska, nut, ppm, video_kind};

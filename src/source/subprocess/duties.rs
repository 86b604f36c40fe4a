//! All requirements on a decoder in one place, and the options that make each program meet them.
//!
//! | requirement | `ffmpeg` | GStreamer |
//! |---|---|---|
//! | the first video stream, not a cover picture | `-map 0:V:0` | the first pad; `decodebin` has none for covers |
//! | display orientation: rotated as the file says | by default | `videoflip video-direction=auto` |
//! | matrix and range of the stream | `-pix_fmt rgb24` | `videoconvert` to `RGB`; full-range MP4: `capssetter` |
//! | every frame once: none repeated, none dropped | `-fps_mode passthrough` | by default |
//! | each with its own timestamp | `-enc_time_base -1` into NUT | `matroskamux`, in microseconds |
//! | gaps stay gaps | `-dts_delta_threshold` | by default |
//! | frames at once, not in blocks | `-flush_packets 1` | `streamable=true` |
//! | the same size from first to last | by default | `videoscale` (files) |
//!
//! The tests check all of this for every way that a video can come.

/// ffmpeg, before the input: a jump in the times of a transport stream is elapsed time, up to three years.
pub(super) const FFMPEG_INPUT: &str = "-hide_banner -nostdin -v error -dts_delta_threshold 100000000";
/// ffmpeg: selects the stream of the input.
pub(super) const FFMPEG_FILM: &str = "-map 0:V:0 -an -sn -dn";
/// ffmpeg: the output options for frames.
pub(super) const FFMPEG_OUTPUT: &str =
    "-enc_time_base -1 -c:v rawvideo -pix_fmt rgb24 -fflags +bitexact -flush_packets 1 -f nut pipe:1";
/// Spellings of "neither repeat nor drop frames": for ffmpeg 5.1 and later, then for older versions.
pub(super) const FFMPEG_SYNC: &[&str; 2] = &["-fps_mode", "-vsync"];

/// ffmpeg, before an input that is a list of addresses: the network protocols that these may use, but no files.
pub(super) const FFMPEG_LIST: &str = "-f concat -safe 0 -protocol_whitelist \
                                      pipe,tcp,tls,udp,rtp,srtp,http,https,httpproxy,hls,crypto,data";
/// ffmpeg: a list with one `address` and its options.
pub(super) fn ffmpeg_list(address: &str, options: &[(&str, &str)]) -> String {
    // A list consists of lines, and an address contains no control characters.
    let in_line = |c: char| if c.is_ascii_control() { format!("%{:02X}", u32::from(c)) } else { c.to_string() };
    let address = address.chars().map(in_line).collect::<String>();
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let options = options.iter().map(|(name, value)| format!("option {name} {}\n", quoted(value)));
    format!("ffconcat version 1.0\nfile {}\n{}", quoted(&address), options.collect::<String>())
}

/// GStreamer: converts a decoded stream to frames.
pub(super) const GSTREAMER_PICTURE: &str = "videoconvert ! video/x-raw,format=RGB ! videoflip video-direction=auto";
/// GStreamer, before that: the colours that the container specifies and GStreamer's MP4 reader ignores.
pub(super) fn gstreamer_colours(colours: &str) -> String {
    format!("video/x-raw ! capssetter caps=video/x-raw,colorimetry={colours} ! ")
}

/// GStreamer: writes the frames; only `fdsink` follows.
pub(super) const GSTREAMER_OUTPUT: &str = "matroskamux streamable=true";
/// GStreamer 1.20 and later: timestamps finer than milliseconds.
pub(super) const GSTREAMER_TICKS: &[&str] = &["timecodescale=1000", "streamable=true"];

/// The message about a file or stream without video.
pub(in crate::source) const NO_PICTURE: &str =
    "has sound but no picture: there is no film in it (a cover picture is none)";

/// Explains the last error output of a decoder, if it does not explain itself.
pub(super) fn plainly(words: &str) -> Option<&'static str> {
    let unlinked = words.contains("reason not-linked") && !words.contains("missing a plug-in");
    (unlinked || words.contains("matches no streams")).then_some(NO_PICTURE)
}

/// True if the error output reports an option that this version of the program does not support.
pub(super) fn unknown_option(words: &str) -> bool {
    words.contains("Unrecognized option") || words.contains("no property \"timecodescale\"")
}

#[cfg(test)]
#[path = "duties_tests.rs"]
mod tests;

//! What a decoder must do, in one place, and how each program is told.
//!
//! | duty | `ffmpeg` | GStreamer |
//! |---|---|---|
//! | the film, not a cover picture; the first stream of pictures | `-map 0:V:0` | covers are no pads of `decodebin`; the first is linked |
//! | as it is looked at: turned as the file says | by itself | `videoflip video-direction=auto` |
//! | right colours: RGB by the matrix and range that the stream names | `-pix_fmt rgb24` | `videoconvert` to `RGB`; full range of an MP4: `capssetter` |
//! | every frame once: none repeated, none left out | `-fps_mode passthrough` | by itself |
//! | each with its own time | `-enc_time_base -1` into NUT | `matroskamux`, in microseconds |
//! | gaps stay gaps | `-dts_delta_threshold` | by itself |
//! | frames at once, not by the block | `-flush_packets 1` | `streamable=true` |
//! | one size from first to last | by itself | `videoscale` (files) |
//!
//! Its tests ask it of every way that a video comes.

/// Of ffmpeg, before the input: jumps of a transport stream are time that passed, up to three years.
pub(super) const FFMPEG_INPUT: &str = "-hide_banner -nostdin -v error -dts_delta_threshold 100000000";
/// Of ffmpeg, which stream of the input.
pub(super) const FFMPEG_FILM: &str = "-map 0:V:0 -an -sn -dn";
/// Of ffmpeg, the frames.
pub(super) const FFMPEG_OUTPUT: &str =
    "-enc_time_base -1 -c:v rawvideo -pix_fmt rgb24 -fflags +bitexact -flush_packets 1 -f nut pipe:1";
/// Spellings of "neither repeat nor leave out frames": that of ffmpeg 5.1 and later, then that of older ones.
pub(super) const FFMPEG_SYNC: &[&str; 2] = &["-fps_mode", "-vsync"];

/// Of ffmpeg, before an input that is a list of addresses, with the ways that these may take to the network; none to files.
pub(super) const FFMPEG_LIST: &str = "-f concat -safe 0 -protocol_whitelist \
                                      pipe,tcp,tls,udp,rtp,srtp,http,https,httpproxy,hls,crypto,data";
/// Of ffmpeg, a list of one `address` with options of its own.
pub(super) fn ffmpeg_list(address: &str, options: &[(&str, &str)]) -> String {
    // A list has lines; an address has no control characters.
    let in_line = |c: char| if c.is_ascii_control() { format!("%{:02X}", u32::from(c)) } else { c.to_string() };
    let address = address.chars().map(in_line).collect::<String>();
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let options = options.iter().map(|(name, value)| format!("option {name} {}\n", quoted(value)));
    format!("ffconcat version 1.0\nfile {}\n{}", quoted(&address), options.collect::<String>())
}

/// Of GStreamer, out of a decoded stream.
pub(super) const GSTREAMER_PICTURE: &str = "videoconvert ! video/x-raw,format=RGB ! videoflip video-direction=auto";
/// Of GStreamer, before that: the colours of a film whose container says them, which its reader of MP4 forgets.
pub(super) fn gstreamer_colours(colours: &str) -> String {
    format!("video/x-raw ! capssetter caps=video/x-raw,colorimetry={colours} ! ")
}

/// Of GStreamer, the frames, but for `fdsink`.
pub(super) const GSTREAMER_OUTPUT: &str = "matroskamux streamable=true";
/// Finer times than milliseconds: since GStreamer 1.20.
pub(super) const GSTREAMER_TICKS: &[&str] = &["timecodescale=1000", "streamable=true"];

/// What is said of a file or stream without a film.
pub(in crate::source) const NO_PICTURE: &str =
    "has sound but no picture: there is no film in it (a cover picture is none)";

/// What the last words of a decoder mean, where they do not say it themselves.
pub(super) fn plainly(words: &str) -> Option<&'static str> {
    let unlinked = words.contains("reason not-linked") && !words.contains("missing a plug-in");
    (unlinked || words.contains("matches no streams")).then_some(NO_PICTURE)
}

/// The last words tell of an option that this version of the program does not know.
pub(super) fn unknown_option(words: &str) -> bool {
    words.contains("Unrecognized option") || words.contains("no property \"timecodescale\"")
}

#[cfg(test)]
#[path = "duties_tests.rs"]
mod tests;

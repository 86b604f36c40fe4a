use super::*;
use crate::frame::Timestamp;
use crate::source::SourceCounts;

/// Frames at 1 per second; the space has one angle per frame.
fn gathered(angles: &[f32], segments: &[u64], marks_cuts: bool) -> SampledFrames {
    let latents = Array2::from_shape_fn((angles.len(), 2), |(i, j)| [angles[i].cos(), angles[i].sin()][j]);
    let place = |(i, segment): (usize, &u64)| FrameRef {
        index: 10 * i as u64,
        stamp: Timestamp(i as i64 * 1_000_000_000),
        segment: *segment,
    };
    let places = segments.iter().enumerate().map(place).collect();
    let segments = segments.last().map_or(0, |s| s + 1);
    SampledFrames {
        latents,
        places,
        marks_cuts,
        frames: angles.len() as u64,
        segments,
        source: SourceCounts::default(),
    }
}

fn shown(gathered: &SampledFrames, query: usize) -> Vec<usize> {
    let moments = ShownMoments::new(gathered, 0.5);
    let found = neighbours(gathered.latents.view(), &gathered.places, query, &moments);
    found.into_iter().map(|(i, _)| i).collect()
}

#[test]
fn the_querys_moment_is_left_out_and_others_are_shown_once() {
    // The nearest frames (1, 2) are within 2 s of the query; 6 and 7 are one moment.
    let angles = [0.0, 0.01, 0.02, 0.9, 0.8, 1.2, 0.1, 0.11, 0.7, 0.3];
    let one = gathered(&angles, &[0; 10], false);
    assert_eq!(shown(&one, 0), [6, 9, 3]);
    // A cut after frame 0 makes the following frames another scene.
    assert_eq!(shown(&gathered(&angles, &[0, 1, 1, 1, 1, 1, 1, 1, 1, 1], false), 0), [1, 6, 9]);
}

#[test]
fn where_cuts_are_marked_the_querys_own_segment_is_left_out() {
    let angles = [0.0, 0.5, 0.01, 0.02, 0.03, 0.6, 0.7, 0.8];
    let segments = [0, 0, 0, 0, 0, 1, 1, 1];
    assert_eq!(shown(&gathered(&angles, &segments, false), 0), [3, 5]);
    assert_eq!(shown(&gathered(&angles, &segments, true), 0), [5]);
    // With a single segment that would leave nothing, so only time decides.
    assert_eq!(shown(&gathered(&angles, &[0; 8], true), 0), [3, 6]);
}

#[test]
fn queries_are_spread_evenly_and_no_more_than_frames() {
    let angles: Vec<f32> = (0..20).map(|i| i as f32 / 10.0).collect();
    let gathered = gathered(&angles, &[0; 20], false);
    let spaces = [("frozen".to_owned(), gathered.latents.clone())];
    let moments = ShownMoments::new(&gathered, 0.5);
    let queries =
        |count| -> Vec<u64> { choose(&gathered, &spaces, &moments, count).iter().map(|row| row.query.frame).collect() };
    assert_eq!(queries(4), [20, 70, 120, 170]);
    assert_eq!(queries(50).len(), 20);
    let row = &choose(&gathered, &spaces, &moments, 1)[0];
    assert_eq!(row.groups[0][0].frame, 70);
    assert!((row.groups[0][0].cosine.unwrap_or(0.0) - 0.3_f32.cos()).abs() < 1e-6);
}

#[test]
fn the_picture_is_a_png_of_its_size() {
    let bytes = png(&RgbImage::new(31, 7, [1, 2, 3])).map(|bytes| image::load_from_memory(&bytes));
    let picture = bytes.ok().and_then(std::result::Result::ok).map(|p| (p.width(), p.height(), p.to_rgb8()));
    assert_eq!(picture.map(|(w, h, p)| (w, h, p.get_pixel(30, 6).0)), Some((31, 7, [1, 2, 3])));
}

#[test]
fn only_png_names_are_taken() {
    assert!(check_name(Path::new("a/b.PNG")).is_ok());
    for name in ["contact-sheet", "sheet.jpg", "."] {
        assert_eq!(check_name(Path::new(name)).map_err(|e| e.exit_code()), Err(2), "{name}");
    }
}

//! Order, cuts and unreadable images, in folders that each test creates.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::fs;

use super::*;
use crate::source::tests::all_frames;
use image::{ImageBuffer, ImageFormat, Rgb};

/// An image of a single colour; the colour tells which file a frame came from.
fn save(root: &Path, name: &str, width: u32, red: u8) -> PathBuf {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let format = if name.to_lowercase().ends_with("png") { ImageFormat::Png } else { ImageFormat::Jpeg };
    ImageBuffer::from_pixel(width, 16, Rgb([red, 60, 60])).save_with_format(&path, format).unwrap();
    path
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

/// Images at the root and in nested sub-folders, other files, and unreadable images in the worst places.
fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = root.path();
    save(at, "b.PNG", 16, 20);
    save(at, "a.jpg", 24, 10);
    truncate(&save(at, "s1/0.jpg", 16, 0));
    save(at, "s1/1.jpeg", 16, 30);
    truncate(&save(at, "s1/2.jpg", 16, 0));
    save(at, "s1/3.jpg", 32, 40);
    save(at, "s2/deep/x.png", 16, 60);
    save(at, "s2/z.png", 16, 50);
    save(at, "s10/1.png", 16, 70);
    fs::write(at.join("s10/2.png"), b"no image").unwrap();
    save(at, ".hidden.png", 16, 90);
    fs::write(at.join("notes.txt"), b"text").unwrap();
    fs::create_dir(at.join("empty")).unwrap();
    std::os::unix::fs::symlink(at, at.join("s2/loop")).unwrap();
    root
}

#[test]
fn order_segments_and_cuts() {
    let root = tree();
    let (entries, left_out) = list(root.path()).unwrap();
    let seen: Vec<(String, u64, bool)> = entries
        .iter()
        .map(|e| (e.path.strip_prefix(root.path()).unwrap().display().to_string(), e.segment, e.cut))
        .collect();
    let expected = [
        ("a.jpg", 0, false),
        ("b.PNG", 0, false),
        ("s1/0.jpg", 1, true),
        ("s1/1.jpeg", 1, false),
        ("s1/2.jpg", 1, false),
        ("s1/3.jpg", 1, false),
        ("s2/z.png", 2, true),
        ("s2/deep/x.png", 3, true),
        ("s10/1.png", 4, true),
        ("s10/2.png", 4, false),
    ];
    assert_eq!(seen, expected.map(|(name, segment, cut)| (name.to_string(), segment, cut)));
    let left_out = left_out.to_string();
    assert_eq!(left_out, "files .txt (1), hidden files or folders (1), links to folders that were read already (1)");
}

#[test]
fn unreadable_images_leave_gaps_and_lose_no_cut() {
    let root = tree();
    let mut source = Folder::open(root.path(), 8.0).unwrap();
    assert_eq!((source.length(), source.marks_cuts(), source.live()), (Some(10), true, false));
    let frames = all_frames(&mut source);
    let seen: Vec<(u64, u8, bool)> = frames.iter().map(|f| (f.index, (f.pixels[0] + 5) / 10, f.cut)).collect();
    let expected =
        [(0, 1, false), (1, 2, false), (3, 3, true), (5, 4, false), (6, 5, true), (7, 6, true), (8, 7, true)];
    assert_eq!(seen, expected);
    let counts = source.counts();
    assert_eq!((counts.frames, counts.unreadable), (7, 3));
    let left_out = serde_json::to_string(&counts).unwrap();
    assert!(left_out.contains(r#""left_out":{"files .txt":1,"hidden files or folders":1"#), "{left_out}");
    // The folder twice, as with two cameras: twice the counts.
    let mut twice = counts.clone();
    twice.add(&counts);
    assert_eq!(twice.left_out.to_string().matches('2').count(), 3, "{}", twice.left_out);
    assert!(frames.iter().all(|f| f.stamp.0 == f.index as i64 * 125_000_000));
    let widths: Vec<u32> = frames.iter().map(|f| f.width).collect();
    assert_eq!(widths, [24, 16, 16, 32, 16, 16, 16]);
    assert!(frames.iter().all(|f| f.pixels.len() == (f.width * f.height * 3) as usize));
    assert_eq!(source.next(&mut Frame::default(), Duration::ZERO).unwrap(), Pull::End);
}

#[test]
fn skip_to_equals_an_uninterrupted_run() {
    let root = tree();
    let whole = all_frames(&mut Folder::open(root.path(), 3.0).unwrap());
    for start in 0..=10 {
        let mut source = Folder::open(root.path(), 3.0).unwrap();
        source.skip_to(start).unwrap();
        let rest = all_frames(&mut source);
        let expected: Vec<&Frame> = whole.iter().filter(|f| f.index >= start).collect();
        assert_eq!(rest.len(), expected.len(), "from {start}");
        for (a, b) in expected.iter().zip(&rest) {
            assert_eq!((a.index, a.stamp, a.cut, &a.pixels), (b.index, b.stamp, b.cut, &b.pixels), "from {start}");
        }
    }
    let error = Folder::open(root.path(), 3.0).unwrap().skip_to(11).unwrap_err().chain();
    assert!(error.contains("10 images"), "{error}");
}

#[test]
fn a_flat_folder_marks_no_cuts() {
    let root = tempfile::tempdir().unwrap();
    save(root.path(), "2.png", 16, 20);
    save(root.path(), "1.png", 16, 10);
    let mut source = Folder::open(root.path(), 10.0).unwrap();
    assert!(!source.marks_cuts());
    assert!(all_frames(&mut source).iter().all(|f| !f.cut));
}

#[test]
fn missing_empty_and_hopeless_folders_are_errors() {
    let root = tempfile::tempdir().unwrap();
    let open = |path: &Path| Folder::open(path, 10.0).unwrap_err().chain();
    let missing = root.path().join("missing");
    assert!(open(&missing).contains("missing") && open(&missing).contains("No such file"));
    assert!(open(root.path()).contains("TIFF files are read, and it has nothing"), "{}", open(root.path()));
    let file = root.path().join("a.jpg");
    fs::write(&file, b"no image").unwrap();
    assert!(open(&file).contains("not a folder"));
    let mut source = Folder::open(root.path(), 10.0).unwrap();
    let error = source.next(&mut Frame::default(), Duration::from_secs(5)).unwrap_err().chain();
    assert!(error.contains("none of the 1 images") && error.contains("of no kind that is known"), "{error}");
}

#[test]
fn numbers_in_names_go_by_their_value_and_padded_ones_stay() {
    let order =
        ["1", "01", "2", "a1b2", "a1b10", "a2", "a10", "frame1.jpg", "frame2.jpg", "frame10.jpg", "x007", "x8", "x009"];
    for (at, a) in order.iter().enumerate() {
        for (other, b) in order.iter().enumerate() {
            // 01 and 1 are the same number: their bytes decide.
            let expected = if at < 2 && other < 2 { a.cmp(b) } else { at.cmp(&other) };
            assert_eq!(listing::natural(Path::new(a), Path::new(b)), expected, "{a} {b}");
        }
    }
}

#[test]
fn what_systems_leave_in_folders_is_left_out_and_counted() {
    let root = tempfile::tempdir().unwrap();
    let at = root.path();
    for name in ["a.jpg", "@eaDir/a.jpg/THUMB.jpg", "#recycle/b.jpg", "$RECYCLE.BIN/c.jpg", "lost+found/d.jpg"] {
        save(at, name, 16, 20);
    }
    save(at, "._a.jpg", 16, 20);
    save(at, "day/e.jpg", 16, 20);
    fs::rename(at.join("a.jpg"), at.join("a.jfif")).unwrap();
    fs::write(at.join("x.heic"), b"\0\0\0\x18ftypheic").unwrap();
    std::os::unix::fs::symlink("day", at.join("latest")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(at.join("s.jpg")).unwrap();
    let (entries, left_out) = list(at).unwrap();
    let names: Vec<_> = entries.iter().map(|e| e.path.strip_prefix(at).unwrap().display().to_string()).collect();
    assert_eq!(names, ["a.jfif", "day/e.jpg"]);
    assert_eq!(
        left_out.to_string(),
        "files .heic (1), folders of the system (4), hidden files or folders (1), links to folders that were read already (1), \
         pipes, sockets or devices (1)"
    );
    drop(socket);
}

#[test]
fn frames_name_their_files_and_those_of_joined_folders_have_keys_of_their_own() {
    let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (root, red) in [(&root, 10), (&other, 20)] {
        save(root.path(), "a.png", 16, red);
        save(root.path(), "day 1/b.png", 16, red);
    }
    let open = |root: &tempfile::TempDir| Box::new(Folder::open(root.path(), 10.0).unwrap()) as Box<dyn Source>;
    let pattern = crate::source::open("pattern://3?frames=4", &crate::config::Source::default()).unwrap();
    let mut joined = crate::source::multi::MultiSource::new(vec![open(&root), pattern, open(&other)]).unwrap();
    let frames = all_frames(&mut joined);
    let mut keys: Vec<(u16, u64)> = frames.iter().map(|frame| (frame.camera, frame.index)).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((frames.len(), keys.len()), (8, 8));
    for camera in [0, 1, 2] {
        let files: Vec<_> = frames.iter().filter(|f| f.camera == camera).map(|f| f.file.as_deref()).collect();
        let expected = if camera == 1 { vec![None; 4] } else { vec![Some("a.png"), Some("day 1/b.png")] };
        assert_eq!(files, expected, "{camera}");
    }
    let one = all_frames(&mut Folder::one(&root.path().join("day 1/b.png"), 10.0));
    assert_eq!(one[0].file.as_deref(), Some("b.png"));
}

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::files::small_disk::SmallDisk;

const NPY: RowFormat = RowFormat { format: Format::Npy, dtype: Dtype::F32, column: RowFormat::EMBEDDING };

fn record(frame: u64, space: &str) -> Record {
    Record {
        schema: SCHEMA,
        camera: "door \"1\"".into(),
        frame,
        file: None,
        stamp_ns: -1_000_000_007 * frame as i64,
        wall_ns: None,
        segment: frame / 3,
        level: Granularity::Frame,
        space: space.into(),
        head: frame % 2,
        provenance: None,
        learner: None,
        novelty: (frame % 2 == 1).then_some(0.1),
        novel: false,
        window: (frame % 3 == 1).then_some([-4, 2, 30, 36]),
        track: None,
        class: None,
        score: None,
        migrated_from: None,
    }
}

fn row(frame: u64, dim: usize) -> Vec<f32> {
    (0..dim).map(|i| ((frame * 31 + i as u64) % 97) as f32 / 97.0 - 0.5).collect()
}

fn names(folder: &Path) -> Vec<String> {
    files::names_in(folder).unwrap()
}

/// The frame numbers of all rows; every row is compared with what was written.
fn frames(folder: &Path, dim: usize) -> Vec<u64> {
    let reader = Reader::open(folder).unwrap();
    let rows = reader.rows();
    let frames: Vec<u64> = reader
        .map(|item| {
            let (found, values) = item.unwrap();
            assert_eq!((&found, values), (&record(found.frame, &found.space), row(found.frame, dim)));
            found.frame
        })
        .collect();
    assert_eq!(rows, frames.len() as u64);
    frames
}

/// Names of the files of one number.
fn files_of(number: u64, layout: RowFormat) -> Vec<String> {
    let records = (layout.format != Format::Parquet).then_some("jsonl");
    let mut all: Vec<_> =
        records.into_iter().chain([layout.format.end()]).map(|end| files::numbered_name(number, end)).collect();
    all.sort();
    all
}

fn every_format() -> [RowFormat; 3] {
    Format::ALL.map(|format| RowFormat::embeddings(format, Dtype::F32))
}

#[test]
fn every_format_gives_the_same_records_and_numbers_and_the_same_bytes_every_time() {
    let full = |frame: u64| Record {
        wall_ns: (!frame.is_multiple_of(5)).then_some(i64::MAX - frame as i64),
        level: [Granularity::Frame, Granularity::Grid, Granularity::Box][frame as usize % 3],
        provenance: (frame > 3).then(|| Provenance::new("e1", "p2")),
        learner: (frame % 4 > 1).then_some(["learning", "holding"][frame as usize % 2].into()),
        novel: frame.is_multiple_of(7),
        track: (frame % 6 == 1).then_some(-1),
        class: (frame % 6 == 2).then_some(frame as i64),
        score: (frame % 6 > 3).then_some(0.7),
        camera: ["a", "b", "ä"][frame as usize % 3].into(),
        file: (frame % 5 > 1).then(|| format!("day {}/{frame}.jpg", frame / 3).into()),
        ..record(frame, "s")
    };
    for dtype in [Dtype::F32, Dtype::F16] {
        for column in [RowFormat::EMBEDDING, RowFormat::LATENT] {
            for dim in [1, 100] {
                let read = Format::ALL.map(|format| {
                    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
                    let trees = folders.each_ref().map(|folder| {
                        let layout = RowFormat { format, dtype, column };
                        let mut writer = Writer::open(folder.path(), 0, layout, 100_000).unwrap();
                        (0..700).for_each(|frame| writer.push(&full(frame), &row(frame, dim)).unwrap());
                        assert_eq!(writer.finish().unwrap().rows, 700);
                        let read = |name: String| (fs::read(folder.path().join(&name)).unwrap(), name);
                        names(folder.path()).into_iter().map(read).collect::<Vec<_>>()
                    });
                    assert!(trees[0] == trees[1] && trees[0].iter().all(|(_, name)| !name.contains("partial")));
                    Reader::open(folders[0].path()).unwrap().map(|item| item.unwrap()).collect::<Vec<_>>()
                });
                assert_eq!(
                    read[0].iter().map(|(record, _)| record.clone()).collect::<Vec<_>>(),
                    (0..700).map(full).collect::<Vec<_>>()
                );
                assert!(read[0] == read[1] && read[0] == read[2], "{dtype:?} {column} {dim}");
            }
        }
    }
}

#[test]
fn a_run_that_goes_on_in_another_format_is_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    for (number, layout) in (0..).zip(every_format()) {
        let mut writer = Writer::open(folder.path(), number, layout, 1 << 20).unwrap();
        writer.push(&record(number, "a"), &row(number, 3)).unwrap();
    }
    assert_eq!(next_number(folder.path()).unwrap(), 3);
    assert_eq!(frames(folder.path(), 3), [0, 1, 2]);
    fs::copy(folder.path().join("0001.parquet"), folder.path().join("0000.parquet")).unwrap();
    assert!(Reader::open(folder.path()).unwrap_err().chain().contains("another file of the number 0000"));
    discard_from(folder.path(), 1).unwrap();
    assert_eq!(names(folder.path()), ["0000.jsonl", "0000.npy", "0000.parquet"]);
}

#[test]
fn rows_and_records_come_back_over_several_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), 1, NPY, 150_000).unwrap();
    writer.rotate().unwrap();
    for frame in 0..1000 {
        writer.push(&record(frame, "a"), &row(frame, 100)).unwrap();
    }
    // 400 + about 155 bytes per row: 150,000 bytes are reached after about 270 rows.
    assert_eq!((writer.next_number(), writer.counts().files), (4, 3));
    assert_eq!(writer.finish().unwrap(), WriterCounts { files: 4, rows: 1000, lost_rows: 0 });
    assert_eq!(frames(folder.path(), 100), (0..1000).collect::<Vec<_>>());
    let expected = ["0001.jsonl", "0001.npy", "0002.jsonl", "0002.npy", "0003.jsonl", "0003.npy", "0004.jsonl"];
    assert_eq!(names(folder.path())[..7], expected);
    for name in names(folder.path()) {
        let size = fs::metadata(folder.path().join(name)).unwrap().len();
        assert!(size < 151_000, "{size}");
    }
}

#[test]
fn another_space_or_dimension_begins_a_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), 0, NPY, 1 << 20).unwrap();
    for (frame, space, dim) in [(0, "a", 3), (1, "a", 3), (2, "b", 3), (3, "b", 5), (4, "b", 5)] {
        writer.push(&record(frame, space), &row(frame, dim)).unwrap();
    }
    drop(writer);
    let read: Vec<_> = Reader::open(folder.path()).unwrap().map(|item| item.unwrap()).collect();
    assert_eq!(
        read.iter().map(|(record, row)| (&*record.space, row.len())).collect::<Vec<_>>(),
        [("a", 3), ("a", 3), ("b", 3), ("b", 5), ("b", 5)]
    );
    assert_eq!(names(folder.path()).len(), 6);
}

#[test]
fn halves_are_rounded_to_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), 7, RowFormat::embeddings(Format::Npy, Dtype::F16), 1 << 20).unwrap();
    writer.push(&record(0, "a"), &[0.1, -1.0, 1e-9]).unwrap();
    writer.finish().unwrap();
    let (_, read) = Reader::open(folder.path()).unwrap().next().unwrap().unwrap();
    assert_eq!(read, [0.099_975_586, -1.0, 0.0]);
    assert_eq!(fs::metadata(folder.path().join("0007.npy")).unwrap().len(), 128 + 6);
}

#[test]
fn a_resumed_run_discards_what_came_after_and_never_overwrites() {
    for layout in every_format() {
        let (folder, end) = (tempfile::tempdir().unwrap(), layout.format.end());
        discard_from(&folder.path().join("none"), 0).unwrap();
        let mut writer = Writer::open(folder.path(), 1, layout, 1).unwrap();
        for frame in 0..5 {
            writer.push(&record(frame, "a"), &row(frame, 2)).unwrap();
        }
        writer.finish().unwrap();
        // What a run leaves when it is killed while it writes, or between renaming the files of a pair.
        fs::write(folder.path().join(format!(".0006.{end}.partial")), "x").unwrap();
        fs::write(folder.path().join("0006.jsonl"), "{}\n").unwrap();
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        assert_eq!(frames(folder.path(), 2), [0, 1, 2, 3, 4]);
        let refused = Writer::open(folder.path(), 4, layout, 1).unwrap_err().chain();
        assert!(refused.contains(&format!("0005.{end} is there")), "{refused}");
        discard_from(folder.path(), 3).unwrap();
        assert_eq!(frames(folder.path(), 2), [0, 1]);
        let stay = |name: &String| name.starts_with("0001.") || name.starts_with("0002.") || name == "notes.txt";
        assert!(names(folder.path()).iter().all(stay), "{:?}", names(folder.path()));
        Writer::open(folder.path(), 3, layout, 1).unwrap();
    }
}

#[test]
fn a_file_with_one_bit_changed_or_cut_off_is_noticed_or_says_the_same() {
    for layout in every_format() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(folder.path(), 0, layout, 1 << 20).unwrap();
        (0..20).for_each(|frame| writer.push(&record(frame, "a"), &row(frame, 5)).unwrap());
        drop(writer);
        let path = folder.path().join(format!("0000.{}", layout.format.end()));
        let whole = fs::read(&path).unwrap();
        let read = || Reader::open(folder.path()).and_then(|reader| reader.collect::<crate::error::Result<Vec<_>>>());
        let right = read().unwrap();
        let mut unnoticed = 0;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, bytes).unwrap();
            unnoticed += u32::from(read().is_ok_and(|rows| rows != right));
            fs::write(&path, &whole[..at]).unwrap();
            read().unwrap_err();
        }
        // Only Parquet has checksums over the numbers.
        assert_eq!(unnoticed == 0, layout.format == Format::Parquet, "{layout:?}: {unnoticed}");
    }
}

#[test]
fn files_that_are_not_as_they_should_be_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let write = || {
        discard_from(folder.path(), 0).unwrap();
        let mut writer = Writer::open(folder.path(), 1, NPY, 1).unwrap();
        for frame in 0..3 {
            writer.push(&record(frame, "a"), &row(frame, 2)).unwrap();
        }
    };
    let error = || match Reader::open(folder.path()) {
        Err(error) => error.chain(),
        Ok(reader) => {
            let errors: Vec<_> = reader.filter_map(|item| item.err()).collect();
            assert_eq!(errors.len(), 1);
            errors[0].chain()
        }
    };
    assert!(error().contains("no embeddings in"));
    write();
    fs::remove_file(at("0002.npy")).unwrap();
    assert!(error().contains("0003.npy: the file before it, 0002, is missing"));
    write();
    fs::remove_file(at("0002.jsonl")).unwrap();
    assert!(error().contains("0002.jsonl"));
    let lines = fs::read_to_string(at("0001.jsonl")).unwrap();
    for (text, expected) in [
        (String::new(), "ends after 0 lines, there are 1 rows"),
        (format!("{lines}{lines}"), "more lines than the 1 rows"),
        (lines.replace("\"frame\":", "\"fram\":"), "line 1: missing field `frame`"),
        ("[".repeat(1 << 20), "line 1: invalid type"),
    ] {
        write();
        fs::write(at("0001.jsonl"), text).unwrap();
        assert!(error().contains(expected), "{}", error());
    }
    for (from, value, expected) in [(0, 0, "it does not begin"), (131, 127, "row 0 has a number that is not finite")] {
        write();
        let mut bytes = fs::read(at("0002.npy")).unwrap();
        bytes[from] = value;
        bytes[130] = 0x80;
        fs::write(at("0002.npy"), bytes).unwrap();
        assert!(error().contains(&format!("0002.npy: {expected}")), "{}: {}", error(), expected);
    }
    write();
    let bytes = fs::read(at("0003.npy")).unwrap();
    fs::write(at("0003.npy"), &bytes[..bytes.len() - 1]).unwrap();
    assert!(error().contains("0003.npy: its shape (1, 2) does not fit its 135 bytes"));
}

#[test]
fn an_empty_row_and_a_folder_that_cannot_be_written_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), 1, NPY, 1).unwrap();
    assert!(writer.push(&record(3, "a"), &[]).unwrap_err().chain().contains("frame 3"));
    fs::remove_dir_all(folder.path()).unwrap();
    assert!(writer.push(&record(3, "a"), &[1.0]).unwrap_err().chain().contains("0001.npy"));
    let file = tempfile::NamedTempFile::new().unwrap();
    Writer::open(file.path(), 1, NPY, 1).unwrap_err();
    assert_eq!("f16".parse::<Dtype>().unwrap(), Dtype::F16);
    assert!("f64".parse::<Dtype>().unwrap_err().contains("must be one of f32, f16"));
}

#[test]
fn a_full_disk_stops_exports_until_there_is_room_and_numbers_have_no_holes() {
    for layout in every_format() {
        let Some(disk) = SmallDisk::mount(512) else { return };
        let folder = disk.path().join("embeddings");
        let mut writer = Writer::open(&folder, 1, layout, 1 << 20).unwrap();
        let pushed = 1000;
        for frame in 0..pushed {
            writer.push(&record(frame, "a"), &row(frame, 250)).unwrap();
        }
        let stopped = writer.counts();
        assert_eq!((stopped.files, stopped.rows + stopped.lost_rows), (1, pushed));
        assert!(stopped.rows > 200 && stopped.lost_rows > 200, "{stopped:?}");
        assert_eq!(names(&folder), files_of(1, layout));
        assert_eq!(frames(&folder, 250), (0..stopped.rows).collect::<Vec<_>>());
        // Still full after the wait.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        writer.push(&record(pushed, "a"), &row(pushed, 250)).unwrap();
        assert_eq!(writer.counts().lost_rows, stopped.lost_rows + 1);
        assert_eq!(names(&folder), files_of(1, layout));
        // There is room again.
        discard_from(&folder, 0).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        for frame in pushed + 1..pushed + 11 {
            writer.push(&record(frame, "a"), &row(frame, 250)).unwrap();
        }
        let counts = writer.finish().unwrap();
        let expected = WriterCounts { files: 2, rows: stopped.rows + 10, lost_rows: stopped.lost_rows + 1 };
        assert_eq!(counts, expected);
        assert_eq!(names(&folder), files_of(2, layout));
        assert_eq!(frames(&folder, 250), (pushed + 1..pushed + 11).collect::<Vec<_>>());
    }
}

#[test]
fn on_a_disk_that_is_full_from_the_start_nothing_is_left_behind() {
    for layout in every_format() {
        let Some(disk) = SmallDisk::mount(64) else { return };
        let folder = disk.path().join("embeddings");
        let mut writer = Writer::open(&folder, 1, layout, 1 << 20).unwrap();
        disk.fill();
        for frame in 0..300 {
            writer.push(&record(frame, "a"), &row(frame, 250)).unwrap();
        }
        assert_eq!(writer.finish().unwrap(), WriterCounts { files: 0, rows: 0, lost_rows: 300 });
        assert_eq!(names(&folder), Vec::<String>::new());
    }
}

#[test]
fn records_share_their_names_as_plain_text() {
    let line = serde_json::to_string(&record(3, "a")).unwrap();
    let expected = "{\"schema\":3,\"camera\":\"door \\\"1\\\"\",\"frame\":3,\"stamp_ns\":-3000000021,\"segment\":1,\
                    \"level\":\"frame\",\"space\":\"a\",\"head\":1,\"novelty\":0.1}";
    assert_eq!(line, expected);
    let back: Record = serde_json::from_str(&line).unwrap();
    assert_eq!(back, Record { space: Arc::from("a"), ..record(3, "a") });
}

/// The folder of a writer killed after `rows` rows, with what had reached the disk.
fn killed(layout: RowFormat, rows: u64) -> tempfile::TempDir {
    let (place, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut writer = Writer::open(place.path(), 0, layout, 1 << 30).unwrap();
    (0..rows / 2).for_each(|frame| writer.push(&record(frame, "s"), &row(frame, 16)).unwrap());
    writer.rotate().unwrap();
    (rows / 2..rows).for_each(|frame| writer.push(&record(frame, "s"), &row(frame, 16)).unwrap());
    for name in names(place.path()) {
        fs::copy(place.path().join(&name), left.path().join(&name)).unwrap();
    }
    left
}

#[test]
fn whole_rows_of_an_open_file_survive_a_kill_wherever_it_was_torn() {
    for format in [Format::Npy, Format::Safetensors] {
        let layout = RowFormat { format, ..NPY };
        let end = format.end();
        let whole = recover(killed(layout, 2000).path(), RowFormat::EMBEDDING).unwrap().rows;
        assert!(whole > 500 && whole < 1000, "{whole}");
        for (what, tear) in [("rows", true), ("records", false)] {
            for (bytes, zeros) in [(1, false), (700, false), (9000, false), (700, true), (1 << 20, false)] {
                let left = killed(layout, 2000);
                let torn = left.path().join(format!(".0001.{}.partial", if tear { end } else { RECORDS }));
                let length = fs::metadata(&torn).unwrap().len();
                let file = fs::File::options().write(true).open(&torn).unwrap();
                file.set_len(length.saturating_sub(bytes)).unwrap();
                if zeros {
                    file.set_len(length).unwrap();
                }
                let found = recover(left.path(), RowFormat::EMBEDDING).unwrap();
                assert!(found.rows < whole, "{what} torn by {bytes}");
                discard_from(left.path(), 2).unwrap();
                let expected: Vec<u64> = (0..1000 + found.rows).collect();
                assert_eq!(frames(left.path(), 16), expected, "{what} torn by {bytes}");
                assert_eq!(found.rows == 0, bytes == 1 << 20);
                assert_eq!(recover(left.path(), RowFormat::EMBEDDING).unwrap(), Recovered::default());
            }
        }
        // Killed between the two renames.
        let left = killed(layout, 2000);
        fs::rename(left.path().join(".0001.jsonl.partial"), left.path().join("0001.jsonl")).unwrap();
        assert_eq!(recover(left.path(), RowFormat::EMBEDDING).unwrap().rows, whole);
        assert_eq!(frames(left.path(), 16).len() as u64, 1000 + whole);
    }
}

#[test]
fn a_record_that_no_reader_would_take_is_not_written() {
    let place = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(place.path(), 0, NPY, 1 << 30).unwrap();
    let mut long = record(7, "s");
    long.camera = "x".repeat(1 << 16).into();
    assert!(writer.push(&long, &row(7, 4)).unwrap_err().chain().contains("record of frame 7"));
    writer.push(&record(8, "s"), &row(8, 4)).unwrap();
    writer.finish().unwrap();
    assert_eq!(frames(place.path(), 4), [8]);
}

#[test]
fn what_cannot_be_recovered_is_told() {
    let left = killed(RowFormat { format: Format::Parquet, ..NPY }, 4000);
    let found = recover(left.path(), RowFormat::EMBEDDING).unwrap();
    assert!(
        found.rows == 0 && found.lost[0].contains("0001.parquet") && found.lost[0].contains("are lost"),
        "{found:?}"
    );
    let left = killed(NPY, 2000);
    fs::write(left.path().join(".0001.npy.partial"), "no header").unwrap();
    let found = recover(left.path(), RowFormat::EMBEDDING).unwrap();
    assert!(found.rows == 0 && found.lost[0].contains("0001.npy"), "{found:?}");
    assert_eq!(recover(&left.path().join("none"), RowFormat::EMBEDDING).unwrap(), Recovered::default());
}

#[test]
fn missing_and_cut_files_are_told_a_line_each() {
    let place = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(place.path(), 0, NPY, 1 << 30).unwrap();
    for frame in 0..6 {
        writer.push(&record(frame, "s"), &row(frame, 16)).unwrap();
        writer.rotate().unwrap();
    }
    let told = |next, oldest_may_go| missing_below(place.path(), next, oldest_may_go).unwrap();
    assert!(told(6, false).is_empty());
    assert!(told(8, false)[0].contains("files 0006 to 0007 are missing"), "{:?}", told(8, false));
    let at = |name: &str| place.path().join(name);
    for name in ["0000.npy", "0000.jsonl", "0003.npy", "0004.jsonl"] {
        fs::remove_file(at(name)).unwrap();
    }
    fs::File::options().write(true).open(at("0002.npy")).unwrap().set_len(150).unwrap();
    let (lines, fewer) = (told(6, false), told(6, true));
    for (line, part) in
        lines.iter().zip(["file 0000 is missing", "file 0003 is missing", "0002.npy", "0004.jsonl is missing"])
    {
        assert!(line.contains(part), "{lines:?}");
    }
    assert_eq!((lines.len(), fewer.len()), (4, 3), "the oldest may have been removed for room");
    assert!(told(2, true).is_empty());
}

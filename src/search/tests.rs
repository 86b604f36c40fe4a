//! Compares the search with a brute-force search in 64 bits, in all formats.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::export::{Dtype, Format, RowFormat, SCHEMA, Writer};
use crate::linalg::normalise;

const DIM: usize = 21;

/// Unit rows of two cameras at ten frames per second each, some of them equal.
fn rows(count: usize, seed: u64) -> Vec<(Record, Vec<f32>)> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut all: Vec<(Record, Vec<f32>)> = Vec::new();
    for i in 0..count {
        let mut row: Vec<f32> = (0..DIM).map(|_| next()).collect();
        normalise(&mut row);
        if i % 7 == 3 {
            row.clone_from(&all[i / 2].1);
        }
        all.push((record(i), row));
    }
    all
}

fn record(i: usize) -> Record {
    Record {
        schema: SCHEMA,
        camera: ["a", "b"][i % 2].into(),
        frame: i as u64,
        file: None,
        stamp_ns: (i / 2) as i64 * 100_000_000,
        wall_ns: None,
        segment: 0,
        level: Granularity::Frame,
        space: "space".into(),
        head: 1,
        provenance: None,
        learner: None,
        novelty: None,
        novel: false,
        window: None,
        track: None,
        class: None,
        score: None,
        migrated_from: None,
    }
}

/// Writes `rows` to several files in `folder`.
fn written(folder: &Path, format: Format, dtype: Dtype, rows: &[(Record, Vec<f32>)]) -> Vec<RowFileReader> {
    let mut writer = Writer::open(folder, 0, RowFormat::embeddings(format, dtype), 1 << 15).unwrap();
    rows.iter().for_each(|(record, row)| writer.push(record, row).unwrap());
    let files = writer.finish().unwrap().files;
    (0..files).map(|n| RowFileReader::open(&folder.join(format!("{n:04}.{}", format.end()))).unwrap()).collect()
}

/// The stored values of a row.
fn stored(row: &[f32], dtype: Dtype) -> Vec<f64> {
    let half = |x: f32| half::f16::from_f32(x).to_f64();
    row.iter().map(|x| if dtype == Dtype::F16 { half(*x) } else { f64::from(*x) }).collect()
}

/// Similarity and number of each row, in order, computed by brute force.
fn by_hand(query: &[f32], rows: &[(Record, Vec<f32>)], dtype: Dtype) -> Vec<(f64, usize)> {
    let one = |row: &[f32]| query.iter().zip(stored(row, dtype)).map(|(a, b)| f64::from(*a) * b).sum::<f64>();
    let mut all: Vec<(f64, usize)> = rows.iter().enumerate().map(|(i, (_, row))| (one(row), i)).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    all
}

/// The indices in `rows` of places in `files`.
fn numbers(files: &[RowFileReader], places: impl Iterator<Item = RowRef>) -> Vec<usize> {
    let before = |file: usize| files[..file].iter().map(RowFileReader::rows).sum::<u64>();
    places.map(|place| (before(place.file) + place.row) as usize).collect()
}

#[test]
fn the_order_is_that_of_brute_force_in_every_format() {
    let rows = rows(3000, 5);
    for format in Format::ALL {
        for dtype in [Dtype::F32, Dtype::F16] {
            let folder = tempfile::tempdir().unwrap();
            let files = written(folder.path(), format, dtype, &rows);
            assert!(files.len() > 3 && files.iter().map(RowFileReader::rows).sum::<u64>() == 3000);
            for query in [&rows[17].1, &rows[2999].1] {
                let right = by_hand(query, &rows, dtype);
                let found = best(&files, query, 3000, None).unwrap();
                // Sums in a different order differ by 1e-15; ties are ordered by row.
                let same = found.iter().zip(&right).all(|(a, b)| (a.similarity - b.0).abs() < 1e-12);
                assert!(same, "{format:?} {dtype:?}");
                let order = numbers(&files, found.iter().copied());
                let distinct = |a: &(f64, usize), b: &(f64, usize)| (a.0 - b.0).abs() > 1e-12;
                assert!(
                    right.windows(3).enumerate().all(|(i, w)| {
                        !(distinct(&w[0], &w[1]) && distinct(&w[1], &w[2])) || order[i + 1] == w[1].1
                    })
                );
                // The same, page by page.
                let (mut paged, mut after) = (Vec::new(), None);
                while paged.len() < 3000 {
                    let page = best(&files, query, 71, after).unwrap();
                    after = page.last().copied();
                    paged.extend(page);
                }
                assert_eq!(paged, found);
            }
        }
    }
}

#[test]
fn equal_rows_come_in_the_order_of_the_files() {
    let one: Vec<f32> = [1.0].into_iter().chain([0.0; DIM - 1]).collect();
    let rows: Vec<_> = (0..900).map(|i| (record(i), one.clone())).collect();
    let folder = tempfile::tempdir().unwrap();
    let files = written(folder.path(), Format::Npy, Dtype::F32, &rows);
    let found = nearest(&files, &one, 5, DedupWindow { secs: 0.0 }, Some(&rows[1].0)).unwrap();
    assert_eq!(numbers(&files, found.iter().map(|hit| hit.place)), [0, 2, 3, 4, 5]);
    assert!(found.iter().all(|hit| hit.place.similarity == 1.0));
}

/// The nearest row first, then the nearest of another moment, over all rows.
fn greedy(
    right: &[(f64, usize)],
    rows: &[(Record, Vec<f32>)],
    k: usize,
    moment: DedupWindow,
    own: usize,
) -> Vec<usize> {
    let mut taken: Vec<usize> = Vec::new();
    for (_, i) in right {
        let near = |j: &usize| moment.same(&rows[*j].0, &rows[*i].0);
        if taken.len() < k && !taken.iter().chain([&own]).any(near) {
            taken.push(*i);
        }
    }
    taken
}

#[test]
fn of_each_moment_only_the_nearest_is_found_however_many_passes_that_takes() {
    // The nearest moment is long: its 2,500 rows are skipped.
    let mut rows = rows(6000, 9);
    let query = rows[0].1.clone();
    for (i, (_, row)) in rows.iter_mut().enumerate().skip(1000).take(2500) {
        row.clone_from(&query);
        row[i % DIM] += 0.01;
        normalise(row);
    }
    let folder = tempfile::tempdir().unwrap();
    for format in [Format::Npy, Format::Parquet] {
        let folder = folder.path().join(format.end());
        let files = written(&folder, format, Dtype::F32, &rows);
        for secs in [0.0, 0.35, 10.0, 80.0, 1e6] {
            let moment = DedupWindow { secs };
            let found = nearest(&files, &query, 10, moment, Some(&rows[0].0)).unwrap();
            let right = greedy(&by_hand(&query, &rows, Dtype::F32), &rows, 10, moment, 0);
            assert_eq!(found.len(), right.len(), "{secs}");
            let order = numbers(&files, found.iter().map(|hit| hit.place));
            let equal = |a: usize, b: usize| (dot(&query, &rows[a].1) - dot(&query, &rows[b].1)).abs() < 1e-12;
            assert!(order.iter().zip(&right).all(|(a, b)| a == b || equal(*a, *b)), "{secs}: {order:?} {right:?}");
            for (hit, at) in found.iter().zip(order) {
                assert_eq!(hit.record, rows[at].0);
            }
        }
    }
}

#[test]
fn boxes_of_two_tracks_are_two_things() {
    let frame = record(0);
    let boxed = |frame: u64, track, left| Record {
        level: Granularity::Box,
        frame,
        stamp_ns: frame as i64 * 100_000_000,
        track,
        window: Some([left, 0, left + 9, 9]),
        ..record(0)
    };
    let moment = DedupWindow { secs: 1.0 };
    assert!(moment.same(&frame, &record(2)) && !moment.same(&frame, &record(1)), "cameras");
    assert!(!moment.same(&record(0), &record(40)));
    assert!(moment.same(&boxed(1, Some(3), 0), &boxed(2, Some(3), 50)));
    assert!(!moment.same(&boxed(1, Some(3), 0), &boxed(2, Some(4), 0)));
    assert!(
        !moment.same(&boxed(1, None, 0), &boxed(1, None, 50)) && moment.same(&boxed(1, None, 0), &boxed(2, None, 50))
    );
    assert!(moment.same(&boxed(1, None, 0), &boxed(1, None, 0)));
}

#[test]
fn rows_that_cannot_be_compared_are_errors() {
    let rows = rows(50, 1);
    let folder = tempfile::tempdir().unwrap();
    let files = written(folder.path(), Format::Npy, Dtype::F32, &rows);
    let error = best(&files, &[1.0; 4], 3, None).unwrap_err().chain();
    assert!(error.contains("0000.npy") && error.contains("21 numbers, the query 4"), "{error}");
    let path = folder.path().join("0000.npy");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = 128 + 4 * (7 * DIM + 2);
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let error = best(&files, &rows[0].1, 3, None).unwrap_err().chain();
    assert!(error.contains("row 7 has a number that is not finite"), "{error}");
    // A header that does not match, and a truncated file, are rejected before any row is read.
    std::fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    assert!(best(&files, &rows[0].1, 3, None).unwrap_err().chain().contains("does not fit its"));
    assert!(RowFileReader::open(&path).unwrap_err().chain().contains("does not fit its"));
    std::fs::write(&path, &bytes[..100]).unwrap();
    assert!(RowFileReader::open(&path).is_err() && best(&files, &rows[0].1, 3, None).is_err());
    std::fs::write(&path, b"").unwrap();
    assert!(RowFileReader::open(&path).is_err() && best(&files, &rows[0].1, 3, None).is_err());
    // Too few records.
    std::fs::write(&path, &bytes).unwrap();
    assert!(files[0].records(&[0, 49]).is_ok());
    std::fs::write(folder.path().join("0000.jsonl"), serde_json::to_string(&rows[0].0).unwrap()).unwrap();
    assert!(files[0].records(&[0, 3]).unwrap_err().chain().contains("no line for row 3"));
    assert!(files[0].row(50).unwrap().is_none());
}

#[test]
fn rows_and_records_are_found_by_their_numbers() {
    let rows = rows(2000, 3);
    for format in Format::ALL {
        let folder = tempfile::tempdir().unwrap();
        let files = written(folder.path(), format, Dtype::F32, &rows);
        let first = files[0].rows();
        for at in [0, 1, first - 1] {
            assert_eq!(files[0].row(at).unwrap(), Some(rows[at as usize].clone()), "{format:?} {at}");
        }
        let wanted = [0, 5, 6, files[1].rows() - 1];
        let right: Vec<Record> = wanted.iter().map(|row| rows[(first + row) as usize].0.clone()).collect();
        assert_eq!(files[1].records(&wanted).unwrap(), right, "{format:?}");
        assert!(files[1].records(&[]).unwrap().is_empty());
    }
}

proptest! {
    #[test]
    fn a_sum_in_lanes_is_the_sum(pairs in proptest::collection::vec((-1.0f32..1.0, -1.0f32..1.0), 0..100)) {
        let (a, b): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
        let right: f64 = pairs.iter().map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        prop_assert!((dot(&a, &b) - right).abs() < 1e-12);
    }
}

//! Stored embeddings survive promotions: maps between spaces, `migrate`, and what it rejects.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use afterimage::checkpoint::{load_head, load_map, map_path};
use afterimage::export::{Format, Reader, Record, space_of_file};
use afterimage::journal;
use common::{PATTERN, TestDir, maps, tree};
use ndarray::ArrayView2;

/// Slow heads of one size, so that every map but the first is a fitted one, and fits often.
const SLOW: [&str; 6] =
    ["--set", "head.candidates=['slow']", "--set", "export.latents=true", "--set", "learn.refit_growth=1.2"];

fn learn(place: &TestDir, run: &str, format: &str) {
    let format = format!("export.format={format}");
    place.learn(PATTERN, run, &[&SLOW[..], &["--set", &format]].concat()).ok();
}

/// Files of rows of a folder with their spaces, by number.
fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let ends = Format::ALL.map(Format::end);
    let is_rows = |path: &PathBuf| path.extension().is_some_and(|end| ends.contains(&end.to_str().unwrap()));
    let mut all: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(is_rows).collect();
    all.sort();
    all.into_iter().map(|path| (path.clone(), space_of_file(&path).unwrap().unwrap().to_string())).collect()
}

fn rows(path: &Path) -> Vec<(Record, Vec<f32>)> {
    Reader::file(path).unwrap().map(|row| row.unwrap()).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn every_promotion_leaves_a_map_that_was_measured() {
    let place = TestDir::new();
    learn(&place, "run", "npy");
    let run = place.at("run");
    let promoted: Vec<serde_json::Value> =
        journal::read(&run).unwrap().into_iter().filter(|event| event["promoted"].is_u64()).collect();
    assert!(promoted.len() >= 3 && maps(&run).len() == promoted.len(), "{promoted:?}");
    let mut before = None;
    for (number, event) in (1..).zip(&promoted) {
        let file = load_map(&map_path(&run, number)).unwrap();
        let head = load_head(&run.join(format!("heads/{number:04}.safetensors"))).unwrap();
        assert_eq!((file.to.as_str(), file.to_head, file.from_head), (head.space.as_str(), number, number - 1));
        assert!(before.is_none_or(|before| before == file.from), "one leads to the next");
        assert_eq!(
            (&event["from"]["space"], &event["from"]["kind"]),
            (&file.from.clone().into(), &file.map.kind.name().into())
        );
        let hits = file.hits.unwrap();
        assert!(file.queries > 20 && hits.within > 0.5 && hits.rate() > 0.9, "{number}: {hits:?}");
        if number > 1 {
            assert!(
                file.references > 100 && file.as_is.unwrap() > 0.8 * hits.within,
                "{number}: {:?} {hits:?}",
                file.as_is
            );
        }
        before = Some(file.to);
    }
    let check = place.run(&["check", "--run", "run"]).ok();
    assert!(check.out.contains("maps/0002.safetensors"), "{}", check.out);
}

#[test]
fn migrated_rows_are_those_of_the_new_head_and_records_say_where_from() {
    for format in ["npy", "parquet", "safetensors"] {
        let place = TestDir::new();
        learn(&place, "run", format);
        let run = place.at("run");
        let old = files(&run.join("embeddings"));
        let spaces: std::collections::BTreeSet<_> = old.iter().map(|(_, space)| space.clone()).collect();
        assert!(spaces.len() >= 3, "{format}: {spaces:?}");
        let originals = tree(&run);
        let said = place
            .run(&["migrate", "run/embeddings", "--to", "latest", "--run", "run", "--out", "new", "--json"])
            .ok()
            .json();
        assert!(tree(&run) == originals, "{format}: originals were touched");
        let newest = load_head(&run.join(format!("heads/{:04}.safetensors", said["head"].as_u64().unwrap()))).unwrap();
        assert_eq!(said["to"], newest.space.as_str());
        let new = files(&place.at("new"));
        assert!(new.iter().all(|(_, space)| **space == *newest.space), "{format}");
        // The latents of the same frames, embedded by the newest head.
        let latents: std::collections::BTreeMap<u64, Vec<f32>> = files(&run.join("latents"))
            .iter()
            .flat_map(|(path, _)| rows(path))
            .map(|(r, row)| (r.frame, row))
            .collect();
        for ((path, space), (out, _)) in old.iter().zip(&new) {
            assert_eq!(path.file_name(), out.file_name());
            let (mut sum, mut least, mut as_is) = (0.0, f32::INFINITY, 0.0);
            let (before, after) = (rows(path), rows(out));
            assert_eq!(before.len(), after.len());
            for ((record, row), (then, now)) in before.iter().zip(&after) {
                let changed = *record.space != *newest.space;
                let right = Record {
                    space: newest.space.as_str().into(),
                    head: newest.number,
                    migrated_from: changed.then(|| record.space.clone()),
                    ..record.clone()
                };
                assert_eq!(then, &right, "{format}");
                assert!(changed || row == now, "of its space already: the very rows");
                assert!((cosine(now, now) - 1.0).abs() < 1e-5);
                let latent = &latents[&record.frame];
                let again = newest.head.embed_rows(ArrayView2::from_shape((1, latent.len()), latent).unwrap());
                let near = cosine(again.as_slice().unwrap(), now);
                (sum, least) = (sum + near, least.min(near));
                as_is += if row.len() == now.len() { cosine(again.as_slice().unwrap(), row) } else { 0.0 };
            }
            let count = before.len() as f32;
            println!("{format} {space}: cosine {:.4}, least {least:.4}; as they are {:.4}", sum / count, as_is / count);
            let frozen = before[0].0.head == 0;
            assert!(
                sum / count > if frozen { 0.99999 } else { 0.9 } && (!frozen || least > 0.9999),
                "{format} {space}"
            );
        }
        // There and once more: nothing is left to do, and where it came from first stays.
        place.run(&["migrate", "new", "--to", &newest.space, "--run", "run", "--out", "again"]).ok();
        for ((once, _), (twice, _)) in new.iter().zip(files(&place.at("again"))) {
            assert!(rows(once) == rows(&twice), "{format}");
        }
    }
}

#[test]
fn what_cannot_be_migrated_is_refused_and_nothing_is_written() {
    let place = TestDir::new();
    learn(&place, "run", "npy");
    let run = place.at("run");
    let old = files(&run.join("embeddings"));
    let newest = fs::read_to_string(run.join("latest")).unwrap().trim().parse::<u64>().unwrap();
    let first = load_head(&run.join("heads/0001.safetensors")).unwrap().space;
    let of_first = old.iter().find(|(_, space)| *space == first).unwrap().0.display().to_string();
    let migrate = |file: &str, more: &[&str]| {
        let args = ["migrate", file, "--run", "run", "--out", "new"];
        let ran =
            place.run(&[&args[..], if more.contains(&"--to") { &[] } else { &["--to", "latest"] }, more].concat());
        assert!(!place.at("new").exists(), "{file} {more:?}");
        ran
    };
    migrate(&of_first, &["--to", "0123456789abcdef"])
        .fails(2, &["0123456789abcdef", "no such space", "(frozen)", "(head 1)"]);
    migrate("none.npy", &[]).fails(1, &["none.npy"]);
    migrate("run.txt", &[]).fails(2, &["run.txt", ".parquet"]);
    migrate("run", &[]).fails(2, &["run has no NNNN.npy"]);
    migrate(&of_first, &["--min-hit-rate", "1.5"]).fails(2, &["share of 0 to 1"]);
    migrate(&of_first, &["--to", &load_map(&map_path(&run, 1)).unwrap().from])
        .fails(3, &["no way from space", "never back"]);

    // Another encoder, an unknown space, two spaces, and a row too many: each on a copy.
    let copy = |change: &dyn Fn(&str) -> String| {
        let path = place.at("copy/0000.npy");
        fs::create_dir_all(place.at("copy")).unwrap();
        fs::copy(&of_first, &path).unwrap();
        let records = fs::read_to_string(Path::new(&of_first).with_extension("jsonl")).unwrap();
        fs::write(path.with_extension("jsonl"), change(&records)).unwrap();
    };
    let encoder = rows(Path::new(&of_first))[0].0.provenance.as_ref().unwrap().encoder.to_string();
    copy(&|text| text.replace(&encoder, "ffffffffffffffff"));
    migrate("copy/0000.npy", &[]).fails(3, &["copy/0000.npy", "of encoder ffffffffffffffff", "embed the frames again"]);
    copy(&|text| text.replace(&first, "ffffffffffffffff"));
    migrate("copy/0000.npy", &[]).fails(3, &["is of space ffffffffffffffff, which the run has not", "(head 1)"]);
    copy(&|text| text.replacen(&first, "ffffffffffffffff", 2).replacen("ffffffffffffffff", &first, 1));
    migrate("copy/0000.npy", &[]).fails(3, &["has rows of space"]);
    copy(&|text| text.replace("\"level\":\"frame\"", "\"level\":\"grid\""));
    migrate("copy/0000.npy", &[]).fails(3, &["grids of cells"]);
    copy(&|text| text[..text.len() / 2].to_owned());
    migrate("copy/0000.npy", &[]).fails(1, &["copy/0000.jsonl"]);

    // A map that is damaged or gone.
    assert!(newest >= 3, "{newest}");
    let map = map_path(&run, 2);
    let whole = fs::read(&map).unwrap();
    let mut flipped = whole.clone();
    flipped[200] ^= 1;
    for damage in [whole[..whole.len() / 2].to_vec(), flipped] {
        fs::write(&map, damage).unwrap();
        migrate(&of_first, &[]).fails(3, &["no way from space", "0002.safetensors is damaged"]);
        let check = place.run(&["check", "--run", "run"]);
        assert!(check.status.code() == Some(3) && check.out.contains("maps/0002.safetensors"), "{}", check.out);
    }
    fs::remove_file(&map).unwrap();
    migrate(&of_first, &[]).fails(3, &["no way from space"]);
    place.run(&["check", "--run", "run"]).ok();
    // The frozen ones need no map but the head.
    let frozen = old[0].0.display().to_string();
    place.run(&["migrate", &frozen, "--to", "latest", "--run", "run", "--out", "frozen"]).ok();
    fs::write(&map, whole).unwrap();

    // Nothing is written over, and no two files become one.
    place.run(&["migrate", &of_first, "--to", "latest", "--run", "run", "--out", "done"]).ok();
    let done = tree(&place.at("done"));
    let again = || place.run(&["migrate", &of_first, "--to", "latest", "--run", "run", "--out", "done"]);
    // Cut off between any two of its files, or after the last, it is repeated to the same.
    again().ok().said(&["is there already, as this migration writes it"]);
    for name in done.keys() {
        fs::remove_file(place.at("done").join(name)).unwrap();
        fs::create_dir(place.at("done/.migrate")).unwrap();
        fs::write(place.at("done/.migrate/0000.npy"), "half").unwrap();
        again().ok();
        assert!(tree(&place.at("done")) == done, "without {name}");
    }
    for name in done.keys() {
        let other = place.at("done").join(name);
        fs::write(&other, "of somebody else").unwrap();
        again().fails(2, &["is there already, and is not what this migration writes"]);
        assert_eq!(fs::read(&other).unwrap(), b"of somebody else");
        fs::write(&other, &done[name]).unwrap();
    }
    copy(&str::to_owned);
    let twice = ["migrate", &frozen, "copy", "--to", "latest", "--run", "run", "--out", "done2"];
    place.run(&twice).fails(2, &["two of the files would become done2/0000.npy"]);
    assert!(tree(&place.at("done")) == done && !place.at("done2").exists());
}

#[test]
fn latents_of_two_spaces_are_not_replayed() {
    let place = TestDir::new();
    for (run, more) in [("one", vec![]), ("two", vec!["--set", "encoder.taps=[\"grid4:max\"]"])] {
        let source = "pattern://1?frames=100&width=64&height=48";
        place.learn(source, run, &[&["--set", "export.latents=true"][..], &more].concat()).ok();
    }
    for end in ["npy", "jsonl"] {
        fs::copy(place.at(&format!("two/latents/0000.{end}")), place.at(&format!("one/latents/0001.{end}"))).unwrap();
    }
    let says = ["one/latents/0000.npy is of space", "one/latents/0001.npy of space"];
    place.run(&["replay", "--run", "one", "--out", "again"]).fails(3, &says);
    assert!(!place.at("again").exists());
}

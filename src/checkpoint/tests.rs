#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use half::f16;
use ndarray::{Array1, Array2};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;
use crate::error::{Error, ErrorKind};
use crate::files::small_disk::SmallDisk;
use crate::head::{Context, EmbeddingKind, Grid, GridHead, Head, HeadParams, Mlp, ScatterStats};
use crate::spaces::space_of;
use crate::state_dict::{StateDict, TensorView};

/// Any bit pattern, including NaN and denormals: what is saved must come back unchanged.
fn any_f32(rng: &mut ChaCha8Rng) -> f32 {
    f32::from_bits(rng.next_u32())
}

fn vector(n: usize, rng: &mut ChaCha8Rng) -> Array1<f32> {
    Array1::from_shape_simple_fn(n, || any_f32(rng))
}

fn matrix(rows: usize, columns: usize, rng: &mut ChaCha8Rng) -> Array2<f32> {
    Array2::from_shape_simple_fn((rows, columns), || any_f32(rng))
}

fn head_file(number: u64, with_mlp: bool) -> HeadCheckpoint {
    let rng = &mut ChaCha8Rng::seed_from_u64(number);
    let (d, k, h) = (7, 3, 5);
    let mlp = with_mlp.then(|| Mlp {
        w1: matrix(h, k, rng),
        b1: vector(h, rng),
        gamma: vector(h, rng),
        beta: vector(h, rng),
        w2: matrix(k, h, rng),
        b2: vector(k, rng),
    });
    let slow = matrix(d, k, rng);
    let form = if with_mlp { EmbeddingKind::Mean } else { EmbeddingKind::BesideFrozen };
    let head = Head::Learned(HeadParams { mean: vector(d, rng), slow, mlp, alpha: 0.3, form });
    let sums = |n: usize| (0..n).map(|i| 0.1 * i as f64).collect();
    let scatter = ScatterStats::from_parts(d, 9, u64::MAX, sums(d), sums(28), sums(28)).unwrap();
    let scatter = scatter.with_views(5, sums(28)).unwrap();
    HeadCheckpoint {
        space: space_of("encoder", "card", &head),
        head,
        number,
        run: "run".into(),
        encoder_sha256: "encoder".into(),
        card_hash: "card".into(),
        activate_at: u64::MAX,
        made_at: 12,
        scatter: with_mlp.then_some(scatter),
    }
}

/// The owner of [`head_file`].
fn owner() -> Owner {
    let (encoder_sha256, card_hash) = ("encoder".into(), "card".into());
    Owner { run: "run".into(), encoder_sha256, card_hash, latent_dim: 7, numbers: 7 }
}

/// A head file as bits, so that NaN equals itself.
fn bits(file: &HeadCheckpoint) -> (Vec<u32>, String) {
    let Head::Learned(head) = &file.head else { panic!("saved heads are learned") };
    let mut values: Vec<f32> = head.mean.iter().chain(&head.slow).copied().collect();
    values.push(head.alpha);
    if let Some(mlp) = &head.mlp {
        values.extend(mlp.w1.iter().chain(&mlp.b1).chain(&mlp.gamma).chain(&mlp.beta).chain(&mlp.w2).chain(&mlp.b2));
    }
    let rest = (file.number, &file.space, &file.encoder_sha256, &file.card_hash, file.activate_at, file.made_at);
    let text = format!("{rest:?} {:?} {:?} {:?}", file.scatter, head.slow.shape(), head.form);
    (values.iter().map(|value| value.to_bits()).collect(), text)
}

fn example(folder: &Path) -> (std::path::PathBuf, Vec<u8>) {
    let path = folder.join("state.safetensors");
    let meta = BTreeMap::from([("seed".into(), "7".into()), ("text".into(), "ä \"quoted\"\n".into())]);
    let (a, b, c) = ([1.0f64, -0.0, f64::MAX], [f16::from_f32(0.5); 6], [u64::MAX, 1]);
    let tensors = [
        ("c".to_owned(), TensorView::new(&[2], &c)),
        ("b".to_owned(), TensorView::new(&[3, 2], &b)),
        ("a".to_owned(), TensorView::new(&[3], &a)),
        ("empty".to_owned(), TensorView::new::<f32>(&[0, 4], &[])),
        ("i".to_owned(), TensorView::new(&[1, 1, 1], &[i64::MIN])),
        ("x".to_owned(), TensorView::new(&[], &[2.5f32])),
    ];
    save(&path, &meta, &tensors, 1 << 20).unwrap();
    let bytes = fs::read(&path).unwrap();
    (path, bytes)
}

#[test]
fn arrays_and_text_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = example(folder.path());
    let mut stored = load(&path, bytes.len() as u64).unwrap();
    assert_eq!(stored.take::<f64>("a", &[3]).unwrap(), [1.0, -0.0, f64::MAX]);
    assert_eq!(stored.take::<f16>("b", &[3, 2]).unwrap(), [f16::from_f32(0.5); 6]);
    assert_eq!(stored.take::<u64>("c", &[2]).unwrap(), [u64::MAX, 1]);
    assert_eq!(stored.take::<i64>("i", &[1, 1, 1]).unwrap(), [i64::MIN]);
    assert_eq!(stored.take::<f32>("x", &[]).unwrap(), [2.5]);
    assert_eq!(stored.shape::<2>("empty").unwrap(), [0, 4]);
    assert!(stored.take::<f32>("empty", &[0, 4]).unwrap().is_empty());
    assert_eq!(stored.text("text").unwrap(), "ä \"quoted\"\n");
    assert_eq!(stored.parse::<u64>("seed").unwrap(), 7);
}

#[test]
fn another_type_shape_or_name_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = example(folder.path());
    let mut stored = load(&path, 1 << 20).unwrap();
    let text = |error: crate::error::Error| error.chain();
    assert!(text(stored.take::<f32>("a", &[3]).unwrap_err()).contains("not of type F32"));
    assert!(text(stored.take::<f16>("b", &[2, 3]).unwrap_err()).contains("[3, 2], expected [2, 3]"));
    assert!(text(stored.take::<u64>("none", &[2]).unwrap_err()).contains("no array \"none\""));
    assert!(text(stored.shape::<1>("empty").unwrap_err()).contains("expected 1 dimensions"));
    assert!(text(stored.text("none").unwrap_err()).contains("no entry \"none\""));
    assert!(text(stored.parse::<u64>("text").unwrap_err()).contains("no u64"));
    assert!(load(&path, 100).unwrap_err().chain().contains("at most 100"));
}

#[test]
fn what_cannot_be_read_back_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let array = |name: &str, shape: &[usize]| (name.to_owned(), TensorView::new(shape, &[1.0f32, 2.0]));
    let meta = BTreeMap::new();
    for bad in [
        vec![array("a", &[3])],
        vec![array("a", &[usize::MAX, 2])],
        vec![array("a", &[2]), array("a", &[2])],
        vec![array("__metadata__", &[2])],
        vec![array(&"a".repeat(2 << 20), &[2])],
    ] {
        save(&path, &meta, &bad, 1 << 30).unwrap_err();
    }
    save(&path, &BTreeMap::from([("sha256".into(), String::new())]), &[], 1 << 20).unwrap_err();
    assert!(!path.exists());
}

#[test]
fn the_same_content_gives_the_same_bytes_that_the_format_s_own_reader_takes() {
    let folder = tempfile::tempdir().unwrap();
    let (_, first) = example(folder.path());
    for _ in 0..20 {
        assert_eq!(example(folder.path()).1, first);
    }
    let other = safetensors::SafeTensors::deserialize(&first).unwrap();
    assert_eq!(other.tensor("c").unwrap().data(), [255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(other.len(), 6);
}

#[test]
fn every_flipped_bit_and_every_truncation_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = example(folder.path());
    let file = fs::File::options().write(true).open(&path).unwrap();
    let refused = |what: &str, number: usize| {
        let error = load(&path, 1 << 20).expect_err(&format!("{what} {number}")).chain();
        assert!(error.contains("state.safetensors") && error.contains("damaged"), "{error}");
    };
    for bit in 0..bytes.len() * 8 {
        let at = bit / 8;
        file.write_all_at(&[bytes[at] ^ (1 << (bit % 8))], at as u64).unwrap();
        refused("bit", bit);
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
    load(&path, 1 << 20).unwrap();
    for length in (0..bytes.len()).rev().chain([bytes.len() + 1]) {
        file.set_len(length as u64).unwrap();
        refused("length", length);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), n in 0u64..300) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, &bytes).unwrap();
        load(&path, 1 << 20).unwrap_err();
        fs::write(&path, [&n.to_le_bytes()[..], &bytes].concat()).unwrap();
        load(&path, 1 << 20).unwrap_err();
    }
}

#[test]
fn huge_numbers_in_a_header_are_refused_before_they_are_allocated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    for entry in [
        r#""shape":[1000000000000],"data_offsets":[0,4000000000000]"#,
        r#""shape":[18446744073709551615,2],"data_offsets":[0,8]"#,
        r#""shape":[2],"data_offsets":[18446744073709551608,18446744073709551615]"#,
        r#""shape":[1],"data_offsets":[4,8]"#,
        r#""shape":[2],"data_offsets":[8,0]"#,
        r#""shape":[-2],"data_offsets":[0,8]"#,
    ] {
        let header = format!(r#"{{"__metadata__":{{"sha256":""}},"a":{{"dtype":"F32",{entry}}}}}"#);
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
        fs::write(&path, bytes).unwrap();
        let error = load(&path, 1 << 20).unwrap_err().chain();
        assert!(error.contains("damaged"), "{entry}: {error}");
    }
    fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    assert!(load(&path, 1 << 20).unwrap_err().chain().contains("header would have"));
    fs::write(&path, [&(1u64 << 20).to_le_bytes()[..], &vec![b'['; 1 << 20]].concat()).unwrap();
    assert!(load(&path, 1 << 22).unwrap_err().chain().contains("header is not valid"));
}

#[test]
fn heads_come_back_bit_for_bit() {
    let run = tempfile::tempdir().unwrap();
    for (number, with_mlp) in [(1, false), (2, true), (10_000, true)] {
        let file = head_file(number, with_mlp);
        save_head(run.path(), &file).unwrap();
        let loaded = load_head(&head_path(run.path(), number)).unwrap();
        assert_eq!(bits(&loaded), bits(&file));
    }
    assert_eq!(fs::read_to_string(run.path().join("latest")).unwrap(), "10000\n");
    assert_eq!(newest_head(run.path(), &owner()).unwrap().0.unwrap().number, 10_000);
    // The frozen latents, promoted in place of a harmful head.
    let head = Head::Identity { dim: 7 };
    let space = space_of("encoder", "card", &head);
    let identity = HeadCheckpoint { head, space, ..head_file(10_001, false) };
    save_head(run.path(), &identity).unwrap();
    assert_eq!(newest_head(run.path(), &owner()).unwrap().0, Some(identity));
    assert!(save_head(run.path(), &HeadCheckpoint { number: 0, ..head_file(3, false) }).is_err());
}

#[test]
fn a_broken_head_is_named_and_the_one_before_it_is_used() {
    let run = tempfile::tempdir().unwrap();
    let newest = || newest_head(run.path(), &owner()).unwrap();
    assert_eq!((newest().0.is_none(), newest().1.len()), (true, 0));
    for number in 1..=4 {
        save_head(run.path(), &head_file(number, true)).unwrap();
    }
    fs::write(run.path().join("latest"), "9\n").unwrap();
    fs::write(run.path().join("heads/.0005.safetensors.partial"), "x").unwrap();
    // File 4 is truncated; file 3 holds another head than its name says.
    let path = head_path(run.path(), 4);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    fs::copy(head_path(run.path(), 2), head_path(run.path(), 3)).unwrap();
    let (head, warnings) = newest();
    assert_eq!(head.unwrap().number, 2);
    assert!(warnings[0].contains("0004.safetensors is damaged") && warnings[0].contains("before it"), "{warnings:?}");
    assert!(warnings[1].contains("0003.safetensors is damaged: inside it is number 2"), "{warnings:?}");
    for number in [1, 2] {
        fs::write(head_path(run.path(), number), "").unwrap();
    }
    assert_eq!((newest().0.is_none(), newest().1.len()), (true, 4));
}

#[test]
fn a_head_that_is_whole_but_makes_no_sense_is_refused() {
    let run = tempfile::tempdir().unwrap();
    let file = HeadCheckpoint { space: "0123456789abcdef".into(), ..head_file(1, true) };
    save_head(run.path(), &file).unwrap();
    assert!(load_head(&head_path(run.path(), 1)).unwrap_err().chain().contains("names the space 0123456789abcdef"));
    let path = run.path().join("x");
    save(&path, &BTreeMap::from([("format".into(), "other".into())]), &[], 1 << 20).unwrap();
    assert!(load_head(&path).unwrap_err().chain().contains("not of the format"));
}

#[test]
fn a_space_changes_with_everything_that_changes_embeddings() {
    let head = head_file(1, true).head;
    let space = space_of("encoder", "card", &head);
    assert!(space.len() == 16 && space.bytes().all(|c| c.is_ascii_hexdigit()));
    let Head::Learned(learned) = head else { panic!("learned") };
    let mut others = vec![space, space_of("encoderc", "ard", &Head::Learned(learned.clone()))];
    others.push(space_of("encoder", "card", &Head::Identity { dim: 7 }));
    others.push(space_of("encoder", "card", &Head::Identity { dim: 8 }));
    let mut changed = |change: &dyn Fn(&mut HeadParams)| {
        let mut other = learned.clone();
        change(&mut other);
        others.push(space_of("encoder", "card", &Head::Learned(other)));
    };
    changed(&|head| head.alpha = 0.2);
    changed(&|head| head.form = EmbeddingKind::Single);
    changed(&|head| head.form = EmbeddingKind::BesideFrozen);
    changed(&|head| head.mlp = None);
    changed(&|head| head.slow[(0, 1)] = 0.0);
    changed(&|head| head.mean[6] = 0.0);
    others.sort();
    others.dedup();
    assert_eq!(others.len(), 10);
}

#[test]
fn a_promoted_head_is_not_lost_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount(256) else { return };
    let run = disk.path();
    save_head(run, &head_file(1, true)).unwrap();
    let reserve = DiskReserve::new(run, 64 << 10);
    reserve.refill().unwrap();
    reserve.refill().unwrap();
    let ballast = disk.fill();
    let file = head_file(2, true);
    assert_eq!(save_head(run, &file).unwrap_err().kind(), ErrorKind::DiskFull);
    assert_eq!(newest_head(run, &owner()).unwrap().0.unwrap().number, 1);
    reserve.spend_on(|| save_head(run, &file)).unwrap();
    let (head, warnings) = newest_head(run, &owner()).unwrap();
    assert_eq!((bits(&head.unwrap()), warnings.len()), (bits(&file), 0));
    // A line takes a little of the reserve and does not give the rest away.
    let held = || fs::metadata(run.join("heads/.reserve")).unwrap().len();
    let before = held();
    let line = || fs::write(run.join("line"), [1; 4096]).map_err(|e| Error::io("cannot write", run, e));
    assert!(before < 64 << 10 && before > 16 << 10, "{before}");
    reserve.spend_on(line).unwrap();
    assert!(held() >= before - (16 << 10), "{before} {}", held());
    // First there is no room to restore the whole reserve, and it keeps what it had; then there is room.
    let before = held();
    assert_eq!(reserve.refill().unwrap_err().kind(), ErrorKind::DiskFull);
    assert_eq!(held(), before);
    // A write larger than the reserve fails.
    let much = || fs::write(run.join("line"), [1; 128 << 10]).map_err(|e| Error::io("cannot write", run, e));
    assert_eq!(reserve.spend_on(much).unwrap_err().kind(), ErrorKind::DiskFull);
    fs::remove_file(run.join("line")).unwrap();
    fs::remove_file(ballast).unwrap();
    reserve.refill().unwrap();
    assert_eq!(held(), 64 << 10);
}

#[test]
fn a_reserve_with_a_hole_is_filled_again() {
    let run = tempfile::tempdir().unwrap();
    let reserve = DiskReserve::new(run.path(), 1 << 16);
    reserve.refill().unwrap();
    let path = run.path().join("heads/.reserve");
    fs::File::create(&path).unwrap().set_len(1 << 16).unwrap();
    reserve.refill().unwrap();
    assert!(std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&path).unwrap()) * 512 >= 1 << 16);
    fs::remove_file(&path).unwrap();
    reserve.refill().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 16);
}

#[test]
fn heads_over_grids_come_back_bit_for_bit() {
    let run = tempfile::tempdir().unwrap();
    let grid = Grid { rows: 3, columns: 2, dim: 7 };
    let rng = &mut ChaCha8Rng::seed_from_u64(5);
    let Head::Learned(learned) = head_file(1, true).head else { unreachable!() };
    let learned = HeadParams { form: EmbeddingKind::Single, ..learned };
    let context = Some(Context::start(learned.slow.ncols(), 4, 2, rng));
    let over = |context| Head::Grid(Box::new(GridHead { grid, learned: learned.clone(), context }));
    let plain = Head::Learned(learned.clone());
    for (number, head) in (1..).zip([over(None), over(context), plain.clone().pooling(grid)]) {
        let space = space_of("encoder", "card", &head);
        let file = HeadCheckpoint { head, space, ..head_file(number, true) };
        save_head(run.path(), &file).unwrap();
        let found = load_head(&head_path(run.path(), number)).unwrap();
        // The pooled latent of a grid takes the same map as a vector.
        let right = if number == 3 { HeadCheckpoint { head: plain.clone(), ..file } } else { file };
        let (ours, theirs) = (format!("{:?}", found.head), format!("{:?}", right.head));
        assert!(found.space == right.space && ours == theirs, "{number}");
        assert_eq!(found.scatter, right.scatter);
    }
}

#[test]
fn any_number_of_arrays_may_be_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.safetensors");
    let mut contents = StateDict::default();
    for i in 0..20 {
        contents.tensors.push((format!("a{i}"), TensorView::new::<f32>(&[0], &[])));
        contents.tensors.push((format!("b{i}"), TensorView::new::<u64>(&[0], &[])));
    }
    contents.tensors.push(("full".into(), TensorView::new(&[2], &[1.0f32, 2.0])));
    super::save(&path, &contents.meta, &contents.tensors, 1 << 20).unwrap();
    let mut stored = super::load(&path, 1 << 20).unwrap();
    assert_eq!(stored.take::<f32>("full", &[2]).unwrap(), [1.0, 2.0]);
    assert!(stored.take::<u64>("b7", &[0]).unwrap().is_empty());
}

#[test]
fn a_map_comes_back_and_any_damage_is_noticed() {
    use crate::spaces::{HitRate, MapKind, SpaceMap};
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let map = SpaceMap {
        kind: MapKind::Affine,
        matrix: Array2::from_shape_fn((3, 5), |(i, j)| i as f32 - 0.3 * j as f32),
        offset: Array1::from_shape_fn(5, |i| 0.1 * i as f32),
    };
    let file = SpaceMapCheckpoint {
        from: "a".repeat(16),
        from_head: 1,
        to: "b".repeat(16),
        to_head: 2,
        run: "run".into(),
        encoder_sha256: "e".into(),
        card_hash: "c".into(),
        map,
        references: 2048,
        queries: 99,
        hits: Some(HitRate { within: 0.75, across: 0.1 + 0.6 }),
        as_is: None,
    };
    save_map(run, &file).unwrap();
    let path = map_path(run, 2);
    assert_eq!(path, run.join("maps/0002.safetensors"));
    let whole = fs::read(&path).unwrap();
    assert_eq!(load_map(&path).unwrap(), file);
    save_map(run, &file).unwrap();
    assert_eq!(fs::read(&path).unwrap(), whole, "the same bytes each time");
    for at in 0..whole.len() {
        fs::write(&path, &whole[..at]).unwrap();
        assert!(load_map(&path).is_err(), "cut at {at}");
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        assert!(load_map(&path).is_err(), "bit {} of byte {at}", at % 8);
    }
    fs::write(map_path(run, 3), &whole).unwrap();
    assert!(load_map(&map_path(run, 3)).unwrap_err().chain().contains("leads to head 2"));
    // A head is not a map.
    save_head(run, &head_file(4, false)).unwrap();
    assert!(load_map(&head_path(run, 4)).unwrap_err().chain().contains("afterimage map 2"));
    // From the frozen latents, the head itself is the map: there are no weights.
    let none = SpaceMap { kind: MapKind::Head, matrix: Array2::zeros((0, 0)), offset: Array1::zeros(0) };
    let first = SpaceMapCheckpoint { from_head: 0, to_head: 1, map: none, hits: None, as_is: Some(0.5), ..file };
    save_map(run, &first).unwrap();
    assert_eq!(load_map(&map_path(run, 1)).unwrap(), first);
}

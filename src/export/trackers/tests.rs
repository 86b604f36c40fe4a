#![allow(clippy::unwrap_used, reason = "tests")]
use std::fs;
use std::process::Command;

use super::*;
use crate::detection::BBox;

/// Prints the offsets of the members and the contents of a file.
const READER: &str = r#"
#include "afterimage_reid.h"
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    (void)argc;
    FILE *f = fopen(argv[1], "rb");
    static _Alignas(64) char bytes[1 << 16];
    size_t n = fread(bytes, 1, sizeof bytes, f);
    const struct afterimage_reid_header *file = (const void *)bytes;
    typedef struct afterimage_reid_object O;
    printf("%zu %zu %zu %zu %zu %zu %zu %zu\n", sizeof *file, sizeof(O), offsetof(O, stamp_ns), offsetof(O, track),
        offsetof(O, class_id), offsetof(O, score), offsetof(O, left), offsetof(O, height));
    printf("%d %d %d\n", afterimage_reid_fits(file, n), afterimage_reid_fits(file, n - 1), afterimage_reid_fits(file, 60));
    for (uint64_t i = 0; i < file->count; i++) {
        struct afterimage_obj_reid reid;
        const O *o = afterimage_reid_at(file, i, &reid);
        printf("%llu %lld %lld %d %g %g %g %g %g :", (unsigned long long)o->frame, (long long)o->stamp_ns,
            (long long)o->track, o->class_id, o->score, o->left, o->top, o->width, o->height);
        for (uint32_t k = 0; k < reid.featureSize; k++) printf(" %g", reid.ptr_host[k]);
        printf(" %s\n", reid.ptr_dev ? "dev" : "host");
    }
    return 0;
}
"#;

fn detections() -> [Detection; 2] {
    let rect = BBox { left: 10.5, top: -2.0, right: 40.5, bottom: 60.0 };
    let known = Detection { frame: 3, rect, track: Some(7), score: Some(0.75), class: Some(1), line: 1 };
    let unknown = Detection { frame: 4, track: None, score: None, class: None, ..known.clone() };
    [known, unknown]
}

fn written() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::create(&folder.path().join("trackers"), 3).unwrap();
    let [known, unknown] = detections();
    trackers.push(&known, 1_000_000_007, &[0.5, -0.25, 1.0]).unwrap();
    trackers.push(&unknown, -5, &[0.0, 2.0, 3.0]).unwrap();
    assert!(trackers.push(&unknown, 0, &[0.0]).unwrap_err().to_string().contains("an embedding of 1, 3 expected"));
    assert_eq!(trackers.finish().unwrap(), 2);
    folder
}

#[test]
fn the_header_for_c_says_what_is_in_the_file() {
    let folder = written();
    let (source, program) = (folder.path().join("reader.c"), folder.path().join("reader"));
    fs::write(&source, READER).unwrap();
    let include = concat!(env!("CARGO_MANIFEST_DIR"), "/include");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-I", include, "-o"]).arg(&program).arg(&source);
    let built = compiler.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let told = Command::new(&program).arg(folder.path().join("trackers/reid.bin")).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&told.stdout),
        "64 64 8 16 24 28 32 44\n1 0 0\n\
         3 1000000007 7 1 0.75 10.5 -2 30 62 : 0.5 -0.25 1 host\n\
         4 -5 -1 -1 -1 10.5 -2 30 62 : 0 2 3 host\n"
    );
}

#[test]
fn rows_are_those_of_deepsort_and_arrays_go_with_them() {
    let folder = written();
    let read = |name: &str| fs::read(folder.path().join("trackers").join(name)).unwrap();
    let floats = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    let deepsort = read("deepsort.npy");
    let (shape, start) = npy::parse(&deepsort[..HEADER_BYTES], deepsort.len() as u64).unwrap();
    assert_eq!((shape.rows, shape.dim), (2, 13));
    assert_eq!(
        floats(&deepsort[start as usize..]),
        [
            [4.0, 7.0, 10.5, -2.0, 30.0, 62.0, 0.75, -1.0, -1.0, -1.0, 0.5, -0.25, 1.0],
            [5.0, -1.0, 10.5, -2.0, 30.0, 62.0, 1.0, -1.0, -1.0, -1.0, 0.0, 2.0, 3.0]
        ]
        .concat()
    );
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[10..HEADER_BYTES]).trim_end().to_owned();
    let pids = read("pids.npy");
    assert_eq!(text(&pids), "{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }");
    assert_eq!(&pids[HEADER_BYTES..], [7i64.to_le_bytes(), (-1i64).to_le_bytes()].concat());
    assert_eq!(&read("frames.npy")[HEADER_BYTES..], [3i64.to_le_bytes(), 4i64.to_le_bytes()].concat());
    assert_eq!(floats(&read("boxes.npy")[HEADER_BYTES..])[..4], [10.5, -2.0, 40.5, 60.0]);
    assert_eq!(floats(&read("features.npy")[HEADER_BYTES..]), [0.5, -0.25, 1.0, 0.0, 2.0, 3.0]);
    assert_eq!(read("camids.npy").len(), HEADER_BYTES + 16);
    assert_eq!(&read("classes.npy")[HEADER_BYTES..], [1i64.to_le_bytes(), (-1i64).to_le_bytes()].concat());
    assert_eq!(files::names_in(&folder.path().join("trackers")).unwrap().len(), 8, "nothing is left over");
}

#[test]
fn without_an_end_there_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::create(folder.path(), 1).unwrap();
    trackers.push(&detections()[0], 0, &[1.0]).unwrap();
    drop(trackers);
    assert!(files::names_in(folder.path()).unwrap().is_empty());
}

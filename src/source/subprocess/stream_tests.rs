//! Streams in memory, valid and damaged.
#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

fn next(stream: &mut Stream<&[u8]>) -> (Next, Frame) {
    let mut frame = Frame::default();
    (stream.next(&mut frame).unwrap(), frame)
}

#[test]
fn ppm_frames_of_changing_size() {
    let mut stream = Stream::new(b"P6\n2 1\n255\nabcdefP6 1 2 255 ghijkl".as_slice());
    for (width, height, pixels) in [(2, 1, b"abcdef"), (1, 2, b"ghijkl")] {
        let (found, frame) = next(&mut stream);
        assert_eq!(found, Next::Frame(None));
        assert_eq!((frame.width, frame.height, frame.pixels.as_slice()), (width, height, pixels.as_slice()));
    }
    assert_eq!(next(&mut stream).0, Next::End);
}

#[test]
fn bad_streams_are_errors_before_memory_is_taken() {
    let mut frame = Frame::default();
    let track = |size: &[u8]| [b"\xe0\x82".as_slice(), size, b"\xe7\x81\x00\xa3\x8a\x81\0\0\x80abcdef"].concat();
    let huge = track(b"\xb0\x84\x7f\xff\xff\xff\xba\x81\x02");
    let empty = track(b"\xb0\x81\0\xba\x81\0");
    for bad in [
        b"P5\n2 1\n255\nab".as_slice(),
        b"P6\n2 1\n65535\nab",
        b"P6\n99999999 1\n255\n",
        b"P6\n16384 16384\n255\n",
        b"P6\n0 4\n255\n",
        b"P6\n-2 1\n255\n",
        b"P6\n\n\n\n\n\n\n\n\n\n2 1\n255\nabcdef",
        b"P6\n2 1\n255\nabcde",
        b"P6\n2",
        b"P",
        b"\x1a\x45\xdf\xa3\x80\xe7\x89123456789",
        b"\x1a\x45\xdf\xa3\x80\0",
        &[matroska::MAGIC, b"\x80", &huge].concat(),
        &[matroska::MAGIC, b"\x80", &empty].concat(),
        &[nut::MAGIC, b"a"].concat(),
        &[nut::MAGIC, b"NMzV\x1f\x5f\x04\xad\xff\xff\xff\x7f\0\0\0\0"].concat(),
    ] {
        assert!(Stream::new(bad).next(&mut frame).is_err(), "{}", bad.escape_ascii());
        assert!(frame.pixels.capacity() < 1 << 16);
    }
}

#[test]
fn matroska_blocks_have_times_and_their_rows_lose_their_padding() {
    // Two pixels wide, so that two bytes pad each row of six; ticks of a microsecond; known and unknown sizes.
    let bytes = [
        b"\x1a\x45\xdf\xa3\x81x\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff\x2a\xd7\xb1\x82\x03\xe8".as_slice(),
        b"\x16\x54\xae\x6b\x8a\xae\x88\xe0\x86\xb0\x81\x02\xba\x81\x02\xec\x82zz",
        b"\x1f\x43\xb6\x75\xff\xe7\x81\x05\xa3\x94\x81\0\x02\x80abcdef--ghijkl--",
        b"\x1f\x43\xb6\x75\xff\xe7\x82\x01\x00\xa0\x92\xa1\x90\x81\xff\xff\0mnopqrstuvwx",
    ];
    let bytes = bytes.concat();
    let mut stream = Stream::new(bytes.as_slice());
    for (time, pixels) in [(7_000, b"abcdefghijkl"), (255_000, b"mnopqrstuvwx")] {
        let (found, frame) = next(&mut stream);
        assert_eq!((found, frame.pixels.as_slice()), (Next::Frame(Some(time)), pixels.as_slice()));
    }
    assert_eq!(next(&mut stream).0, Next::End);
}

proptest::proptest! {
    #[test]
    fn whole_streams_with_some_bytes_changed_are_read_or_refused(
        matroska in proptest::bool::ANY,
        changes in proptest::collection::vec((0..600_usize, proptest::num::u8::ANY), 1..5),
    ) {
        let nut = include_bytes!("../../../fuzz/corpus/nut/three").as_slice();
        let mut bytes = if matroska { include_bytes!("../../../fuzz/corpus/matroska/three") } else { nut }.to_vec();
        let mut frame = Frame::default();
        let mut whole = Stream::new(bytes.as_slice());
        let count = std::iter::from_fn(|| matches!(whole.next(&mut frame), Ok(Next::Frame(Some(_)))).then_some(())).count();
        proptest::prop_assert_eq!(count, 3);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let mut stream = Stream::new(bytes.as_slice());
        while let Ok(Next::Frame(_)) = stream.next(&mut frame) {
            proptest::prop_assert_eq!(frame.pixels.len(), 3 * frame.width as usize * frame.height as usize);
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_go_on_for_ever(
        kind in 0..3_usize,
        tail in proptest::collection::vec(proptest::num::u8::ANY, 0..3000),
    ) {
        let head = [nut::MAGIC, matroska::MAGIC, b"P6 1 1 255 "][kind];
        let bytes = [head, &tail].concat();
        let (mut stream, mut frame) = (Stream::new(bytes.as_slice()), Frame::default());
        while let Ok(Next::Frame(_)) = stream.next(&mut frame) {}
    }
}

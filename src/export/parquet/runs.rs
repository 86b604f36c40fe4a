//! Parquet's RLE/bit-packing hybrid encoding, restricted to runs, for levels and dictionary indices. The columns
//! written here consist of long runs. Source: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>.
use super::compact::{read_varint, take, varint};

/// Bits needed for numbers below `count`.
pub(super) fn width(count: usize) -> u8 {
    (usize::BITS - count.saturating_sub(1).leading_zeros()) as u8
}

/// A number and how often it repeats.
pub(super) type Run = (u32, u64);

/// Appends runs of numbers of `width` bits.
pub(super) fn write(out: &mut Vec<u8>, width: u8, runs: impl IntoIterator<Item = Run>) {
    let bytes = usize::from(width.div_ceil(8));
    for (number, count) in runs {
        varint(out, count << 1);
        out.extend_from_slice(&number.to_le_bytes()[..bytes]);
    }
}

/// Joins adjacent runs of the same number and drops empty runs.
pub(super) fn joined(runs: impl IntoIterator<Item = Run>) -> Vec<Run> {
    let mut all: Vec<Run> = Vec::new();
    for (number, more) in runs.into_iter().filter(|(_, count)| *count > 0) {
        match all.last_mut() {
            Some((last, count)) if *last == number => *count += more,
            _ => all.push((number, more)),
        }
    }
    all
}

/// Reads runs of `count` numbers in total, all below `limit`, to the end of `bytes`. `None` if they do not match, or if
/// there are packed bits.
pub(super) fn read(mut bytes: &[u8], width: u8, limit: u32, count: u64) -> Option<Vec<Run>> {
    let (mut runs, mut left) = (Vec::new(), count);
    while !bytes.is_empty() {
        let head = read_varint(&mut bytes)?;
        let mut number = [0; 4];
        let taken = take(&mut bytes, usize::from(width.div_ceil(8)))?;
        number.get_mut(..taken.len())?.copy_from_slice(taken);
        let (number, length) = (u32::from_le_bytes(number), head >> 1);
        if head & 1 == 1 || length == 0 || number >= limit {
            return None;
        }
        left = left.checked_sub(length)?;
        runs.push((number, length));
    }
    (left == 0).then_some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_back_and_others_are_refused() {
        let runs = joined([(3, 1), (3, 2), (7, 0), (0, 1), (299, 1), (299, 1)]);
        assert_eq!(runs, [(3, 3), (0, 1), (299, 2)]);
        let mut bytes = Vec::new();
        write(&mut bytes, width(300), runs.clone());
        assert_eq!(bytes, [6, 3, 0, 2, 0, 0, 4, 43, 1]);
        assert_eq!(read(&bytes, 9, 300, 6), Some(runs));
        for (bytes, limit, count) in [(&bytes[..], 299, 6), (&bytes, 300, 5), (&bytes, 300, 7), (&bytes[..8], 300, 6)] {
            assert_eq!(read(bytes, 9, limit, count), None);
        }
        assert_eq!(read(&[3, 0xff], 1, 2, 8), None, "packed bits");
        assert_eq!(read(&[8], 0, 1, 4), Some(vec![(0, 4)]));
    }

    #[test]
    fn a_width_holds_every_number() {
        for (count, bits) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (256, 8), (257, 9)] {
            assert_eq!(width(count), bits, "{count}");
        }
    }
}

//! The header of NumPy's `.npy` files, version 1.0 (NumPy Enhancement Proposal 1): two-dimensional, row-major, f32 or
//! f16, little-endian.
use crate::export::Dtype;

/// Length of every header written here, so that the number of rows can be filled in at the end.
pub const HEADER_BYTES: usize = 128;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Maximum row length accepted when reading.
pub(super) const MAX_DIM: u64 = 1 << 16;

/// Type and dimensions of the array in a file of any format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Type of the numbers.
    pub dtype: Dtype,
    /// Rows in the file.
    pub rows: u64,
    /// Numbers per row.
    pub dim: usize,
}

/// The header of a `[rows, dim]` array.
pub fn header(shape: Shape) -> [u8; HEADER_BYTES] {
    let Shape { dtype, rows, dim } = shape;
    let descr = match dtype {
        Dtype::F32 => "<f4",
        Dtype::F16 => "<f2",
    };
    header_of(descr, &format!("{rows}, {dim}"))
}

/// The header of an array of `shape`, given as comma-separated numbers.
pub(crate) fn header_of(descr: &str, shape: &str) -> [u8; HEADER_BYTES] {
    // Two numbers of 20 digits still fit.
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let mut header = [b' '; HEADER_BYTES];
    header[..6].copy_from_slice(MAGIC);
    header[6..10].copy_from_slice(&[1, 0, (HEADER_BYTES - 10) as u8, 0]);
    header[10..10 + text.len()].copy_from_slice(text.as_bytes());
    header[HEADER_BYTES - 1] = b'\n';
    header
}

/// Parses a header from the first bytes of a file of `size` bytes. Returns the shape and the offset of the rows.
/// # Errors
/// A description of what is wrong or unsupported. The rows must fill the rest of the file exactly.
pub fn parse(start: &[u8], size: u64) -> Result<(Shape, u64), String> {
    if !start.starts_with(MAGIC) {
        return Err("it does not begin as a .npy file".into());
    }
    let [major, minor, low, high] = *start.get(6..10).and_then(|b| b.first_chunk()).ok_or("it ends in its header")?;
    if (major, minor) != (1, 0) {
        return Err(format!("it has version {major}.{minor} of the .npy format, 1.0 is read here"));
    }
    let begin = 10 + usize::from(u16::from_le_bytes([low, high]));
    let text = start.get(10..begin).ok_or_else(|| format!("its header would end at byte {begin}"))?;
    let text = std::str::from_utf8(text).map_err(|_| "its header is not text")?;
    let dtype = match value(text, "descr")? {
        "'<f4'" => Dtype::F32,
        "'<f2'" => Dtype::F16,
        other => return Err(format!("it holds numbers of type {other}, '<f4' and '<f2' are read here")),
    };
    if value(text, "fortran_order")? != "False" {
        return Err("it is stored by columns, only storage by rows is read here".into());
    }
    let shape = value(text, "shape")?;
    let sides = shape.strip_prefix('(').and_then(|s| s.split_once(','));
    let numbers = sides.and_then(|(rows, dim)| Some((rows.trim().parse().ok()?, dim.trim().parse().ok()?)));
    let Some((rows, dim)): Option<(u64, u64)> = numbers else {
        return Err(format!("its shape is {shape}), two dimensions are read here"));
    };
    if dim == 0 || dim > MAX_DIM {
        return Err(format!("its rows have {dim} numbers, 1 to {MAX_DIM} are possible"));
    }
    let end = rows.checked_mul(dim * dtype.bytes() as u64).and_then(|bytes| bytes.checked_add(begin as u64));
    if end != Some(size) {
        return Err(format!("its shape ({rows}, {dim}) does not fit its {size} bytes"));
    }
    Ok((Shape { dtype, rows, dim: dim as usize }, begin as u64))
}

/// The value of `key` in the header's dictionary, up to its comma (for the shape, up to its closing bracket).
fn value<'t>(text: &'t str, key: &str) -> Result<&'t str, String> {
    let missing = || format!("its header names no {key}");
    let (_, rest) = text.split_once(&format!("'{key}':")).ok_or_else(missing)?;
    let end = if key == "shape" { ')' } else { ',' };
    Ok(rest.split_once(end).ok_or_else(missing)?.0.trim())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_whatever_its_numbers() {
        for (dtype, rows, dim) in [(Dtype::F32, 0, 1), (Dtype::F16, 1 << 40, 65536), (Dtype::F32, 7, 1280)] {
            let shape = Shape { dtype, rows, dim };
            let header = header(shape);
            let size = 128 + rows * (dim * dtype.bytes()) as u64;
            assert_eq!(parse(&header, size), Ok((shape, 128)));
            assert!(parse(&header, size + 1).unwrap_err().contains("does not fit"));
        }
        let longest = header(Shape { dtype: Dtype::F32, rows: u64::MAX, dim: usize::MAX });
        assert!(longest.ends_with(b" \n"));
    }

    #[test]
    fn the_header_is_the_one_that_numpy_writes() {
        // numpy.save of zeros((2, 3), float32), NumPy 2.
        let mut expected =
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }".to_vec();
        expected.resize(127, b' ');
        expected.push(b'\n');
        assert_eq!(header(Shape { dtype: Dtype::F32, rows: 2, dim: 3 }).as_slice(), expected);
    }

    #[test]
    fn what_is_not_read_here_is_said() {
        let good = String::from_utf8_lossy(&header(Shape { dtype: Dtype::F32, rows: 2, dim: 3 })[6..]).into_owned();
        let said = |from: &str, to: &str| {
            let text = good.replacen(from, &format!("{to:0$}", from.len()), 1);
            parse(&[&MAGIC[..], text.as_bytes()].concat(), 152).unwrap_err()
        };
        assert!(said("<f4", ">f4").contains("'>f4'"));
        assert!(said("False", "True").contains("by columns"));
        assert!(said("(2, 3)", "(6,)").contains("two dimensions"));
        assert!(said("(2, 3)", "(1, 2, 3)").contains("two dimensions"));
        assert!(said("(2, 3)", "(-2, 3)").contains("two dimensions"));
        assert!(said("(2, 3)", "(2, 0)").contains("0 numbers"));
        assert!(said("(2, 3)", "(9223372036854775807, 65536)").contains("does not fit"));
        assert!(said("shape", "shap").contains("no shape"));
        assert!(said("\u{1}\0", "\u{2}\0").contains("version 2.0"));
        assert!(said("v\0", "w\u{1}").contains("header would end"));
        assert!(parse(b"PK", 2).unwrap_err().contains("does not begin"));
        for length in 0..HEADER_BYTES {
            parse(&header(Shape { dtype: Dtype::F32, rows: 0, dim: 3 })[..length], 128).unwrap_err();
        }
    }
}

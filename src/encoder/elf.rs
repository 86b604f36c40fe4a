//! Whether a file can be a library for this machine, told from its ELF header before it is loaded.
//!
//! The loader says "No such file or directory" for a library of another machine, and a truncated one kills the process
//! when its missing pages are touched; so both are looked at here. Layout: System V ABI, "Object Files".
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::files;

/// Bytes of a 64-bit ELF header.
pub(super) const HEADER: usize = 64;
/// Bytes of a 64-bit program header.
pub(super) const SEGMENT: usize = 56;
/// More program headers than any library has.
const MAX_SEGMENTS: u16 = 512;
/// A shared library (`ET_DYN`).
const SHARED: u16 = 3;
/// A program header that is loaded (`PT_LOAD`).
const LOAD: u32 = 1;

/// `Ok` when `path` is a complete 64-bit shared library for this machine; else what it is instead, as the end of the
/// sentence "the file ...".
pub(super) fn check(path: &Path) -> Result<(), String> {
    let unreadable = |e: std::io::Error| format!("cannot be read: {e}");
    let meta = std::fs::metadata(path).map_err(unreadable)?;
    if meta.is_dir() {
        return Err("is a folder; name the library file in it".into());
    }
    if !meta.is_file() {
        return Err("is not a regular file".into());
    }
    let mut file = files::open_regular(path).map_err(unreadable)?;
    let mut header = Vec::with_capacity(HEADER);
    (&mut file).take(HEADER as u64).read_to_end(&mut header).map_err(unreadable)?;
    if header.len() < HEADER || !header.starts_with(b"\x7fELF") {
        return Err(format!("is not a shared library ({} bytes, no ELF header)", meta.len()));
    }
    let (bits, little, machine) = (header[4], header[5] == 1, u16_at(&header, 18));
    if (bits, little, machine) != (2, true, HOST) {
        let width = if bits == 2 { "" } else { " (not 64-bit)" };
        let order = if little { "" } else { " (big-endian)" };
        return Err(format!("is for {}{width}{order}; this program runs on {}", name(machine), name(HOST)));
    }
    if u16_at(&header, 16) != SHARED {
        return Err("is an ELF file but not a shared library".into());
    }
    // Everything the headers point to must be there.
    let sections = u64_at(&header, 40).saturating_add(u64::from(u16_at(&header, 58)) * u64::from(u16_at(&header, 60)));
    let mut end = sections.max(HEADER as u64);
    let (table, size, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    if usize::from(size) != SEGMENT || count > MAX_SEGMENTS {
        return Err("has a damaged ELF header".into());
    }
    file.seek(SeekFrom::Start(table)).map_err(|_ignored| "has a damaged ELF header".to_string())?;
    let mut segments = Vec::new();
    (&mut file).take(u64::from(count) * SEGMENT as u64).read_to_end(&mut segments).map_err(unreadable)?;
    if segments.len() < usize::from(count) * SEGMENT {
        end = u64::MAX;
    }
    for segment in segments.chunks_exact(SEGMENT).filter(|s| u32_at(s, 0) == LOAD) {
        end = end.max(u64_at(segment, 8).saturating_add(u64_at(segment, 32)));
    }
    if end > meta.len() {
        return Err(format!("is cut off: {} bytes are there, its header tells of more", meta.len()));
    }
    Ok(())
}

/// `e_machine` of this build.
const HOST: u16 = if cfg!(target_arch = "x86_64") {
    62
} else if cfg!(target_arch = "aarch64") {
    183
} else if cfg!(target_arch = "riscv64") {
    243
} else {
    0
};

/// Name of an `e_machine`.
fn name(machine: u16) -> String {
    match machine {
        3 => "x86".into(),
        40 => "32-bit ARM".into(),
        62 => "x86-64".into(),
        183 => "arm64 (AArch64)".into(),
        243 => "RISC-V".into(),
        other => format!("machine {other}"),
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// `e_machine` of a machine that this is not, for tests.
#[cfg(test)]
pub(super) const OTHER: u16 = if HOST == 183 { 62 } else { 183 };

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn verdict(bytes: &[u8]) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        check(file.path()).unwrap_err()
    }

    /// A program that is surely there is ELF for this machine, and a position-independent one is
    /// `ET_DYN` like a library.
    fn own_bytes() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn takes_a_complete_file() {
        check(&std::env::current_exe().unwrap()).unwrap();
    }

    #[test]
    fn says_what_is_wrong() {
        let good = own_bytes();
        assert!(verdict(b"version https://git-lfs.github.com/spec/v1\n").contains("no ELF header"));
        assert!(verdict(&good[..40]).contains("(40 bytes, no ELF header)"));
        assert!(verdict(&[]).contains("(0 bytes, no ELF header)"));

        let mut other = good[..HEADER].to_vec();
        other[18..20].copy_from_slice(&OTHER.to_le_bytes());
        let text = verdict(&other);
        assert!(text.starts_with(&format!("is for {}", name(OTHER))), "{text}");
        assert!(text.ends_with(&format!("this program runs on {}", name(HOST))), "{text}");
        other[18..20].copy_from_slice(&40u16.to_le_bytes());
        other[4] = 1;
        assert!(verdict(&other).starts_with("is for 32-bit ARM (not 64-bit)"));

        let mut object = good.clone();
        object[16] = 1;
        assert!(verdict(&object).contains("not a shared library"));
        for length in [HEADER, 5000, good.len() / 2, good.len() - 1] {
            assert!(verdict(&good[..length]).contains("is cut off"), "cut at {length}");
        }
        let mut damaged = good.clone();
        damaged[56..58].copy_from_slice(&u16::MAX.to_le_bytes());
        assert!(verdict(&damaged).contains("damaged"));

        let folder = tempfile::tempdir().unwrap();
        assert!(check(folder.path()).unwrap_err().contains("is a folder"));
        assert!(check(&folder.path().join("none")).unwrap_err().contains("No such file"));
        assert!(check(Path::new("/dev/null")).unwrap_err().contains("not a regular file"));
        // Nobody writes to it: who opened it would wait for ever.
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(check(&pipe).unwrap_err().contains("not a regular file"));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn random_headers_never_panic(mut header in proptest::collection::vec(proptest::num::u8::ANY, HEADER..400)) {
            header[..6].copy_from_slice(b"\x7fELF\x02\x01");
            header[16..20].copy_from_slice(&[3, 0, HOST as u8, 0]);
            header[54..56].copy_from_slice(&(SEGMENT as u16).to_le_bytes());
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &header).unwrap();
            if let Err(text) = check(file.path()) {
                proptest::prop_assert!(text.starts_with("is ") || text.starts_with("has "), "{text}");
            }
        }
    }
}

//! Checks from its ELF headers whether a file can be a library for this machine, before it is loaded.
//!
//! The loader reports "No such file or directory" for a library built for another machine, and a truncated library
//! kills the process when a missing page is touched. This check catches both.
use std::fs::File;
use std::path::Path;

use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFDATA2MSB, ELFMAG, EM_386, EM_AARCH64, EM_ARM, EM_NONE, EM_RISCV, EM_X86_64, ET_DYN,
    FileHeader64, Machine, PT_LOAD, ProgramHeader64,
};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, ReadCache, ReadRef};

use crate::files;

/// Byte order of every machine that this program supports.
pub(super) const ORDER: Endianness = Endianness::Little;
/// Size of a program header, bytes.
const SEGMENT: usize = size_of::<ProgramHeader64<Endianness>>();
/// An upper bound on the program headers of any library.
const MAX_SEGMENTS: u16 = 512;

/// A file that is read only in the parts that are needed.
pub(super) type ElfFile = ReadCache<File>;

/// Returns `Ok` when `path` is a complete 64-bit shared library for this machine; otherwise the error completes the
/// sentence "the file ...".
pub(super) fn check(path: &Path) -> Result<(), String> {
    open(path).map(drop)
}

/// Opens the file at `path` if [`check`] accepts it.
pub(super) fn open(path: &Path) -> Result<ElfFile, String> {
    let unreadable = |e: std::io::Error| format!("cannot be read: {e}");
    let meta = std::fs::metadata(path).map_err(unreadable)?;
    if meta.is_dir() {
        return Err("is a folder; name the library file in it".into());
    }
    if !meta.is_file() {
        return Err("is not a regular file".into());
    }
    let file = ReadCache::new(files::open_regular(path).map_err(unreadable)?);
    let header = header(&file).filter(|header| header.e_ident.magic == ELFMAG);
    let header = header.ok_or_else(|| format!("is not a shared library ({} bytes, no ELF header)", meta.len()))?;
    check_machine(header)?;
    if header.e_type(ORDER) != ET_DYN {
        return Err("is an ELF file but not a shared library".into());
    }
    let tables = u64::from(header.e_shentsize(ORDER)) * u64::from(header.e_shnum(ORDER));
    let mut end = header.e_shoff(ORDER).saturating_add(tables);
    match segments(&file) {
        Ok(segments) => {
            for segment in segments.iter().filter(|segment| segment.p_type(ORDER) == PT_LOAD) {
                end = end.max(segment.p_offset(ORDER).saturating_add(segment.p_filesz(ORDER)));
            }
        }
        Err(SegmentsError::Damaged) => return Err("has a damaged ELF header".into()),
        Err(SegmentsError::CutOff) => end = u64::MAX,
    }
    if end > meta.len() {
        return Err(format!("is cut off: it has {} bytes, fewer than its headers say", meta.len()));
    }
    Ok(file)
}

fn header(file: &ElfFile) -> Option<&FileHeader64<Endianness>> {
    file.read_at(0).ok()
}

fn check_machine(header: &FileHeader64<Endianness>) -> Result<(), String> {
    let (bits, little) = (header.e_ident.class, header.e_ident.data == ELFDATA2LSB);
    let order = if header.e_ident.data == ELFDATA2MSB { Endianness::Big } else { ORDER };
    let machine = header.e_machine(order);
    if bits == ELFCLASS64 && little && machine == HOST {
        return Ok(());
    }
    let width = if bits == ELFCLASS64 { "" } else { " (not 64-bit)" };
    let order = if little { "" } else { " (big-endian)" };
    Err(format!("is for {}{width}{order}; this program runs on {}", name(machine), name(HOST)))
}

/// Why the program headers cannot be read.
#[derive(Debug)]
pub(super) enum SegmentsError {
    /// There are too many, or their size is wrong.
    Damaged,
    /// The file ends before they do.
    CutOff,
}

/// The program headers of a file.
pub(super) fn segments(file: &ElfFile) -> Result<&[ProgramHeader64<Endianness>], SegmentsError> {
    let header = header(file).ok_or(SegmentsError::CutOff)?;
    if usize::from(header.e_phentsize(ORDER)) != SEGMENT || header.e_phnum(ORDER) > MAX_SEGMENTS {
        return Err(SegmentsError::Damaged);
    }
    header.program_headers(ORDER, file).map_err(|_outside| SegmentsError::CutOff)
}

/// The machine that this program is built for.
const HOST: Machine = if cfg!(target_arch = "x86_64") {
    EM_X86_64
} else if cfg!(target_arch = "aarch64") {
    EM_AARCH64
} else if cfg!(target_arch = "riscv64") {
    EM_RISCV
} else {
    EM_NONE
};

fn name(machine: Machine) -> String {
    match machine {
        EM_386 => "x86".into(),
        EM_ARM => "32-bit ARM".into(),
        EM_X86_64 => "x86-64".into(),
        EM_AARCH64 => "arm64 (AArch64)".into(),
        EM_RISCV => "RISC-V".into(),
        other => format!("machine {}", other.0),
    }
}

/// A machine that this program is not built for.
#[cfg(test)]
pub(super) const OTHER: Machine = if cfg!(target_arch = "aarch64") { EM_X86_64 } else { EM_AARCH64 };

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Size of an ELF header, bytes.
    const HEADER: usize = size_of::<FileHeader64<Endianness>>();

    fn refusal(bytes: &[u8]) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        check(file.path()).unwrap_err()
    }

    /// This program is an ELF file for this machine. It is position-independent, so it is `ET_DYN` like a library.
    fn own_bytes() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn accepts_a_complete_file() {
        check(&std::env::current_exe().unwrap()).unwrap();
    }

    #[test]
    fn names_what_is_wrong() {
        let good = own_bytes();
        assert!(refusal(b"version https://git-lfs.github.com/spec/v1\n").contains("no ELF header"));
        assert!(refusal(&good[..40]).contains("(40 bytes, no ELF header)"));
        assert!(refusal(&[]).contains("(0 bytes, no ELF header)"));

        let mut other = good[..HEADER].to_vec();
        other[18..20].copy_from_slice(&OTHER.0.to_le_bytes());
        let text = refusal(&other);
        assert!(text.starts_with(&format!("is for {}", name(OTHER))), "{text}");
        assert!(text.ends_with(&format!("this program runs on {}", name(HOST))), "{text}");
        other[18..20].copy_from_slice(&40u16.to_le_bytes());
        other[4] = 1;
        assert!(refusal(&other).starts_with("is for 32-bit ARM (not 64-bit)"));
        other[4..6].copy_from_slice(&[2, 2]);
        other[18..20].copy_from_slice(&OTHER.0.to_be_bytes());
        assert!(refusal(&other).starts_with(&format!("is for {} (big-endian)", name(OTHER))));

        let mut object = good.clone();
        object[16] = 1;
        assert!(refusal(&object).contains("not a shared library"));
        for length in [HEADER, 5000, good.len() / 2, good.len() - 1] {
            assert!(refusal(&good[..length]).contains("is cut off"), "cut at {length}");
        }
        let mut damaged = good.clone();
        damaged[56..58].copy_from_slice(&u16::MAX.to_le_bytes());
        assert!(refusal(&damaged).contains("damaged"));

        let folder = tempfile::tempdir().unwrap();
        assert!(check(folder.path()).unwrap_err().contains("is a folder"));
        assert!(check(&folder.path().join("none")).unwrap_err().contains("No such file"));
        assert!(check(Path::new("/dev/null")).unwrap_err().contains("not a regular file"));
        // The pipe has no writer, so opening it would block forever.
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(check(&pipe).unwrap_err().contains("not a regular file"));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn random_headers_never_panic(mut header in proptest::collection::vec(proptest::num::u8::ANY, HEADER..400)) {
            header[..6].copy_from_slice(b"\x7fELF\x02\x01");
            header[16..20].copy_from_slice(&[3, 0, HOST.0 as u8, 0]);
            header[54..56].copy_from_slice(&(SEGMENT as u16).to_le_bytes());
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &header).unwrap();
            if let Err(text) = check(file.path()) {
                proptest::prop_assert!(text.starts_with("is ") || text.starts_with("has "), "{text}");
            }
        }
    }
}

//! Which libraries a shared library needs, read from its dynamic section. Layout: System V ABI, "Dynamic Linking".
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::elf::{self, u16_at, u32_at, u64_at};
use crate::files;

/// A program header that holds the dynamic section (`PT_DYNAMIC`).
const DYNAMIC: u32 = 2;
/// A program header that is loaded (`PT_LOAD`).
const LOAD: u32 = 1;
/// Tags of the dynamic section: a needed library, the table of names, the old and the new list of folders.
const NEEDED: u64 = 1;
const STRINGS: u64 = 5;
const RPATH: u64 = 15;
const RUNPATH: u64 = 29;
/// More than the dynamic section of any library, bytes.
const MAX_DYNAMIC: u64 = 1 << 16;
/// More than the name of a library or a list of folders, bytes.
const MAX_NAME: usize = 4096;

/// What a library asks of the loader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DynamicDeps {
    /// Names of libraries.
    pub(super) libraries: Vec<String>,
    /// Folders to look in first.
    pub(super) paths: Vec<PathBuf>,
}

/// Reads `path`, a library for this machine ([`elf::check`]); the error is the end of the sentence "the file ...".
pub(super) fn read(path: &Path) -> Result<DynamicDeps, String> {
    elf::check(path)?;
    let damaged = || "has a damaged dynamic section".to_owned();
    let file = files::open_regular(path).map_err(|e| format!("cannot be read: {e}"))?;
    let bytes = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at).map(|()| bytes).map_err(|_short| damaged())
    };
    let header = bytes(0, elf::HEADER)?;
    let headers = bytes(u64_at(&header, 32), elf::SEGMENT * usize::from(u16_at(&header, 56)))?;
    let headers: Vec<&[u8]> = headers.chunks_exact(elf::SEGMENT).collect();
    let Some(dynamic) = headers.iter().find(|h| u32_at(h, 0) == DYNAMIC) else { return Ok(DynamicDeps::default()) };
    let (at, size) = (u64_at(dynamic, 8), u64_at(dynamic, 32));
    if size > MAX_DYNAMIC {
        return Err(damaged());
    }
    let entries = bytes(at, size as usize)?;
    let entries: Vec<(u64, u64)> =
        entries.chunks_exact(16).map(|e| (u64_at(e, 0), u64_at(e, 8))).take_while(|(tag, _)| *tag != 0).collect();
    let address = entries.iter().find(|(tag, _)| *tag == STRINGS).ok_or_else(damaged)?.1;
    // From the address in memory to the place in the file.
    let loaded = headers.iter().filter(|h| u32_at(h, 0) == LOAD);
    let names = loaded
        .filter_map(|h| {
            address.checked_sub(u64_at(h, 16)).filter(|in_it| *in_it < u64_at(h, 32))?.checked_add(u64_at(h, 8))
        })
        .next()
        .ok_or_else(damaged)?;
    let text = |offset: u64| {
        let mut found = vec![0; MAX_NAME];
        let read = file.read_at(&mut found, names.checked_add(offset).ok_or_else(damaged)?).map_err(|_io| damaged())?;
        let end = found[..read].iter().position(|byte| *byte == 0).ok_or_else(damaged)?;
        found.truncate(end);
        String::from_utf8(found).map_err(|_not_text| damaged())
    };
    let mut needs = DynamicDeps::default();
    let origin = path.parent().unwrap_or(Path::new("/")).display().to_string();
    for (tag, value) in entries {
        match tag {
            NEEDED => needs.libraries.push(text(value)?),
            RPATH | RUNPATH => {
                let folders = text(value)?.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin);
                needs.paths.extend(folders.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from));
            }
            _ => {}
        }
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_program_needs_the_c_library() {
        let own = std::env::current_exe().unwrap();
        let needs = read(&own).unwrap();
        assert!(needs.libraries.iter().any(|name| name.starts_with("libc.so")), "{needs:?}");
        assert!(read(Path::new("/dev/null")).is_err());
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read(&pipe).unwrap_err().contains("not a regular file"));
        // Every damage is an error or a shorter list, never a panic.
        let whole = std::fs::read(&own).unwrap();
        let headers = usize::try_from(u64_at(&whole, 32)).unwrap();
        for at in (headers..headers + elf::SEGMENT * usize::from(u16_at(&whole, 56))).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x5a;
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            if let Ok(needs) = read(file.path()) {
                assert!(needs.libraries.len() < 1000);
            }
        }
    }
}

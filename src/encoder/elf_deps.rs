//! Reads the dependencies of a shared library from its dynamic section.
use std::path::{Path, PathBuf};

use object::ReadRef;
use object::elf::{DT_NEEDED, DT_NULL, DT_RPATH, DT_RUNPATH, DT_STRTAB, PT_DYNAMIC, PT_LOAD};
use object::read::StringTable;
use object::read::elf::{Dyn as _, ProgramHeader as _};

use super::elf::{self, ElfFile, ORDER};

/// An upper bound on the size of a dynamic section, bytes.
const MAX_DYNAMIC: u64 = 1 << 16;

/// What a library asks the loader for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DynamicDeps {
    /// Names of the required libraries.
    pub(super) libraries: Vec<String>,
    /// Directories to search first.
    pub(super) paths: Vec<PathBuf>,
}

/// Reads the dependencies of `path`, a library for this machine ([`elf::check`]). The error completes the sentence
/// "the file ...".
pub(super) fn read(path: &Path) -> Result<DynamicDeps, String> {
    let file = elf::open(path)?;
    let origin = path.parent().unwrap_or(Path::new("/")).display().to_string();
    parse(&file, &origin).ok_or_else(|| "has a damaged dynamic section".to_owned())
}

/// Reads the dependencies of `file`, which is in the directory `origin`; `None` if the dynamic section is damaged.
fn parse(file: &ElfFile, origin: &str) -> Option<DynamicDeps> {
    let segments = elf::segments(file).ok()?;
    let mut deps = DynamicDeps::default();
    let Some(dynamic) = segments.iter().find(|segment| segment.p_type(ORDER) == PT_DYNAMIC) else { return Some(deps) };
    if dynamic.p_filesz(ORDER) > MAX_DYNAMIC {
        return None;
    }
    let entries = dynamic.dynamic(ORDER, file).ok()??;
    let entries =
        || entries.iter().map(|entry| (entry.tag(ORDER), entry.val(ORDER))).take_while(|(tag, _)| *tag != DT_NULL);
    let (_, address) = entries().find(|(tag, _)| *tag == DT_STRTAB)?;
    // The segment that contains the memory address gives the offset in the file.
    let strings = segments.iter().filter(|segment| segment.p_type(ORDER) == PT_LOAD).find_map(|segment| {
        let offset = address.checked_sub(segment.p_vaddr(ORDER)).filter(|offset| *offset < segment.p_filesz(ORDER))?;
        offset.checked_add(segment.p_offset(ORDER))
    })?;
    let strings = StringTable::new(file, strings, file.len().ok()?);
    let text = |offset: u64| String::from_utf8(strings.get(offset.try_into().ok()?).ok()?.to_vec()).ok();
    for (tag, value) in entries() {
        match tag {
            DT_NEEDED => deps.libraries.push(text(value)?),
            DT_RPATH | DT_RUNPATH => {
                let folders = text(value)?.replace("${ORIGIN}", origin).replace("$ORIGIN", origin);
                deps.paths.extend(folders.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from));
            }
            _ => {}
        }
    }
    Some(deps)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_program_needs_the_c_library() {
        let own = std::env::current_exe().unwrap();
        let deps = read(&own).unwrap();
        assert!(deps.libraries.iter().any(|name| name.starts_with("libc.so")), "{deps:?}");
        assert!(read(Path::new("/dev/null")).is_err());
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read(&pipe).unwrap_err().contains("not a regular file"));
        // Damage gives an error or a shorter list, never a panic.
        let whole = std::fs::read(&own).unwrap();
        let headers = usize::try_from(u64::from_le_bytes(whole[32..40].try_into().unwrap())).unwrap();
        let count = usize::from(u16::from_le_bytes([whole[56], whole[57]]));
        for at in (headers..headers + 56 * count).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x5a;
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            if let Ok(deps) = read(file.path()) {
                assert!(deps.libraries.len() < 1000);
            }
        }
    }
}

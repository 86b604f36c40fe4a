#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

/// Creates a file that begins like a library for another machine.
fn foreign(path: &Path) {
    let mut bytes = vec![0u8; 8192];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[16..18].copy_from_slice(&3u16.to_le_bytes());
    bytes[18..20].copy_from_slice(&elf::OTHER.0.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

fn message(config: &Path) -> (String, u8) {
    let error = load(config.to_str().unwrap()).unwrap_err();
    (error.chain(), error.exit_code())
}

#[test]
fn loads_the_real_library_once() {
    let one = crate::encoder::tests::runtime();
    let two = load("").unwrap();
    assert_eq!(one.path, two.path);
    assert!(one.path.is_absolute() && one.path.is_file());
    let mut numbers = one.version.split('.').map(|n| n.parse::<u32>().unwrap());
    assert_eq!(numbers.next(), Some(1));
    assert!(numbers.next().unwrap() >= NEEDED_MINOR, "{}", one.version);
    // The same when the configuration names it.
    assert_eq!(load(one.path.to_str().unwrap()).unwrap().path, one.path);
}

#[test]
fn a_named_library_is_used_or_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LIBRARY);
    let (text, code) = message(&path);
    assert!(text.contains("encoder.onnxruntime names ") && text.contains("which is not there."), "{text}");
    assert!(text.contains("or leave the key empty to search"), "{text}");
    assert_eq!(code, 78);

    foreign(&path);
    let (text, _) = message(&path);
    assert!(text.contains("which is for ") && text.contains("; this program runs on "), "{text}");

    std::fs::write(&path, "not a library").unwrap();
    assert!(message(&path).0.contains("which is not a shared library (13 bytes, no ELF header)"));
    assert!(message(folder.path()).0.contains("which is a folder; name the library file in it"));
    // A relative name, as a configuration file may have it.
    assert!(
        message(Path::new("no/such.so"))
            .0
            .contains(&format!("{}/no/such.so", std::env::current_dir().unwrap().display()))
    );
    // The earlier errors have not affected the real library.
    crate::encoder::tests::runtime();
}

#[test]
fn every_place_is_listed_in_order() {
    let all = find("/somewhere/lib.so");
    assert_eq!((all[0].origin, &all[0].found), (LibrarySource::Config, &LibraryLookup::Missing));
    assert_eq!(all[0].to_string(), "encoder.onnxruntime: /somewhere/lib.so: not there");
    let order: Vec<LibrarySource> = all.iter().map(|c| c.origin).filter(|o| *o != LibrarySource::Environment).collect();
    use LibrarySource::{BesideBinary, Cache, Config, System};
    assert_eq!(order, [Config, BesideBinary, Cache, System, System, System, System, System]);
    assert!(find("").iter().all(|c| c.origin != Config));
    let cached = all.iter().find(|c| c.origin == Cache).unwrap();
    assert!(cached.path.to_str().unwrap().contains("afterimage/onnxruntime/libonnxruntime.so"));
}

#[test]
fn a_versioned_name_is_found() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(library_in(folder.path()), folder.path().join(LIBRARY));
    for name in
        ["libonnxruntime.so.1.9.1", "libonnxruntime.so.1.23.2", "libonnxruntime.so.1.23.2.old", "libonnxruntime.so."]
    {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    assert_eq!(library_in(folder.path()), folder.path().join("libonnxruntime.so.1.23.2"));
    std::fs::write(folder.path().join(LIBRARY), "").unwrap();
    assert_eq!(library_in(folder.path()), folder.path().join(LIBRARY));
}

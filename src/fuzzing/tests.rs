//! The corpus as a regression test: it contains every input that once broke a parser.
use std::fs;
use std::path::{Path, PathBuf};

use super::{TARGETS, folder, seeds, target};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// All inputs of the corpus, with the target of each.
fn inputs() -> Vec<(String, PathBuf)> {
    let mut all = Vec::new();
    for folder in fs::read_dir(corpus()).unwrap() {
        let folder = folder.unwrap();
        let name = folder.file_name().into_string().unwrap();
        all.extend(fs::read_dir(folder.path()).unwrap().map(|file| (name.clone(), file.unwrap().path())));
    }
    all
}

/// Removes the files written by the targets of this thread.
struct Scratch;

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(folder()).ok();
    }
}

#[test]
fn every_input_of_the_corpus_goes_through_every_target() {
    let _scratch = Scratch;
    let inputs = inputs();
    assert!(inputs.len() > TARGETS.len(), "only {} inputs", inputs.len());
    for (of, path) in inputs {
        let bytes = fs::read(&path).unwrap();
        assert!(target(&of).is_some(), "{}: `{of}` is no target", path.display());
        for (name, parser) in TARGETS {
            let outcome = std::panic::catch_unwind(|| parser(&bytes));
            assert!(outcome.is_ok(), "{name} panics on {}", path.display());
        }
    }
}

#[test]
fn seeds_are_whole_inputs_of_their_targets() {
    let _scratch = Scratch;
    for (name, parser) in TARGETS {
        let of_corpus = fs::read_dir(corpus().join(name)).into_iter().flatten();
        let seeds = seeds(name).into_iter().chain(of_corpus.map(|file| fs::read(file.unwrap().path()).unwrap()));
        let taken = seeds.map(|seed| parser(&seed)).collect::<Vec<_>>();
        assert!(
            taken.contains(&true),
            "{name} takes none of its {} seeds: fuzzing it stays at its first check",
            taken.len()
        );
    }
}

/// Readers must reject garbage: a target that accepts anything tests nothing.
#[test]
fn garbage_is_refused() {
    let _scratch = Scratch;
    let garbage: Vec<u8> = (0..4000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    // A file may have any name, any model gets a draft card, and latents and raw camera pixels may be any numbers.
    let any = ["uri", "proposed_card", "latents", "camera_buffer"];
    for (name, parser) in TARGETS.into_iter().filter(|(name, _)| !any.contains(name)) {
        assert!(!parser(&garbage), "{name} takes garbage");
    }
}

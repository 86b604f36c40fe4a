//! Checks the maps between the spaces of a run.
use std::path::Path;

use super::heads::Heads;
use crate::checkpoint::{MAPS, SpaceMapCheckpoint, load_map, load_own_map, map_path};
use crate::commands::diagnostics::Diagnostics;
use crate::files;
use crate::pipeline::run_dir::RunManifest;

/// Reads every map and checks that one leads into the space of every head. `frozen`: the space of the frozen latents.
pub(super) fn check(
    all: &mut Diagnostics,
    run: &Path,
    info: Option<&RunManifest>,
    frozen: Option<&str>,
    heads: &Heads,
) {
    let owner = info.map(RunManifest::owner);
    let names = match files::names_in(&run.join(MAPS)) {
        Ok(names) => names,
        Err(error) => return all.fail(MAPS, error.chain(), "make the folder readable"),
    };
    let numbers = files::numbered(&names, "safetensors");
    for number in &numbers {
        let what = format!("{MAPS}/{}", files::numbered_name(*number, "safetensors"));
        let path = map_path(run, *number);
        let loaded = match &owner {
            Some(owner) => load_own_map(&path, owner),
            None => load_map(&path),
        };
        match loaded {
            Err(error) => {
                let todo = "put it back from a copy; until then older embeddings cannot be migrated past it";
                all.fail(what, error.chain(), todo);
            }
            Ok(file) => match misplaced(&file, frozen, heads) {
                Some(wrong) => all.fail(what, wrong, "remove it, or put the right one back from a copy"),
                None => all.ok(what, told(&file)),
            },
        }
    }
    let lacking: Vec<String> =
        heads.keys().filter(|head| !numbers.contains(head)).map(|head| format!("{head:04}")).collect();
    if !lacking.is_empty() {
        let found = format!("no map leads into the space of head {}", lacking.join(", "));
        all.warn(MAPS, found, "older embeddings cannot be migrated there; embed the frames again where that is needed");
    }
}

/// A message if the map joins spaces other than those of the heads that it names.
fn misplaced(file: &SpaceMapCheckpoint, frozen: Option<&str>, heads: &Heads) -> Option<String> {
    let known = |head: u64| if head == 0 { frozen } else { heads.get(&head)?.as_deref() };
    let ends = [(file.from_head, &file.from), (file.to_head, &file.to)];
    let wrong =
        ends.into_iter().find_map(|(head, space)| known(head).filter(|known| known != space).map(|k| (head, space, k)));
    wrong.map(|(head, space, known)| format!("joins space {space} as that of head {head}, which is of space {known}"))
}

fn told(file: &SpaceMapCheckpoint) -> String {
    let SpaceMapCheckpoint { from, from_head, to, references, .. } = file;
    let kept = file.hits.map_or_else(
        || "not measured".to_owned(),
        |hits| format!("keeps {:.1} % of the hits ({} queries)", 100.0 * hits.rate(), file.queries),
    );
    let kind = file.map.kind.name();
    format!("from space {from} (head {from_head}) to {to}: {kind}, {references} references, {kept}")
}

//! Checks promoted heads: checksum, number, shape, space, origin.
use std::collections::BTreeMap;
use std::path::Path;

use crate::checkpoint::{HeadCheckpoint, head_path, load_head};
use crate::commands::diagnostics::Diagnostics;
use crate::error::{Error, Result};
use crate::files;
use crate::head::Head;
use crate::pipeline::run_dir::RunManifest;
use crate::spaces::space_of;

/// Maximum size of `latest`, which holds a number.
const MAX_LATEST_BYTES: u64 = 64;

/// The space of each head of a run by number; `None` for an unreadable head.
pub(super) type Heads = BTreeMap<u64, Option<String>>;

/// The space of the run's frozen latents.
pub(super) fn frozen_space(info: &RunManifest) -> String {
    space_of(&info.encoder_sha256, &info.card_hash, &Head::Identity { dim: info.origin().pooled_dim() })
}

pub(super) fn check(all: &mut Diagnostics, run: &Path, info: Option<&RunManifest>) -> Heads {
    let names = match files::names_in(&run.join("heads")) {
        Ok(names) => names,
        Err(error) => {
            all.fail("heads", error.chain(), "make the folder readable");
            return Heads::new();
        }
    };
    let mut heads = Heads::new();
    for number in files::numbered(&names, "safetensors") {
        let path = head_path(run, number);
        let what = format!("heads/{}", files::numbered_name(number, "safetensors"));
        match load_head(&path).and_then(|file| fits(&path, &file, number, info).map(|()| file)) {
            Ok(file) => {
                let (from, to) = (file.head.dim_in(), file.head.dim_out());
                let found =
                    format!("{from} to {to} values, space {}, used from frame {}", file.space, file.activate_at);
                all.ok(what, found);
                heads.insert(number, Some(file.space));
            }
            Err(error) => {
                all.fail(what, error.chain(), "put it back from a copy; a damaged one gives way to the head before it, one of another run or encoder stops");
                heads.insert(number, None);
            }
        }
    }
    if heads.is_empty() {
        all.ok("heads", "none promoted; embeddings are the frozen encoder's");
    }
    latest(all, run, &heads);
    heads
}

/// Checks what the checksum does not cover: that the head has the number in its name, belongs to this run, and is
/// usable.
fn fits(path: &Path, file: &HeadCheckpoint, number: u64, info: Option<&RunManifest>) -> Result<()> {
    let wrong = |what: String| Err(Error::runtime(format!("{} {what}", path.display())));
    if file.number != number {
        return wrong(format!("is head {} by its content", file.number));
    }
    file.head.check()?;
    let Some(info) = info else { return Ok(()) };
    if file.head.latent_dim() != info.origin().pooled_dim() {
        return wrong(format!(
            "takes {} values, the run's latents have {}",
            file.head.latent_dim(),
            info.origin().pooled_dim()
        ));
    }
    if file.encoder_sha256 != info.encoder_sha256 || file.card_hash != info.card_hash {
        return wrong("was made over another encoder or preparation than the run's".into());
    }
    info.owner().check_run(path, &file.run)
}

/// Checks the file `latest`, which is for people and scripts and must not mislead them.
fn latest(all: &mut Diagnostics, run: &Path, heads: &Heads) {
    let path = run.join("latest");
    let newest = heads.keys().next_back().copied();
    if !path.exists() {
        if let Some(newest) = newest {
            all.warn("latest", format!("is missing; the newest head is {newest:04}"), "write that number into it");
        }
        return;
    }
    let text = match files::read_bounded(&path, MAX_LATEST_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(error) => return all.fail("latest", error.chain(), "write the number of the newest head into it"),
    };
    match (text.parse::<u64>().ok(), newest) {
        (Some(named), Some(newest)) if named == newest => all.ok("latest", text),
        // The run was interrupted between writing the head and this file.
        (Some(named), Some(newest)) if heads.contains_key(&named) => {
            all.warn("latest", format!("names head {named}, head {newest} is newer"), "write that number into it");
        }
        _ => all.fail("latest", format!("names {text:?}, which is no head of this run"), "correct it or remove it"),
    }
}

//! Space maps: `maps/NNNN.safetensors` in the run folder maps embeddings into the space of head `NNNN`.
use std::path::{Path, PathBuf};

use super::Owner;
use super::{load, save};
use crate::error::{Error, Result};
use crate::files;
use crate::spaces::{HitRate, SpaceMap};
use crate::state_dict::StateDict;

/// Value of the metadata entry `format` of a map.
const FORMAT: &str = "afterimage map 2";

/// Size limit of a map file, for reading and writing. It fits a square matrix for the longest embeddings
/// ([`crate::head::MAX_DIM`]).
const MAX_MAP_BYTES: u64 = 1 << 33;

/// Folder of the maps in a run folder.
pub const MAPS: &str = "maps";

/// A space map with the two spaces that it connects.
#[derive(Debug, Clone, PartialEq)]
pub struct SpaceMapCheckpoint {
    /// Space of the input embeddings.
    pub from: String,
    /// Number of the head of that space (0: the frozen latents).
    pub from_head: u64,
    /// Space of the output embeddings.
    pub to: String,
    /// Number of the head of that space; also the number of the file.
    pub to_head: u64,
    /// Identity of the run that made it.
    pub run: String,
    /// SHA-256 of the encoder's ONNX file.
    pub encoder_sha256: String,
    /// Hash of everything else that changes the latents.
    pub card_hash: String,
    /// The map from `from` to `to`.
    pub map: SpaceMap,
    /// Number of latents that it was fitted on.
    pub references: usize,
    /// Number of queries in the evaluation; the fit used none of them.
    pub queries: usize,
    /// Hit rate of the mapped embeddings; `None` if nothing could be measured.
    pub hits: Option<HitRate>,
    /// Hit rate of the old embeddings without the map; `None` if the dimensions differ.
    pub as_is: Option<f64>,
}

/// Path of the map into the space of head `number`.
pub fn map_path(run: &Path, number: u64) -> PathBuf {
    run.join(MAPS).join(files::numbered_name(number, super::head_checkpoint::END))
}

/// Writes `maps/NNNN.safetensors` atomically, with a checksum. The same map gives the same bytes.
///
/// # Errors
/// The I/O error.
pub fn save_map(run: &Path, file: &SpaceMapCheckpoint) -> Result<()> {
    let mut contents = StateDict::default();
    contents.text("format", FORMAT);
    contents.text("kind", file.map.kind.name());
    contents.text("from", &file.from);
    contents.text("from_head", file.from_head);
    contents.text("to", &file.to);
    contents.text("to_head", file.to_head);
    contents.text("run", &file.run);
    contents.text("encoder_sha256", &file.encoder_sha256);
    contents.text("card_hash", &file.card_hash);
    contents.text("references", file.references);
    contents.text("queries", file.queries);
    if let Some(HitRate { within, across }) = file.hits {
        contents.text("hits_within", within);
        contents.text("hits_across", across);
    }
    if let Some(as_is) = file.as_is {
        contents.text("hits_as_is", as_is);
    }
    contents.array("matrix".into(), &file.map.matrix);
    contents.array("offset".into(), &file.map.offset);
    let path = map_path(run, file.to_head);
    files::create_folder(files::folder_of(&path))?;
    save(&path, &contents.meta, &contents.tensors, MAX_MAP_BYTES).map(drop)
}

/// [`load_map`], but only accepts a map of `owner`.
///
/// # Errors
/// Those of [`load_map`]; or the map belongs to another run, encoder or preprocessing.
pub fn load_own_map(path: &Path, owner: &Owner) -> Result<SpaceMapCheckpoint> {
    let file = load_map(path)?;
    owner.check_origin(path, [&file.run, &file.encoder_sha256, &file.card_hash])?;
    Ok(file)
}

/// Reads a map, bit for bit as it was saved.
///
/// # Errors
/// The I/O error, or what is wrong with the file: damaged, not a map, or another version.
pub fn load_map(path: &Path) -> Result<SpaceMapCheckpoint> {
    let mut stored = load(path, MAX_MAP_BYTES)?;
    if stored.text("format")? != FORMAT {
        return Err(stored.wrong(format!("is not of the format {FORMAT:?}")));
    }
    let kind = stored.parse("kind")?;
    let [p, q] = stored.shape("matrix")?;
    let map = SpaceMap { kind, matrix: stored.take_matrix("matrix", p, q)?, offset: stored.take_vector("offset", q)? };
    map.check().map_err(|e| stored.wrong("has a map that cannot be used").with_source(e))?;
    let known = |key: &str| stored.meta.contains_key(key).then(|| stored.parse(key)).transpose();
    let hits = known("hits_within")?.zip(known("hits_across")?).map(|(within, across)| HitRate { within, across });
    let file = SpaceMapCheckpoint {
        from: stored.text("from")?.to_owned(),
        from_head: stored.parse("from_head")?,
        to: stored.text("to")?.to_owned(),
        to_head: stored.parse("to_head")?,
        run: stored.run()?.to_owned(),
        encoder_sha256: stored.text("encoder_sha256")?.to_owned(),
        card_hash: stored.text("card_hash")?.to_owned(),
        references: stored.parse("references")?,
        queries: stored.parse("queries")?,
        hits,
        as_is: known("hits_as_is")?,
        map,
    };
    if map_path(Path::new(""), file.to_head).file_name() != path.file_name() {
        return Err(Error::damaged(format!("{} is damaged: inside it leads to head {}", path.display(), file.to_head)));
    }
    Ok(file)
}

//! Promoted heads: `heads/NNNN.safetensors` in the run folder, and `latest`, which names the newest.
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Owner;
use super::{load, save};
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::head::{Head, ScatterStats};
use crate::spaces::space_of;
use crate::state_dict::StateDict;

/// File extension of heads.
pub(super) const END: &str = "safetensors";

/// Value of the metadata entry `format` of a head.
const FORMAT: &str = "afterimage head 2";

/// Size limit of a head file, for reading and writing. It fits the head and the three triangles of the scatter
/// statistics of the longest latents that the learner accepts ([`crate::head::MAX_DIM`]).
pub(super) const MAX_HEAD_BYTES: u64 = 1 << 34;

/// A promoted head with everything needed to use it again.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadCheckpoint {
    /// The head; the identity where the frozen latents replaced a learned head.
    pub head: Head,
    /// Promotion number, from 1.
    pub number: u64,
    /// Name of its embedding space, see [`space_of`].
    pub space: String,
    /// Identity of the run that promoted it.
    pub run: String,
    /// SHA-256 of the encoder's ONNX file.
    pub encoder_sha256: String,
    /// Hash of everything else that changes the latents.
    pub card_hash: String,
    /// Source position of the first frame that uses it.
    pub activate_at: u64,
    /// Source position of the newest training frame when it was made.
    pub made_at: u64,
    /// The statistics that it was fitted on, if they are kept.
    pub scatter: Option<ScatterStats>,
}

/// Path of head `number` of a run.
pub fn head_path(run: &Path, number: u64) -> PathBuf {
    run.join("heads").join(files::numbered_name(number, END))
}

/// Writes `heads/NNNN.safetensors`, then `latest` (a text file with the number), each atomically. It is safe to repeat
/// after an error (a full disk): the same head gives the same file.
/// # Errors
/// Number 0, which stands for the frozen encoder before any promotion; or the I/O error.
pub fn save_head(run: &Path, file: &HeadCheckpoint) -> Result<()> {
    let path = head_path(run, file.number);
    if file.number == 0 {
        return Err(Error::runtime(format!("cannot write {}: number 0 stands for the frozen encoder", path.display())));
    }
    let mut contents = StateDict::default();
    contents.text("format", FORMAT);
    contents.text("number", file.number);
    contents.text("space", &file.space);
    contents.text("run", &file.run);
    contents.text("encoder_sha256", &file.encoder_sha256);
    contents.text("card_hash", &file.card_hash);
    contents.text("activate_at", file.activate_at);
    contents.text("made_at", file.made_at);
    contents.head("", &file.head);
    if let Some(scatter) = &file.scatter {
        contents.scatter("scatter.", scatter);
    }
    files::create_folder(&run.join("heads"))?;
    save(&path, &contents.meta, &contents.tensors, MAX_HEAD_BYTES)?;
    files::replace(&run.join("latest"), |out| writeln!(out, "{:04}", file.number))
}

/// Reads a head, bit for bit as it was saved.
/// # Errors
/// The I/O error, or what is wrong with the file: damaged, not a head, or another version.
pub fn load_head(path: &Path) -> Result<HeadCheckpoint> {
    let mut stored = load(path, MAX_HEAD_BYTES)?;
    if stored.text("format")? != FORMAT {
        return Err(stored.wrong(format!("is not of the format {FORMAT:?}")));
    }
    let head = stored.take_head("")?;
    let scatter = stored.has("scatter.sum").then(|| stored.take_scatter("scatter.", head.latent_dim())).transpose()?;
    let file = HeadCheckpoint {
        number: stored.parse("number")?,
        space: stored.text("space")?.to_owned(),
        run: stored.run()?.to_owned(),
        encoder_sha256: stored.text("encoder_sha256")?.to_owned(),
        card_hash: stored.text("card_hash")?.to_owned(),
        activate_at: stored.parse("activate_at")?,
        made_at: stored.parse("made_at")?,
        scatter,
        head,
    };
    let space = space_of(&file.encoder_sha256, &file.card_hash, &file.head);
    if file.space != space {
        return Err(stored.wrong(format!("names the space {}, its head is of the space {space}", file.space)));
    }
    Ok(file)
}

/// [`load_head`], but only accepts a head of `owner`.
/// # Errors
/// Those of [`load_head`]; or the head belongs to another run, encoder, preprocessing or latent size.
pub fn load_own_head(path: &Path, owner: &Owner) -> Result<HeadCheckpoint> {
    let file = load_head(path)?;
    owner.check_origin(path, [&file.run, &file.encoder_sha256, &file.card_hash])?;
    owner.check_head(path, &file.head)?;
    Ok(file)
}

/// The newest intact head of a run, and a message for each newer one that is damaged. The files in `heads` decide;
/// `latest` is only for people and scripts.
/// # Errors
/// The folder or a head cannot be read, or a head belongs to another run.
pub fn newest_head(run: &Path, owner: &Owner) -> Result<(Option<HeadCheckpoint>, Vec<String>)> {
    let mut warnings = Vec::new();
    for number in files::numbered(&files::names_in(&run.join("heads"))?, END).into_iter().rev() {
        let path = head_path(run, number);
        let loaded = load_own_head(&path, owner).and_then(|file| {
            let named = file.number;
            let other = || Error::damaged(format!("{} is damaged: inside it is number {named}", path.display()));
            (named == number).then_some(file).ok_or_else(other)
        });
        match loaded {
            Ok(file) => return Ok((Some(file), warnings)),
            Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
            Err(error) => warnings.push(format!("{}; the head before it is used", error.chain())),
        }
    }
    Ok((None, warnings))
}

//! Which run and encoder a file belongs to. See [`Owner`].
use std::path::Path;

use afterimage_learn::LatentSpec;

use crate::error::{Error, Result};
use crate::head::Head;

/// The run that states, heads and maps belong to, and the latents that they apply to. A file of another run was learned
/// from other frames. It would load without an error, so the owner must be checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// Identity of the run (`identity` in `run.json`).
    pub run: String,
    /// SHA-256 of the encoder's ONNX file.
    pub encoder_sha256: String,
    /// Hash of everything else that changes the latents.
    pub card_hash: String,
    /// Length of a latent; of the pooled latent for a grid.
    pub latent_dim: usize,
    /// Number of values in a latent; of the whole grid for a grid.
    pub numbers: usize,
}

impl Owner {
    /// The owner of the files that run `run` writes for the latents of `spec`.
    pub fn new(spec: &LatentSpec, run: &str) -> Self {
        Self {
            run: run.to_owned(),
            encoder_sha256: spec.encoder_sha256.clone(),
            card_hash: spec.card_hash.clone(),
            latent_dim: spec.pooled_dim(),
            numbers: spec.dim,
        }
    }

    /// Rejects a file of another run.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::CheckFailed`].
    pub fn check_run(&self, path: &Path, run: &str) -> Result<()> {
        self.same(path, "run", &self.run, run)
    }

    /// Rejects a head or map of another run, encoder or preprocessing.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::CheckFailed`].
    pub(super) fn check_origin(&self, path: &Path, [run, encoder, card]: [&str; 3]) -> Result<()> {
        self.check_run(path, run)?;
        self.same(path, "encoder", &self.encoder_sha256, encoder)?;
        self.same(path, "preparation", &self.card_hash, card)
    }

    /// Rejects a head for latents of another size, or one with an empty output.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::CheckFailed`].
    pub fn check_head(&self, path: &Path, head: &Head) -> Result<()> {
        let refused = |what: String| Error::check_failed(format!("cannot use {}: its head {what}", path.display()));
        let (latent, numbers) = (head.latent_dim(), head.dim_in());
        if latent != self.latent_dim || numbers != latent && numbers != self.numbers {
            return Err(refused(format!(
                "takes latents of {latent} ({numbers} numbers), the run's have {} ({} numbers)",
                self.latent_dim, self.numbers
            )));
        }
        if head.dim_out() == 0 { Err(refused("gives embeddings of no numbers".into())) } else { Ok(()) }
    }

    fn same(&self, path: &Path, what: &str, ours: &str, theirs: &str) -> Result<()> {
        if ours == theirs {
            return Ok(());
        }
        let short = |text: &str| text.chars().take(12).collect::<String>();
        Err(Error::check_failed(format!(
            "cannot use {}: it belongs to another {what} ({}…, this is {}…) and came here from elsewhere; move it away, or \
             put the run's own back",
            path.display(),
            short(theirs),
            short(ours)
        )))
    }
}

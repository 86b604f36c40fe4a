//! The heads that a fit tries, built from the statistics and the residual.
use std::ops::Range;
use std::sync::Arc;

use ndarray::Array2;

use super::Learner;
use super::fit_cache::{Key, fingerprint};
use super::trainer::Residual;
use crate::config::{HeadKind, HeadSpec, LearnerConfig};
use crate::error::{Error, Result};
use crate::head::{EmbeddingKind, Head, HeadParams, ScatterStats, SfaFit};

/// How a slow head is fitted. Candidates that differ only in their dimensions share a fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FitOptions {
    shrinkage: f64,
    views: bool,
    part: Option<usize>,
}

/// A candidate for the promotion gate.
pub(super) struct CandidateHead {
    pub(super) kind: HeadKind,
    pub(super) options: FitOptions,
    /// Dimensions of its slow head.
    pub(super) dim: usize,
    /// The head that the gate scores: fitted without the held-out blocks.
    pub(super) judged: Head,
}

/// The entries of `head.candidates`, checked against the parts of the latents.
///
/// # Errors
/// An entry names a part that does not exist.
pub(super) fn candidates(config: &LearnerConfig, parts: &[Range<usize>]) -> Result<Vec<HeadSpec>> {
    let check = |spec: &HeadSpec| match spec.part {
        Some(part) if part > parts.len() => Err(Error::config(format!(
            "head.candidates has \"{spec}\": part={part}, but the latents of this encoder have {} (see encoder.taps)",
            if parts.len() == 1 { "one part".to_owned() } else { format!("{} parts", parts.len()) }
        ))),
        _ => Ok(*spec),
    };
    config.head.candidates.iter().map(check).collect()
}

/// The slow heads of one set of statistics. Each set of options is fitted once, on first use.
pub(super) struct FitCache<'a> {
    learner: &'a Learner,
    scatter: &'a ScatterStats,
    /// Fingerprint of the statistics, if fits are shared.
    fingerprint: Option<u64>,
    done: Vec<(FitOptions, Arc<SfaFit>)>,
}

impl<'a> FitCache<'a> {
    pub(super) fn new(learner: &'a Learner, scatter: &'a ScatterStats) -> Self {
        Self { learner, scatter, fingerprint: learner.shared.as_ref().map(|_| fingerprint(scatter)), done: Vec::new() }
    }

    /// The slow head with `head.dim` and `head.shrinkage`, which is the base of the residual.
    ///
    /// # Errors
    /// The statistics allow no fit.
    pub(super) fn base(&mut self, alpha: f64) -> Result<HeadParams> {
        let learner = self.learner;
        let (recipe, dim) = (learner.base_recipe(), learner.base_dim());
        Ok(learned(self.fit(recipe)?, dim, EmbeddingKind::Single, alpha))
    }

    /// A slow head, alone or concatenated with the frozen latent.
    ///
    /// # Errors
    /// The statistics allow no fit.
    pub(super) fn slow(&mut self, recipe: FitOptions, dim: usize, form: EmbeddingKind) -> Result<Head> {
        let head = Head::Learned(learned(self.fit(recipe)?, dim, form, 1.0));
        Ok(self.learner.form.head(head))
    }

    fn fit(&mut self, recipe: FitOptions) -> Result<&SfaFit> {
        let at = match self.done.iter().position(|(done, _)| *done == recipe) {
            Some(at) => at,
            None => {
                let fit = self.found_or_made(recipe)?;
                self.done.push((recipe, fit));
                self.done.len() - 1
            }
        };
        Ok(&self.done[at].1)
    }

    /// Returns a fit from the shared cache, or makes a new one.
    fn found_or_made(&self, recipe: FitOptions) -> Result<Arc<SfaFit>> {
        let view_weight = self.learner.config.learn.augmentation.weight;
        let shared = self.learner.shared.as_ref().zip(self.fingerprint).map(|(shared, fingerprint)| {
            (shared, Key { fingerprint, recipe, keep: self.learner.most_dims(recipe), view_weight })
        });
        if let Some(fit) = shared.and_then(|(shared, key)| shared.find(key)) {
            return Ok(fit);
        }
        let fit = Arc::new(self.make(recipe)?);
        self.learner.governor.rest();
        if let Some((shared, key)) = shared {
            shared.keep(key, &fit);
        }
        Ok(fit)
    }

    fn make(&self, recipe: FitOptions) -> Result<SfaFit> {
        let keep = self.learner.most_dims(recipe);
        let weight = if recipe.views { self.learner.config.learn.augmentation.weight } else { 0.0 };
        let shrinkage = recipe.shrinkage;
        match recipe.part.and_then(|part| self.learner.selection.parts.get(part - 1)) {
            Some(part) => {
                let fit = self.scatter.part(part.clone())?.fit_with_views(keep, shrinkage, weight)?;
                Ok(fit.padded(self.learner.form.dim(), part.start))
            }
            None => self.scatter.fit_with_views(keep, shrinkage, weight),
        }
    }
}

impl Learner {
    fn base_recipe(&self) -> FitOptions {
        FitOptions { shrinkage: self.config.head.shrinkage, views: true, part: None }
    }

    /// Dimensions of the residual's base head.
    pub(super) fn base_dim(&self) -> usize {
        self.config.head.dim.min(self.form.dim())
    }

    fn recipe(&self, candidate: &HeadSpec) -> FitOptions {
        if candidate.kind.trained() {
            return self.base_recipe();
        }
        FitOptions {
            shrinkage: candidate.shrinkage.unwrap_or(self.config.head.shrinkage),
            // Without any views, the option makes no difference.
            views: candidate.views || self.data.scatter.views() == 0,
            // A single part that covers the whole latent is no restriction.
            part: candidate.part.filter(|_| self.selection.parts.len() > 1),
        }
    }

    fn dim(&self, candidate: &HeadSpec) -> usize {
        let part = candidate
            .part
            .and_then(|part| self.selection.parts.get(part - 1))
            .map_or(self.form.dim(), |part| part.len());
        candidate.dim.unwrap_or(self.config.head.dim).min(part)
    }

    /// The largest number of dimensions that any candidate needs from a fit.
    fn most_dims(&self, recipe: FitOptions) -> usize {
        let of = self.selection.candidates.iter().filter(|candidate| self.recipe(candidate) == recipe);
        let base = (recipe == self.base_recipe()).then(|| self.base_dim());
        of.map(|candidate| self.dim(candidate)).chain(base).max().unwrap_or(1)
    }

    /// Builds the head of a candidate. Returns `None` if it needs the residual and that has had no gradient step yet.
    ///
    /// # Errors
    /// The statistics allow no fit.
    pub(super) fn rung(&self, candidate: &HeadSpec, fits: &mut FitCache<'_>) -> Result<Option<CandidateHead>> {
        let (kind, recipe, dim) = (candidate.kind, self.recipe(candidate), self.dim(candidate));
        let trained = |form: EmbeddingKind| {
            let residual = self.trained.residual.as_ref().filter(|residual| residual.steps() > 0);
            residual.map(Residual::head).and_then(|head| match head {
                Head::Learned(learned) => Some(Head::Learned(HeadParams { form, ..learned })),
                // Over grid cells, the mean with the slow head does not exist.
                other => (form == EmbeddingKind::Single).then_some(other),
            })
        };
        let judged = match kind {
            HeadKind::Slow => Some(fits.slow(recipe, dim, EmbeddingKind::Single)?),
            HeadKind::FrozenSlow => Some(fits.slow(recipe, dim, EmbeddingKind::BesideFrozen)?),
            HeadKind::SlowMlp => trained(EmbeddingKind::Single),
            HeadKind::Mean => trained(EmbeddingKind::Mean),
        };
        Ok(judged.map(|judged| CandidateHead { kind, options: recipe, dim, judged }))
    }

    /// The slow head that a residual must improve on: from this fit, with the residual's dimensions.
    ///
    /// # Errors
    /// The statistics allow no fit.
    pub(super) fn slow_reference(&self, fits: &mut FitCache<'_>) -> Result<Head> {
        fits.slow(self.base_recipe(), self.base_dim(), EmbeddingKind::Single)
    }
}

impl CandidateHead {
    /// Identifies the head: the list may name the same head twice in different spellings.
    pub(super) fn key(&self) -> (HeadKind, FitOptions, usize) {
        (self.kind, self.options, self.dim)
    }

    /// Options other than the dimensions, spelled as in `head.candidates`.
    pub(super) fn options(&self, learner: &Learner) -> String {
        let FitOptions { shrinkage, views, part } = self.options;
        let shrinkage = (shrinkage != learner.config.head.shrinkage).then(|| format!("shrinkage={shrinkage}"));
        let views = (!views).then(|| "views=no".to_owned());
        let part = part.map(|part| format!("part={part}"));
        [shrinkage, views, part].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// Refits the head on other statistics. Returns `None` if it depends on more than the statistics.
    ///
    /// # Errors
    /// The statistics allow no fit.
    pub(super) fn refit(&self, fits: &mut FitCache<'_>) -> Result<Option<Head>> {
        match self.kind {
            HeadKind::Slow => fits.slow(self.options, self.dim, EmbeddingKind::Single).map(Some),
            HeadKind::FrozenSlow => fits.slow(self.options, self.dim, EmbeddingKind::BesideFrozen).map(Some),
            HeadKind::SlowMlp | HeadKind::Mean => Ok(None),
        }
    }
}

/// The slow head of a fit, scaled so that the mean squared length of `y = W'(f - mu)` over the stream equals its number
/// of dimensions. The residual then starts from inputs of the usual size, whatever the encoder's scale. (Over all
/// latents, the variance of `y` along direction `j` is the eigenvalue `lambda_j`.)
fn learned(fit: &SfaFit, dim: usize, form: EmbeddingKind, alpha: f64) -> HeadParams {
    let variance = fit.eigenvalues.iter().take(dim).sum::<f64>() / dim as f64;
    let scale = if variance > 0.0 { variance.sqrt().recip() } else { 1.0 };
    let slow = Array2::from_shape_fn((fit.mean.len(), dim), |(i, j)| (fit.directions[[i, j]] * scale) as f32);
    let mean = fit.mean.mapv(|m| m as f32);
    HeadParams { mean, slow, mlp: None, alpha: alpha as f32, form }
}

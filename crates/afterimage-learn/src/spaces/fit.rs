//! Fits space maps on reference latents, and chooses the one with the best hit rate.
use ndarray::{Array1, Array2, ArrayView2, Axis};

use super::{HitRate, MapKind, RetrievalSplit, SpaceMap};
use crate::error::{Error, Result};
use crate::head::{EmbeddingKind, Head};
use crate::linalg::{product, semi_orthogonal, solve_symmetric, unit_rows};

/// Ridge strength, as a multiple of the mean variance of the old embeddings. Among values from .01 to .1, the best on
/// two labelled sets.
const STRENGTH: f64 = 0.1;
/// A rotation is fitted only if the smaller of the two dimensions is at most this: its cost is cubic.
const MAX_SIDE: usize = 1024;

/// A map with its measured hit rate.
#[derive(Debug, Clone, PartialEq)]
pub struct FittedMap {
    /// The fitted map.
    pub map: SpaceMap,
    /// Number of latents that it was fitted on.
    pub references: usize,
    /// Hit rate on latents that it was not fitted on; `None` if there were too few.
    pub hits: Option<HitRate>,
    /// Hit rate of the old embeddings without any map; `None` if the dimensions differ.
    pub as_is: Option<f64>,
    /// Number of queries behind the hit rates.
    pub queries: usize,
}

/// The rotation `R: [k, k]` of new embeddings onto the old ones (own parts, both `[n, k]`): the orthogonal `R` that
/// minimises `|new R - old|`.
///
/// # Errors
/// The sizes differ or are too large, or numbers are not finite.
pub fn procrustes_rotation(old: ArrayView2<f32>, new: ArrayView2<f32>) -> Result<Array2<f64>> {
    if old.dim() != new.dim() || old.ncols() > MAX_SIDE {
        return Err(Error::runtime(format!("no turn of embeddings {:?} onto {:?}", new.dim(), old.dim())));
    }
    semi_orthogonal(product(wide(new).t(), wide(old).view()).view())
}

/// Fits a map from the embeddings of the head `old` to those of `new`, on `references` (latents `[n, d]`, as both heads
/// take them). The candidates are a rotation (orthogonal Procrustes; between different dimensions semi-orthogonal: an
/// embedding into the larger one or a projection onto the smaller one) and a ridge regression with an offset. The one
/// with more hits on `held` wins; the regression wins ties, and also if nothing can be measured. From the frozen
/// latents, or from a head whose embeddings contain them, to a head over them, the map is that head itself, which is
/// exact.
///
/// # Errors
/// There are no references, numbers are not finite, or memory is insufficient.
pub fn fit(old: &Head, new: &Head, references: ArrayView2<f32>, held: Option<&RetrievalSplit>) -> Result<FittedMap> {
    let measured = held.map(|held| {
        let queries = new.embed_rows(held.queries.view());
        let within = held.hits(new.embed_rows(held.gallery.view()).view(), queries.view());
        (held, old.embed_rows(held.gallery.view()), queries, within)
    });
    let across = |gallery: ArrayView2<f32>| {
        measured
            .as_ref()
            .map(|(held, _, queries, within)| HitRate { within: *within, across: held.hits(gallery, queries.view()) })
    };
    let queries = held.map_or(0, |held| held.queries.nrows());
    let as_is = (old.dim_out() == new.dim_out())
        .then(|| measured.as_ref().and_then(|(_, gallery, ..)| across(gallery.view())))
        .flatten()
        .map(|hits| hits.across);
    if maps_exactly(old, new) {
        let map = SpaceMap { kind: MapKind::Head, matrix: Array2::zeros((0, 0)), offset: Array1::zeros(0) };
        let hits = match &measured {
            Some((_, gallery, ..)) => across(apply_map(old, new, &map, gallery.view())?.view()),
            None => None,
        };
        return Ok(FittedMap { map, references: 0, hits, as_is, queries });
    }
    let mut best: Option<(SpaceMap, Option<HitRate>)> = None;
    for map in fitted(old, new, references)? {
        let hits = match &measured {
            Some((_, gallery, ..)) => across(map.apply(gallery.view())?.view()),
            None => None,
        };
        let more = |best: &(SpaceMap, Option<HitRate>)| hits.map(|h| h.across) > best.1.map(|h| h.across);
        if best.as_ref().is_none_or(more) {
            best = Some((map, hits));
        }
    }
    let (map, hits) = best.ok_or_else(|| Error::runtime("no map was fitted"))?;
    Ok(FittedMap { map, references: references.nrows(), hits, as_is, queries })
}

/// The maps that [`fit`] chooses from: the regression, which wins ties, and the rotation if it is not too large.
///
/// # Errors
/// Same as [`fit`].
pub fn fitted(old: &Head, new: &Head, references: ArrayView2<f32>) -> Result<Vec<SpaceMap>> {
    let (x, y) = (wide(old.embed_rows(references).view()), wide(new.embed_rows(references).view()));
    let mut maps = vec![affine(x.view(), y.view())?];
    if x.ncols().min(y.ncols()) <= MAX_SIDE {
        maps.push(rotation(x.view(), y.view())?);
    }
    Ok(maps)
}

/// Maps embeddings `[n, p]` of the head `old` to those of `new`, `[n, q]`, with a map fitted between the two.
///
/// # Errors
/// The rows have another length than the map or the heads take.
pub fn apply_map(old: &Head, new: &Head, map: &SpaceMap, rows: ArrayView2<f32>) -> Result<Array2<f32>> {
    if map.kind != MapKind::Head {
        return map.apply(rows);
    }
    let wrong =
        || Error::runtime(format!("no latents in embeddings of {} dimensions for a head to take", rows.ncols()));
    if rows.ncols() != old.dim_out() {
        return Err(wrong());
    }
    let frozen = unit_rows(&old.frozen_part(rows).ok_or_else(wrong)?.to_owned()).0;
    let head = new.of_cells();
    if head.dim_in() != frozen.ncols() {
        return Err(wrong());
    }
    Ok(head.embed_rows(frozen.view()))
}

/// Whether the head `new` itself maps the embeddings of `old`: they contain the frozen latents, which are its input.
pub fn maps_exactly(old: &Head, new: &Head) -> bool {
    holds_frozen(old) && takes_frozen(new)
}

/// Whether the frozen latent can be read off the head's embeddings.
fn holds_frozen(head: &Head) -> bool {
    match head {
        Head::Identity { .. } => true,
        Head::Learned(learned) => learned.form == EmbeddingKind::BesideFrozen,
        Head::Pooled { head, .. } => holds_frozen(head),
        Head::Grid(_) => false,
    }
}

/// Whether the head needs nothing but the frozen latent (pooled if it is a grid).
fn takes_frozen(head: &Head) -> bool {
    !matches!(head, Head::Grid(_))
}

fn wide(rows: ArrayView2<f32>) -> Array2<f64> {
    rows.mapv(f64::from)
}

fn rotation(x: ArrayView2<f64>, y: ArrayView2<f64>) -> Result<SpaceMap> {
    let matrix = semi_orthogonal(product(x.t(), y).view())?.mapv(|x| x as f32);
    Ok(SpaceMap { kind: MapKind::Rotation, offset: Array1::zeros(matrix.ncols()), matrix })
}

/// `A = (X'X + l I)^-1 X'Y` of centred rows, in the form with the smaller system; `b` is the remaining offset of the
/// means.
fn affine(x: ArrayView2<f64>, y: ArrayView2<f64>) -> Result<SpaceMap> {
    let mean = |m: ArrayView2<f64>| m.mean_axis(Axis(0)).ok_or_else(|| Error::runtime("a map needs references"));
    let (mean_x, mean_y) = (mean(x)?, mean(y)?);
    let (x, y) = (&x - &mean_x, &y - &mean_y);
    let (n, p) = x.dim();
    let strength = (STRENGTH * x.iter().map(|x| x * x).sum::<f64>() / p as f64).max(f64::MIN_POSITIVE.sqrt());
    let ridged = |mut gram: Array2<f64>| {
        gram.diag_mut().mapv_inplace(|d| d + strength);
        gram
    };
    let matrix = if p <= n {
        solve_symmetric(ridged(product(x.t(), x.view())).view(), product(x.t(), y.view()).view())?
    } else {
        product(x.t(), solve_symmetric(ridged(product(x.view(), x.t())).view(), y.view())?.view())
    };
    let offset = (mean_y - mean_x.dot(&matrix)).mapv(|x| x as f32);
    Ok(SpaceMap { kind: MapKind::Affine, matrix: matrix.mapv(|x| x as f32), offset })
}

#[cfg(test)]
#[path = "fit_tests.rs"]
mod tests;

//! A map from the embeddings of one head to those of another.
use std::str::FromStr;

use ndarray::{Array1, Array2, ArrayView2};

use crate::error::{Error, Result};
use crate::linalg::{norm, normalise, product, slices, slices_mut};

/// How a map was obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapKind {
    /// The new head itself: the old embeddings contain the latents that it takes. Exact.
    Head,
    /// Semi-orthogonal Procrustes, without an offset.
    Rotation,
    /// Ridge regression, with an offset.
    Affine,
}

impl MapKind {
    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            MapKind::Head => "head",
            MapKind::Rotation => "rotation",
            MapKind::Affine => "affine",
        }
    }
}

impl FromStr for MapKind {
    type Err = Error;
    fn from_str(word: &str) -> Result<Self> {
        let known = [MapKind::Head, MapKind::Rotation, MapKind::Affine].into_iter().find(|kind| kind.name() == word);
        known.ok_or_else(|| Error::runtime(format!("a map of kind {word:?}: head, rotation and affine are known here")))
    }
}

/// `z = normalise(x A + b)`: maps unit rows `[n, p]` to unit rows `[n, q]`. [`MapKind::Head`] has no weights here.
#[derive(Debug, Clone, PartialEq)]
pub struct SpaceMap {
    /// How the map was obtained.
    pub kind: MapKind,
    /// The matrix `A: [p, q]`.
    pub matrix: Array2<f32>,
    /// The offset `b: [q]`.
    pub offset: Array1<f32>,
}

impl SpaceMap {
    /// Maps every row. A row without a direction, before or after, gives zeros.
    ///
    /// # Errors
    /// The rows have another length.
    pub fn apply(&self, rows: ArrayView2<f32>) -> Result<Array2<f32>> {
        let (p, q) = self.matrix.dim();
        if rows.ncols() != p {
            return Err(Error::runtime(format!("a map from {p} to {q} dimensions for embeddings of {}", rows.ncols())));
        }
        let rows = rows.as_standard_layout();
        let mut out = product(rows.view(), self.matrix.view()) + &self.offset;
        for (to, from) in slices_mut(&mut out).zip(slices(&rows.to_owned())) {
            let length = normalise(to);
            if !(length > 0.0 && length.is_finite() && norm(from) > 0.0) {
                to.fill(0.0);
            }
        }
        Ok(out)
    }

    /// Checks a map read from a file: the shapes fit each other, and all numbers are finite.
    ///
    /// # Errors
    /// Something does not fit.
    pub fn check(&self) -> Result<()> {
        let (p, q) = self.matrix.dim();
        let sizes = if self.kind == MapKind::Head { (p, q) == (0, 0) } else { p > 0 && q > 0 };
        if !sizes || self.offset.len() != q {
            return Err(Error::runtime(format!(
                "a map of kind {} of {p} x {q} with an offset of {}",
                self.kind.name(),
                self.offset.len()
            )));
        }
        if self.matrix.iter().chain(&self.offset).all(|x| x.is_finite()) {
            Ok(())
        } else {
            Err(Error::runtime("the map holds numbers that are not finite"))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn rows_go_through_and_have_unit_length() {
        let map = SpaceMap {
            kind: MapKind::Affine,
            matrix: array![[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]],
            offset: array![0.0, 0.0, 1.0],
        };
        map.check().unwrap();
        let rows = array![[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]];
        let out = map.apply(rows.view()).unwrap();
        let half = 0.5f32.sqrt();
        let right = array![[half, 0.0, half], [0.0, 2.0 / 5f32.sqrt(), 1.0 / 5f32.sqrt()], [0.0, 0.0, 0.0]];
        assert!((&out - &right).iter().all(|x| x.abs() < 1e-6), "{out}");
        assert!(map.apply(array![[1.0, 0.0, 0.0]].view()).unwrap_err().to_string().contains("from 2 to 3"));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let map = SpaceMap { kind: MapKind::Rotation, matrix: array![[1.0, 0.0]], offset: array![0.0, 0.0] };
        map.check().unwrap();
        assert!(SpaceMap { offset: array![0.0], ..map.clone() }.check().is_err());
        assert!(
            SpaceMap { matrix: array![[f32::NAN, 0.0]], ..map.clone() }
                .check()
                .unwrap_err()
                .to_string()
                .contains("finite")
        );
        assert!(SpaceMap { kind: MapKind::Head, ..map }.check().is_err(), "its weights are the head's");
        assert_eq!("affine".parse::<MapKind>().unwrap(), MapKind::Affine);
        assert!("cubic".parse::<MapKind>().is_err());
    }
}

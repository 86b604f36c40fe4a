//! Rotates the embedding space of a head, which leaves every cosine between two embeddings unchanged.
use ndarray::{Array1, Array2, ArrayView2, s};

use super::{Head, HeadParams, Mlp};
use crate::linalg::product;

impl Head {
    /// The columns of embeddings `[n, dim_out]` that a rotation changes: all but the frozen latent that may precede
    /// them.
    pub fn own_part<'a>(&self, rows: ArrayView2<'a, f32>) -> ArrayView2<'a, f32> {
        let before = match self {
            Head::Learned(learned) => learned.beside(),
            Head::Pooled { head, .. } => return head.own_part(rows),
            Head::Identity { .. } | Head::Grid(_) => 0,
        };
        rows.slice_move(s![.., before..])
    }

    /// The (pooled) frozen latents in embeddings `[n, dim_out]` of this head, up to a scale factor: all columns for
    /// the frozen encoder, the leading columns for a head beside the frozen latent, else `None`.
    pub fn frozen_part<'a>(&self, rows: ArrayView2<'a, f32>) -> Option<ArrayView2<'a, f32>> {
        match self {
            Head::Identity { .. } => Some(rows),
            Head::Learned(learned) => {
                let before = learned.beside();
                (before > 0).then(|| rows.slice_move(s![.., ..before]))
            }
            Head::Pooled { head, .. } => head.frozen_part(rows),
            Head::Grid(_) => None,
        }
    }

    /// Returns this head with its own part `s` rotated to `s R`, for an orthogonal `turn` `R: [k, k]`. The rotation
    /// is folded into the weights: `W R` for the slow head, and `w1 R`, `R' w2` and `R' b2` for a residual, which
    /// takes `y` and adds to it. Cosines stay the same up to rounding to `f32`. `None` if there are no such weights
    /// (the frozen latents, or a head over cells with a context network) or `turn` has another size.
    #[must_use]
    pub fn turned(&self, turn: ArrayView2<f64>) -> Option<Head> {
        match self {
            Head::Learned(learned) => learned.turned(turn).map(Head::Learned),
            Head::Pooled { grid, head } => {
                head.turned(turn).map(|head| Head::Pooled { grid: *grid, head: Box::new(head) })
            }
            Head::Grid(head) if head.context.is_none() => {
                let learned = head.learned.turned(turn)?;
                Some(Head::Grid(Box::new(super::GridHead { learned, ..(**head).clone() })))
            }
            Head::Identity { .. } | Head::Grid(_) => None,
        }
    }
}

impl HeadParams {
    fn turned(&self, turn: ArrayView2<f64>) -> Option<HeadParams> {
        let k = self.slow.ncols();
        if turn.dim() != (k, k) {
            return None;
        }
        let right = |m: &Array2<f32>| narrow(&product(m.mapv(f64::from).view(), turn));
        let left = |m: &Array2<f32>| narrow(&product(turn.t(), m.mapv(f64::from).view()));
        let mlp = self.mlp.as_ref().map(|mlp| {
            let bias: Array1<f32> = turn.t().dot(&mlp.b2.mapv(f64::from)).mapv(|x| x as f32);
            Mlp { w1: right(&mlp.w1), w2: left(&mlp.w2), b2: bias, ..mlp.clone() }
        });
        Some(HeadParams { slow: right(&self.slow), mlp, ..self.clone() })
    }
}

fn narrow(m: &Array2<f64>) -> Array2<f32> {
    m.mapv(|x| x as f32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::head::{EmbeddingKind, Grid, GridHead};
    use crate::linalg::random::uniform;
    use crate::linalg::{semi_orthogonal, unit_rows};

    fn random(rows: usize, columns: usize, rng: &mut ChaCha8Rng) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |_| uniform(rng) as f32 - 0.5)
    }

    fn learned(d: usize, k: usize, form: EmbeddingKind, residual: bool, rng: &mut ChaCha8Rng) -> HeadParams {
        let mlp = residual.then(|| Mlp {
            w1: random(11, k, rng),
            b1: random(1, 11, rng).row(0).to_owned(),
            gamma: random(1, 11, rng).row(0).to_owned(),
            beta: random(1, 11, rng).row(0).to_owned(),
            w2: random(k, 11, rng),
            b2: random(1, k, rng).row(0).to_owned(),
        });
        HeadParams { mean: random(1, d, rng).row(0).to_owned() * 0.1, slow: random(d, k, rng), mlp, alpha: 0.7, form }
    }

    #[test]
    fn a_turned_head_gives_turned_rows_and_the_same_cosines() {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let (d, k) = (12, 5);
        let turn = semi_orthogonal(random(k, k, rng).mapv(f64::from).view()).unwrap();
        let grid = Grid { rows: 2, columns: 3, dim: d };
        for form in [EmbeddingKind::Single, EmbeddingKind::BesideFrozen, EmbeddingKind::Mean] {
            for residual in [false, true] {
                let head = Head::Learned(learned(d, k, form, residual, rng));
                let mut heads = vec![head.clone(), head.pooling(grid)];
                if form == EmbeddingKind::Single {
                    let learned = learned(d, k, form, residual, rng);
                    heads.push(Head::Grid(Box::new(GridHead { grid, learned, context: None })));
                }
                for head in heads {
                    let f = unit_rows(&random(9, head.dim_in(), rng)).0;
                    let turned = head.turned(turn.view()).unwrap();
                    let (before, after) = (head.embed_rows(f.view()), turned.embed_rows(f.view()));
                    let right = product(head.own_part(before.view()), turn.mapv(|x| x as f32).view());
                    let own = turned.own_part(after.view());
                    assert!((&own - &right).iter().all(|x| x.abs() < 1e-5), "{form:?} {residual}");
                    let cosines = |rows: &Array2<f32>| product(rows.view(), rows.t());
                    assert!((cosines(&before) - cosines(&after)).iter().all(|x| x.abs() < 1e-5));
                    assert!((&before - &after).iter().any(|x| x.abs() > 1e-2), "or this shows nothing");
                }
            }
        }
        assert!(Head::Identity { dim: 5 }.turned(turn.view()).is_none());
        assert!(Head::Learned(learned(d, 4, EmbeddingKind::Single, true, rng)).turned(turn.view()).is_none());
    }
}

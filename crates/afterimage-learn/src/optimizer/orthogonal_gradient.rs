//! Removes from each gradient its component along previous gradients.
use super::Parameters;
use crate::linalg::{Scalar, inner};

/// Orthogonal gradients (Han et al. 2025, "Learning from Streaming Video with Orthogonal Gradients"): neighbouring
/// frames have much in common, which recurs in every gradient of a stream, so only the new component is kept. With
/// gradient `g`:
///
/// `u = g - c (g . c) / (c . c)`, then `c = beta c + (1 - beta) g`; `u` replaces `g`.
///
/// All parameters together form one vector. At first `c` is zero, and `u = g`.
#[derive(Debug, Clone, PartialEq)]
pub struct Orthogonal<T> {
    /// Decay rate of the history, `beta`, from 0 to below 1.
    pub beta: f64,
    /// The history `c`: the values of all parameter arrays one after the other.
    pub history: Vec<T>,
}

impl<T: Scalar> Orthogonal<T> {
    /// The state before the first gradient of `params`.
    pub fn new<P: Parameters<T> + ?Sized>(beta: f64, params: &P) -> Self {
        Self { beta, history: vec![T::zero(); params.count()] }
    }

    /// Removes from `grads` the component along the history, and adds the original gradient to the history.
    ///
    /// # Panics
    /// If the history belongs to other parameters.
    pub fn apply<P: Parameters<T> + ?Sized>(&mut self, grads: &mut P) {
        let (mut along, mut square, mut at) = (0.0, 0.0, 0);
        for part in grads.parts() {
            let history = &self.history[at..at + part.values.len()];
            along += inner(part.values, history).as_f64();
            square += inner(history, history).as_f64();
            at += part.values.len();
        }
        let share = T::of(if square > 0.0 { along / square } else { 0.0 });
        let (beta, rest) = (T::of(self.beta), T::of(1.0 - self.beta));
        let mut history = self.history.iter_mut();
        for part in grads.parts_mut() {
            for (g, c) in part.values.iter_mut().zip(history.by_ref()) {
                let whole = *g;
                *g -= share * *c;
                *c = beta * *c + rest * whole;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::filled;
    use super::*;
    use crate::head::Mlp;

    fn flat(grads: &Mlp<f64>) -> Vec<f64> {
        grads.parts().iter().flat_map(|(_, part)| part.iter().copied()).collect()
    }

    #[test]
    fn what_is_known_goes_what_is_new_stays() {
        let mut first = filled(1.0);
        let mut orthogonal = Orthogonal::new(0.5, &first);
        let before = flat(&first);
        orthogonal.apply(&mut first);
        assert_eq!(flat(&first), before, "nothing is known yet");
        assert!(orthogonal.history.iter().zip(&before).all(|(c, g)| (c - g / 2.0).abs() < 1e-15));
        // The same direction again, but longer: nothing in it is new.
        let mut again = filled(1.0);
        again.parts_mut().into_iter().for_each(|(_, part)| part.iter_mut().for_each(|x| *x *= 3.0));
        let history = orthogonal.history.clone();
        orthogonal.apply(&mut again);
        assert!(flat(&again).iter().all(|x| x.abs() < 1e-12));
        assert!(orthogonal.history.iter().zip(history).zip(&before).all(|((c, h), g)| {
            let right = 0.5 * h + 0.5 * 3.0 * g;
            (c - right).abs() < 1e-12
        }));
        // A different gradient: the result is orthogonal to the history, and the rest is unchanged.
        let (mut other, history) = (filled(-2.0), orthogonal.history.clone());
        let whole = flat(&other);
        orthogonal.apply(&mut other);
        assert!(inner(&flat(&other), &history).abs() < 1e-10);
        let gone: Vec<f64> = whole.iter().zip(flat(&other)).map(|(w, u)| w - u).collect();
        let factor = gone[0] / history[0];
        assert!(factor.abs() > 1e-3 && gone.iter().zip(&history).all(|(g, h)| (g - factor * h).abs() < 1e-10));
    }
}

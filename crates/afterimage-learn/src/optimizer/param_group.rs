//! Parameter sets, independent of the network they belong to. See [`Parameters`].
use crate::head::Mlp;
use crate::linalg::Scalar;
use crate::objective::CpcNetwork;

/// One array of a network, in row-major order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Param<'a, T> {
    /// Its name within the network.
    pub name: &'static str,
    /// Its values.
    pub values: &'a [T],
    /// True for matrices: weight decay and LARS apply only to these, not to biases and the parameters of norms.
    pub decays: bool,
}

/// [`Param`], mutably.
#[derive(Debug, PartialEq)]
pub struct ParamMut<'a, T> {
    /// Its name within the network.
    pub name: &'static str,
    /// Its values.
    pub values: &'a mut [T],
    /// As in [`Param`].
    pub decays: bool,
}

/// The parameters of a network, or values with their shapes (gradients, moments): arrays in a fixed order.
pub trait Parameters<T: Scalar> {
    /// The arrays, in a fixed order.
    fn parts(&self) -> Vec<Param<'_, T>>;

    /// [`Parameters::parts`], mutably; the same arrays in the same order.
    fn parts_mut(&mut self) -> Vec<ParamMut<'_, T>>;

    /// Total number of values in all arrays.
    fn count(&self) -> usize {
        self.parts().iter().map(|part| part.values.len()).sum()
    }
}

impl<T: Scalar> Parameters<T> for Mlp<T> {
    fn parts(&self) -> Vec<Param<'_, T>> {
        let part = |(name, values)| Param { name, values, decays: matrix(name) };
        Mlp::parts(self).map(part).into()
    }

    fn parts_mut(&mut self) -> Vec<ParamMut<'_, T>> {
        Mlp::parts_mut(self).into_iter().map(|(name, values)| ParamMut { name, values, decays: matrix(name) }).collect()
    }
}

/// Target map, context network, prediction maps. Each kind of weight of the context network is one array over all
/// blocks, so LARS scales the blocks of a kind together.
impl<T: Scalar> Parameters<T> for CpcNetwork<T> {
    fn parts(&self) -> Vec<Param<'_, T>> {
        let maps = [
            ("target", self.target.as_slice().unwrap_or_default()),
            ("predict", self.predict.as_slice().unwrap_or_default()),
        ];
        let parts = maps.into_iter().chain(self.context.parts());
        parts.map(|(name, values)| Param { name, values, decays: matrix(name) }).collect()
    }

    fn parts_mut(&mut self) -> Vec<ParamMut<'_, T>> {
        let maps = [
            ("target", self.target.as_slice_mut().unwrap_or_default()),
            ("predict", self.predict.as_slice_mut().unwrap_or_default()),
        ];
        let parts = maps.into_iter().chain(self.context.parts_mut());
        parts.map(|(name, values)| ParamMut { name, values, decays: matrix(name) }).collect()
    }
}

/// Weights are matrices or stacks of them; all other arrays are biases and parameters of norms.
fn matrix(name: &str) -> bool {
    name.starts_with('w') || matches!(name, "target" | "predict")
}

/// Several networks that are trained together as one set.
#[derive(Default)]
pub struct ParamGroup<'a, T> {
    /// The networks, in a fixed order.
    pub networks: Vec<&'a mut dyn Parameters<T>>,
}

impl<T: Scalar> Parameters<T> for ParamGroup<'_, T> {
    fn parts(&self) -> Vec<Param<'_, T>> {
        self.networks.iter().flat_map(|network| network.parts()).collect()
    }

    fn parts_mut(&mut self) -> Vec<ParamMut<'_, T>> {
        self.networks.iter_mut().flat_map(|network| network.parts_mut()).collect()
    }
}

/// Splits `values`, an optimizer state with one number for each parameter, into the slices that belong to the arrays
/// of `params`, in their order.
pub(super) fn along<'v, T: Scalar>(
    params: &[ParamMut<'_, T>],
    mut values: &'v mut [T],
) -> impl Iterator<Item = &'v mut [T]> + use<'v, T> {
    let lengths: Vec<usize> = params.iter().map(|part| part.values.len()).collect();
    lengths.into_iter().map(move |length| {
        let (part, rest) = std::mem::take(&mut values).split_at_mut(length);
        values = rest;
        part
    })
}

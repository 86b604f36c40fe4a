//! The content of a saved state. See [`LoadedTensors`].
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use super::tensors::{Scalar, TensorData};
use crate::error::{Error, Result};

/// The content of a file. Arrays are taken out one by one, each with the shape that it must have.
#[derive(Debug)]
pub struct LoadedTensors {
    /// Text entries, by key.
    pub meta: BTreeMap<String, String>,
    pub(super) path: PathBuf,
    pub(super) arrays: BTreeMap<String, (Vec<usize>, TensorData)>,
}

impl LoadedTensors {
    /// The text under `key`.
    /// # Errors
    /// There is no such entry.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.meta.get(key).map(String::as_str).ok_or_else(|| self.wrong(format!("has no entry {key:?}")))
    }
    /// The text under `key`, parsed as a `T`.
    /// # Errors
    /// There is no such entry, or it is not a `T`.
    pub fn parse<T: FromStr>(&self, key: &str) -> Result<T> {
        let text = self.text(key)?;
        text.parse()
            .map_err(|_| self.wrong(format!("entry {key:?} is {text:?}, which is no {}", std::any::type_name::<T>())))
    }
    /// The run that the file belongs to.
    /// # Errors
    /// The file names no run.
    pub fn run(&self) -> Result<&str> {
        self.text("run")
    }
    /// Whether there is an array with this name.
    pub fn has(&self, name: &str) -> bool {
        self.arrays.contains_key(name)
    }
    /// The shape of the array `name`, which must have `N` dimensions.
    /// # Errors
    /// There is no such array, or it has a different number of dimensions.
    pub fn shape<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        let (shape, _) = self.arrays.get(name).ok_or_else(|| self.wrong(format!("has no array {name:?}")))?;
        let wrong = |_| self.wrong(format!("array {name:?} has shape {shape:?}, expected {N} dimensions"));
        <[usize; N]>::try_from(shape.as_slice()).map_err(wrong)
    }
    /// Takes the array `name` out, as row-major values.
    /// # Errors
    /// There is no such array, or it has another type or shape.
    pub fn take<T: Scalar>(&mut self, name: &str, shape: &[usize]) -> Result<Vec<T>> {
        let Some((found, values)) = self.arrays.remove(name) else {
            return Err(self.wrong(format!("has no array {name:?}")));
        };
        if found != shape {
            return Err(self.wrong(format!("array {name:?} has shape {found:?}, expected {shape:?}")));
        }
        T::unwrap(values).ok_or_else(|| self.wrong(format!("array {name:?} is not of type {}", T::DTYPE)))
    }
    /// An error about this file.
    pub fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::check_failed(format!("cannot use {}: it {what}; was it made by another version?", self.path.display()))
    }
}

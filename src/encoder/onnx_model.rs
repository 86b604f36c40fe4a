//! Runs a whole model as other programs do (plain CPU provider, batches, all outputs) and lists its tensors.
use std::collections::BTreeSet;

use half::f16;
use half::slice::HalfFloatSliceExt;
use half::vec::HalfFloatVecExt;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, TensorElementType, TensorRef, ValueType};

use super::provider;
use super::runtime::Runtime;
use crate::config::Size;
use crate::error::{Error, Result};
use crate::onnx::graph_editor::{GraphEdit, GraphEditor};
use crate::onnx::proto::ValueInfo;

/// An ONNX model with one input `[n, 3, height, width]` in 32-bit or 16-bit floats.
#[derive(Debug)]
pub struct OnnxModel {
    session: Session,
    size: Size,
    half: bool,
}

impl OnnxModel {
    /// Opens the bytes of an ONNX file for images of `size`.
    /// # Errors
    /// Errors of ONNX Runtime.
    pub fn open(runtime: &Runtime, bytes: &[u8], size: Size) -> Result<Self> {
        let session = provider::usual(runtime, bytes).map_err(|error| Error::check_failed(error.to_string()))?;
        let half = session.inputs().first().is_some_and(|input| is(input.dtype(), TensorElementType::Float16));
        Ok(Self { session, size, half })
    }

    /// Maps `images: [n, 3, height, width]` to the values of each output, `[n, ..]`, in 32 bits.
    /// # Errors
    /// Errors of ONNX Runtime.
    pub fn run(&mut self, images: &[f32]) -> Result<Vec<Vec<f32>>> {
        let failed = |error: ort::Error| Error::check_failed(error.to_string());
        let [height, width] = self.size.dims();
        let shape = [images.len() / self.size.values().max(1), 3, height, width];
        let found = if self.half {
            let images = Vec::<f16>::from_f32_slice(images);
            let input = TensorRef::from_array_view((shape, images.as_slice())).map_err(failed)?;
            self.session.run([SessionInputValue::from(input)])
        } else {
            let input = TensorRef::from_array_view((shape, images)).map_err(failed)?;
            self.session.run([SessionInputValue::from(input)])
        };
        let found = found.map_err(failed)?;
        found.values().map(|value| values(&value).map_err(failed)).collect()
    }
}

fn values(value: &DynValue) -> ort::Result<Vec<f32>> {
    if is(value.dtype(), TensorElementType::Float16) {
        return Ok(value.try_extract_tensor::<f16>()?.1.to_f32_vec());
    }
    Ok(value.try_extract_tensor::<f32>()?.1.to_vec())
}

fn is(kind: &ValueType, element: TensorElementType) -> bool {
    kind.tensor_type() == Some(element)
}

/// Names of the tensors that the nodes of a model compute in 32-bit floats.
/// # Errors
/// The file is not ONNX or cannot be opened.
pub fn float_tensors(runtime: &Runtime, bytes: &[u8]) -> Result<BTreeSet<String>> {
    let model = GraphEditor::read(bytes).map_err(Error::runtime)?;
    // Declares every tensor as an output without a type: ONNX Runtime infers it from the nodes.
    let outputs =
        model.graph().tensors().into_iter().map(|name| ValueInfo { name: name.into(), r#type: None }).collect();
    let all = model.apply(&GraphEdit { outputs, ..GraphEdit::default() }).map_err(Error::runtime)?;
    let session = provider::plain(runtime, &all)
        .map_err(|error| Error::check_failed(format!("its inner tensors cannot be looked at: {error}")))?;
    let floats = session.outputs().iter().filter(|output| is(output.dtype(), TensorElementType::Float32));
    Ok(floats.map(|output| output.name().to_owned()).collect())
}

//! Checks a model's declared signature against its card before ONNX Runtime opens it.
use super::input_adapter::InputAdapter;
use super::onnx_signature::{FLOAT32, ModelSignature, TensorSpec, is_float};
use crate::config::Size;
use crate::error::{Error, Result};

/// What to do about an output that is not a vector.
pub(super) const NEEDS_VECTOR: &str = "a latent must be [n, d]; name such an output in the card, pool this one (taps = [\"output:mean\"]), or say kind = \
     \"grid\"";

/// Reports all mismatches at once. `output` is `None` if the latent is not read from the model's own output.
pub(super) fn check(outline: &ModelSignature, input: &str, output: Option<&str>, size: Size, what: &str) -> Result<()> {
    let mut wrong = Vec::new();
    match outline.inputs.iter().find(|port| port.name == input) {
        Some(port) => wrong.extend(check_input(port, size)),
        None => wrong.push(format!("it has no input {input:?}")),
    }
    if let Some(port) = output.and_then(|name| outline.outputs.iter().find(|port| port.name == name)) {
        match port.element {
            Some(element) if is_float(element) => {}
            Some(_) => {
                wrong.push(format!("output {port}: must be of floats; classes and numbers of them are no latent"))
            }
            None => wrong.push(format!("output {port}: cannot be handled, name another one")),
        }
    }
    refused(outline, &wrong, what)
}

/// Like [`check`], for a model as it is run: one image input and rows of floats, both declared as usual.
pub(super) fn usual(outline: &ModelSignature, input: &str, output: &str, size: Size, what: &str) -> Result<()> {
    let mut wrong = Vec::new();
    if let Some(file) = outline.external.first() {
        wrong.push(format!("its weights are in another file ({file}); an encoder is one file"));
    }
    match outline.inputs.as_slice() {
        [port] if port.name == input => {
            let plain = InputAdapter::of(port).is_ok_and(|form| form.is_plain());
            let other = || (!plain).then(|| format!("input {port}: must be [n, 3, h, w] of float32"));
            wrong.extend(check_input(port, size).or_else(other));
        }
        [_] => wrong.push(format!("it has no input {input:?}")),
        all => wrong.push(format!("it has {} inputs; an encoder takes one image", all.len())),
    }
    match outline.outputs.iter().find(|port| port.name == output) {
        None => wrong.push(format!("it has no output {output:?}")),
        Some(port) if port.element != Some(FLOAT32) => wrong.push(format!("output {port}: must be float32")),
        Some(port) if port.shape.as_ref().is_some_and(|shape| shape.len() != 2) => {
            wrong.push(format!("output {port}: {NEEDS_VECTOR}"));
        }
        Some(_) => {}
    }
    refused(outline, &wrong, what)
}

fn refused(outline: &ModelSignature, wrong: &[String], what: &str) -> Result<()> {
    if wrong.is_empty() {
        return Ok(());
    }
    let list = wrong.join("\n  ");
    Err(Error::check_failed(format!("{what} does not fit its card:\n  {list}\n  The model has {}", outline.describe())))
}

/// Refuses a model whose weights are in other files.
pub(super) fn whole(outline: &ModelSignature, model: &std::path::Path) -> Result<()> {
    let Some(file) = outline.external.first() else { return Ok(()) };
    let there = model.parent().is_some_and(|folder| folder.join(file).is_file());
    let (state, first) = if there { ("", "") } else { (", and that is not beside it", "Bring it there first. ") };
    Err(Error::check_failed(format!(
        "{}: its weights are in another file ({file}){state}; an encoder is one file, so that its SHA-256 stands for the \
         whole. {first}Put them in: python -c \"import onnx; onnx.save(onnx.load('OLD.onnx'), 'NEW.onnx')\"",
        model.display()
    )))
}

/// Checks that the input takes images of this size.
fn check_input(port: &TensorSpec, size: Size) -> Option<String> {
    let form = match InputAdapter::of(port) {
        Ok(form) => form,
        Err(why) => return Some(why),
    };
    let wanted = [1, 3, i64::from(size.height), i64::from(size.width)];
    (!form.takes(size)).then(|| format!("input {port}: cannot take one image of {size} pixels, {wanted:?}"))
}

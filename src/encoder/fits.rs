//! Whether a model is what its card says, told from its outline before ONNX Runtime opens it.
use super::outline::{FLOAT32, HALF, Outline, Port, UINT8};
use crate::error::{Error, Result};

/// What to do about an output that is no vector.
pub(super) const NEEDS_VECTOR: &str = "a latent must be [n, d]; name such an output in the card, pool this one (taps = [\"output:mean\"]), or say kind = \
     \"grid\"";

/// Names all at once that does not fit. `output`: `None` where the model's own output is not the latent.
pub(super) fn check(outline: &Outline, input: &str, output: Option<&str>, side: u32, what: &str) -> Result<()> {
    let mut wrong = Vec::new();
    if let Some(file) = outline.external.first() {
        wrong.push(format!(
            "its weights are in another file ({file}); an encoder is one file, so that its SHA-256 stands for the \
             whole. Put them in: python -c \"import onnx; onnx.save(onnx.load('OLD.onnx'), 'NEW.onnx')\""
        ));
    }
    match outline.inputs.as_slice() {
        [one] if one.name == input => wrong.extend(check_input(one, side)),
        [_] => wrong.push(format!("it has no input {input:?}")),
        all => wrong.push(format!("it has {} inputs; an encoder takes one image", all.len())),
    }
    if let Some(output) = output {
        match outline.outputs.iter().find(|o| o.name == output) {
            None => wrong.push(format!("it has no output {output:?}")),
            Some(port) if port.element != Some(FLOAT32) => wrong.push(format!("output {port}: must be float32")),
            Some(port) if port.shape.as_ref().is_some_and(|s| s.len() != 2) => {
                wrong.push(format!("output {port}: {NEEDS_VECTOR}"));
            }
            Some(_) => {}
        }
        let no_tensors = outline.outputs.iter().filter(|o| o.element.is_none());
        wrong.extend(no_tensors.map(|o| format!("output {o}: cannot be handled, remove it")));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let list = wrong.join("\n  ");
    Err(Error::refused(format!("{what} does not fit its card:\n  {list}\nThe model has {}", outline.describe())))
}

/// The input must take `[1, 3, side, side]` float32.
fn check_input(port: &Port, side: u32) -> Option<String> {
    if port.element != Some(FLOAT32) {
        let todo = match port.element {
            Some(HALF) => {
                "keep input and output in float32 when converting (keep_io_types = True of onnxconverter-common), or leave \
                 16 bits to the provider (encoder.tensorrt.precision = \"fp16\")"
            }
            Some(UINT8) => "export it without its own preparation of pixels: mean and std stand in the card",
            _ => "export it with such an input",
        };
        return Some(format!("input {port}: must be float32; {todo}"));
    }
    let dims = port.shape.as_ref()?;
    if dims.len() != 4 {
        return Some(format!("input {port}: must be [n, 3, h, w]"));
    }
    if dims[3].fixed == Some(3) && dims[1].fixed != Some(3) {
        return Some(format!(
            "input {port}: has its channels last; export it as [n, 3, h, w] (tf2onnx: --inputs-as-nchw {})",
            port.name
        ));
    }
    let wanted = [1, 3, i64::from(side), i64::from(side)];
    let fits = dims.iter().zip(wanted).all(|(d, want)| d.fixed.is_none_or(|n| n == want));
    (!fits).then(|| format!("input {port}: cannot take one image of {side} x {side} pixels, {wanted:?}"))
}

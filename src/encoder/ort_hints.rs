//! Adds hints to errors of ONNX Runtime whose text does not say what to do.

const MEMORY: &str = "There is not memory enough for this model: end other programs, use a smaller or a quantised one \
                      (tools/quantize.py), or a smaller encoder.input_size";
/// Fragments of messages of ONNX Runtime (1.23 to 1.31), and what they mean for the user.
const KNOWN: [(&[&str], &str); 8] = [
    (
        &["is under development and support for this is limited", "Opset"],
        "The model is of a newer opset than this library knows: export it with an older one (opset_version=17), or name a newer \
         ONNX Runtime in encoder.onnxruntime",
    ),
    (
        &["Unsupported model IR version"],
        "The model is of a newer ONNX format than this library knows: save it anew with an older one (model.ir_version = 10), or \
         name a newer ONNX Runtime in encoder.onnxruntime",
    ),
    (
        &["Type Error", "is invalid"],
        "An operator gets numbers of a type that it does not take: convert the model to float32, or export it again",
    ),
    (
        &["No Op registered for"],
        "The model has an operator that this library does not know: export it with standard operators, or name another ONNX \
         Runtime in encoder.onnxruntime",
    ),
    (
        &["Could not find an implementation for"],
        "This library has no implementation of that operator for its type: convert the model to float32, or name another ONNX \
         Runtime in encoder.onnxruntime",
    ),
    (
        &["cannot use the graph capture feature"],
        "A CUDA graph is of a whole model, and parts of this one run elsewhere: set encoder.cuda.cuda_graph = false (with \
         TensorRT encoder.tensorrt.cuda_graph = false)",
    ),
    (&["bad allocation"], MEMORY),
    (&["Failed to allocate memory"], MEMORY),
];

/// Returns `. ` and a hint for the error `why`; empty if there is none.
pub(super) fn hint(why: &str) -> String {
    let known = KNOWN.iter().find(|(parts, _)| parts.iter().all(|part| why.contains(part)));
    known.map_or(String::new(), |(_, todo)| format!(". {todo}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_gets_a_hint() {
        assert_eq!(hint("CUDA failure 100: no CUDA-capable device is detected"), "");
        let text = hint("std::bad_alloc: bad allocation");
        assert!(text.starts_with(". There is not memory enough"), "{text}");
    }
}

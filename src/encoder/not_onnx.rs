//! Identifies files that are passed as a model but are not ONNX, by their first bytes.

/// Number of bytes inspected for text.
const HEAD: usize = 512;

/// Describes what `bytes` are and what to do about it; `None` if they are none of the known kinds.
pub(super) fn kind(bytes: &[u8]) -> Option<&'static str> {
    let begins = |with: &[u8]| bytes.starts_with(with);
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(HEAD)]).to_lowercase();
    let head = head.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    Some(if bytes.is_empty() {
        "the file is empty; fetch it again"
    } else if begins(b"version https://git-lfs") {
        "it is a Git LFS pointer, which stands for the file; fetch that with `git lfs pull` in its repository"
    } else if ["<!doctype", "<html", "<head", "<?xml"].iter().any(|tag| head.starts_with(tag)) {
        "it is a web page; what was fetched is the page about the file (GitHub: take the \"raw\" address, Hugging Face: \
         \"resolve\" instead of \"blob\")"
    } else if ["entry not found", "404", "not found", "access denied", "invalid username"]
        .iter()
        .any(|t| head.starts_with(t))
    {
        "it is the answer of a server that has no such file; look at it with `cat`, and fetch the model again"
    } else if begins(b"PK\x03\x04") {
        "it is a ZIP archive (a PyTorch checkpoint, or a packed model); unpack it, or export the checkpoint to ONNX \
         (docs/encoders.md)"
    } else if begins(b"\x80\x02") || begins(b"\x80\x04") {
        "it is a Python pickle (a checkpoint); export the model to ONNX (docs/checkpoints.md)"
    } else if begins(b"\x1f\x8b") || begins(b"BZh") || begins(b"\xfd7zXZ") || begins(b"\x28\xb5\x2f\xfd") {
        "it is a compressed file; unpack it first"
    } else if begins(b"\x89HDF") {
        "it is an HDF5 file (Keras); convert the model to ONNX with tf2onnx"
    } else if bytes.get(4..8) == Some(b"TFL3") {
        "it is a TensorFlow Lite model; convert it to ONNX with tf2onnx (--tflite)"
    } else if bytes.get(4..8) == Some(b"ORTM") {
        "it is a model in ONNX Runtime's own format; give the .onnx file that it was made from"
    } else if bytes.get(8..9) == Some(b"{") && bytes.get(5..8) == Some(&[0; 3]) {
        "it is a safetensors file, weights without a graph; export the model to ONNX (docs/encoders.md)"
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_taken_for_models_are_told_by_their_beginning() {
        for (bytes, told) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"[..], "git lfs pull"),
            (b"\n\n<!DOCTYPE html>\n<html>", "web page"),
            (b"\xef\xbb\xbf<html>", "web page"),
            (b"Entry not found", "no such file"),
            (b"PK\x03\x04\x14\0", "PyTorch"),
            (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
            (b"\x40\0\0\0\0\0\0\0{\"a\":{}}", "safetensors"),
            (b"", "empty"),
        ] {
            assert!(kind(bytes).is_some_and(|found| found.contains(told)), "{told}: {:?}", kind(bytes));
        }
        assert_eq!(kind(b"\x08\x07\x12\x05torch"), None);
    }
}

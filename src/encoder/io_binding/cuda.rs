//! Copies between CPU and GPU memory through the CUDA runtime that the provider has loaded. ONNX Runtime itself
//! copies an input only when it is bound.
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;

use libloading::Library;
use ort::value::Tensor;

use crate::encoder::elf_deps;

/// `enum cudaMemcpyKind` of driver_types.h.
const TO_GPU: c_int = 1;
const TO_HOST: c_int = 2;

type Memcpy = extern "C" fn(*mut c_void, *const c_void, usize, c_int) -> c_int;
type Synchronize = extern "C" fn(*mut c_void) -> c_int;
type Text = extern "C" fn(c_int) -> *const c_char;

/// Functions of the CUDA runtime, which stays loaded.
#[derive(Debug)]
pub(super) struct CudaMemcpy {
    memcpy: Memcpy,
    synchronize: Synchronize,
    text: Text,
}

impl CudaMemcpy {
    /// Loads the functions from the CUDA runtime that `library`, an already loaded provider, depends on.
    #[allow(unsafe_code, reason = "a C library is called through declarations that only its header proves")]
    pub(super) fn of(library: &Path) -> Result<Self, String> {
        let in_library = |why: &str| format!("{}: {why}", library.display());
        let deps = elf_deps::read(library).map_err(|why| in_library(&why))?;
        let name = deps.libraries.iter().find(|name| name.starts_with("libcudart.so"));
        let name = name.ok_or_else(|| in_library("it names no CUDA runtime that it needs (libcudart.so)"))?;
        // SAFETY: the provider has loaded and initialised the library already.
        let runtime =
            unsafe { Library::new(name) }.map_err(|_why| in_library(&format!("its {name} cannot be loaded")))?;
        let missing = |symbol: &str| format!("{name} has no {symbol}");
        // SAFETY: these are the declarations of cuda_runtime_api.h: cudaError_t and cudaMemcpyKind are ints, and
        // cudaStream_t is a pointer.
        let functions = unsafe {
            Self {
                memcpy: *runtime.get::<Memcpy>(c"cudaMemcpy").map_err(|_why| missing("cudaMemcpy"))?,
                synchronize: *runtime
                    .get::<Synchronize>(c"cudaStreamSynchronize")
                    .map_err(|_why| missing("cudaStreamSynchronize"))?,
                text: *runtime.get::<Text>(c"cudaGetErrorString").map_err(|_why| missing("cudaGetErrorString"))?,
            }
        };
        // The library is never closed, because the functions must stay valid.
        std::mem::forget(runtime);
        Ok(functions)
    }

    /// Copies `from` into `to`, a tensor of the same length on the GPU.
    pub(super) fn to_gpu(&self, from: &[f32], to: &mut Tensor<f32>) -> Result<(), String> {
        self.check(
            "copying a frame to the GPU",
            (self.memcpy)(to.data_ptr_mut(), from.as_ptr().cast(), size_of_val(from), TO_GPU),
        )?;
        // From pageable memory the copy may return before it is complete, and ONNX Runtime uses its own stream.
        self.check("waiting for a frame to reach the GPU", (self.synchronize)(std::ptr::null_mut()))
    }

    /// Copies `from`, a tensor on the GPU, into `to`, of the same length. The run that wrote it must have finished.
    pub(super) fn to_host(&self, from: &Tensor<f32>, to: &mut [f32]) -> Result<(), String> {
        let bytes = size_of_val(to);
        self.check(
            "copying a latent from the GPU",
            (self.memcpy)(to.as_mut_ptr().cast(), from.data_ptr(), bytes, TO_HOST),
        )
    }

    #[allow(unsafe_code, reason = "the text of an error is a C string")]
    fn check(&self, what: &str, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        let text = (self.text)(code);
        if text.is_null() {
            return Err(format!("{what}: CUDA error {code}"));
        }
        // SAFETY: not null, and documented as a C string that is never freed.
        let text = unsafe { CStr::from_ptr(text) };
        Err(format!("{what}: CUDA error {code}: {}", text.to_string_lossy()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use ort::memory::Allocator;
    use std::process::Command;

    /// A fake CUDA runtime whose GPU is CPU memory, and which fails on copies of more than 64 bytes.
    const RUNTIME: &str = "
        #include <string.h>
        static int waits;
        int cudaMemcpy(void *to, const void *from, unsigned long bytes, int kind) {
            if (bytes > 64) return 2;
            if (kind != 1 && kind != 2) return 21;
            waits = kind == 1;
            memcpy(to, from, bytes);
            return 0;
        }
        int cudaStreamSynchronize(void *stream) { return stream || !waits ? 400 : 0; }
        const char *cudaGetErrorString(int error) { return error == 2 ? \"out of memory\" : \"other\"; }
    ";

    #[test]
    fn frames_are_copied_to_the_gpu_and_latents_back() {
        // ONNX Runtime must be loaded before its tensors can be created.
        drop(crate::encoder::tests::runtime());
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let make = |name: &str, text: &str, with: &[&str]| {
            std::fs::write(at("x.c"), text).unwrap();
            let mut cc = Command::new("cc");
            cc.args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"]).arg(at(name)).arg(at("x.c"));
            let built = cc.arg(format!("-L{}", folder.path().display())).args(with).status();
            assert!(built.is_ok_and(|s| s.success()), "this test needs a C compiler named cc");
        };
        make("libprovider.so", "int x;", &[]);
        let text = CudaMemcpy::of(&at("libprovider.so")).unwrap_err();
        assert!(text.contains("names no CUDA runtime"), "{text}");
        make("libcudart.so.99", RUNTIME, &["-Wl,-soname,libcudart.so.99"]);
        make("libprovider.so", "int x;", &["-l:libcudart.so.99"]);
        let text = CudaMemcpy::of(&at("libprovider.so")).unwrap_err();
        assert!(text.ends_with("its libcudart.so.99 cannot be loaded"), "{text}");
        #[allow(unsafe_code, reason = "stands for the provider that loads it")]
        // SAFETY: the library has no initialisers.
        let _loaded = unsafe { Library::new(at("libcudart.so.99")) }.unwrap();

        let copies = CudaMemcpy::of(&at("libprovider.so")).unwrap();
        let mut tensor = Tensor::<f32>::new(&Allocator::default(), [1_usize, 16]).unwrap();
        let frame: Vec<f32> = (0..16).map(|i| i as f32).collect();
        copies.to_gpu(&frame, &mut tensor).unwrap();
        assert_eq!(tensor.extract_tensor().1, frame);
        let mut back = [0.0; 16];
        copies.to_host(&tensor, &mut back).unwrap();
        assert_eq!(back[..], frame);
        let mut large = Tensor::<f32>::new(&Allocator::default(), [1_usize, 17]).unwrap();
        let text = copies.to_gpu(&[0.0; 17], &mut large).unwrap_err();
        assert_eq!(text, "copying a frame to the GPU: CUDA error 2: out of memory");
    }
}

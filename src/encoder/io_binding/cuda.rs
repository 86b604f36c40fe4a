//! Copies between the memory of the CPU and that of a GPU, by the CUDA runtime that the provider has loaded: ONNX Runtime
//! itself copies an input only when it is bound.
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;

use ort::value::Tensor;

use crate::encoder::elf_deps;

/// `enum cudaMemcpyKind` of driver_types.h.
const TO_GPU: c_int = 1;
const TO_HOST: c_int = 2;

type Memcpy = extern "C" fn(*mut c_void, *const c_void, usize, c_int) -> c_int;
type Synchronize = extern "C" fn(*mut c_void) -> c_int;
type Text = extern "C" fn(c_int) -> *const c_char;

/// The functions; they stay loaded with the provider.
#[derive(Debug)]
pub(super) struct CudaMemcpy {
    memcpy: Memcpy,
    synchronize: Synchronize,
    text: Text,
}

impl CudaMemcpy {
    /// Of the CUDA runtime that `library`, the one of a provider that is loaded, needs.
    #[allow(unsafe_code, reason = "functions of a library can only be had through its C interface")]
    pub(super) fn of(library: &Path) -> Result<Self, String> {
        let told = |why: &str| format!("{}: {why}", library.display());
        let needs = elf_deps::read(library).map_err(|why| told(&why))?;
        let name = needs.libraries.iter().find(|name| name.starts_with("libcudart.so"));
        let name = name.ok_or_else(|| told("it does not say which CUDA runtime it needs (libcudart.so)"))?;
        let file =
            CString::new(name.as_str()).map_err(|_nul| told("it needs a library with a zero byte in its name"))?;
        // SAFETY: `file` is a C string. The provider has loaded the library already; this gives a further handle, which is
        // kept for good.
        let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(told(&format!("its {name} cannot be loaded")));
        }
        let function = |symbol: &CStr| {
            // SAFETY: `handle` is open and `symbol` is a C string.
            let found = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
            if found.is_null() { Err(format!("{name} has no {}", symbol.to_string_lossy())) } else { Ok(found) }
        };
        let (memcpy, synchronize, text) =
            (function(c"cudaMemcpy")?, function(c"cudaStreamSynchronize")?, function(c"cudaGetErrorString")?);
        // SAFETY: these are the declarations of cuda_runtime_api.h (cudaError_t and cudaMemcpyKind are ints, cudaStream_t a
        // pointer), and a function pointer has the size of a data pointer on every system with `dlsym`.
        let (memcpy, synchronize, text) = unsafe {
            (
                std::mem::transmute::<*mut c_void, Memcpy>(memcpy),
                std::mem::transmute::<*mut c_void, Synchronize>(synchronize),
                std::mem::transmute::<*mut c_void, Text>(text),
            )
        };
        Ok(Self { memcpy, synchronize, text })
    }

    /// Copies `from` into `to`, a tensor on the GPU of as many values.
    pub(super) fn to_gpu(&self, from: &[f32], to: &mut Tensor<f32>) -> Result<(), String> {
        self.check(
            "copying a frame to the GPU",
            (self.memcpy)(to.data_ptr_mut(), from.as_ptr().cast(), size_of_val(from), TO_GPU),
        )?;
        // From pageable memory the call may return before the last bytes are there, and ONNX Runtime has a stream of its own.
        self.check("waiting for a frame to reach the GPU", (self.synchronize)(std::ptr::null_mut()))
    }

    /// Copies `from`, a tensor on the GPU, into `to`, which has room for as many values. The run that wrote it has ended.
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
        // SAFETY: not null, and by its documentation a C string that is never freed.
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

    /// A CUDA runtime whose GPU is the memory of the CPU, without room for more than 64 bytes at once.
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
    fn frames_go_there_and_latents_come_back() {
        // ONNX Runtime must be loaded for its tensors.
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
        assert!(text.contains("does not say which CUDA runtime"), "{text}");
        make("libcudart.so.99", RUNTIME, &["-Wl,-soname,libcudart.so.99"]);
        make("libprovider.so", "int x;", &["-l:libcudart.so.99"]);
        let text = CudaMemcpy::of(&at("libprovider.so")).unwrap_err();
        assert!(text.ends_with("its libcudart.so.99 cannot be loaded"), "{text}");
        // As the provider does it.
        let file = CString::new(at("libcudart.so.99").to_str().unwrap()).unwrap();
        #[allow(unsafe_code, reason = "stands for the provider that loads it")]
        // SAFETY: `file` is a C string, and the library has no initialisers.
        let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null());

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

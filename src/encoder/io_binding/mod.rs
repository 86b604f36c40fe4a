//! Keeps the input and output of a model in fixed buffers: allocated once, bound to the session once (ONNX Runtime's
//! IoBinding), and used for every frame. A run then allocates nothing of ours, and a CUDA graph, which reads and
//! writes the addresses it was captured with, can be replayed.
mod cuda;

use std::path::Path;

use ort::AsPointer;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session};
use ort::value::Tensor;

use cuda::CudaMemcpy;

use crate::config::Size;

/// Where the input and output of a provider may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IoDevice {
    /// In ordinary memory.
    Host,
    /// In the memory of this GPU; a CUDA graph needs them there.
    Gpu { device: i32, graph: bool },
    /// Wherever ONNX Runtime allocates them, anew for each run.
    Anywhere,
}

/// Bound input and output buffers.
pub(super) struct BoundIo {
    binding: IoBinding,
    input: Tensor<f32>,
    output: Tensor<f32>,
    /// Copy functions for buffers on a GPU.
    copies: Option<CudaMemcpy>,
}

impl BoundIo {
    /// Binds buffers to `session` for one image of `size` and a latent of `dim` values. `library` is the provider's
    /// own library, which finds the CUDA runtime that it was loaded with. Returns `None` if fixed buffers are not
    /// possible.
    pub(super) fn new(
        session: &Session,
        [input, output]: [&str; 2],
        size: Size,
        dim: usize,
        place: IoDevice,
        library: Option<&Path>,
    ) -> Result<Option<Self>, String> {
        let (allocator, copies) = match place {
            IoDevice::Anywhere => return Ok(None),
            IoDevice::Host => (Allocator::default(), None),
            IoDevice::Gpu { device, .. } => {
                let library = library.ok_or("the library of the provider is not known")?;
                (
                    on_gpu(session, device).map_err(|e| format!("no memory of the GPU: {e}"))?,
                    Some(CudaMemcpy::of(library)?),
                )
            }
        };
        let [height, width] = size.dims();
        let made = || {
            let mut binding = session.create_binding()?;
            let image = Tensor::<f32>::new(&allocator, [1, 3, height, width])?;
            let mut latent = Tensor::<f32>::new(&allocator, [1, dim])?;
            binding.bind_input(input, &image)?;
            binding.bind_output(output, &mut latent)?;
            ort::Result::Ok((binding, image, latent))
        };
        let (binding, input, output) = made().map_err(|e: ort::Error| e.to_string())?;
        Ok(Some(Self { binding, input, output, copies }))
    }

    /// Runs `session`, which must be the one that the buffers were bound to, on `image`, and writes its latent to
    /// `out`.
    pub(super) fn run(&mut self, session: &mut Session, image: &[f32], out: &mut [f32]) -> Result<(), String> {
        match &self.copies {
            None => self.input.extract_tensor_mut().1.copy_from_slice(image),
            Some(copies) => copies.to_gpu(image, &mut self.input)?,
        }
        run_bound(session, &self.binding).map_err(|e| e.to_string())?;
        match &self.copies {
            None => out.copy_from_slice(self.output.extract_tensor().1),
            Some(copies) => copies.to_host(&self.output, out)?,
        }
        Ok(())
    }
}

fn on_gpu(session: &Session, device: i32) -> ort::Result<Allocator> {
    let info = MemoryInfo::new(AllocationDevice::CUDA, device, AllocatorType::Device, MemoryType::Default)?;
    Allocator::new(session, info)
}

/// Like `Session::run_binding`, which also collects the outputs and allocates their descriptions.
#[allow(unsafe_code, reason = "the safe call allocates for each frame")]
fn run_bound(session: &mut Session, binding: &IoBinding) -> ort::Result<()> {
    // SAFETY: both are alive through the call, which is the only one on this session (`&mut`); no run options is a null
    // pointer; the status is handed back once.
    unsafe {
        let status = (ort::api().RunWithBinding)(session.ptr().cast_mut(), std::ptr::null(), binding.ptr());
        ort::Error::result_from_status(status)
    }
}

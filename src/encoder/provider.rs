//! Opens a model on the hardware that was asked for.
//!
//! `encoder.providers` is an order of preference and its first entry is *required*: the others are tried, in turn, only
//! where `encoder.fallback = true`, and then the reason is kept and logged. With CUDA or TensorRT, ONNX Runtime puts
//! single nodes (computations on shapes, mostly) on the CPU on purpose; that is left to it, and is not a fallback.
use ort::ep::{ArenaExtendStrategy, CPU, CUDA, ExecutionProvider, ExecutionProviderDispatch, TensorRT, cuda};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;

use super::runtime::Runtime;
use crate::config;
use crate::error::{Error, Result};

/// Memory that TensorRT may use while it builds an engine: enough for small encoders, and half a gigabyte on a board
/// that shares it with the CPU.
const TENSORRT_WORKSPACE_BYTES: usize = 512 << 20;

/// An open model and where it runs.
pub(super) struct Opened {
    pub(super) session: Session,
    /// The provider that is used.
    pub(super) provider: &'static str,
    /// Why the first of the list is not.
    pub(super) fallback: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Provider {
    TensorRt,
    Cuda,
    Cpu,
}

/// Opens the model in `bytes` on the first provider of `config`, or on a later one where that is allowed. `what` names
/// the model in errors.
pub(super) fn open(runtime: &Runtime, bytes: &[u8], config: &config::Encoder, what: &str) -> Result<Opened> {
    let providers: Vec<Provider> = config.providers.iter().map(|name| Provider::parse(name)).collect::<Result<_>>()?;
    let mut failed: Vec<String> = Vec::new();
    for provider in providers {
        match provider.open(runtime, bytes, threads(config), what) {
            Ok(session) => {
                let fallback = (!failed.is_empty()).then(|| failed.join("; "));
                if let Some(why) = &fallback {
                    tracing::warn!("{what} runs on {}: {why}", provider.name());
                }
                return Ok(Opened { session, provider: provider.name(), fallback });
            }
            Err(why) if config.fallback => failed.push(why),
            Err(why) => return Err(Error::work(why)),
        }
    }
    Err(Error::work(match failed.as_slice() {
        [] => "encoder.providers is empty: name tensorrt, cuda or cpu".into(),
        all => format!("none of encoder.providers can be used: {}", all.join("; ")),
    }))
}

/// Opens the model in `bytes` on the CPU as it stands, to run it once.
pub(super) fn plain(runtime: &Runtime, bytes: &[u8]) -> ort::Result<Session> {
    let builder = Session::builder(&runtime.environment)?;
    let mut builder = builder.with_optimization_level(GraphOptimizationLevel::Disable)?.with_intra_threads(1)?;
    builder.commit_from_memory(bytes)
}

/// Name, as in `encoder.providers`, of every provider that a build may have, and whether this one has it. That a
/// library has one does not say that this machine can use it.
///
/// # Errors
/// The library does not list its providers.
pub fn compiled(runtime: &Runtime) -> Result<Vec<(&'static str, bool)>> {
    let all = [Provider::TensorRt, Provider::Cuda, Provider::Cpu].into_iter();
    all.map(|p| Ok((p.name(), p.available(runtime).map_err(Error::work)?))).collect()
}

/// Threads of one inference on the CPU: `encoder.threads`, or all cores but one.
pub(super) fn threads(config: &config::Encoder) -> usize {
    match config.threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).max(1)),
        n => n as usize,
    }
}

impl Provider {
    fn parse(name: &str) -> Result<Self> {
        match name {
            "tensorrt" => Ok(Self::TensorRt),
            "cuda" => Ok(Self::Cuda),
            "cpu" => Ok(Self::Cpu),
            other => {
                Err(Error::config(format!("encoder.providers has \"{other}\": must be one of tensorrt, cuda, cpu")))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::TensorRt => "tensorrt",
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
        }
    }

    fn available(self, runtime: &Runtime) -> std::result::Result<bool, String> {
        let available = match self {
            Self::TensorRt => TensorRT::is_available(),
            Self::Cuda => CUDA::is_available(),
            Self::Cpu => Ok(true),
        };
        available.map_err(|e| format!("{}: cannot list its providers: {e}", runtime.path.display()))
    }

    fn open(self, runtime: &Runtime, bytes: &[u8], threads: usize, what: &str) -> std::result::Result<Session, String> {
        let name = self.name();
        if !self.available(runtime)? {
            return Err(format!(
                "encoder.providers asks for {name}, which is not in this build of ONNX Runtime ({} in {}). Name a \
                 build with {name} for this machine in encoder.onnxruntime, take {name} out of encoder.providers, or \
                 set encoder.fallback = true to go on with the next of the list",
                runtime.version,
                runtime.path.display()
            ));
        }
        self.session(runtime, bytes, threads).map_err(|e| match self {
            Self::Cpu => format!("{what} cannot be opened by ONNX Runtime {}: {e}", runtime.version),
            _ => format!(
                "encoder.providers asks for {name}, which cannot be used for {what}: {e} (ONNX Runtime {} in {}). \
                 Check the driver and the libraries it names, or set encoder.fallback = true to go on with the next of \
                 the list",
                runtime.version,
                runtime.path.display()
            ),
        })
    }

    /// A provider that cannot be registered is an error, never a silent step down to the CPU.
    fn session(self, runtime: &Runtime, bytes: &[u8], threads: usize) -> ort::Result<Session> {
        let mut builder = Session::builder(&runtime.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_execution_providers(self.registered())?
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            // Threads that spin while they wait would take the cores that capture and learning run on.
            .with_intra_op_spinning(false)?
            .with_deterministic_compute(true)?;
        builder.commit_from_memory(bytes)
    }

    fn registered(self) -> Vec<ExecutionProviderDispatch> {
        // Memory grows by what is needed, algorithms are chosen without trying all of them, and products are not
        // rounded to TF32, so that latents stay close to those of the CPU.
        let cuda = CUDA::default()
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
            .with_conv_algorithm_search(cuda::ConvAlgorithmSearch::Heuristic)
            .with_conv_max_workspace(false)
            .with_tf32(false)
            .build()
            .error_on_failure();
        match self {
            // What TensorRT cannot do is left to CUDA, which its library needs anyway.
            Self::TensorRt => {
                let tensorrt = TensorRT::default().with_max_workspace_size(TENSORRT_WORKSPACE_BYTES);
                vec![tensorrt.build().error_on_failure(), cuda]
            }
            Self::Cuda => vec![cuda],
            // With the arena the buffers of all layers share one block that is kept: faster, and (for MobileNetV2 at
            // 224 pixels) 20 MB less than asking the system for each buffer anew.
            Self::Cpu => vec![CPU::default().with_arena_allocator(true).build().error_on_failure()],
        }
    }
}

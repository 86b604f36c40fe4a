//! Opens a model on the requested hardware.
//!
//! `encoder.providers` is an order of preference and its first entry is *required*. The others are tried in turn only
//! if `encoder.fallback = true`, and then the reason is recorded and logged. If a provider does not support a node of
//! the graph (mostly computations on shapes), ONNX Runtime deliberately runs it on the CPU. That is not a fallback,
//! but it is measured (`node_placement`).
mod cache;
mod dependencies;
mod options;

use std::path::{Path, PathBuf};

use ort::ep::{ACL, ArbitrarilyConfigurableExecutionProvider, CPU, CUDA, OpenVINO, TensorRT, XNNPACK};
use ort::ep::{ExecutionProvider, ExecutionProviderDispatch};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;

use super::io_binding::IoDevice;
use super::runtime::Runtime;
pub(super) use crate::config::Provider;
use crate::config::{self, Size};
use crate::error::{Error, Result};

pub use cache::gpus;
pub use options::{Options, SessionContext};

/// A model to open.
#[derive(Debug, Clone, Copy)]
pub(super) struct ModelIdentity<'a> {
    pub(super) bytes: &'a [u8],
    /// Name of its input.
    pub(super) input: &'a str,
    /// Size of its input in pixels.
    pub(super) size: Size,
    /// Its name in errors.
    pub(super) what: &'a str,
}

/// The providers of `config`, in order.
pub(super) fn asked(config: &config::Encoder) -> Result<Vec<Provider>> {
    let all = config.providers.clone();
    if all.is_empty() {
        return Err(Error::config(format!("encoder.providers is empty: name at least one of {}", names())));
    }
    Ok(all)
}

fn names() -> String {
    Provider::WORDS.join(", ")
}

/// Opens the model in `bytes` on the CPU without optimisations, for a single run.
pub(super) fn plain(runtime: &Runtime, bytes: &[u8]) -> ort::Result<Session> {
    let builder = Session::builder(&runtime.environment)?;
    let mut builder = builder.with_optimization_level(GraphOptimizationLevel::Disable)?.with_intra_threads(1)?;
    builder.commit_from_memory(bytes)
}

/// Opens the model in `bytes` on the CPU with ONNX Runtime's default settings.
pub(super) fn usual(runtime: &Runtime, bytes: &[u8]) -> ort::Result<Session> {
    Session::builder(&runtime.environment)?.with_intra_threads(1)?.commit_from_memory(bytes)
}

/// Names, as in `encoder.providers`, of all providers that a build of ONNX Runtime may have, and whether this build
/// has them. That a library has a provider does not mean that this machine can use it.
///
/// # Errors
/// The library does not list its providers.
pub fn compiled(runtime: &Runtime) -> Result<Vec<(&'static str, bool)>> {
    Provider::ALL.into_iter().map(|p| Ok((p.as_str(), p.available(runtime).map_err(Error::runtime)?))).collect()
}

/// The option strings passed to ONNX Runtime for `provider` (as in `encoder.providers`) under `config`; empty for one
/// that takes none.
pub fn options_of(provider: &str, config: &config::Encoder, about: &SessionContext) -> Options {
    match provider.parse() {
        Ok(Provider::TensorRt) => options::tensorrt(&config.tensorrt, about),
        Ok(Provider::Cuda) => options::cuda(&config.cuda),
        Ok(Provider::OpenVino) => options::openvino(&config.openvino, about),
        Ok(Provider::Xnnpack) => options::xnnpack(&config.xnnpack, about),
        _ => Options::new(),
    }
}

/// Libraries that `provider` needs in addition to the one at `runtime` and that cannot be loaded; none for a provider
/// that is built into ONNX Runtime.
pub fn missing_libraries(runtime: &Path, provider: &str) -> Vec<String> {
    dependencies::library(runtime, provider).map_or(Vec::new(), |library| dependencies::missing(&library))
}

/// The folder where `provider` caches what it builds under `config`.
pub fn cache_of(provider: &str, config: &config::Encoder) -> Option<PathBuf> {
    match provider {
        "tensorrt" => cache::engines(config),
        "openvino" => cache::blobs(config),
        _ => None,
    }
}

/// Threads of one inference on the CPU: `encoder.threads`, or all cores but one.
pub(super) fn threads(config: &config::Encoder) -> usize {
    match config.threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).max(1)),
        n => n as usize,
    }
}

impl Provider {
    /// Where the input and output live.
    pub(super) fn place(self, config: &config::Encoder) -> IoDevice {
        let gpu = |device: u32, graph| IoDevice::Gpu { device: i32::try_from(device).unwrap_or(i32::MAX), graph };
        match self {
            Self::TensorRt => gpu(config.tensorrt.device, config.tensorrt.cuda_graph),
            Self::Cuda => gpu(config.cuda.device, config.cuda.cuda_graph),
            Self::OpenVino => IoDevice::Anywhere,
            Self::Xnnpack | Self::Acl | Self::Cpu => IoDevice::Host,
        }
    }

    /// The maximum number of images at a time under `config`, and the reason; `None` means any number.
    pub(super) fn most_images(self, config: &config::Encoder) -> Option<(usize, String)> {
        let name = self.as_str();
        if matches!(self.place(config), IoDevice::Gpu { graph: true, .. }) {
            return Some((1, format!("encoder.{name}.cuda_graph = true: a CUDA graph is captured for one image")));
        }
        let most = config.tensorrt.max_batch;
        let why = || (most as usize, format!("encoder.tensorrt.max_batch = {most}: the engine is built for so many"));
        (self == Self::TensorRt).then(why)
    }

    /// The library of this provider; `None` for providers that are built into ONNX Runtime.
    pub(super) fn library(self, runtime: &Runtime) -> Option<PathBuf> {
        dependencies::library(&runtime.path, self.as_str())
    }

    fn available(self, runtime: &Runtime) -> std::result::Result<bool, String> {
        let available = match self {
            Self::TensorRt => TensorRT::is_available(),
            Self::Cuda => CUDA::is_available(),
            Self::OpenVino => OpenVINO::is_available(),
            Self::Xnnpack => XNNPACK::is_available(),
            Self::Acl => ACL::is_available(),
            Self::Cpu => Ok(true),
        };
        available.map_err(|e| format!("{}: cannot list its providers: {e}", runtime.path.display()))
    }

    /// Opens `model` on this provider; with `profile`, a profile of its first runs is written to a file with that
    /// prefix. The error says what to do.
    pub(super) fn open(
        self,
        runtime: &Runtime,
        model: ModelIdentity,
        config: &config::Encoder,
        profile: Option<&Path>,
    ) -> std::result::Result<Session, String> {
        let name = self.as_str();
        if !self.available(runtime)? {
            return Err(format!(
                "encoder.providers asks for {name}, which is not in this build of ONNX Runtime ({} in {}). Name a \
                 build with {name} for this machine in encoder.onnxruntime, take {name} out of encoder.providers, or \
                 set encoder.fallback = true to go on with the next of the list",
                runtime.version,
                runtime.path.display()
            ));
        }
        // Checked first, because ONNX Runtime names only the first missing library.
        let missing = missing_libraries(&runtime.path, name);
        if !missing.is_empty() {
            return Err(format!(
                "encoder.providers asks for {name}, whose libraries cannot be loaded: {} (ONNX Runtime {} in {}). Install \
                 them, or add their folder to LD_LIBRARY_PATH; docs/jetson.md says which build fits which system. Or set \
                 encoder.fallback = true to go on with the next of the list",
                missing.join(", "),
                runtime.version,
                runtime.path.display()
            ));
        }
        let opened = self.session(runtime, model, config, profile);
        opened.map_err(|e| self.failed(runtime, model, config, &e.to_string()))
    }

    fn failed(self, runtime: &Runtime, model: ModelIdentity, config: &config::Encoder, why: &str) -> String {
        let (what, name) = (model.what, self.as_str());
        let hint = super::ort_hints::hint(why);
        if self == Self::Cpu {
            return format!("{what} cannot be opened by ONNX Runtime {}: {why}{hint}", runtime.version);
        }
        let memory = match self {
            Self::Cuda | Self::TensorRt if why.contains("Failed to allocate memory") => format!(
                " The arena may take {} MB (encoder.cuda.arena_megabytes; 0: no limit).",
                config.cuda.arena_megabytes
            ),
            _ => String::new(),
        };
        format!(
            "encoder.providers asks for {name}, which cannot be used for {what}: {why} (ONNX Runtime {} in {}).{memory}{hint} \
             Check the driver and the libraries it names, or set encoder.fallback = true to go on with the next of the list",
            runtime.version,
            runtime.path.display()
        )
    }

    /// A provider that cannot be registered is an error, never a silent fallback to the CPU.
    fn session(
        self,
        runtime: &Runtime,
        model: ModelIdentity,
        config: &config::Encoder,
        profile: Option<&Path>,
    ) -> ort::Result<Session> {
        let about = self.subject(runtime, model, config);
        for folder in [&about.engines, &about.blobs].into_iter().flatten() {
            // If the folder cannot be created, ONNX Runtime reports it when it writes there.
            std::fs::create_dir_all(folder).ok();
        }
        // XNNPACK and OpenVINO use their own threads.
        let own_pool = matches!(self, Self::Xnnpack | Self::OpenVino);
        let mut builder = Session::builder(&runtime.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_execution_providers(self.registered(config, &about))?
            .with_intra_threads(if own_pool { 1 } else { about.threads })?
            .with_inter_threads(1)?
            // Threads that spin while they wait would take the cores that capture and learning run on.
            .with_intra_op_spinning(config.cpu.spinning)?
            .with_deterministic_compute(true)?;
        if let Some(file) = profile {
            builder = builder.with_profiling(file)?;
        }
        builder.commit_from_memory(model.bytes)
    }

    fn subject(self, runtime: &Runtime, model: ModelIdentity, config: &config::Encoder) -> SessionContext {
        let (input, size, threads) = (model.input.to_owned(), model.size, threads(config));
        let mut about = SessionContext { input, size, threads, engines: None, blobs: None, prefix: String::new() };
        match self {
            Self::TensorRt => {
                about.engines = cache::engines(config);
                about.prefix = cache::prefix(runtime, model.bytes, model.input, model.size, config);
            }
            Self::OpenVino => about.blobs = cache::blobs(config),
            _ => {}
        }
        about
    }

    fn registered(self, config: &config::Encoder, about: &SessionContext) -> Vec<ExecutionProviderDispatch> {
        fn with<E: ArbitrarilyConfigurableExecutionProvider>(provider: E, options: Options) -> E {
            options.into_iter().fold(provider, |provider, (name, value)| provider.with_arbitrary_config(name, value))
        }
        let options = |provider: Self| options_of(provider.as_str(), config, about);
        // With the arena, the buffers of all layers share one block that is kept. That is faster, and (for
        // MobileNetV2 at 224 pixels) takes 20 MB less than asking the system for each buffer anew.
        let cpu = CPU::default().with_arena_allocator(config.cpu.arena).build().error_on_failure();
        let cuda = || with(CUDA::default(), options(Self::Cuda)).build().error_on_failure();
        // A graph covers the whole model, so CUDA captures none of what TensorRT leaves over.
        let rest = || {
            let cuda = config::providers::Cuda { cuda_graph: false, ..config.cuda.clone() };
            with(CUDA::default(), options::cuda(&cuda)).build().error_on_failure()
        };
        let mut all = match self {
            // CUDA, which the TensorRT library needs anyway, takes the nodes that TensorRT does not support.
            Self::TensorRt => {
                vec![with(TensorRT::default(), options(self)).build().error_on_failure(), rest()]
            }
            Self::Cuda => vec![cuda()],
            Self::OpenVino => vec![with(OpenVINO::default(), options(self)).build().error_on_failure()],
            Self::Xnnpack => vec![with(XNNPACK::default(), options(self)).build().error_on_failure()],
            Self::Acl => vec![ACL::default().with_fast_math(config.acl.fast_math).build().error_on_failure()],
            Self::Cpu => Vec::new(),
        };
        all.push(cpu);
        all
    }
}

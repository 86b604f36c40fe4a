//! Shared by the integration tests: the built binary in its own folder, a configuration that promotes heads within
//! seconds, images, and a video decoder that delivers frames when the test says so.
#![allow(dead_code, reason = "each file of tests uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod skip;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use afterimage::config;
use afterimage::frame::Frame;
use afterimage::source::{self, Pull};
use crossbeam_channel::{SendTimeoutError, Sender, bounded};
use serde_json::Value;
use skip::{Needs, skip};
use tempfile::TempDir;

/// Longest time that anything may take; whatever takes longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A seeded encoder of random weights, 32 dimensions, 32 pixels.
pub(crate) const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny.onnx");

/// With [`ENCODER`] and [`PATTERN`] this promotes heads, with and without a residual, and takes gradient steps.
const CONFIG: &str = "
encoder.threads = 1
learn = { first_fit_frames = 128, refit_growth = 1.5, optimizer.frames_per_step = 4, objective.batch_pairs = 16, promote_lag_frames = 32 }
head = { dim = 24, candidates = ['slow', 'slow dim=16', 'slow+mlp', 'mean', 'frozen+slow'], hidden = 32 }
promotion = { min_blocks = 4, block_secs = 1.5, quantile = 0.2, min_interval_secs = 0 }
checkpoint.every_frames = 500
";

/// Set for a video, which marks no cuts: of [`ENCODER`] the latents of two scenes are near each other.
pub(crate) const CUTS: [&str; 4] =
    ["--set", "learn.sampling.cut_latent_distance=0.01", "--set", "learn.sampling.cut_luma_distance=0.03"];

/// Many short scenes: enough to learn from.
pub(crate) const PATTERN: &str = "pattern://7?frames=2400&segments=240&width=64&height=48";

/// A folder for one test, with the configuration in `learn.toml`; gone afterwards.
pub(crate) struct TestDir {
    folder: TempDir,
    calls: Cell<u32>,
}

impl TestDir {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("learn.toml"), CONFIG).unwrap();
        Self { folder, calls: Cell::new(0) }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Starts the program with this folder as its own; what it says goes to files there.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        self.start_with(args, |_| {})
    }

    /// [`TestDir::start`] with more said about the call (environment, search path).
    pub(crate) fn start_with(&self, args: &[&str], more: impl FnOnce(&mut Command)) -> Running {
        let call = self.calls.replace(self.calls.get() + 1);
        let [out, err] = ["out", "err"].map(|name| self.at(&format!(".call{call}.{name}")));
        let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
        command.args(args).current_dir(self.path()).stdin(Stdio::null());
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        more(&mut command);
        Running { child: command.spawn().unwrap(), call: args.join(" "), out, err }
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.start(args).end()
    }

    /// `learn` with the configuration of this folder.
    pub(crate) fn learn(&self, source: &str, out: &str, more: &[&str]) -> Output {
        self.start_learn(source, out, more).end()
    }

    pub(crate) fn start_learn(&self, source: &str, out: &str, more: &[&str]) -> Running {
        self.start(&[&learn_args(source, out), more].concat())
    }

    /// Starts `learn --resume` (`args`: all but that, with `--out run`) again and again and ends it with SIGKILL after
    /// some saves and a moment more, until it gets to its end by itself. Returns how many times it was killed.
    pub(crate) fn killed_until_done(&self, args: &[&str]) -> u32 {
        let saved = || fs::metadata(self.at("run/state.safetensors")).map(|file| file.ino()).ok();
        let mut kills = 0;
        for life in 1u64..60 {
            let mut running = self.start(&[args, &["--resume"]].concat());
            for _ in 0..3 + 4 * (life % 3) {
                let before = saved();
                while saved() == before && !running.over() {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            // Between two saves, while files are renamed, at the end.
            std::thread::sleep(Duration::from_millis(life * 7 % 20));
            if running.over() {
                running.end().ok();
                return kills;
            }
            kills += u32::from(running.kill());
        }
        panic!("no life of `{}` comes to an end", args.join(" "));
    }
}

/// The command line of `learn`, in a [`TestDir`].
pub(crate) fn learn_args<'a>(source: &'a str, out: &'a str) -> Vec<&'a str> {
    ["learn", "--config", "learn.toml", "--json", "--encoder", ENCODER, "--source", source, "--out", out].to_vec()
}

/// The program while it runs; killed when the test gives it up.
pub(crate) struct Running {
    child: Child,
    call: String,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// What it has said so far on standard error.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap()).into_owned()
    }

    /// Waits until it has said `text`; it must not end before.
    pub(crate) fn wait_to_say(&mut self, text: &str) {
        self.wait(&format!("to say {text:?}"), |running| running.said().contains(text));
    }

    /// Waits until `reached`; it must not end before.
    pub(crate) fn wait(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !reached(self) {
            let over = self.child.try_wait().unwrap();
            // What was reached at the very end counts.
            let missed = (over.is_some() || began.elapsed() > PATIENCE) && !reached(self);
            assert!(!missed, "waited for `{}` {what}; {over:?}, it said\n{}", self.call, self.said());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until there is a file.
    pub(crate) fn wait_for_file(&mut self, path: &Path) {
        self.wait(&format!("to write {}", path.display()), |_| path.exists());
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "{name} to `{}`", self.call);
    }

    /// Ends it with SIGKILL at once; false when it had ended by itself.
    pub(crate) fn kill(mut self) -> bool {
        let by_itself = self.child.try_wait().unwrap().is_some();
        self.child.kill().ok();
        let status = self.child.wait().unwrap();
        !by_itself && status.signal() == Some(9)
    }

    /// True once it has ended.
    pub(crate) fn over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Output {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "`{}` does not end; it said\n{}", self.call, self.said());
            std::thread::sleep(Duration::from_millis(1));
        };
        let out = String::from_utf8(fs::read(&self.out).unwrap()).unwrap();
        Output { status, out, err: self.said(), call: self.call.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a call came to.
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
    call: String,
}

impl Output {
    /// It must have gone well.
    pub(crate) fn ok(self) -> Self {
        assert!(self.status.success(), "`{}` failed: {:?}\n{}", self.call, self.status, self.err);
        self
    }

    /// It must have ended with `code` and an error that holds each of `parts`.
    pub(crate) fn fails(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.status.code(), Some(code), "`{}` said\n{}", self.call, self.err);
        assert!(self.out.is_empty(), "`{}` gave a result all the same: {}", self.call, self.out);
        let error = self.err.find("afterimage: ").or_else(|| self.err.find("error: ")).unwrap_or(self.err.len());
        let (_, error) = self.err.split_at(error);
        for part in parts {
            assert!(error.contains(part), "`{}` does not say {part:?} but\n{}", self.call, self.err);
        }
        self
    }

    /// Each of `parts` was said on the way.
    pub(crate) fn said(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.err.contains(part), "`{}` does not say {part:?} but\n{}", self.call, self.err);
        }
        self
    }

    /// The one JSON object on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("`{}`: {e}: {}", self.call, self.out))
    }
}

/// Every file below `folder` with its bytes, by its name from there.
pub(crate) fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for item in fs::read_dir(&next).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Both must hold the same files, bit for bit.
pub(crate) fn assert_same(a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    let differ: Vec<_> = a.iter().filter(|(name, bytes)| b[*name] != **bytes).map(|(name, _)| name).collect();
    assert!(differ.is_empty(), "these files differ: {differ:?}");
}

/// The promoted heads of a run and the number of the newest, as bytes.
pub(crate) fn heads(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = tree(&run.join("heads"));
    files.remove(".reserve");
    files.insert("latest".into(), fs::read(run.join("latest")).unwrap_or_default());
    files
}

/// The maps between the spaces of a run.
pub(crate) fn maps(run: &Path) -> BTreeMap<String, Vec<u8>> {
    if run.join("maps").is_dir() { tree(&run.join("maps")) } else { BTreeMap::new() }
}

/// All exported rows of a folder with their records, as bits, whatever files they lie in.
pub(crate) fn rows(folder: &Path) -> Vec<(afterimage::export::Record, Vec<u32>)> {
    let reader = afterimage::export::Reader::open(folder).unwrap();
    let bits = |row: Vec<f32>| row.into_iter().map(f32::to_bits).collect();
    reader.map(|row| row.map(|(record, row)| (record, bits(row))).unwrap()).collect()
}

/// All frames of a bounded source.
pub(crate) fn frames(uri: &str) -> Vec<Frame> {
    let mut source = source::open(uri, &config::Source::default()).unwrap();
    let (mut frame, mut all) = (Frame::default(), Vec::new());
    loop {
        match source.next(&mut frame, Duration::from_secs(10)).unwrap() {
            Pull::Frame => all.push(frame.clone()),
            Pull::Idle => {}
            Pull::End => return all,
        }
    }
}

/// Writes a frame in the format that the name ends in.
pub(crate) fn write_image(path: &Path, frame: &Frame) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::save_buffer(path, &frame.pixels, frame.width, frame.height, image::ExtendedColorType::Rgb8).unwrap();
}

/// The frames of a pattern as images in sub-folders, one for each scene.
pub(crate) fn write_folder(folder: &Path, uri: &str, end: &str) {
    let mut scene = 0;
    for frame in frames(uri) {
        scene += u32::from(frame.cut);
        write_image(&folder.join(format!("{scene:03}/{:05}.{end}", frame.index)), &frame);
    }
}

/// A video decoder, `bin/ffmpeg`, and a video for it, `clip.mp4`, in a [`TestDir`]: the frames come when the test gives them.
pub(crate) struct Paced {
    frames: Sender<Vec<u8>>,
}

impl Paced {
    /// To be made anew for each call of the program.
    pub(crate) fn new(place: &TestDir) -> Self {
        let pipe = place.at("clip.mp4.frames");
        fs::remove_file(&pipe).ok();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        fs::write(place.at("clip.mp4"), "\0for a decoder that does not look").unwrap();
        fs::create_dir_all(place.at("bin")).unwrap();
        let script = "#!/bin/sh\n\
                      case \"$*\" in *yuv4mpegpipe*) echo 'YUV4MPEG2 W64 H48 F10:1 Ip'; exit 0 ;; esac\n\
                      while [ \"$1\" != -i ]; do shift; done\n\
                      exec cat \"${2#file:}.frames\"\n";
        let program = place.at("bin/ffmpeg");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        // A thread, since the pipe opens when the decoder does, and is full when nobody takes frames.
        let (frames, given) = bounded::<Vec<u8>>(1);
        std::thread::spawn(move || {
            let mut pipe = fs::OpenOptions::new().write(true).open(pipe).unwrap();
            // The program may be killed at any time; then there is nobody to give frames to.
            while given.recv().is_ok_and(|bytes| pipe.write_all(&bytes).is_ok()) {}
        });
        Self { frames }
    }

    /// Starts `learn` on this video.
    pub(crate) fn start_learn(place: &TestDir, out: &str, more: &[&str]) -> Running {
        let args = [&learn_args("file:clip.mp4", out), more].concat();
        place.start_with(&args, search_first(place.at("bin").as_os_str()))
    }

    /// Gives one frame; waits until there is room for it. False when nobody takes it any more.
    pub(crate) fn give(&self, frame: &Frame) -> bool {
        let mut bytes = format!("P6\n{} {}\n255\n", frame.width, frame.height).into_bytes();
        bytes.extend_from_slice(&frame.pixels);
        match self.frames.send_timeout(bytes, PATIENCE) {
            Ok(()) => true,
            Err(SendTimeoutError::Disconnected(_)) => false,
            Err(SendTimeoutError::Timeout(_)) => panic!("nobody takes frames"),
        }
    }

    /// Gives all of `frames`, then the end of the video, from a thread of its own.
    pub(crate) fn give_all(self, frames: &[Frame]) {
        let frames = frames.to_vec();
        std::thread::spawn(move || frames.iter().all(|frame| self.give(frame)));
    }
}

/// Puts `folder` before all others on the search path of a call.
pub(crate) fn search_first(folder: &OsStr) -> impl FnOnce(&mut Command) + use<> {
    let mut path = folder.to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    move |command| {
        command.env("PATH", path);
    }
}

/// The GPU build of ONNX Runtime, where it is there: named by `AFTERIMAGE_GPU_ONNXRUNTIME`, or in the cache. Says so where not.
pub(crate) fn gpu_library() -> Option<PathBuf> {
    let named = std::env::var_os("AFTERIMAGE_GPU_ONNXRUNTIME").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let found = named.or_else(|| Some(cache?.join("afterimage/onnxruntime-gpu/libonnxruntime.so")));
    let found = found.filter(|path| path.exists());
    if found.is_none() {
        skip(Needs::GpuRuntime, "no GPU build of ONNX Runtime here; tools/fetch_onnxruntime.sh --gpu fetches one");
    }
    found
}

/// What the running programs called `name` were called with that this one has started.
pub(crate) fn arguments_of_children(name: &str) -> Vec<String> {
    let of = |id: String| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The parent's number follows the name, which may hold anything, and the state.
        let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok()?;
        let words = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let called = words.split(' ').next()?.ends_with(name);
        (parent == std::process::id() && called).then_some(words)
    };
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    all.filter(|name| name.parse::<u32>().is_ok()).filter_map(of).collect()
}

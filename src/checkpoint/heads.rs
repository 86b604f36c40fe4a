//! Promoted heads: `heads/NNNN.safetensors` in the folder of a run, and `latest`, which names the newest.
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2, CowArray, Dimension};
use sha2::{Digest, Sha256};

use super::arrays::Tensor;
use super::stored::{Stored, load, save};
use crate::error::{Error, Result};
use crate::files;
use crate::head::{Head, Learned, Mlp};

/// End of the names of heads.
const END: &str = "safetensors";

/// What the entry `format` of a head says.
const FORMAT: &str = "afterimage head 1";

/// Bound of a head's file: scatter matrices of 8192 dimensions fit in.
const MAX_HEAD_BYTES: u64 = 1 << 30;

/// The statistics that a head was fitted on, so that learning can go on from the head alone. See [`crate::head`].
#[derive(Debug, Clone, PartialEq)]
pub struct ScatterParts {
    /// Latents in `sum` and `total`.
    pub frames: u64,
    /// Pairs in `within`.
    pub pairs: u64,
    /// `[d]`, sum of the latents.
    pub sum: Vec<f64>,
    /// `[d (d + 1) / 2]`, upper triangle, row by row, of the sum of `f f'`.
    pub total: Vec<f64>,
    /// `[d (d + 1) / 2]`, the same of the sum of `(a - b)(a - b)'` over the pairs.
    pub within: Vec<f64>,
}

/// A promoted head with everything needed to use it again.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadFile {
    /// The head; never the identity, which needs no file.
    pub head: Head,
    /// Number of the promotion, from 1.
    pub number: u64,
    /// Name of the space of its embeddings, see [`space_of`].
    pub space: String,
    /// SHA-256 of the encoder's ONNX file.
    pub encoder_sha256: String,
    /// Hash of everything else that changes the latents.
    pub card_hash: String,
    /// Position in the source of the first frame that it is used on.
    pub activate_at: u64,
    /// Position in the source of the newest frame that was learned from when it was made.
    pub made_at: u64,
    /// What it was fitted on, where that is kept.
    pub scatter: Option<ScatterParts>,
}

/// Name of the space of `head` over this encoder: 16 hexadecimal digits. Two heads share a space only if they are the
/// same, bit for bit, over the same latents; embeddings of different spaces must not be compared.
pub fn space_of(encoder_sha256: &str, card_hash: &str, head: &Head) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(encoder_sha256.as_bytes());
    part(card_hash.as_bytes());
    match head {
        Head::Identity { dim } => part(&(*dim as u64).to_le_bytes()),
        Head::Learned(learned) => {
            part(&[u8::from(learned.beside_frozen)]);
            for part_of_head in parts(learned) {
                part(part_of_head.name.as_bytes());
                for n in &part_of_head.shape {
                    part(&(*n as u64).to_le_bytes());
                }
                part(bytemuck::cast_slice(part_of_head.values()));
            }
        }
    }
    let mut space = files::hex(&hash.finalize());
    space.truncate(16);
    space
}

/// Where the head `number` of a run lies.
pub fn head_path(run: &Path, number: u64) -> PathBuf {
    run.join("heads").join(files::numbered_name(number, END))
}

/// Writes `heads/NNNN.safetensors`, then `latest` (a text file with the number), each whole or not at all.
/// Doing it again after an error (a full disk) is safe: the same head gives the same file.
/// # Errors
/// The identity or number 0, which stand for the frozen encoder; or the I/O error.
pub fn save_head(run: &Path, file: &HeadFile) -> Result<()> {
    let path = head_path(run, file.number);
    let Head::Learned(learned) = &file.head else {
        return Err(Error::work(format!("cannot write {}: the frozen encoder needs no head", path.display())));
    };
    if file.number == 0 {
        return Err(Error::work(format!("cannot write {}: number 0 stands for the frozen encoder", path.display())));
    }
    let mut meta = BTreeMap::new();
    let mut entry = |key: &str, value: &dyn ToString| meta.insert(key.to_owned(), value.to_string());
    entry("format", &FORMAT);
    entry("number", &file.number);
    entry("space", &file.space);
    entry("encoder_sha256", &file.encoder_sha256);
    entry("card_hash", &file.card_hash);
    entry("activate_at", &file.activate_at);
    entry("made_at", &file.made_at);
    entry("beside_frozen", &learned.beside_frozen);
    if let Some(scatter) = &file.scatter {
        entry("scatter_frames", &scatter.frames);
        entry("scatter_pairs", &scatter.pairs);
    }
    let parts = parts(learned);
    let mut tensors: Vec<(String, Tensor)> =
        parts.iter().map(|part| (part.name.to_owned(), Tensor::new(&part.shape, part.values()))).collect();
    if let Some(scatter) = &file.scatter {
        for (name, values) in
            [("scatter.sum", &scatter.sum), ("scatter.total", &scatter.total), ("scatter.within", &scatter.within)]
        {
            tensors.push((name.to_owned(), Tensor::new(&[values.len()], values)));
        }
    }
    files::create_folder(&run.join("heads"))?;
    save(&path, &meta, &tensors)?;
    files::replace(&run.join("latest"), |out| writeln!(out, "{:04}", file.number))
}

/// Reads a head, bit for bit as it was saved.
/// # Errors
/// The I/O error, or what is wrong with the file: damaged, not a head, of another version.
pub fn load_head(path: &Path) -> Result<HeadFile> {
    let mut stored = load(path, MAX_HEAD_BYTES)?;
    if stored.text("format")? != FORMAT {
        return Err(stored.wrong(format!("is not of the format {FORMAT:?}")));
    }
    let head = learned(&mut stored)?;
    let file = HeadFile {
        number: stored.parse("number")?,
        space: stored.text("space")?.to_owned(),
        encoder_sha256: stored.text("encoder_sha256")?.to_owned(),
        card_hash: stored.text("card_hash")?.to_owned(),
        activate_at: stored.parse("activate_at")?,
        made_at: stored.parse("made_at")?,
        scatter: scatter(&mut stored, head.mean.len())?,
        head: Head::Learned(head),
    };
    let space = space_of(&file.encoder_sha256, &file.card_hash, &file.head);
    if file.space != space {
        return Err(stored.wrong(format!("names the space {}, its head is of the space {space}", file.space)));
    }
    Ok(file)
}

/// The newest head of a run that can be used, and a line for each newer one that cannot. The folder `heads` decides;
/// `latest` is for people and scripts.
/// # Errors
/// The folder cannot be read.
pub fn newest_head(run: &Path) -> Result<(Option<HeadFile>, Vec<String>)> {
    let mut warnings = Vec::new();
    for number in files::numbered(&files::names_in(&run.join("heads"))?, END).into_iter().rev() {
        let path = head_path(run, number);
        let loaded = load_head(&path).and_then(|file| {
            let named = file.number;
            let other = || Error::work(format!("{} is damaged: inside it is number {named}", path.display()));
            (named == number).then_some(file).ok_or_else(other)
        });
        match loaded {
            Ok(file) => return Ok((Some(file), warnings)),
            Err(error) => warnings.push(format!("{}; the head before it is used", error.chain())),
        }
    }
    Ok((None, warnings))
}

/// One array of a head, row-major.
struct Part<'a> {
    name: &'static str,
    shape: Vec<usize>,
    values: CowArray<'a, f32, ndarray::IxDyn>,
}

impl Part<'_> {
    fn values(&self) -> &[f32] {
        // `part` made it row-major, so there is a slice.
        self.values.as_slice().unwrap_or_default()
    }
}

fn part<'a, D: Dimension>(name: &'static str, array: &'a ndarray::Array<f32, D>) -> Part<'a> {
    Part { name, shape: array.shape().to_vec(), values: array.as_standard_layout().into_dyn() }
}

fn parts(head: &Learned) -> Vec<Part<'_>> {
    let alpha = CowArray::from(Array1::from_elem(1, head.alpha)).into_dyn();
    let mut parts =
        vec![part("mean", &head.mean), part("slow", &head.slow), Part { name: "alpha", shape: vec![1], values: alpha }];
    if let Some(mlp) = &head.mlp {
        parts.extend([part("mlp.w1", &mlp.w1), part("mlp.b1", &mlp.b1)]);
        parts.extend([part("mlp.gamma", &mlp.gamma), part("mlp.beta", &mlp.beta)]);
        parts.extend([part("mlp.w2", &mlp.w2), part("mlp.b2", &mlp.b2)]);
    }
    parts
}

fn learned(stored: &mut Stored) -> Result<Learned> {
    let [d, k] = stored.shape("slow")?;
    let mlp = if stored.has("mlp.w1") {
        let [h, _] = stored.shape("mlp.w1")?;
        Some(Mlp {
            w1: matrix(stored, "mlp.w1", h, k)?,
            b1: vector(stored, "mlp.b1", h)?,
            gamma: vector(stored, "mlp.gamma", h)?,
            beta: vector(stored, "mlp.beta", h)?,
            w2: matrix(stored, "mlp.w2", k, h)?,
            b2: vector(stored, "mlp.b2", k)?,
        })
    } else {
        None
    };
    Ok(Learned {
        mean: vector(stored, "mean", d)?,
        slow: matrix(stored, "slow", d, k)?,
        mlp,
        alpha: vector(stored, "alpha", 1)?[0],
        beside_frozen: stored.parse("beside_frozen")?,
    })
}

fn scatter(stored: &mut Stored, d: usize) -> Result<Option<ScatterParts>> {
    if !stored.has("scatter.sum") {
        return Ok(None);
    }
    let triangle = [d * (d + 1) / 2];
    Ok(Some(ScatterParts {
        frames: stored.parse("scatter_frames")?,
        pairs: stored.parse("scatter_pairs")?,
        sum: stored.take("scatter.sum", &[d])?,
        total: stored.take("scatter.total", &triangle)?,
        within: stored.take("scatter.within", &triangle)?,
    }))
}

fn vector(stored: &mut Stored, name: &str, n: usize) -> Result<Array1<f32>> {
    stored.take(name, &[n]).map(Array1::from_vec)
}

fn matrix(stored: &mut Stored, name: &str, rows: usize, columns: usize) -> Result<Array2<f32>> {
    let values = stored.take(name, &[rows, columns])?;
    Array2::from_shape_vec((rows, columns), values)
        .map_err(|error| stored.wrong(format!("array {name:?} has no matrix")).because(error))
}

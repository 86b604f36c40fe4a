//! Heads and statistics as arrays of a file, each under a prefix, so that one file can hold several.
use std::collections::BTreeMap;

use ndarray::{Array, Array1, Array2, Array3, Dimension};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::tensors::Checksum;
use super::{LoadedTensors, Scalar, TensorView};
use crate::error::{Error, Result};
use crate::head::{Context, EmbeddingKind, Grid, GridHead, Head, HeadParams, MAX_DIM, Mlp, ScatterStats};

/// The content of a file to be written: text entries, and arrays borrowed from their owners.
#[derive(Debug, Default)]
pub struct StateDict<'a> {
    /// Text entries, by key.
    pub meta: BTreeMap<String, String>,
    /// Named arrays.
    pub tensors: Vec<(String, TensorView<'a>)>,
}

impl<'a> StateDict<'a> {
    /// SHA-256 over the whole content, 64 hexadecimal digits.
    pub fn checksum(&self) -> String {
        let mut sum = Checksum::new(&self.meta);
        for (name, tensor) in &self.tensors {
            sum.add(name, tensor.dtype, &tensor.shape, tensor.bytes());
        }
        sum.finish()
    }

    /// Adds a text entry.
    pub fn text(&mut self, key: impl Into<String>, value: impl ToString) {
        self.meta.insert(key.into(), value.to_string());
    }

    /// Adds a list of numbers made for the file.
    pub fn list<T: Scalar>(&mut self, name: impl Into<String>, values: Vec<T>) {
        self.tensors.push((name.into(), TensorView::list(values)));
    }

    /// Adds a value that serde can serialise, as the bytes of its JSON. It is stored as an array, not as a text entry,
    /// because the header must not grow with the stream.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn json(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        let text =
            serde_json::to_vec(value).map_err(|e| Error::runtime(format!("cannot save {name:?}")).with_source(e))?;
        self.list(name, text);
        Ok(())
    }

    /// Adds an array. An array that is not row-major in memory has no slice, so [`super::encode`] rejects it for its
    /// length.
    pub fn array<D: Dimension>(&mut self, name: String, array: &'a Array<f32, D>) {
        let values = array.as_slice().unwrap_or_default();
        self.tensors.push((name, TensorView::new(array.shape(), values)));
    }

    /// Adds a learned head.
    pub fn learned(&mut self, prefix: &str, head: &'a HeadParams) {
        self.text(format!("{prefix}alpha"), head.alpha);
        self.text(format!("{prefix}beside_frozen"), head.form == EmbeddingKind::BesideFrozen);
        // Written only if it applies: the space of a head is a hash of its entries, and heads without the option keep
        // their spaces.
        if head.form == EmbeddingKind::Mean {
            self.text(format!("{prefix}mean_with_slow"), true);
        }
        self.array(format!("{prefix}mean"), &head.mean);
        self.array(format!("{prefix}slow"), &head.slow);
        if let Some(mlp) = &head.mlp {
            self.mlp(&format!("{prefix}mlp."), mlp);
        }
    }

    /// Adds a head of any kind. A head over pooled grid latents is stored as the head behind the pooling, which is the
    /// same map.
    pub fn head(&mut self, prefix: &str, head: &'a Head) {
        match head {
            Head::Identity { dim } => self.text(format!("{prefix}identity"), dim),
            Head::Learned(learned) => self.learned(prefix, learned),
            Head::Pooled { head, .. } => self.head(prefix, head),
            Head::Grid(head) => {
                let Grid { rows, columns, .. } = head.grid;
                self.text(format!("{prefix}grid"), format!("{rows} {columns}"));
                self.learned(prefix, &head.learned);
                if let Some(context) = &head.context {
                    self.context(&format!("{prefix}context."), context);
                }
            }
        }
    }

    /// Adds the weights of an MLP, or values of the same shapes.
    pub fn mlp(&mut self, prefix: &str, mlp: &'a Mlp<f32>) {
        self.array(format!("{prefix}w1"), &mlp.w1);
        self.array(format!("{prefix}b1"), &mlp.b1);
        self.array(format!("{prefix}gamma"), &mlp.gamma);
        self.array(format!("{prefix}beta"), &mlp.beta);
        self.array(format!("{prefix}w2"), &mlp.w2);
        self.array(format!("{prefix}b2"), &mlp.b2);
    }

    /// Adds the weights of a context network, or values of the same shapes.
    pub fn context(&mut self, prefix: &str, context: &'a Context<f32>) {
        self.array(format!("{prefix}w_in"), &context.w_in);
        self.array(format!("{prefix}b_in"), &context.b_in);
        self.array(format!("{prefix}w_across"), &context.w_across);
        self.array(format!("{prefix}b_across"), &context.b_across);
        self.array(format!("{prefix}w_down"), &context.w_down);
        self.array(format!("{prefix}b_down"), &context.b_down);
        self.array(format!("{prefix}w_out"), &context.w_out);
        self.array(format!("{prefix}b_out"), &context.b_out);
    }

    /// Adds slow-head statistics.
    pub fn scatter(&mut self, prefix: &str, scatter: &'a ScatterStats) {
        let parts = scatter.parts();
        self.text(format!("{prefix}frames"), parts.frames);
        self.text(format!("{prefix}pairs"), parts.pairs);
        for (name, values) in [("sum", parts.sum), ("total", parts.total), ("within", parts.within)] {
            self.tensors.push((format!("{prefix}{name}"), TensorView::new(&[values.len()], values)));
        }
        if parts.views > 0 {
            self.text(format!("{prefix}views"), parts.views);
            self.tensors.push((format!("{prefix}view"), TensorView::new(&[parts.view.len()], parts.view)));
        }
    }
}

impl LoadedTensors {
    /// The inverse of [`StateDict::list`].
    ///
    /// # Errors
    /// There is no such array, or it is not a list of this type.
    pub fn take_list<T: Scalar>(&mut self, name: &str) -> Result<Vec<T>> {
        let [len] = self.shape(name)?;
        self.take(name, &[len])
    }

    /// The inverse of [`StateDict::json`].
    ///
    /// # Errors
    /// There is no such array, or its content is something else.
    pub fn take_json<T: DeserializeOwned>(&mut self, name: &str) -> Result<T> {
        let text: Vec<u8> = self.take_list(name)?;
        serde_json::from_slice(&text)
            .map_err(|e| self.wrong(format!("has no {name:?} that can be read")).with_source(e))
    }

    /// The inverse of [`StateDict::learned`].
    ///
    /// # Errors
    /// Arrays are missing or do not fit together.
    pub fn take_learned(&mut self, prefix: &str) -> Result<HeadParams> {
        let [d, k] = self.shape(&format!("{prefix}slow"))?;
        let mlp = if self.has(&format!("{prefix}mlp.w1")) {
            Some(self.take_mlp(&format!("{prefix}mlp."), k, k)?)
        } else {
            None
        };
        let learned = HeadParams {
            mean: self.take_vector(&format!("{prefix}mean"), d)?,
            slow: self.take_matrix(&format!("{prefix}slow"), d, k)?,
            mlp,
            alpha: self.parse(&format!("{prefix}alpha"))?,
            form: match (
                self.parse(&format!("{prefix}beside_frozen"))?,
                self.meta.get(&format!("{prefix}mean_with_slow")),
            ) {
                (false, None) => EmbeddingKind::Single,
                (true, None) => EmbeddingKind::BesideFrozen,
                (false, Some(yes)) if yes == "true" => EmbeddingKind::Mean,
                _ => return Err(self.wrong("has a head whose form is not known")),
            },
        };
        Ok(learned)
    }

    /// The inverse of [`StateDict::head`].
    ///
    /// # Errors
    /// Same as [`LoadedTensors::take_learned`].
    pub fn take_head(&mut self, prefix: &str) -> Result<Head> {
        let identity = format!("{prefix}identity");
        if self.meta.contains_key(&identity) {
            let dim = self.parse(&identity)?;
            if dim > MAX_DIM {
                return Err(self.wrong(format!("has a head over latents of {dim} numbers, {MAX_DIM} are allowed")));
            }
            return Ok(Head::Identity { dim });
        }
        let learned = self.take_learned(prefix)?;
        let grid = format!("{prefix}grid");
        if !self.meta.contains_key(&grid) {
            return Ok(Head::Learned(learned));
        }
        let shape = self.text(&grid)?.split_once(' ');
        let shape = shape.and_then(|(rows, columns)| Some((rows.parse().ok()?, columns.parse().ok()?)));
        let Some((rows, columns)) = shape else { return Err(self.wrong(format!("entry {grid:?} is no grid"))) };
        let (dim, k) = learned.slow.dim();
        if usize::checked_mul(rows, columns).and_then(|cells| cells.checked_mul(dim)).is_none() {
            return Err(self.wrong(format!("entry {grid:?} is a grid of {rows} x {columns} cells")));
        }
        let within = format!("{prefix}context.");
        let context = self.has(&format!("{within}b_in")).then(|| self.take_context(&within, k)).transpose()?;
        Ok(Head::Grid(Box::new(GridHead { grid: Grid { rows, columns, dim }, learned, context })))
    }

    /// The inverse of [`StateDict::mlp`], for `k_in` inputs and `k_out` outputs.
    ///
    /// # Errors
    /// Same as [`LoadedTensors::take_learned`].
    pub fn take_mlp(&mut self, prefix: &str, k_in: usize, k_out: usize) -> Result<Mlp<f32>> {
        let [h, _] = self.shape(&format!("{prefix}w1"))?;
        Ok(Mlp {
            w1: self.take_matrix(&format!("{prefix}w1"), h, k_in)?,
            b1: self.take_vector(&format!("{prefix}b1"), h)?,
            gamma: self.take_vector(&format!("{prefix}gamma"), h)?,
            beta: self.take_vector(&format!("{prefix}beta"), h)?,
            w2: self.take_matrix(&format!("{prefix}w2"), k_out, h)?,
            b2: self.take_vector(&format!("{prefix}b2"), k_out)?,
        })
    }

    /// The inverse of [`StateDict::context`], for `channels` outer channels.
    ///
    /// # Errors
    /// Same as [`LoadedTensors::take_learned`].
    pub fn take_context(&mut self, prefix: &str, channels: usize) -> Result<Context<f32>> {
        let [n, m] = self.shape(&format!("{prefix}b_in"))?;
        let c = channels;
        Ok(Context {
            w_in: self.take_cube(&format!("{prefix}w_in"), [n, m, c])?,
            b_in: self.take_matrix(&format!("{prefix}b_in"), n, m)?,
            w_across: self.take_cube(&format!("{prefix}w_across"), [n, m, 3 * m])?,
            b_across: self.take_matrix(&format!("{prefix}b_across"), n, m)?,
            w_down: self.take_cube(&format!("{prefix}w_down"), [n, m, 2 * m])?,
            b_down: self.take_matrix(&format!("{prefix}b_down"), n, m)?,
            w_out: self.take_cube(&format!("{prefix}w_out"), [n, c, m])?,
            b_out: self.take_matrix(&format!("{prefix}b_out"), n, c)?,
        })
    }

    /// The inverse of [`StateDict::scatter`].
    ///
    /// # Errors
    /// Same as [`LoadedTensors::take_learned`].
    pub fn take_scatter(&mut self, prefix: &str, dim: usize) -> Result<ScatterStats> {
        let triangle = [dim * (dim + 1) / 2];
        let scatter = ScatterStats::from_parts(
            dim,
            self.parse(&format!("{prefix}frames"))?,
            self.parse(&format!("{prefix}pairs"))?,
            self.take(&format!("{prefix}sum"), &[dim])?,
            self.take(&format!("{prefix}total"), &triangle)?,
            self.take(&format!("{prefix}within"), &triangle)?,
        )?;
        if !self.has(&format!("{prefix}view")) {
            return Ok(scatter);
        }
        scatter.with_views(self.parse(&format!("{prefix}views"))?, self.take(&format!("{prefix}view"), &triangle)?)
    }

    /// Takes a one-dimensional array.
    ///
    /// # Errors
    /// Same as [`LoadedTensors::take`].
    pub fn take_vector(&mut self, name: &str, n: usize) -> Result<Array1<f32>> {
        self.take(name, &[n]).map(Array1::from_vec)
    }

    /// Takes a three-dimensional array.
    ///
    /// # Errors
    /// Same as [`LoadedTensors::take`].
    pub fn take_cube(&mut self, name: &str, shape: [usize; 3]) -> Result<Array3<f32>> {
        let values = self.take(name, &shape)?;
        Array3::from_shape_vec(shape, values)
            .map_err(|error| self.wrong(format!("array {name:?} has no such shape")).with_source(error))
    }

    /// Takes a two-dimensional array.
    ///
    /// # Errors
    /// Same as [`LoadedTensors::take`].
    pub fn take_matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Array2<f32>> {
        let values = self.take(name, &[rows, columns])?;
        Array2::from_shape_vec((rows, columns), values)
            .map_err(|error| self.wrong(format!("array {name:?} has no matrix")).with_source(error))
    }
}

//! Runs several images through the model at once.
use super::first_run::fixed_image;
use super::session::Encoder;
use crate::error::{Error, Result};
use crate::linalg::dot;

/// Minimum cosine between the latent of an image alone and in a batch.
const LEAST_COSINE: f64 = 0.999_999;

impl Encoder {
    /// Checks whether the model takes `most` images at once and still gives each image the latent that it has alone.
    /// (A model that scales its values by the maximum over all images does not.)
    ///
    /// # Errors
    /// A usage error if the model declares that it does not take that many images. Refused if it fails on them or the
    /// latents differ. Inference errors.
    pub fn allow_batch(&mut self, most: usize) -> Result<()> {
        if most <= 1 {
            return Ok(());
        }
        if let Some((limit, why)) = &self.most_images
            && most > *limit
        {
            let what = &self.what;
            return Err(Error::usage(format!("--batch {most} with {what}: {why}; make it smaller, or leave it out")));
        }
        let image = fixed_image(self.size);
        // The brightness differs, so that any influence between images shows.
        let images: Vec<f32> = (0..most).flat_map(|n| image.iter().map(move |x| x * scale(n))).collect();
        let mut together = vec![0.0; most * self.dim];
        if let Err(error) = self.encode_batch(&images, &mut together) {
            return Err(Error::check_failed(format!(
                "--batch {most} with {}: it says that it takes any number of images, but not {most} (its graph holds a number \
                 within, or there is no memory for so many). Leave --batch out",
                self.what
            ))
            .with_source(error));
        }
        let (mut alone, mut worst) = (vec![0.0; self.dim], 1.0_f64);
        for (image, row) in images.chunks_exact(image.len()).zip(together.chunks_exact(self.dim)) {
            self.encode(image, &mut alone)?;
            worst = worst.min(cosine(&alone, row));
        }
        if worst >= LEAST_COSINE {
            tracing::info!("{}: {most} frames a run, each as by itself (least cosine {worst:.9})", self.what);
            return Ok(());
        }
        Err(Error::check_failed(format!(
            "--batch {most} with {}: an image among {most} has another latent than by itself (least cosine {worst:.7}, \
             {LEAST_COSINE} needed): the model mixes the images of a run. Leave --batch out",
            self.what
        )))
    }

    /// Computes the latents of several preprocessed images, as [`Encoder::encode`] does for one: `tensors` is `[n, 3,
    /// height, width]`, `out` is `[n, dim]`. ONNX Runtime allocates its own memory for each run.
    ///
    /// # Errors
    /// Lengths that do not match, and inference errors.
    pub fn encode_batch(&mut self, tensors: &[f32], out: &mut [f32]) -> Result<()> {
        let (values, dim) = (self.size.values(), self.dim);
        let images = tensors.len() / values.max(1);
        if images == 0 || tensors.len() != images * values || out.len() != images * dim {
            return Err(Error::runtime(format!(
                "{}: takes {values} values an image and gives {dim}; the buffers have {} and {}",
                self.what,
                tensors.len(),
                out.len()
            )));
        }
        self.run(tensors, |shape, values| {
            if values.len() != out.len() || shape.first() != Some(&(images as i64)) {
                return Err(format!("the output is {shape:?} for {images} images of {dim} values each"));
            }
            out.copy_from_slice(values);
            Ok(())
        })
        .map_err(Error::runtime)
    }
}

/// Cycles through 1, -.5, .25 and 2.
fn scale(n: usize) -> f32 {
    [1.0, -0.5, 0.25, 2.0][n % 4]
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let [ab, aa, bb] = [(a, b), (a, a), (b, b)].map(|(a, b)| f64::from(dot(a, b)));
    ab / (aa * bb).sqrt()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::{self, Size};
    use crate::encoder::provider::Provider;
    use crate::encoder::tests::runtime;
    use crate::onnx::graph_builder::GraphBuilder;
    use crate::onnx::graph_editor::{GraphEdit, GraphEditor, any_rows, tensor_of};

    fn open(name: &str) -> Encoder {
        let bytes = std::fs::read(format!("{}/tests/data/{name}.onnx", env!("CARGO_MANIFEST_DIR"))).unwrap();
        opened(&bytes, "latent")
    }

    fn opened(bytes: &[u8], output: &str) -> Encoder {
        let config = config::Encoder { threads: 1, ..config::Encoder::default() };
        Encoder::from_bytes(&runtime(), bytes, "image", output, Size::square(32), &config, "model").unwrap()
    }

    #[test]
    fn images_together_have_the_latents_that_they_have_alone() {
        let mut encoder = open("tiny");
        encoder.allow_batch(5).unwrap();
        let image = fixed_image(Size::square(32));
        let images: Vec<f32> = (0..3).flat_map(|n| image.iter().map(move |x| x * scale(n))).collect();
        let (mut together, mut alone) = (vec![0.0; 3 * 32], vec![0.0; 32]);
        encoder.encode_batch(&images, &mut together).unwrap();
        for (image, row) in images.chunks_exact(image.len()).zip(together.chunks_exact(32)) {
            encoder.encode(image, &mut alone).unwrap();
            assert!(cosine(&alone, row) > LEAST_COSINE);
        }
        assert!(encoder.encode_batch(&images[1..], &mut together).is_err());
        assert!(encoder.encode_batch(&images, &mut together[1..]).is_err());
        assert!(encoder.encode_batch(&[], &mut []).is_err());
    }

    #[test]
    fn a_model_of_one_image_is_refused_by_name() {
        let error = open("fixed").allow_batch(2).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.chain().contains("takes one image at a time"), "{}", error.chain());
        open("fixed").allow_batch(1).unwrap();
        let mut encoder = open("tiny");
        encoder.most_images = Some((4, "four seats".into()));
        encoder.allow_batch(4).unwrap();
        assert!(encoder.allow_batch(5).unwrap_err().chain().contains("--batch 5 with model: four seats"));
        let graph = config::Encoder::default();
        assert_eq!(Provider::TensorRt.most_images(&graph).map(|(most, _)| most), Some(1));
        assert!(Provider::Cuda.most_images(&graph).is_none() && Provider::Cpu.most_images(&graph).is_none());
        let cuda = config::providers::Cuda { cuda_graph: true, ..graph.cuda.clone() };
        let graph = config::Encoder { cuda, ..graph };
        assert!(Provider::Cuda.most_images(&graph).is_some_and(|(most, why)| most == 1 && why.contains("cuda_graph")));
    }

    #[test]
    fn a_model_that_holds_its_batch_within_is_refused() {
        let bytes = std::fs::read(format!("{}/tests/data/tiny.onnx", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let model = GraphEditor::read(&bytes).unwrap();
        let mut graph = GraphBuilder::new(&model.free_prefix());
        let held = graph.reshape("latent", &[1, 32]);
        let (nodes, weights) = graph.finish(&held);
        let outputs = vec![tensor_of(&held, any_rows(), &[32])];
        let bytes = model.apply(&GraphEdit { nodes, weights, outputs, prune: true, ..GraphEdit::default() }).unwrap();
        let error = opened(&bytes, &held).allow_batch(4).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("Leave --batch out"), "{}", error.chain());
    }

    #[test]
    fn a_model_that_mixes_images_is_refused() {
        let bytes = std::fs::read(format!("{}/tests/data/tiny.onnx", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let model = GraphEditor::read(&bytes).unwrap();
        let mut graph = GraphBuilder::new(&model.free_prefix());
        let largest = graph.node("ReduceMax", &["latent"]);
        let mixed = graph.node("Sub", &["latent", &largest]);
        let (nodes, weights) = graph.finish(&mixed);
        let outputs = vec![tensor_of(&mixed, any_rows(), &[32])];
        let bytes = model.apply(&GraphEdit { nodes, weights, outputs, prune: true, ..GraphEdit::default() }).unwrap();
        let error = opened(&bytes, &mixed).allow_batch(4).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.chain().contains("mixes the images"), "{}", error.chain());
    }
}

//! The first runs of an opened model on a fixed image: find its output, and check that fixed buffers give the same
//! one.
use std::time::Instant;

use ort::session::SessionInputValue;
use ort::value::TensorRef;

use super::FeatureSlice;
use super::io_binding::BoundIo;
use super::provider;
use super::runtime::Runtime;
use super::session::{Encoder, ModelSlice};
use super::validate::NEEDS_VECTOR;
use crate::config::Size;
use crate::config::taps::{OUTPUT, Pooling};
use crate::error::{Error, Result};

/// Creates the buffers of an encoder.
pub(super) type Bind<'a> = dyn Fn(&Encoder) -> std::result::Result<Option<BoundIo>, String> + 'a;

/// Checks that an output of this shape is the latent of one image, and copies it.
fn vector(output: &str, shape: &[i64], values: &[f32]) -> std::result::Result<Vec<f32>, String> {
    match *shape {
        [1, _] => Ok(values.to_vec()),
        _ => Err(format!("output {output} is {shape:?} for one image: {NEEDS_VECTOR}")),
    }
}

/// Compares two runs of one model on one image: bit-identical on a CPU, nearly equal on a GPU.
fn near(a: &[f32], b: &[f32]) -> bool {
    let largest = a.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-2 * largest)
}

impl Encoder {
    /// Computes the latent of a fixed image. Determines the dimension and refuses outputs that cannot be learned
    /// from.
    pub(super) fn try_out(&mut self, output: &str) -> Result<Vec<f32>> {
        let image = fixed_image(self.size);
        let start = Instant::now();
        let latent = self.run(&image, |shape, values| vector(output, shape, values)).map_err(Error::check_failed)?;
        self.first_millis = start.elapsed().as_secs_f64() * 1e3;
        self.look_at(&latent).map(|()| latent)
    }

    /// Takes the dimension from the latent of a fixed image, and refuses outputs that cannot be learned from.
    fn look_at(&mut self, latent: &[f32]) -> Result<()> {
        let bad = latent.iter().filter(|v| !v.is_finite()).count();
        if bad > 0 || latent.iter().all(|v| *v == 0.0) {
            let found = if bad > 0 {
                format!("{bad} of {} values are not finite", latent.len())
            } else {
                "all values are 0".into()
            };
            return Err(Error::check_failed(format!(
                "{} on {}: {found} for a test image of ordinary values; the model is broken, or its precision does not \
                 suit this provider. Check it with the CPU (encoder.providers = [\"cpu\"]), or export it again",
                self.what, self.provider
            )));
        }
        self.dim = latent.len();
        self.parts = vec![FeatureSlice { name: format!("{OUTPUT}:{}", Pooling::AsIs), len: self.dim }];
        Ok(())
    }

    /// Uses fixed buffers if they give the same latent of the fixed image as the run without them, `expected`. If
    /// they cannot be allocated or give another latent, this logs a warning, and ONNX Runtime keeps allocating its
    /// own for each run, which is slower but just as correct.
    pub(super) fn settle(&mut self, bind: &Bind, expected: &[f32]) {
        let settled = bind(self).and_then(|buffers| {
            let Some(mut buffers) = buffers else { return Ok(None) };
            let mut found = vec![0.0; self.dim];
            buffers.run(&mut self.session, &fixed_image(self.size), &mut found)?;
            if near(expected, &found) { Ok(Some(buffers)) } else { Err("they give another latent".into()) }
        });
        match settled {
            Ok(buffers) => self.buffers = buffers,
            Err(why) => tracing::warn!("{} on {}: fixed buffers are not used: {why}", self.what, self.provider),
        }
    }

    /// With a CUDA graph: finds the dimension on the CPU, binds the buffers, and captures the graph. A graph that
    /// gives the same latent for two images reads its first input again, and is refused.
    pub(super) fn capture(&mut self, runtime: &Runtime, part: &ModelSlice, bind: &Bind) -> Result<()> {
        let (what, provider) = (self.what.clone(), self.provider);
        let failed = |why: String| {
            Error::runtime(format!(
                "{what} on {provider} as a CUDA graph: {why}. The whole model must run on the GPU; \
                 encoder.{provider}.cuda_graph = false does without a graph"
            ))
        };
        let image = fixed_image(self.size);
        let ([height, width], options) = (self.size.dims(), &self.options);
        let plain = || {
            let mut session = provider::plain(runtime, part.bytes)?;
            let input = TensorRef::from_array_view(([1, 3, height, width], &*image))?;
            let found = session.run_with_options([SessionInputValue::from(input)], options)?;
            let (shape, values) = found[0].try_extract_tensor::<f32>()?;
            ort::Result::Ok(vector(part.output, shape, values))
        };
        let latent = plain()
            .map_err(|e: ort::Error| failed(e.to_string()))?
            .map_err(|why| Error::check_failed(format!("{what}: {why}")))?;
        self.look_at(&latent)?;
        let mut buffers =
            bind(self).map_err(failed)?.ok_or_else(|| failed("its buffers cannot be kept in one place".into()))?;
        let (mut one, mut other) = (latent, vec![0.0; self.dim]);
        let start = Instant::now();
        buffers.run(&mut self.session, &image, &mut one).map_err(failed)?;
        self.first_millis = start.elapsed().as_secs_f64() * 1e3;
        self.look_at(&one)?;
        let negative: Vec<f32> = image.iter().map(|value| -value).collect();
        buffers.run(&mut self.session, &negative, &mut other).map_err(failed)?;
        if one == other {
            return Err(failed("it gives the same latent for two images".into()));
        }
        self.buffers = Some(buffers);
        Ok(())
    }
}

/// A smooth image of ordinary values, -1 to 1: the same for every model of this size.
pub(super) fn fixed_image(size: Size) -> Vec<f32> {
    let [height, width] = size.dims();
    let value = |i: usize| {
        let (plane, y, x) = (i / (height * width), i / width % height, i % width);
        ((3 * x + 2 * y + 5 * plane) % (2 * width)) as f32 / width as f32 - 1.0
    };
    (0..size.values()).map(value).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config;
    use crate::encoder::io_binding::IoDevice;
    use crate::encoder::tests::runtime;

    fn bytes(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/data/{name}.onnx", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn open(bytes: &[u8], output: &str) -> Encoder {
        let config = config::Encoder { threads: 1, ..config::Encoder::default() };
        Encoder::from_bytes(&runtime(), bytes, "image", output, Size::square(32), &config, "model").unwrap()
    }

    fn bind(encoder: &Encoder, names: [&str; 2], dim: usize) -> std::result::Result<Option<BoundIo>, String> {
        BoundIo::new(&encoder.session, names, Size::square(32), dim, IoDevice::Host, None)
    }

    #[test]
    fn buffers_are_used_where_they_give_the_same() {
        let bytes = bytes("tiny");
        let mut encoder = open(&bytes, "latent");
        assert!(encoder.buffers.is_some(), "on a CPU they always do");
        let mut expected = vec![0.0; 32];
        encoder.encode(&fixed_image(Size::square(32)), &mut expected).unwrap();
        let image: Vec<f32> = fixed_image(Size::square(32)).iter().map(|value| 0.5 * value).collect();
        let (mut with, mut without) = (vec![0.0; 32], vec![0.0; 32]);
        encoder.encode(&image, &mut with).unwrap();
        encoder.buffers = None;
        encoder.encode(&image, &mut without).unwrap();
        assert_eq!(with, without, "the same bits");
        // Buffers that cannot be allocated, or that belong to another session, are skipped; the encoder works as
        // before.
        encoder.settle(&|_| Err("no memory".into()), &expected);
        assert!(encoder.buffers.is_none());
        encoder.settle(&|encoder| bind(encoder, ["image", "latent"], 31), &expected);
        assert!(encoder.buffers.is_none());
        encoder.settle(&|encoder| bind(encoder, ["image", "latent"], 32), &image[..32]);
        assert!(encoder.buffers.is_none());
        encoder.encode(&image, &mut without).unwrap();
        assert_eq!(with, without);
        encoder.settle(&|encoder| bind(encoder, ["image", "latent"], 32), &expected);
        assert!(encoder.buffers.is_some());
    }

    /// A CPU session stands in for a GPU session: the calls are the same.
    #[test]
    fn a_graph_is_captured_from_the_first_run_on() {
        let (bytes, runtime) = (bytes("tiny"), runtime());
        let part = ModelSlice { bytes: &bytes, input: "image", output: "latent", size: Size::square(32) };
        let mut encoder = open(&bytes, "latent");
        let mut expected = vec![0.0; 32];
        encoder.encode(&fixed_image(Size::square(32)), &mut expected).unwrap();
        (encoder.buffers, encoder.dim) = (None, 0);
        let text = encoder.capture(&runtime, &part, &|_| Err("no memory of the GPU".into())).unwrap_err().to_string();
        assert!(
            text.contains("as a CUDA graph: no memory of the GPU") && text.contains(".cuda_graph = false"),
            "{text}"
        );
        encoder.capture(&runtime, &part, &|encoder| bind(encoder, ["image", "latent"], encoder.dim)).unwrap();
        assert!(encoder.buffers.is_some() && encoder.dim == 32);
        let mut found = vec![0.0; 32];
        encoder.encode(&fixed_image(Size::square(32)), &mut found).unwrap();
        assert_eq!(found, expected);
    }
}

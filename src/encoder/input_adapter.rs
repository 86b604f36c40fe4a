//! Describes the input of a model, and the nodes that convert `[n, 3, h, w]` in 32-bit floats to it.
use super::onnx_signature::{Dim, FLOAT32, TensorSpec, is_float, is_number};
use crate::config::Size;
use crate::onnx::graph_builder::GraphBuilder;

/// Order of the dimensions of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputLayout {
    /// Channels, rows, columns.
    Chw,
    /// Rows, columns, channels.
    Hwc,
}

/// How many images an input takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchKind {
    /// Any number.
    Free,
    /// Always this many.
    Fixed(usize),
    /// One image, without a batch dimension.
    Unbatched,
}

/// The image input of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct InputAdapter {
    pub(super) order: InputLayout,
    pub(super) images: BatchKind,
    /// Its `TensorProto.DataType`.
    pub(super) element: i32,
    /// Height and width, if they are fixed.
    pub(super) sides: [Option<i64>; 2],
}

impl InputAdapter {
    /// Describes the input `port`; the error is the reason why it does not take images.
    pub(super) fn of(port: &TensorSpec) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("input {port}: {why}"));
        let Some(element) = port.element else { return wrong("is not a tensor") };
        if !is_number(element) {
            return wrong("must be of numbers");
        }
        let Some(dims) = &port.shape else {
            return Ok(Self { order: InputLayout::Chw, images: BatchKind::Free, element, sides: [None; 2] });
        };
        let (images, image) = match dims.as_slice() {
            [first, image @ ..] if image.len() == 3 => (batch(first), image),
            image if image.len() == 3 => (BatchKind::Unbatched, image),
            five if five.len() == 5 => {
                return wrong(
                    "has five dimensions, so it takes clips of a video, not one image; name an encoder of images",
                );
            }
            _ => return wrong("must be [n, 3, h, w] (or [n, h, w, 3], or one image without n)"),
        };
        let fixed = |i: usize| image[i].fixed;
        let order = match (fixed(0), fixed(2)) {
            (Some(3), _) => InputLayout::Chw,
            (_, Some(3)) => InputLayout::Hwc,
            (None, _) => InputLayout::Chw,
            (Some(1), _) | (_, Some(1)) => {
                return wrong("takes images of one channel; frames have three: red, green, blue");
            }
            _ => return wrong("must have three channels, [n, 3, h, w] or [n, h, w, 3]"),
        };
        let sides = if order == InputLayout::Chw { [fixed(1), fixed(2)] } else { [fixed(0), fixed(1)] };
        Ok(Self { order, images, element, sides })
    }

    /// The only size that it declares to accept, if any.
    pub(super) fn takes(&self, size: Size) -> bool {
        let sides = self.sides.iter().zip(size.sides());
        sides.into_iter().all(|(fixed, side)| fixed.is_none_or(|fixed| fixed == i64::from(side)))
    }

    /// True if it takes an image without conversion.
    pub(super) fn is_plain(&self) -> bool {
        self.order == InputLayout::Chw
            && self.element == FLOAT32
            && matches!(self.images, BatchKind::Free | BatchKind::Fixed(1))
    }

    /// Appends the nodes that turn `x`, `[n, 3, h, w]` in 32-bit floats, into this input, except for the final name.
    /// `images` is the batch size.
    pub(super) fn build(&self, graph: &mut GraphBuilder, x: &str, size: Size, images: BatchKind) -> String {
        let [height, width] = size.dims().map(|side| side as i64);
        let mut x = match images {
            BatchKind::Fixed(n) if n > 1 => graph.expand(x, &[n as i64, 3, height, width]),
            BatchKind::Unbatched => graph.reshape(x, &[3, height, width]),
            _ => x.to_owned(),
        };
        if self.order == InputLayout::Hwc {
            let order: &[i64] = if images == BatchKind::Unbatched { &[1, 2, 0] } else { &[0, 2, 3, 1] };
            x = graph.transpose(&x, order);
        }
        if !is_float(self.element) {
            // Converting to integers truncates the fraction.
            let half = graph.scalar(0.5);
            x = graph.node("Add", &[&x, &half]);
        }
        if self.element == FLOAT32 { graph.node("Identity", &[&x]) } else { graph.cast(&x, self.element) }
    }
}

fn batch(first: &Dim) -> BatchKind {
    first.fixed.and_then(|n| usize::try_from(n).ok()).map_or(BatchKind::Free, BatchKind::Fixed)
}

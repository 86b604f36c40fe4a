"""int8 out of a float32 encoder: static QDQ (pairs of QuantizeLinear and DequantizeLinear) by ONNX Runtime's quantiser."""
import pathlib
import tempfile

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from . import cards, channels, equalise, latents

# The rest stays in float32: it costs little, and a latent is joined from float32.
OPERATORS = ["Conv", "Clip", "Relu", "Add", "MatMul", "Gemm", "MaxPool", "Concat"]
# cpu: activations of 0 to 255 and weights of -127 to 127, for which x86 (VNNI) and Arm (dot products) have instructions.
# tensorrt: symmetric, biases in float32, as TensorRT wants explicit quantisation.
FLAVOURS = {
    "cpu": {"activation_type": QuantType.QUInt8, "extra_options": {}},
    "tensorrt": {
        "activation_type": QuantType.QInt8,
        "extra_options": {"ActivationSymmetric": True, "QuantizeBias": False, "AddQDQPairToWeight": True},
    },
}


class Frames(CalibrationDataReader):
    def __init__(self, name, feeds):
        self.rest = ({name: feed} for feed in feeds)

    def get_next(self):
        return next(self.rest, None)


def quantise(model, card, frames, out, flavour="cpu", reduce_range=False):
    """Writes `out`: the encoder `model` in int8, calibrated on image files. How many maps were equalised."""
    feeds = [cards.prepared(frame, card) for frame in frames]
    with tempfile.TemporaryDirectory() as folder:
        whole = pathlib.Path(folder, "whole.onnx")
        quant_pre_process(str(model), str(whole), skip_symbolic_shape=True)
        network = onnx.load(whole)
        largest, _ = channels.measured(network, feeds, card["input"])
        scaled = equalise.equalise(network, largest, set(latents.tensors(card)))
        _, means = channels.measured(network, feeds, card["input"])
        equalise.correct_biases(network, means)
        onnx.save(network, whole)
        quantize_static(
            str(whole),
            str(out),
            Frames(card["input"], feeds),
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=OPERATORS,
            **FLAVOURS[flavour],
        )
    onnx.checker.check_model(str(out))
    return scaled

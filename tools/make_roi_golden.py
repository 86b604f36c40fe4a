"""Writes tests/data/roi.json: boxes pooled by torchvision's `roi_align`, which the runtime must agree with.

    python tools/make_roi_golden.py > tests/data/roi.json

Needs tools/requirements-torch.txt. The grid is [d, h, w] as PyTorch lays it out, `values[c, i, j] = sin(0.37 (i w + j) +
1.1 c) + 0.5 cos(0.9 i j + 2 c)`; boxes are left, top, right, bottom in pixels, `aligned=True` throughout.
"""
import json
import math

import torch
from torchvision.ops import roi_align

D, H, W = 3, 7, 9
# Inside, one cell, less than a cell, touching and leaving each side, the whole, thin.
BOXES = [
    [40.0, 50.0, 200.0, 150.0], [64.0, 64.0, 96.0, 96.0], [100.5, 70.25, 103.0, 74.0], [-30.0, 10.0, 60.0, 90.0],
    [250.0, 180.0, 330.0, 260.0], [0.0, 0.0, 288.0, 224.0], [120.0, 0.0, 121.0, 224.0], [-80.0, -90.0, -40.0, -50.0],
]
# bins high, bins wide, spatial scale, samples a bin and side (0: as many as the box has cells a bin)
CASES = [(7, 7, 1 / 32, 2), (1, 1, 1 / 32, 0), (3, 2, 1 / 32, 0), (2, 4, 1 / 32, 3), (4, 3, 1 / 16, 2)]

values = [[[math.sin(0.37 * (i * W + j) + 1.1 * c) + 0.5 * math.cos(0.9 * i * j + 2 * c) for j in range(W)]
           for i in range(H)] for c in range(D)]
grid = torch.tensor([values], dtype=torch.float32)
rois = torch.tensor([[0.0] + box for box in BOXES], dtype=torch.float32)
out = []
for high, wide, scale, samples in CASES:
    pooled = roi_align(grid, rois, (high, wide), scale, samples if samples else -1, True)
    rows = [[round(v, 6) for v in box.permute(1, 2, 0).flatten().tolist()] for box in pooled]
    out.append({"bins": [high, wide], "scale": scale, "samples": samples, "pooled": rows})
print('{"grid": ' + json.dumps([H, W, D]) + ',\n"boxes": ' + json.dumps(BOXES) + ',\n"cases": [')
print(",\n".join(json.dumps(case, separators=(",", ":")) for case in out) + "\n]}")

"""Writes tests/data/lars.json: three steps of LARS in float64, written down independently of the Rust code.

    python tools/make_lars_golden.py > tests/data/lars.json

The form is that of Lightly's `LARS` (lightly/utils/lars.py): matrices are in a group with weight decay, whose gradients
are scaled by trust * |p| / (|g| + decay * |p| + eps) after the decay was added; the others are in a group without decay,
which is not scaled; the scale lies inside the momentum. Needs nothing but Python.
Inputs: X(n, d, s)[i, j] = sin(0.37 * (i * d + j) + s) + 0.5 * cos(1.3 * i * j + 2 * s).
"""
import json
import math

RATE, MOMENTUM, DECAY, TRUST, EPS = 0.3, 0.9, 1e-2, 1e-3, 1e-8
# name, rows, columns, phase; b2 and w2 begin with zeros, as the last layer of a residual does.
PARTS = [("w1", 16, 8, 0.05), ("b1", 1, 16, 0.15), ("gamma", 1, 16, 0.45), ("beta", 1, 16, 0.55), ("w2", 4, 16, None), ("b2", 1, 4, None)]


def x(n, d, s):
    return [math.sin(0.37 * (i * d + j) + s) + 0.5 * math.cos(1.3 * i * j + 2 * s) for i in range(n) for j in range(d)]


def length(v):
    return math.sqrt(math.fsum(a * a for a in v))


out = {"inputs": "p = 0.3 X(rows, columns, phase), w2 and b2 zero; gradient at step s of part i: X(rows, columns, 1 + s + 0.1 i)"}
out["settings"] = {"rate": RATE, "momentum": MOMENTUM, "decay": DECAY, "trust": TRUST, "epsilon": EPS}
params = {name: [0.3 * v for v in x(n, d, s)] if s is not None else [0.0] * (n * d) for name, n, d, s in PARTS}
moments = {name: None for name, *_ in PARTS}
out["steps"] = []
for step in range(3):
    for i, (name, n, d, _) in enumerate(PARTS):
        p, g = params[name], x(n, d, 1 + step + 0.1 * i)
        if name.startswith("w"):
            p_norm, g_norm = length(p), length(g)
            if p_norm != 0 and g_norm != 0:
                local = p_norm / (g_norm + p_norm * DECAY + EPS) * TRUST
                g = [(a + DECAY * b) * local for a, b in zip(g, p)]
        u = g if moments[name] is None else [MOMENTUM * m + a for m, a in zip(moments[name], g)]
        moments[name] = u
        params[name] = [b - RATE * a for a, b in zip(u, p)]
    out["steps"].append({name: list(v) for name, v in params.items()})
print(json.dumps(out, indent=1))

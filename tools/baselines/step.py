"""One gradient step in eager PyTorch and in afterimage, side by side on one thread.

    pip install -r tools/baselines/requirements.txt
    python tools/baselines/step.py [--binary target/release/afterimage] [--rounds 5] [--steps 50] [--json OUT.json]

Both do the same: latents [2 * 64, 1280] minus their mean through the slow head (1280 -> 256, fixed), the residual MLP
(256 -> 512, LayerNorm, GELU, 512 -> 256) on top, the objective, backward, gradient clipping to 1, AdamW with decay on
matrices only. MoCo: momentum head, queue of 4096 keys; BYOL and SimSiam: a predictor of the shape of the MLP. Batches lie
in memory on the side of PyTorch; on the side of afterimage the step draws its batch from the replay memory as well (f16
to f32, unit length), and masks negatives by block. afterimage's queue of latents does more than its peer, a queue of
keys: it projects as many entries as a batch has pairs anew at every step.

The two take turns; the median over the rounds counts, and the ratio is that of the medians.
"""
import argparse
import copy
import json
import os
import statistics
import subprocess
import time

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import torch
import torch.nn as nn
import torch.nn.functional as F

PAIRS, LATENT, HIDDEN, OUT, QUEUE, T = 64, 1280, 512, 256, 4096, 0.1


class Mlp(nn.Module):
    def __init__(self, zero):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(OUT, HIDDEN), nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, OUT)
        if zero:
            nn.init.zeros_(self.b.weight)
            nn.init.zeros_(self.b.bias)

    def forward(self, y):
        return self.b(F.gelu(self.norm(self.a(y))))


def contrast(a, b, positive_below):
    n = len(a)
    z = F.normalize(torch.cat([a, b]), dim=1)
    s = (z @ z.T / T).masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
    label = torch.arange(2 * n).roll(n)
    if positive_below:
        return F.cross_entropy(s, label)
    right = s.gather(1, label[:, None]).squeeze(1)
    return (torch.logsumexp(s.scatter(1, label[:, None], float("-inf")), 1) - right).mean()


def supcon(a, b, segments):
    z = F.normalize(torch.cat([a, b]), dim=1)
    itself = torch.eye(len(z), dtype=torch.bool)
    labels = segments.repeat(2)
    same = (labels[:, None] == labels[None, :]) & ~itself
    p = F.log_softmax((z @ z.T / T).masked_fill(itself, float("-inf")), dim=1).masked_fill(~same, 0.0)
    return -(p.sum(1) / same.sum(1)).mean()


def vicreg(a, b):
    n, d = a.shape

    def spread(z):
        z = z - z.mean(0)
        c = z.T @ z / (n - 1)
        off = (c.pow(2).sum() - c.diagonal().pow(2).sum()) / d
        return 25 * F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() / 2 + off

    return 25 * F.mse_loss(a, b) + spread(a) + spread(b)


def barlow(a, b):
    x, y = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (a, b))
    c = x.T @ y / len(a)
    on = (c.diagonal() - 1).pow(2).sum()
    return on + 5e-3 * (c.pow(2).sum() - c.diagonal().pow(2).sum())


class Peer:
    def __init__(self, objective):
        torch.manual_seed(0)
        self.objective = objective
        self.latents = [F.normalize(torch.rand(2 * PAIRS, LATENT) - 0.3, dim=1) for _ in range(16)]
        self.slow, self.mean = torch.rand(LATENT, OUT) - 0.5, torch.zeros(LATENT)
        self.mlp = Mlp(zero=True)
        networks = [self.mlp]
        if objective in ("byol", "simsiam"):
            self.predictor = Mlp(zero=False)
            networks.append(self.predictor)
        if objective in ("moco", "byol"):
            self.slower = copy.deepcopy(self.mlp).requires_grad_(False)
        self.queue, self.next = F.normalize(torch.randn(QUEUE, OUT), dim=1), 0
        self.params = [p for network in networks for p in network.parameters()]
        matrices = [p for p in self.params if p.ndim == 2]
        rest = [p for p in self.params if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": 1e-4}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer, self.count = torch.optim.AdamW(groups, lr=2e-4), 0

    def loss(self, y):
        if self.objective == "moco":
            return self.moco(y, y[:PAIRS] + self.mlp(y[:PAIRS]))
        z = y + self.mlp(y)
        a, b = z[:PAIRS], z[PAIRS:]
        if self.objective == "byol":
            with torch.no_grad():
                for slow, fast in zip(self.slower.parameters(), self.mlp.parameters()):
                    slow.mul_(0.996).add_(fast, alpha=0.004)
                target = y + self.slower(y)
            p = F.normalize(self.predictor(z), dim=1)
            return 4 - 4 * (p * F.normalize(target.roll(PAIRS, 0), dim=1)).sum(1).mean()
        if self.objective == "simsiam":
            p = F.normalize(self.predictor(z), dim=1)
            return -(p * F.normalize(z.detach().roll(PAIRS, 0), dim=1)).sum(1).mean()
        if self.objective == "supcon":
            return supcon(a, b, torch.arange(PAIRS))
        if self.objective in ("nt-xent", "dcl"):
            return contrast(a, b, self.objective == "nt-xent")
        return {"vicreg": vicreg, "barlow-twins": barlow}[self.objective](a, b)

    def moco(self, y, a):
        with torch.no_grad():
            for slow, fast in zip(self.slower.parameters(), self.mlp.parameters()):
                slow.mul_(0.996).add_(fast, alpha=0.004)
            k = F.normalize(y[PAIRS:] + self.slower(y[PAIRS:]), dim=1)
        q = F.normalize(a, dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue.T], 1) / T
        loss = F.cross_entropy(logits, torch.zeros(PAIRS, dtype=torch.long))
        self.keys = k
        return loss

    def step(self):
        latents = self.latents[self.count % len(self.latents)]
        self.count += 1
        y = (latents - self.mean) @ self.slow
        loss = self.loss(y)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        if self.objective == "moco":
            self.queue[self.next : self.next + PAIRS] = self.keys
            self.next = (self.next + PAIRS) % QUEUE


def ours(binary, steps):
    command = [binary, "-q", "bench", "step", "--json", "--rounds", "1", "--steps", str(steps), "--latent", str(LATENT)]
    sizes = {"batch_pairs": PAIRS, "queue_len": QUEUE}
    for key, value in sizes.items():
        command += ["--set", f"learn.{key}={value}"]
    command += ["--set", f"head.dim={OUT}", "--set", f"head.hidden={HIDDEN}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {step["objective"]: step["ms"] for step in json.loads(done.stdout)["steps"]}


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--binary", default="target/release/afterimage")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--steps", type=int, default=50)
    ap.add_argument("--json", help="file to write the figures to")
    args = ap.parse_args()
    torch.set_num_threads(1)
    names = ["nt-xent", "moco", "dcl", "supcon", "vicreg", "barlow-twins", "byol", "simsiam"]
    peers = {name: Peer(name) for name in names}
    for peer in peers.values():
        for _ in range(10):
            peer.step()
    theirs, mine = {name: [] for name in names}, {}
    for _ in range(args.rounds):
        for name, peer in peers.items():
            begun = time.perf_counter()
            for _ in range(args.steps):
                peer.step()
            theirs[name].append((time.perf_counter() - begun) * 1e3 / args.steps)
        for name, ms in ours(args.binary, args.steps).items():
            mine.setdefault(name, []).append(ms)
    rows = []
    for name, times in mine.items():
        own, other = statistics.median(times), statistics.median(theirs[name.split(",")[0]])
        rows.append({"objective": name, "afterimage_ms": own, "pytorch_ms": other, "ratio": own / other})
    print(f"{'objective':24} {'afterimage':>12} {'PyTorch':>12} {'ratio':>8}   ms a step; PyTorch {torch.__version__}")
    for row in rows:
        print(f"{row['objective']:24} {row['afterimage_ms']:12.2f} {row['pytorch_ms']:12.2f} {row['ratio']:8.2f}")
    if args.json:
        with open(args.json, "w") as out:
            json.dump({"torch": torch.__version__, "rounds": args.rounds, "steps": args.steps, "rows": rows}, out, indent=1)


main()

"""The loop: steps, schedule, monitor, checkpoints, resume.

What is drawn at a step follows from the seed and the number of the step alone, so that a resumed run goes on exactly as
the one that was not stopped (to the bit on a CPU with the same number of threads).
"""

import json
import math
import os
import pathlib
import sys
import time

import numpy as np
import torch

import augment
import frames
import methods
import monitor
import networks

# What may differ in a resumed run.
FREE = {"out", "resume", "every", "threads", "device", "stop_after", "probe"}


def schedule(step, steps, warmup):
    """Factor of the rates: a linear rise, then half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class Run:
    """One training run in the folder `given.out`."""

    def __init__(self, given):
        self.given, self.out = given, pathlib.Path(given.out)
        self.path = self.out / "checkpoint.pth.tar"
        if self.path.exists() and not given.resume:
            raise SystemExit(f"{self.path} is there already: --resume goes on with it, or take another --out")
        self.out.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(given.threads)
        torch.manual_seed(given.seed)
        chosen = given.device if given.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(chosen)

        self.frames = frames.decode(given.frames, self.out, given.side, given.fps)
        self.kept, held_out = self.frames.split(given.held_out, given.seed)
        if len(self.kept) < given.batch:
            raise SystemExit(f"{len(self.kept)} frames to train on: less than a batch of {given.batch}; make --batch smaller")
        self.per_epoch = len(self.kept) // given.batch
        self.steps = given.steps or given.epochs * self.per_epoch
        if given.probe:
            self.monitor = monitor.Monitor.of_labels(given.probe, given.side)
        else:
            self.monitor = monitor.Monitor.of_shots(self.frames, held_out)

        net = networks.with_norms(networks.encoder(given.arch), given.norm, given.method)
        if given.start:
            networks.load(net, given.start)
        self.method = methods.METHODS[given.method](net, given).to(self.device, memory_format=torch.channels_last)
        self.grid = networks.PatchGrid(self.method.net()) if given.method == "cpc" else None
        self.views = augment.Views(
            given.size, given.crop, given.flip, given.jitter, grey=given.grey, blur=given.blur, exposure=given.exposure
        )
        self.optimizer = self.optimizer_of(given)
        self.step, self.log = 0, []

    def optimizer_of(self, given):
        """The encoder with a rate of its own; neither biases nor norms decay."""
        groups = []
        trunk = {id(p) for p in self.method.net().parameters()} - {id(p) for p in self.method.net().fc.parameters()}
        for own in (True, False):
            for decays in (True, False):
                chosen = [
                    p for p in self.method.parameters()
                    if p.requires_grad and (id(p) in trunk) == own and (p.ndim > 1) == decays
                ]
                rate = given.encoder_rate if own else given.rate
                decay = given.decay if decays else 0.0
                groups.append({"params": chosen, "lr": rate, "base": rate, "trunk": own, "weight_decay": decay})
        if given.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=given.rate, momentum=0.9)
        return torch.optim.AdamW(groups, lr=given.rate)

    def facts(self):
        """What must be the same when the run goes on."""
        facts = {k: v for k, v in vars(self.given).items() if k not in FREE}
        return {**facts, "frame_count": len(self.frames)}

    def save(self):
        """Writes the checkpoint beside itself and renames it: it is complete or the one before."""
        prefix = self.method.prefix
        state = {
            "epoch": self.step // self.per_epoch,
            "arch": self.given.arch,
            "state_dict": {prefix + k: v for k, v in self.method.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "method": self.given.method,
            "given": self.facts(),
            "log": self.log,
        }
        part = self.path.with_suffix(".part")
        with open(part, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.path)

    def restore(self):
        if not self.path.exists():
            raise SystemExit(f"--resume: {self.path} is not there; start the run without --resume")
        state = torch.load(self.path, map_location=self.device, weights_only=True)
        now = self.facts()
        other = [f"{k}: {state['given'].get(k)} then, {v} now" for k, v in now.items() if state["given"].get(k) != v]
        if other:
            raise SystemExit(f"--resume {self.path}: made with other settings: {'; '.join(other)}")
        prefix = self.method.prefix
        self.method.load_state_dict({k.removeprefix(prefix): v for k, v in state["state_dict"].items()})
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.log = state["step"], state["log"]

    def batch(self, step):
        """Views and shots of step `step`, and the generator that drew them."""
        epoch, place = divmod(step, self.per_epoch)
        order = np.random.default_rng([self.given.seed, 2, epoch]).permutation(self.kept)
        indices = order[place * self.given.batch : (place + 1) * self.given.batch]
        others = self.frames.partners(indices, self.given.gap, np.random.default_rng([self.given.seed, 3, step]))
        generator = torch.Generator().manual_seed(self.given.seed * 1_000_003 + step)
        views = []
        for chosen in (indices, others):
            images = torch.from_numpy(self.frames.pixels[chosen]).to(self.device).permute(0, 3, 1, 2).float() / 255
            views.append(self.method.views(images, self.views, generator))
        return *views, torch.from_numpy(self.frames.shots[indices]).to(self.device), generator

    def take(self):
        """One step; (loss, share of positives ranked first)."""
        factor = schedule(self.step, self.steps, self.given.warmup)
        held = self.step < self.given.hold
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0 if held and group["trunk"] else group["base"] * factor
        loss, right = self.method.loss(*self.batch(self.step))
        if not torch.isfinite(loss):
            raise SystemExit(f"step {self.step}: the loss is {float(loss)}; the last checkpoint is sound: lower the rates")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return float(loss.detach()), float(right)

    def measure(self):
        return self.monitor.measure(self.method.net(), self.given.size, self.given.exposure, self.grid, self.device)

    def report(self, **facts):
        """One line for people, one in log.jsonl and in the checkpoint."""
        self.log.append(facts)
        with open(self.out / "log.jsonl", "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in self.log)
        print("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in facts.items()), flush=True)

    def go(self):
        given = self.given
        if given.resume:
            self.restore()
        print(f"{len(self.kept)} frames to train on, {self.steps} steps of {given.batch}; kNN: {self.monitor.what}", flush=True)
        if self.step == 0:
            one, five = self.measure()
            self.report(step=0, knn1=one, knn5=five)
        losses, rights, since = [], [], time.perf_counter()
        networks.training(self.method, given.norm)
        until = min(self.steps, given.stop_after or self.steps)
        while self.step < until:
            loss, right = self.take()
            losses.append(loss)
            rights.append(right)
            if self.step % given.every == 0 or self.step == until:
                one, five = self.measure()
                networks.training(self.method, given.norm)
                self.report(
                    step=self.step, loss=float(np.mean(losses)), first=float(np.mean(rights)), knn1=one, knn5=five,
                    secs=time.perf_counter() - since,
                )
                self.save()
                losses, rights, since = [], [], time.perf_counter()
        if self.step < self.steps:
            print(f"stopped after step {self.step} of {self.steps}; --resume goes on", file=sys.stderr)

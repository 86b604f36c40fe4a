#!/usr/bin/env python3
"""The campaign against a run's death: kills, mishaps, strangers, time. Prints one table; 1 if anything is lost or hangs.

    tools/campaign/campaign.py [--minutes 5] [--seed N] [--workers 2] [--program target/release/afterimage] [--months PROGRAM]
                          [--only KIND ...] [--no-fuzz]

Kinds: learn, verbs, disk, live, mishaps, running, clients, brokers, soak, months, fuzz. All traffic stays on this machine, all files in
one temporary folder. The seed repeats what was drawn, not the moment in which a signal meets the program. Standard library
only. docs/reliability.md says what is promised."""
import argparse
import pathlib
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import endurance
import kills
import mishaps
import strangers
from common import ROOT, Setting, Table

sys.path.insert(0, str(ROOT / "fuzz"))

# Kind: what runs, and its share of the time. The work of all shares is divided among the workers.
KINDS = {
    "soak": (endurance.soak, 0.3),
    "learn": (kills.learn, 0.45),
    "disk": (kills.full_disk, 0.3),
    "live": (kills.live, 0.1),
    "verbs": (kills.verbs, 0.15),
    "mishaps": (mishaps.run, 0.1),
    "running": (mishaps.while_running, 0.05),
    "clients": (strangers.clients, 0.1),
    "brokers": (strangers.brokers, 0.1),
    "months": (None, 0.1),
    "fuzz": (None, 0.35),
}
DAYS = 30


def fuzz(table, seconds, seed):
    import run as runner  # fuzz/run.py

    for result in runner.campaign(seconds, seed, 1):
        kind, inputs = "fuzz inputs", max(1, result["inputs"])
        if result["code"] == 0:
            table.add(kind, inputs, inputs)
        else:
            last = [line for line in result["output"].splitlines() if "panicked" in line or "ERROR" in line]
            table.fail(kind, f"{result['target']}, seed {seed}", " ".join(last)[-300:], hung=result["code"] in ("hang", 70), tried=inputs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1 << 31))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/afterimage")
    parser.add_argument("--months", type=pathlib.Path, default=ROOT / "target/release/examples/months")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--no-fuzz", action="store_true")
    args = parser.parse_args()
    kinds = {name: KINDS[name] for name in args.only if not (args.no_fuzz and name == "fuzz")}
    total = sum(share for _, share in kinds.values())
    seconds = args.minutes * 60 * args.workers
    table, began = Table(), time.monotonic()
    print(f"campaign: {args.minutes:g} minutes, {args.workers} workers, seed {args.seed}", flush=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="afterimage-campaign-"))

    def work(name):
        run, share = kinds[name]
        share = seconds * share / total
        if name == "fuzz":
            # Each of the targets in turn.
            return fuzz(table, max(1, round(share / 29)), args.seed)
        setting = Setting(args.program.resolve(), folder / name, args.seed, share, table)
        if name == "months":
            return endurance.months(setting, args.months.resolve(), DAYS)
        return run(setting)

    try:
        with ThreadPoolExecutor(args.workers) as pool:
            for name, future in [(name, pool.submit(work, name)) for name in kinds]:
                try:
                    future.result()
                except Exception as error:  # a fault of the campaign must not hide the others' results
                    table.fail(name, "the campaign itself", repr(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    table.show()
    print(f"{time.monotonic() - began:.0f} s, seed {args.seed}; {len(table.failures)} failed")
    sys.exit(bool(table.failures))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Builds the fuzz targets and runs each for some seconds: on its corpus first, then on what libFuzzer makes of it.

    fuzz/run.py [--seconds 2] [--seed N] [--workers 2] [TARGET ...]

An input ends a target that panics, takes more than 10 seconds or more than 512 MB; it is kept in fuzz/artifacts. Then the
exit code is 1. Standard library only; works with stable Rust (fuzz/coverage.sh)."""
import argparse
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

FUZZ = pathlib.Path(__file__).resolve().parent
ROOT = FUZZ.parent
# Where a target lies longer than this beyond its time, it hangs outside of any input.
GRACE_SECS = 60


def build():
    """The path of the program with all targets."""
    environment = dict(os.environ, RUSTC_WORKSPACE_WRAPPER=str(FUZZ / "coverage.sh"))
    more = os.environ.get("AFTERIMAGE_CARGO_FLAGS", "").split()
    command = ["cargo", "build", "--release", "--locked", "--package", "afterimage-fuzz", "--message-format=json", *more]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return re.findall(r'"executable":"([^"]+/parsers)"', done.stdout)[-1]


def run(program, name, seconds, seed, folder):
    """Runs one target; what it did."""
    new, temporary = folder / "new" / name, folder / "tmp" / name
    for path in (new, temporary, FUZZ / "artifacts", FUZZ / "corpus" / name):
        path.mkdir(parents=True, exist_ok=True)
    command = [program, f"-max_total_time={seconds}", f"-seed={seed}", "-timeout=10", "-rss_limit_mb=1024", "-max_len=131072",
               "-len_control=20", "-print_final_stats=1", "-verbosity=1", f"-artifact_prefix={FUZZ}/artifacts/{name}-",
               str(new), str(folder / "seeds" / name), str(FUZZ / "corpus" / name)]
    environment = dict(os.environ, AFTERIMAGE_TARGET=name, TMPDIR=str(temporary))
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
                              timeout=seconds + GRACE_SECS)
        output, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as hung:
        output, code = (hung.stdout or b"").decode(errors="replace"), "hang"
    shutil.rmtree(temporary, ignore_errors=True)
    number = lambda pattern: int((re.findall(pattern, output) or ["0"])[-1])
    inputs = number(r"stat::number_of_executed_units:\s*(\d+)") or number(r"#(\d+)\s")
    return {"target": name, "inputs": inputs, "edges": number(r"cov: (\d+)"), "code": code, "output": output, "seed": seed}


def campaign(seconds, seed, workers, names=(), weights=None, report=print):
    """Runs the targets (all where none is named); a list of what each did."""
    program = build()
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="afterimage-fuzz-", dir=shared) as folder:
        folder = pathlib.Path(folder)
        environment = dict(os.environ, AFTERIMAGE_SEEDS=str(folder / "seeds"), TMPDIR=str(folder))
        subprocess.run([program], env=environment, check=True, stderr=subprocess.DEVNULL)
        known = sorted(path.name for path in (folder / "seeds").iterdir())
        unknown = [name for name in names if name not in known]
        if unknown:
            sys.exit(f"no such target: {', '.join(unknown)}; there are {', '.join(known)}")
        results = []
        with ThreadPoolExecutor(workers) as pool:
            share = lambda name: max(1, round(seconds * (weights or {}).get(name, 1)))
            for result in pool.map(lambda name: run(program, name, share(name), seed, folder), names or known):
                bad = "" if result["code"] == 0 else f"  FAILED ({result['code']})"
                report(f"{result['target']:16} {result['inputs']:>10} inputs, {result['edges']:>6} edges{bad}")
                results.append(result)
                if bad:
                    report("\n".join(result["output"].splitlines()[-40:]))
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("targets", nargs="*")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.randrange(1, 1 << 31)
    began = time.monotonic()
    results = campaign(args.seconds, seed, args.workers, args.targets)
    failed = [result["target"] for result in results if result["code"] != 0]
    total = sum(result["inputs"] for result in results)
    print(f"{len(results)} targets, {total} inputs in {time.monotonic() - began:.0f} s, seed {seed}; failed: {', '.join(failed) or 'none'}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Runs `afterimage learn` on a live synthetic stream for long, and says whether memory and open files stay level.

    tools/soak.py [--minutes 30] [--speed 1] [--warm-minutes 5] [--program target/release/afterimage] [-- ARGUMENTS]

--speed 10 presents 300 frames a second instead of 30: an accelerated soak. ARGUMENTS go to `learn`.
Ends with 1 where resident memory grows by more than 1 MB an hour after the warm-up, or descriptors or threads do.
Standard library only."""
import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PERIOD_SECS = 5.0
MOST_MB_PER_HOUR = 1.0


def sample(pid):
    """Resident megabytes (10^6 bytes), open descriptors, threads."""
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    resident = int(fields["VmRSS"].split()[0]) * 1024 / 1e6
    return resident, len(os.listdir(f"/proc/{pid}/fd")), int(fields["Threads"])


def slope(points):
    """Least squares: change of y a unit of x."""
    n = len(points)
    mean_x, mean_y = (sum(p[i] for p in points) / n for i in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--speed", type=float, default=1)
    parser.add_argument("--warm-minutes", type=float, default=5)
    parser.add_argument("--program", default="target/release/afterimage")
    parser.add_argument("--encoder", default="models/mobilenetv2.onnx")
    parser.add_argument("arguments", nargs="*")
    args = parser.parse_args()
    if args.minutes <= args.warm_minutes:
        parser.error("--minutes must be more than --warm-minutes")
    folder = tempfile.mkdtemp(prefix="soak.")
    source = f"pattern://1?live=true&rate={30 * args.speed:g}&frames=1000000000&segments=5000000&width=320&height=240"
    call = [args.program, "learn", "--source", source, "--encoder", args.encoder, "--out", f"{folder}/run"]
    process = subprocess.Popen(call + args.arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    began, samples = time.monotonic(), []
    try:
        while (minutes := (time.monotonic() - began) / 60) < args.minutes:
            time.sleep(PERIOD_SECS)
            if process.poll() is not None:
                sys.exit(f"soak: learn ended by itself with {process.returncode}")
            samples.append((minutes, *sample(process.pid)))
            if len(samples) % 12 == 0:
                print("soak: {:.0f} min, {:.1f} MB, {} descriptors, {} threads".format(*samples[-1]), flush=True)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    steady = [s for s in samples if s[0] >= args.warm_minutes]
    growth = slope([(s[0] / 60, s[1]) for s in steady])
    files, threads = (max(s[i] for s in steady) - min(s[i] for s in steady[:12]) for i in (2, 3))
    print(f"soak: {growth:+.2f} MB an hour over {len(steady)} samples, {files:+d} descriptors, {threads:+d} threads at most")
    sys.exit(0 if growth <= MOST_MB_PER_HOUR and files <= 2 and threads <= 0 else 1)


main()

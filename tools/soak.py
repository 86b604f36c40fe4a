#!/usr/bin/env python3
"""Runs `afterimage learn` on a live synthetic stream for long, and says whether memory and open files stay level.

    tools/soak.py [--minutes 65] [--speed 1] [--warm-minutes 35] [--program target/release/afterimage] [-- ARGUMENTS]

--speed 10 presents 300 frames a second instead of 30: an accelerated soak. ARGUMENTS go to `learn`.
The warm-up is the time in which replay memory fills (about half an hour with the default configuration). Ends with 1 where
resident memory grows by more than 1 MB an hour after it, or descriptors or threads do. Growth is the median of the slopes
between all pairs of samples (Theil and Sen): a fit that takes and gives back 20 MB within seconds does not count.
Standard library only."""
import argparse
import os
import shutil
import signal
import statistics
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
    """Theil-Sen: change of y a unit of x, between points that are half of the time or more apart."""
    apart = (points[-1][0] - points[0][0]) / 2
    pairs = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(points) for b in points[i + 1 :] if b[0] - a[0] >= apart]
    return statistics.median(pairs) if pairs else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=65)
    parser.add_argument("--speed", type=float, default=1)
    parser.add_argument("--warm-minutes", type=float, default=35)
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

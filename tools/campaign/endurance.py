"""Time that is not there: a live run at many times the speed of cameras, and a month of latents."""
import json
import statistics
import subprocess
import threading
import time

from common import Setting, end_of, remove, stop, usage
from strangers import REQUEST, connect, frame

CAMERAS = 4
RATE = 50


def soak(setting: Setting):
    """Cameras with every outlet, a reader and a detector that come and go: memory, threads, descriptors and the folder level."""
    kind, run = "accelerated days", setting.path("run")
    remove(run)
    sets = ["checkpoint.every_frames=1000", "export.rotate_megabytes=1", "host.disk_budget_megabytes=20", "export.latents=true",
            f"stream.socket=unix:{setting.path('s')}", f"box_server.listen=unix:{setting.path('b')}", f"stream.ring={setting.path('ring')}",
            "box_server.window_megabytes=4", "learn.frames_per_sec=20", "learn.refit_max_frames=1024", "learn.replay.megabytes=2"]
    sources = [f"pattern://{i}?live=true&rate={RATE}&segments=100000&frames=100000000&width=64&height=48" for i in range(CAMERAS)]
    more = [word for i in range(CAMERAS) for word in ("--camera", f"c{i}")]
    process, samples, ending = setting.start(setting.learn(run, *sets, sources=sources, more=more)), [], threading.Event()

    def client():
        while not ending.is_set():
            try:
                with connect(str(setting.path("s"))) as stream:
                    for _ in range(20):
                        stream.recv(65536)
                with connect(str(setting.path("b"))) as stream:
                    for _ in range(5):
                        stream.sendall(frame(json.dumps({"camera": "c1", **json.loads(REQUEST)}).encode()))
                        stream.recv(65536)
            except OSError:
                time.sleep(0.2)

    thread = threading.Thread(target=client, daemon=True)
    thread.start()
    while setting.left() > 0 and process.poll() is None:
        time.sleep(min(2, max(0.1, setting.left())))
        used = usage(process.pid)
        if used:
            size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) / 1e6 if run.exists() else 0
            samples.append((*used, size))
    ending.set()
    code, took = stop(process) if process.poll() is None else (process.poll(), 0)
    thread.join(5)
    case = f"{CAMERAS} cameras at {RATE} frames a second"
    if code != 0:
        return setting.table.fail(kind, case, f"ends with {code}: {end_of(setting.said())}", hung=code is None)
    # The first half fills what is filled once: replay memory, the folder.
    late = samples[len(samples) // 2:]
    half = len(late) // 2
    if half < 10:
        return setting.table.note(kind, "too short for a verdict: 40 seconds at least")
    grown = [statistics.median(s[i] for s in late[half:]) - statistics.median(s[i] for s in late[:half]) for i in range(4)]
    setting.table.note(kind, f"{statistics.median(s[0] for s in late):.0f} MB ({grown[0]:+.1f}), threads {grown[1]:+.0f}, descriptors {grown[2]:+.0f}, folder {late[-1][3]:.0f} MB ({grown[3]:+.1f})")
    if grown[0] > 8 or grown[1] > 4 or grown[2] > 4:
        return setting.table.fail(kind, case, f"grows: {grown} (MB, threads, descriptors, MB of the folder)")
    setting.table.add(kind, len(samples), len(samples))


def months(setting: Setting, program, days):
    """Days of latents at ten a second through the learner, the state saved and read again every simulated day."""
    kind, folder = "simulated days", setting.path("months")
    remove(folder)
    folder.mkdir()
    done = subprocess.run([str(program), str(folder), str(days)], capture_output=True, text=True, timeout=1800)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0:
        return setting.table.fail(kind, f"{days} days", f"ends with {done.returncode} after {len(lines)} days: {end_of(done.stderr)}", tried=days)
    late = lines[len(lines) // 2:]
    growth = late[-1]["resident_mb"] - late[0]["resident_mb"], late[-1]["state_bytes"] - late[0]["state_bytes"]
    last = lines[-1]
    note = f"{last['samples']} latents, {last['fits']} fits, {last['resident_mb']:.0f} MB ({growth[0]:+.1f}), state {last['state_bytes']} bytes ({growth[1]:+d})"
    setting.table.note(kind, note)
    if growth[0] > 8 or growth[1] > 65536:
        return setting.table.fail(kind, f"{days} days", f"grows: {note}", tried=days)
    setting.table.add(kind, days, days)

"""What all kinds of the campaign share: the program, its table, files of a run."""
import hashlib
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENCODER = ROOT / "tests/data/tiny.onnx"
# Whatever takes longer hangs, seconds: the program's own limits lie far below.
PATIENCE = 60
# An end that was asked for comes within this, seconds; 2 is promised, the rest is a loaded machine's.
END_SECS = 6
# Frames and heads within a second.
CONFIG = """
encoder.threads = 1
learn = { first_fit_frames = 128, refit_growth = 1.5, optimizer.frames_per_step = 4, objective.batch_pairs = 16, promote_lag_frames = 32 }
head = { dim = 24, candidates = ['slow', 'slow dim=16', 'slow+mlp', 'mean', 'frozen+slow'], hidden = 32 }
promotion = { min_blocks = 4, block_secs = 1.5, quantile = 0.2, min_interval_secs = 0 }
"""
BOUNDED = "pattern://7?frames=800&segments=80&width=64&height=48"


class Table:
    """Counts by kind; the text of what failed."""

    def __init__(self):
        self.rows, self.failures, self.notes, self.lock = {}, [], {}, threading.Lock()

    def add(self, kind, tried=1, survived=1, lost=0, hung=0):
        with self.lock:
            row = self.rows.setdefault(kind, [0, 0, 0, 0])
            for i, value in enumerate((tried, survived, lost, hung)):
                row[i] += value

    def fail(self, kind, case, text, hung=False, tried=1):
        self.add(kind, tried, 0, int(not hung), int(hung))
        with self.lock:
            self.failures.append(f"{kind} {case}: {text}")
        print(f"FAILED {kind} {case}: {text}", flush=True)

    def note(self, kind, text):
        with self.lock:
            self.notes[kind] = text

    def show(self):
        print(f"{'kind':22} {'tried':>11} {'survived':>11} {'lost':>6} {'hung':>6}")
        for kind, row in self.rows.items():
            print(f"{kind:22} {row[0]:>11} {row[1]:>11} {row[2]:>6} {row[3]:>6}  {self.notes.get(kind, '')}")


class Setting:
    """One worker's folder, random numbers and time."""

    def __init__(self, program, folder, seed, seconds, table):
        self.program, self.folder, self.seed, self.table = str(program), pathlib.Path(folder), seed, table
        self.random, self.deadline = random.Random(seed), time.monotonic() + seconds
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "learn.toml").write_text(CONFIG)

    def left(self):
        return self.deadline - time.monotonic()

    def path(self, name):
        return self.folder / name

    def learn(self, out, *sets, sources=(BOUNDED,), more=()):
        """The arguments of `learn`."""
        command = [self.program, "learn", "--config", str(self.path("learn.toml")), "--encoder", str(ENCODER), "--out", str(out)]
        for source in sources:
            command += ["--source", source]
        for value in sets:
            command += ["--set", value]
        return command + list(more)

    def start(self, command):
        """Starts the program; what it says goes to a file."""
        self.errors = self.path("stderr")
        with open(self.errors, "wb") as err:
            environment = dict(os.environ, TMPDIR=str(self.folder))
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err, cwd=self.folder, env=environment)

    def run(self, command, patience=PATIENCE):
        """Exit code (`None`: it hung) and the end of what it said."""
        process = self.start(command)
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
        return code, self.said()

    def said(self):
        text = self.errors.read_bytes()[-20000:].decode(errors="replace")
        return text


def end_of(text, length=300):
    return " ".join(text.split())[-length:]


def died(code, text):
    """Panicked, or killed by a signal that nobody sent."""
    return "panicked" in text or code == 101 or (code is not None and code < 0)


def stop(process, secs=END_SECS):
    """Asks for the end; the exit code and how long it took, `None` where it hung."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(secs)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None, secs
    return code, time.monotonic() - began


def usage(pid):
    """Resident megabytes, threads, descriptors; `None` where it has ended."""
    try:
        with open(f"/proc/{pid}/status") as status:
            fields = dict(line.split(":", 1) for line in status if ":" in line)
        return int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"]), len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, KeyError):
        return None


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tree(folder):
    """Digests of all files that have their final names."""
    folder = pathlib.Path(folder)
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    return {str(path.relative_to(folder)): digest(path) for path in files if not path.name.startswith(".")}


def rows(folder):
    """Digests of all records and of all numbers, however they are divided into files."""
    records, numbers = hashlib.sha256(), hashlib.sha256()
    # A mishap may have left a link to a device there, which has no end.
    regular = lambda pattern: sorted(path for path in folder.glob(pattern) if path.is_file())
    for path in regular("*.jsonl"):
        records.update(path.read_bytes())
    for path in regular("*.npy"):
        numbers.update(path.read_bytes()[128:])
    for path in regular("*.safetensors"):
        data = path.read_bytes()
        numbers.update(data[8 + struct.unpack("<Q", data[:8])[0]:])
    return records.hexdigest(), numbers.hexdigest()


def learned(run):
    """What must be the same, killed or not: heads, maps, the state, all rows."""
    run = pathlib.Path(run)
    found = {name: value for name, value in tree(run).items() if name.startswith(("heads/", "maps/")) or name in ("latest", "state.safetensors")}
    for name in ("embeddings", "latents", "grids"):
        if (run / name).is_dir():
            parquet = any((run / name).glob("*.parquet"))
            found[name] = "parquet" if parquet else rows(run / name)
    return found


def differing(a, b):
    return sorted(name for name in set(a) | set(b) if a.get(name) != b.get(name))


def remove(path):
    if os.path.islink(path) or os.path.isfile(path):
        os.remove(path)
    else:
        shutil.rmtree(path, ignore_errors=True)

"""Mishaps of a run folder: what is missing, cut, swapped, of another run, no file at all. Then `--resume`: it goes on, or says
why not; it neither panics nor hangs."""
import os
import shutil
import subprocess
import time

from common import Setting, died, differing, end_of, remove, stop, tree
from kills import TWO, killed

KIND = "mishap of a folder"
FILES = ["latest", "state.safetensors", "state.previous.safetensors", "run.json", "journal.jsonl", "heads/0001.safetensors",
         "maps/0001.safetensors", "embeddings/0000.npy", "embeddings/0000.jsonl", "heads/.reserve"]
FOLDERS = ["heads", "maps", "embeddings"]


def acts(setting, other):
    """Every mishap by name: a function of the run."""
    def write(name, data):
        return lambda run: (remove(run / name), (run / name).parent.mkdir(exist_ok=True), (run / name).write_bytes(data))

    def cut(name):
        return lambda run: os.truncate(run / name, os.path.getsize(run / name) * 2 // 3)

    def noise(name):
        def act(run):
            data = bytearray((run / name).read_bytes())
            for _ in range(1 + setting.random.randrange(8)):
                data[setting.random.randrange(len(data))] = setting.random.randrange(256)
            (run / name).write_bytes(bytes(data))
        return act

    def instead(name, make):
        return lambda run: (remove(run / name), make(run / name))

    all_acts = {"nothing": lambda run: None}
    for name in FILES:
        all_acts |= {
            f"{name}: missing": lambda run, name=name: remove(run / name),
            f"{name}: empty": write(name, b""),
            f"{name}: cut": cut(name),
            f"{name}: garbage": write(name, b"\xff\0zzz" * 50),
            f"{name}: noise": noise(name),
            f"{name}: a folder": instead(name, lambda path: path.mkdir()),
            f"{name}: a FIFO": instead(name, os.mkfifo),
            f"{name}: a link to nothing": instead(name, lambda path: path.symlink_to("/nonexistent/x")),
            f"{name}: /dev/zero": instead(name, lambda path: path.symlink_to("/dev/zero")),
            f"{name}: /dev/full": instead(name, lambda path: path.symlink_to("/dev/full")),
            f"{name}: of another run": lambda run, name=name: (remove(run / name), shutil.copy(other / name, run / name)),
        }
    for name in FOLDERS:
        all_acts |= {f"{name}/: missing": lambda run, name=name: remove(run / name), f"{name}/: a file": instead(name, lambda path: path.write_text("x"))}
    swap = ["state.safetensors", "state.previous.safetensors"]
    all_acts["states swapped"] = lambda run: (os.rename(run / swap[0], run / "x"), os.rename(run / swap[1], run / swap[0]), os.rename(run / "x", run / swap[1]))
    all_acts["states of zeros"] = lambda run: [(run / name).write_bytes(bytes(os.path.getsize(run / name))) for name in swap]
    all_acts["states of another run"] = lambda run: [shutil.copy(other / swap[0], run / name) for name in swap]
    all_acts["journal: binary line"] = lambda run: (run / "journal.jsonl").open("ab").write(b"\0\xff\xfe\n")
    all_acts["journal: torn"] = lambda run: os.truncate(run / "journal.jsonl", os.path.getsize(run / "journal.jsonl") - 7)
    all_acts["journal: long line"] = lambda run: (run / "journal.jsonl").open("ab").write(b'{"event":"x","a":"' + b"a" * 20_000_000 + b'"}\n')
    all_acts["partial state is a folder"] = lambda run: (run / ".state.next.safetensors.partial").mkdir()
    return all_acts


def rounds(setting, names):
    """The names in random order, again and again until the time is up; each at least once."""
    names, first = list(names), True
    while first or setting.left() > 0:
        setting.random.shuffle(names)
        for name in names:
            if not first and setting.left() <= 0:
                return
            yield name
        first = False


def run(setting: Setting):
    """Every mishap, again and again until the time is up; every one at least once."""
    sets, whole, half, other = ["checkpoint.every_frames=100"], setting.path("whole"), setting.path("half"), setting.path("other")
    for out, source in ((whole, TWO[0]), (other, TWO[1])):
        code, said = setting.run(setting.learn(out, *sets, sources=[source]))
        if code != 0:
            return setting.table.fail(KIND, "preparation", f"learn ends with {code}: {end_of(said)}")
    wait, tries, half_way = 0.2, 0, False
    while not half_way:
        remove(half)
        ended = killed(setting, setting.learn(half, *sets), wait) is not None
        half_way = not ended and (half / "latest").exists() and (half / "state.previous.safetensors").exists()
        # How fast a run is depends on what else the machine does.
        wait, tries = wait * (0.7 if ended else 1.15), tries + 1
        if tries > 200:
            return setting.table.fail(KIND, "preparation", "no run could be killed half-way")
    # Maps are for `migrate`; a run goes on without, and `check` tells.
    heads = lambda run: {name: value for name, value in tree(run).items() if name.startswith("heads/")}
    wanted, all_acts = heads(whole), acts(setting, other)
    for name in rounds(setting, all_acts):
        run, case = setting.path("run"), f"seed {setting.seed}, {name}"
        remove(run)
        subprocess.run(["cp", "-a", str(half), str(run)], check=True)
        try:
            all_acts[name](run)
        except (FileNotFoundError, IndexError):
            # This run has no such file.
            continue
        code, said = setting.run(setting.learn(run, *sets, more=["--resume"]))
        if code is None:
            setting.table.fail(KIND, case, "hangs", hung=True)
        elif died(code, said) or name == "nothing" and code != 0:
            setting.table.fail(KIND, case, f"ends with {code}: {end_of(said)}")
        elif code == 0 and differing(heads(run), wanted) and "WARN" not in said:
            setting.table.fail(KIND, case, f"goes on with other heads, without a word: {differing(heads(run), wanted)}")
        elif code != 0 and not said.strip():
            setting.table.fail(KIND, case, f"ends with {code} without a word")
        else:
            setting.table.add(KIND)


def while_running(setting: Setting):
    """What somebody does to the folder of a live run that goes on: it goes on too, or ends with the reason."""
    kind, run, moved = "mishap while running", setting.path("run"), setting.path("moved")
    gone = lambda *names: lambda: subprocess.run(["rm", "-rf", *(str(run / name) for name in names)], check=True)

    def file_in_place_of(name):
        return lambda: (gone(name)(), (run / name).write_text("x"))

    all_acts = {
        "the folder deleted": gone(""),
        "the folder moved": lambda: os.rename(run, moved),
        "all in it deleted": gone("embeddings", "heads", "maps", "journal.jsonl", "run.json", "state.safetensors"),
        "embeddings/ deleted": gone("embeddings"),
        "heads/ deleted": gone("heads"),
        "states deleted": gone("state.safetensors", "state.previous.safetensors"),
        "journal deleted": gone("journal.jsonl"),
        "journal truncated": lambda: os.truncate(run / "journal.jsonl", 0),
        "embeddings/ a file": file_in_place_of("embeddings"),
        "heads/ a file": file_in_place_of("heads"),
        "state a folder": lambda: (gone("state.safetensors")(), (run / "state.safetensors").mkdir()),
        "journal a FIFO": lambda: (gone("journal.jsonl")(), os.mkfifo(run / "journal.jsonl")),
    }
    source = "pattern://3?live=true&rate=200&segments=10000&frames=1000000&width=64&height=48"
    sets = ["checkpoint.every_frames=40", "export.rotate_megabytes=0.05", "learn.frames_per_sec=200", "learn.sampling.gap_min_secs=0.001"]
    for name in rounds(setting, all_acts):
        case = f"seed {setting.seed}, {name}"
        subprocess.run(["rm", "-rf", str(run), str(moved)], check=True)
        process, deadline = setting.start(setting.learn(run, *sets, sources=[source])), time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None and not (run / "state.previous.safetensors").exists():
            time.sleep(0.02)
        time.sleep(setting.random.random() * 0.3)
        all_acts[name]()
        try:
            process.wait(1.5)
        except subprocess.TimeoutExpired:
            pass
        code, _ = (process.returncode, 0) if process.poll() is not None else stop(process)
        said = setting.said()
        if code is None:
            setting.table.fail(kind, case, f"hangs: {end_of(said)}", hung=True)
        elif died(code, said) or code != 0 and "afterimage: " not in said:
            setting.table.fail(kind, case, f"ends with {code}: {end_of(said)}")
        else:
            setting.table.add(kind)

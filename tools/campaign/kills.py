"""SIGKILL at random moments: of `learn` in every state, of other verbs, on a full disk, of live runs."""
import json
import os
import subprocess
import time

from common import BOUNDED, Setting, differing, end_of, learned, remove, stop, tree

TWO = (BOUNDED, "pattern://8?frames=800&segments=80&width=64&height=48")
VARIANTS = {
    "npy": [],
    "latents, small files": ["export.rotate_megabytes=0.05", "export.latents=true"],
    "parquet": ["export.format=parquet", "export.latents=true"],
    "safetensors": ["export.format=safetensors", "export.dtype=f16"],
    "moco": ["learn.objective.name=moco", "learn.objective.queue_len=300"],
    "views": ["learn.augmentation.share=0.5", "learn.optimizer.name=lars", "learn.optimizer.ema=0.9"],
    "motion": ["preprocess.motion_crop=true", "preprocess.background_secs=5"],
    "grid": ["encoder.taps=['output']", "export.latents=true", "learn.objective.name=vicreg"],
    "cpc": ["learn.objective.name=cpc", "learn.cpc.width=16", "learn.cpc.blocks=2", "learn.cpc.dim=16", "learn.cpc.batch=8"],
    "disk budget": ["host.disk_budget_megabytes=1", "export.rotate_megabytes=0.05"],
}
CHECKPOINTS = "checkpoint.every_frames=40"


def killed(setting, command, wait):
    """Lets it live for `wait` seconds; the exit code, `None` where it was killed."""
    process = setting.start(command)
    try:
        return process.wait(wait)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def learn(setting: Setting, kind="kill: learn"):
    """Until the time is up: a run that is killed again and again, and compared with one that was not."""
    whole, number = {}, 0
    names = list(VARIANTS)
    while setting.left() > 0:
        number += 1
        name = names[setting.random.randrange(len(names))]
        # A background is of one camera.
        sources = TWO if setting.random.random() < 0.2 and name != "motion" else TWO[:1]
        key, case = (name, len(sources)), f"seed {setting.seed}, round {number} ({name}, {len(sources)} cameras)"
        sets = [CHECKPOINTS, *VARIANTS[name]]
        if key not in whole:
            out = setting.path(f"whole-{names.index(name)}-{len(sources)}")
            began = time.monotonic()
            code, said = setting.run(setting.learn(out, *sets, sources=sources))
            if code != 0:
                setting.table.fail(kind, case, f"unkilled it ends with {code}: {end_of(said)}", hung=code is None)
                names.remove(name)
                continue
            whole[key] = (learned(out), time.monotonic() - began)
        wanted, took = whole[key]
        run = setting.path("run")
        remove(run)
        command = setting.learn(run, *sets, sources=sources, more=["--resume"])
        kills, code = 0, None
        while code is None and kills < 40:
            code = killed(setting, command, 0.03 + setting.random.random() * took * setting.random.choice([0.15, 0.4, 0.9]))
            kills += code is None
        if code is None:
            code, _ = setting.run(command)
        said = setting.said()
        if code != 0:
            setting.table.fail(kind, case, f"ends with {code}: {end_of(said)}", hung=code is None, tried=kills)
        elif name != "disk budget" and differing(learned(run), wanted):
            setting.table.fail(kind, case, f"differs after {kills} kills: {differing(learned(run), wanted)}", tried=kills)
        else:
            check, said = setting.run([setting.program, "check", "--run", str(run)])
            if check != 0:
                setting.table.fail(kind, case, f"`check` ends with {check}: {end_of(said)}", tried=kills)
            else:
                setting.table.add(kind, kills, kills)


def verbs(setting: Setting):
    """`merge`, `migrate`, `export`, `embed`: killed, then called again over what is left."""
    first, second = setting.path("a"), setting.path("b")
    for run, source in ((first, TWO[0]), (second, TWO[1])):
        code, said = setting.run(setting.learn(run, sources=[source]))
        if code != 0:
            return setting.table.fail("kill: other verbs", "preparation", f"learn ends with {code}: {end_of(said)}")
    space = subprocess.run(["grep", "-aoh", '"space":"[0-9a-f]*"', str(sorted((first / "heads").glob("0*"))[-1])], capture_output=True, text=True)
    program, out = setting.program, setting.path("out")
    calls = {
        "merge": [program, "merge", str(first), str(second), "--out", str(out)],
        "export": [program, "export", "--run", str(first), "--onnx", str(out / "merged.onnx")],
        "embed": [program, "embed", "--run", str(first), "--source", TWO[1], "--out", str(out)],
        "migrate": [program, "migrate", "--run", str(first), "--to", space.stdout.strip().split('"')[-2], "--out", str(out), "--min-hit-rate", "0",
                    str(first / "embeddings")],
    }
    before, wanted = (tree(first), tree(second)), {}
    number = 0
    while setting.left() > 0:
        number += 1
        name = setting.random.choice(list(calls))
        kind, case, command = f"kill: {name}", f"seed {setting.seed}, round {number}", calls[name]
        remove(out)
        if name not in wanted:
            began = time.monotonic()
            code, said = setting.run(command)
            if code != 0:
                setting.table.fail(kind, case, f"unkilled it ends with {code}: {end_of(said)}", hung=code is None)
                del calls[name]
                continue
            wanted[name] = (tree(out), time.monotonic() - began)
            remove(out)
        whole, took = wanted[name]
        if killed(setting, command, setting.random.random() * took) is not None:
            continue
        # What bears its final name is whole.
        torn = [file for file, value in tree(out).items() if whole.get(file) != value]
        if name == "merge" and not differing(tree(out), whole):
            # Killed after its last rename: the run is whole, and is not made a second time.
            setting.table.add(kind)
            continue
        code, said = setting.run(command)
        again = differing(tree(out), whole)
        if torn:
            setting.table.fail(kind, case, f"torn files: {torn}")
        elif code == 0 and not again or name == "embed" and code in (1, 2) and "panicked" not in said:
            # `embed` never writes over rows that are there: it says so, and wants another folder.
            setting.table.add(kind)
        else:
            setting.table.fail(kind, case, f"called again it ends with {code}, differs in {again}: {end_of(said)}", hung=code is None)
    if (tree(first), tree(second)) != before:
        setting.table.fail("kill: other verbs", f"seed {setting.seed}", "the runs that were read have changed")


def full_disk(setting: Setting):
    """Kills on a small file system that fills up; with room again the end is that of a run that always had it."""
    kind, disk, sets = "kill: full disk", setting.path("disk"), ["checkpoint.every_frames=60"]
    disk.mkdir(exist_ok=True)
    code, said = setting.run(setting.learn(setting.path("whole"), *sets))
    heads = lambda run: {name: value for name, value in learned(run).items() if name.startswith(("heads/", "maps/"))}
    wanted, number = heads(setting.path("whole")), 0
    while setting.left() > 0:
        number += 1
        case = f"seed {setting.seed}, round {number}"
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], stderr=subprocess.DEVNULL).returncode != 0:
            return setting.table.note(kind, "left out: only root can mount a small file system")
        try:
            command = setting.learn(disk / "run", *sets, more=["--resume"])
            kills, bad = 0, None
            for _ in range(14):
                room = setting.random.choice([0, 8, 30, 60, 120, 200, 400, 800]) << 10
                fill(disk, room)
                kills += killed(setting, command, setting.random.random() * 0.9) is None
                if "panicked" in setting.said():
                    bad = f"panic: {end_of(setting.said())}"
            os.remove(disk / "ballast")
            subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
            code, said = setting.run(command)
            found = heads(disk / "run")
            if bad is None and code != 0:
                bad = f"with room again it ends with {code}: {end_of(said)}"
            if bad is None and found != wanted:
                bad = f"with room again it differs in {differing(found, wanted)}"
            if bad:
                setting.table.fail(kind, case, bad, hung=code is None, tried=kills)
            else:
                setting.table.add(kind, kills, kills)
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk, room):
    """A file that leaves so many bytes."""
    ballast = disk / "ballast"
    ballast.write_bytes(b"")
    free = os.statvfs(disk)
    try:
        ballast.write_bytes(b"\1" * max(0, free.f_bavail * free.f_frsize - room))
    except OSError:
        pass


def repeated(run):
    """Rows that have the camera and frame of another one."""
    seen, twice = set(), []
    for path in sorted((run / "embeddings").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            key = (record["camera"], record["frame"])
            twice += [key] if key in seen else []
            seen.add(key)
    return twice


def live(setting: Setting):
    """Live runs with every outlet open: killed, checked, resumed, ended."""
    kind, number = "kill: live", 0
    while setting.left() > 0:
        number += 1
        case, run = f"seed {setting.seed}, round {number}", setting.path("run")
        remove(run)
        sets = [CHECKPOINTS, "export.rotate_megabytes=0.05", f"stream.socket=unix:{setting.path('s')}", f"box_server.listen=unix:{setting.path('b')}",
                f"stream.ring={setting.path('ring')}", "learn.frames_per_sec=200", "learn.sampling.gap_min_secs=0.001"]
        sources = [f"pattern://{i}?live=true&rate=100&segments=10000&frames=1000000&width=64&height=48" for i in range(2)]
        command = setting.learn(run, *sets, sources=sources, more=["--resume"])
        bad = kills = 0
        for _ in range(setting.random.randrange(3, 12)):
            code = killed(setting, command, 0.1 + setting.random.random() * 1.2)
            kills += 1
            if code is not None:
                setting.table.fail(kind, case, f"ended by itself with {code}: {end_of(setting.said())}", tried=kills)
                bad = 1
                break
            code, said = setting.run([setting.program, "check", "--run", str(run)]) if (run / "run.json").exists() else (0, "")
            if code != 0:
                setting.table.fail(kind, case, f"`check` ends with {code}: {end_of(said)}", hung=code is None, tried=kills)
                bad = 1
                break
        if not bad:
            process = setting.start(command)
            time.sleep(1)
            code, took = stop(process)
            twice = repeated(run)
            if twice:
                setting.table.fail(kind, case, f"a camera and frame were given twice: {twice[:3]}", tried=kills)
            elif code == 0:
                setting.table.add(kind, kills, kills)
            else:
                text = f"after SIGTERM: {code} in {took:.1f} s: {end_of(setting.said())}"
                setting.table.fail(kind, case, text, hung=code is None, tried=kills)

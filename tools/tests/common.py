"""What several tests need: paths, the program itself, and how a test says that it cannot run here."""
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).parent.parent.parent
TOOLS = ROOT / "tools"
BINARY = pathlib.Path(os.environ.get("AFTERIMAGE", ROOT / "target" / "release" / "afterimage"))
sys.path.insert(0, str(TOOLS))


def skip(need, reason):
    """Skips the calling test, class or module, as tests/common/skip.rs does: a failure with REQUIRE_ALL=1 and not in ALLOW_SKIP."""
    frame = sys._getframe(1)
    while frame.f_globals["__name__"] == __name__:
        frame = frame.f_back
    line = f"skipped: {frame.f_globals['__name__']}: {need}: {reason}\n"
    sys.stderr.write(line)
    if path := os.environ.get("SKIPPED_TESTS"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)
    if os.environ.get("REQUIRE_ALL") == "1" and need not in os.environ.get("ALLOW_SKIP", "").split():
        raise AssertionError(f"REQUIRE_ALL=1 and {need} is not in ALLOW_SKIP: {reason}")
    raise unittest.SkipTest(reason)


def installed(need, *programs):
    """The paths of `programs`; skips the test where one is not installed. Servers may be where only root looks."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    found = [shutil.which(name, path=path) for name in programs]
    for name, where in zip(programs, found):
        if not where:
            skip(need, f"{name} is not installed")
    return found


def program(*arguments, cwd):
    """Runs `afterimage` (variable AFTERIMAGE: another); its standard output. Skips the test where it is not built."""
    if not BINARY.is_file():
        skip("program", f"{BINARY} is not built (make build)")
    ran = subprocess.run([BINARY, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise AssertionError(f"afterimage {arguments}: exit code {ran.returncode}\n{ran.stdout}{ran.stderr}")
    return ran.stdout

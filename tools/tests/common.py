"""What several tests need: paths, and the program itself."""
import os
import pathlib
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).parent.parent.parent
TOOLS = ROOT / "tools"
BINARY = pathlib.Path(os.environ.get("AFTERIMAGE", ROOT / "target" / "release" / "afterimage"))
sys.path.insert(0, str(TOOLS))


def program(*arguments, cwd):
    """Runs `afterimage` (variable AFTERIMAGE: another); its standard output. Skips the test where it is not built."""
    if not BINARY.is_file():
        raise unittest.SkipTest(f"{BINARY} is not built (make build)")
    ran = subprocess.run([BINARY, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise AssertionError(f"afterimage {arguments}: exit code {ran.returncode}\n{ran.stdout}{ran.stderr}")
    return ran.stdout

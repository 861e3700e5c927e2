"""Set the course up and run it, with nothing but Python's standard library.

    python tools/bootstrap.py setup | lab | test | run | doctor

`make` calls this file; on Windows call it directly. The environment is `.venv` beside README.md.
A stamp inside it holds the hash of what was installed, so that the next call starts at once.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
# torch's threads on Linux wait for each other by spinning 300,000 times. Beside one other busy
# program (a browser will do) a training step took up to 8 s in place of 0.3; 1,000 spins cost
# little on an idle machine and keep it under 1 s on a busy one.
GENTLE_THREADS = {"GOMP_SPINCOUNT": "1000"}
CHECKPOINT = "mobilenet_v2-b0353104.pth"
FIRST_LESSON = "notebooks/00_meet_the_problem.ipynb"


def main(arguments: list[str]) -> int:
    """Run the command named first in `arguments`; return its exit code."""
    commands = {"setup": setup, "lab": lab, "test": test, "run": run, "doctor": doctor}
    if len(arguments) < 1 or arguments[0] not in commands:
        print(f"expected one of: {', '.join(commands)}", file=sys.stderr)
        return 2
    if sys.version_info < (3, 11):  # noqa: UP036 - this file must answer on an old Python too
        found = ".".join(map(str, sys.version_info[:2]))
        print(f"the course needs Python 3.11 or newer, this is {found}", file=sys.stderr)
        print("install one and say: make PYTHON=python3.12 lab", file=sys.stderr)
        return 2
    try:
        return commands[arguments[0]](arguments[1:])
    except subprocess.CalledProcessError as error:
        print(f"failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return int(error.returncode) or 1


def setup(_arguments: list[str]) -> int:
    """Install the locked dependencies and the package; fetch weights and images."""
    install("requirements.lock")
    return fetch_once()


def lab(arguments: list[str]) -> int:
    """Open JupyterLab on the first lesson."""
    if code := setup([]):
        return code
    settings = {"JUPYTERLAB_SETTINGS_DIR": str(ROOT / "build" / "lab-settings")}
    write_lab_settings(Path(settings["JUPYTERLAB_SETTINGS_DIR"]))
    return call([PYTHON, "-m", "jupyterlab", FIRST_LESSON, *arguments], settings)


def test(arguments: list[str]) -> int:
    """Check style, types, units and every lesson."""
    if code := setup([]):
        return code
    install("requirements-dev.lock")
    images = {} if os.environ.get("TLCOURSE_DATA") else {"TLCOURSE_IMAGES": "simulated"}
    return call([PYTHON, "-m", "tools.check_all", *arguments], images)


def run(arguments: list[str]) -> int:
    """Execute every lesson without a browser."""
    if code := setup([]):
        return code
    return call([PYTHON, "-m", "tlcourse", "run", *arguments])


def doctor(arguments: list[str]) -> int:
    """Say whether this machine can run the course."""
    install("requirements.lock")  # without what `fetch` may lack: the doctor says so himself
    return call([PYTHON, "-m", "tlcourse", "doctor", *arguments])


def install(lock: str) -> None:
    """Install `lock` (hashes checked) and the package, unless that was done before."""
    if stamp(lock).exists():
        return
    if not PYTHON.exists():
        print("creating .venv", flush=True)
        venv.create(VENV, with_pip=True)
    print(f"installing {lock} (once; some minutes and 6 GB for torch)", flush=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = VENV / "wanted.txt"
    text = (ROOT / lock).read_text(encoding="utf-8")
    wanted.write_text(without_cuda(text) if has_cpu_torch() else text, encoding="utf-8")
    subprocess.run([*pip, "--require-hashes", "-r", wanted], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", ROOT], check=True)
    for old in VENV.glob(f"{lock}-*.installed"):
        old.unlink()
    stamp(lock).touch()


def has_cpu_torch() -> bool:
    """Tell whether a CPU-only torch was put into `.venv` before."""
    return any(VENV.glob("**/site-packages/torch-*+cpu.dist-info"))


def without_cuda(lock: str) -> str:
    """Leave out of a lock's text what only a CUDA build of torch needs."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.M)
    return "".join(b for b in blocks if not re.match(r"(nvidia|cuda)-|triton==", b))


def stamp(lock: str) -> Path:
    """Return the file whose presence says that this very `lock` is installed."""
    content = (ROOT / lock).read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    return VENV / f"{lock}-{hashlib.sha256(content).hexdigest()[:12]}.installed"


def fetch_once() -> int:
    """Fetch weights and images; a course without the real images still starts."""
    done = VENV / "fetched"
    if done.exists() and checkpoint().exists():  # whoever empties the cache gets it again
        return 0
    code = call([PYTHON, "-m", "tlcourse", "fetch"])
    if code == 0:
        done.touch()
    return code


def checkpoint() -> Path:
    """Return where torch hub looks for the course's network, without waking torch up."""
    home = os.environ.get("TORCH_HOME")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home or Path(cache) / "torch") / "hub" / "checkpoints" / CHECKPOINT


def write_lab_settings(folder: Path) -> None:
    """Keep JupyterLab from asking about news: it would call a server."""
    path = folder / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"fetchNews": "false", "checkForUpdates": false}\n', encoding="utf-8")


def call(command: list[object], extra: dict[str, str] | None = None) -> int:
    """Run `command` in the course's folder and environment; return its exit code."""
    path = {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    environment = {**GENTLE_THREADS, **os.environ, **path, **(extra or {})}
    return subprocess.run([str(c) for c in command], cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

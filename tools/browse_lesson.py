"""Open a lesson in JupyterLab in headless Chromium, run every cell, take screenshots.

    python -m tools.browse_lesson notebooks/00_meet_the_problem.ipynb --shots build/shots

Needs an installed Chromium; Playwright's own download is not used.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tools.bootstrap import write_lab_settings

ROOT = Path(__file__).resolve().parent.parent
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
RUN_TRIES = 5
BEGUN = """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].some(
    prompt => /\\[(\\*|\\d+)\\]/.test(prompt.textContent))"""
UNRUN = """() => [...document.querySelectorAll('.jp-CodeCell')]
    .filter(c => c.querySelector('.cm-content').innerText.trim())
    .filter(c => !/\\[\\d+\\]/.test(c.querySelector('.jp-InputPrompt').innerText)).length"""


def find_chromium() -> str | None:
    """Return the path of an installed Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@contextmanager
def lab_server(folder: Path) -> Iterator[str]:
    """Serve `folder` with JupyterLab; yield the address with its token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(8)
    with tempfile.TemporaryDirectory() as scratch:
        names = ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
        places = {name: str(Path(scratch) / name.lower()) for name in names}
        write_lab_settings(Path(places["JUPYTERLAB_SETTINGS_DIR"]))
        command = [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
            f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
        ]  # fmt: skip
        server = subprocess.Popen(
            command, env={**os.environ, **places}, stderr=subprocess.DEVNULL, cwd=folder
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/api?token={token}")
            yield f"http://127.0.0.1:{port}/lab/tree/{{}}?reset&token={token}"
        finally:
            server.terminate()
            server.wait(timeout=30)


@contextmanager
def _copy_of(notebook: Path) -> Iterator[Path]:
    """Yield a folder with a copy of the notebook: Lab saves what it ran over what it opened."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(notebook, folder)
        yield Path(folder)


def _wait_for(address: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urlopen(address, timeout=2).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def run_all(page: Any, seconds: float) -> None:
    """Choose Run All Cells in the menu, and wait until every code cell has a number."""
    # An empty sheet comes first, and it is idle, too: Run All on it would ask for a kernel.
    page.wait_for_function(
        "() => document.querySelectorAll('.jp-CodeCell').length > 3", timeout=90_000
    )
    idle = '.jp-Notebook-ExecutionIndicator[data-status="idle"]'
    page.wait_for_selector(idle, timeout=90_000)
    for _ in range(RUN_TRIES):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        if _begins(page):
            break
    page.wait_for_function(f"({UNRUN})() === 0", timeout=seconds * 1000)


def _begins(page: Any) -> bool:
    """Tell whether a cell runs or has run within 20 s: Lab drops the command if it comes early."""
    from playwright.sync_api import TimeoutError as Late

    try:
        page.wait_for_function(f"({BEGUN})()", timeout=20_000)
    except Late:
        return False
    return True


def browse(notebook: str, *, shots: Path, seconds: float = 300, run: bool = True) -> dict[str, Any]:
    """Open `notebook` (relative to the checkout); return what was seen.

    Returns:
        errors (texts of error outputs), console (browser errors), foreign (requests that left
        this machine), images (number of pictures), without_alt, checks (texts), shots (files).
    """
    from playwright.sync_api import sync_playwright

    chromium = find_chromium()
    if chromium is None:
        raise FileNotFoundError("no Chromium on this machine: install one to browse a lesson")
    shots.mkdir(parents=True, exist_ok=True)
    with (
        _copy_of(ROOT / notebook) as folder,
        lab_server(folder) as address,
        sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        console: list[str] = []
        foreign: list[str] = []
        page.on("console", lambda m: console.append(m.text) if m.type == "error" else None)
        page.on(
            "request",
            lambda r: (
                None if r.url.startswith(("http://127.", "ws://127.", "data:", "blob:"))
                else foreign.append(r.url)
            ),
        )  # fmt: skip
        page.goto(address.format(Path(notebook).name), timeout=90_000)
        page.wait_for_selector(".jp-NotebookPanel", timeout=90_000)
        started = time.perf_counter()
        if run:
            run_all(page, seconds)
        took = time.perf_counter() - started
        seen = look(page, shots, Path(notebook).stem)
        browser.close()
    return {**seen, "console": console, "foreign": foreign, "seconds": round(took, 1)}


def look(page: Any, shots: Path, name: str) -> dict[str, Any]:
    """Scroll through the notebook, photograph it and collect what its outputs hold."""
    errors: set[str] = set()
    pictures: dict[str, str | None] = {}
    files = []
    page.mouse.move(760, 500)
    while not _scroll(page, -20_000):
        pass
    for step in range(60):
        errors |= set(page.locator(".jp-RenderedText[data-mime-type*=error]").all_inner_texts())
        for image in page.locator(".jp-OutputArea-output img").all():
            source = image.get_attribute("src") or ""
            pictures[str(hash(source))] = image.get_attribute("alt")
        files.append(shots / f"{name}-{step:02d}.png")
        page.screenshot(path=str(files[-1]))
        if _scroll(page):
            break
    return {
        "errors": sorted(errors),
        "images": len(pictures),
        "without_alt": sum(not alt for alt in pictures.values()),
        "shots": [str(file) for file in files],
    }


def _scroll(page: Any, pixels: int = 700) -> bool:
    """Turn the mouse wheel; tell whether nothing moved, so that the end was there already.

    Lab draws cells as they come near the window, so a jump by script shows empty sheets.
    """
    top = "() => document.querySelector('.jp-WindowedPanel-outer').scrollTop"
    before = page.evaluate(top)
    page.mouse.wheel(0, pixels)
    page.wait_for_timeout(700)
    return bool(page.evaluate(top) == before)


def main(arguments: list[str]) -> int:
    """Browse one lesson and print what was seen; fail on errors or requests to elsewhere."""
    parser = argparse.ArgumentParser(prog="python -m tools.browse_lesson")
    parser.add_argument("notebook")
    parser.add_argument("--shots", type=Path, default=ROOT / "build" / "shots")
    parser.add_argument("--no-run", action="store_true", help="only look at stored outputs")
    options = parser.parse_args(arguments)
    seen = browse(options.notebook, shots=options.shots, run=not options.no_run)
    for key, value in seen.items():
        print(f"{key}: {value}")
    return 1 if seen["errors"] or seen["foreign"] or seen["without_alt"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

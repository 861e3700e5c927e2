"""Downloads: whole, verified, once; and BreastMNIST found, fetched or explained."""

import hashlib
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tlcourse.datasets import (
    DatasetUnavailable,
    InvalidDataset,
    fetch_breastmnist,
    find_breastmnist,
    load_images,
    medmnist,
)
from tlcourse.datasets.medmnist import DownloadFailed, PublishedFile, download

CONTENT = bytes(range(256)) * 2000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one content under any name; may cut it short; counts what it was asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut, self.delay, self.status, self.requests = CONTENT, None, 0, 200, []
        self.url = f"http://127.0.0.1:{self.server_port}/file.npz"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.head("HEAD")

    def do_GET(self):
        self.head("GET")
        time.sleep(self.server.delay)
        self.wfile.write(self.server.content[: self.server.cut])

    def head(self, method):
        self.server.requests.append(method)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "TLCOURSE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(medmnist, "_failures", {})
    return tmp_path / "cache"


@pytest.fixture
def published(server, cache, monkeypatch):
    """BreastMNIST as this server publishes it: a small file of the same layout."""
    rng = np.random.default_rng(0)
    content = {}
    for part, n in (("train", 20), ("val", 6), ("test", 8)):
        content[f"{part}_images"] = rng.integers(0, 256, (n, 64, 64), np.uint8)
        content[f"{part}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    path = cache.parent / "made.npz"
    np.savez(path, **content)
    server.content = path.read_bytes()
    md5 = hashlib.md5(server.content).hexdigest()
    file = PublishedFile("breastmnist_64.npz", server.url, md5)
    monkeypatch.setattr(medmnist, "FILES", {64: file})
    return server


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_a_file_is_downloaded_once(server, tmp_path):
    path = tmp_path / "deep" / "file.npz"
    for _ in range(3):
        assert download(server.url, path, md5=MD5, progress=False) == path
    assert path.read_bytes() == CONTENT
    assert server.requests.count("GET") == 1


def test_the_progress_bar_works_and_goes(server, tmp_path, capsys):
    download(server.url, tmp_path / "file.npz", md5=MD5, progress=True)
    assert capsys.readouterr().err.endswith("\r")


def test_a_connection_cut_midway_leaves_no_file(server, tmp_path):
    server.cut = len(CONTENT) // 2
    with pytest.raises(DownloadFailed, match=r"file\.npz"):
        download(server.url, tmp_path / "file.npz", md5=MD5, progress=False)
    assert visible(tmp_path) == []
    server.cut = None
    download(server.url, tmp_path / "file.npz", md5=MD5, progress=False)
    assert visible(tmp_path) == ["file.npz"]


def test_another_checksum_leaves_no_file(server, tmp_path):
    with pytest.raises(DownloadFailed, match="hash"):
        download(server.url, tmp_path / "file.npz", md5="0" * 32, progress=False)
    assert visible(tmp_path) == []


def test_a_damaged_file_is_replaced_only_by_a_whole_one(server, tmp_path):
    path = tmp_path / "file.npz"
    path.write_bytes(b"damaged")
    server.cut = 100
    with pytest.raises(DownloadFailed):
        download(server.url, path, md5=MD5, progress=False)
    assert path.read_bytes() == b"damaged"
    server.cut = None
    download(server.url, path, md5=MD5, progress=False)
    assert path.read_bytes() == CONTENT


def test_an_error_of_the_server_is_reported(server, tmp_path):
    server.status = 404
    with pytest.raises(DownloadFailed, match="404"):
        download(server.url, tmp_path / "file.npz", md5=MD5, progress=False)
    assert visible(tmp_path) == []


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch, tmp_path):
    import socket

    monkeypatch.delenv("TLCOURSE_OFFLINE")
    monkeypatch.setattr(medmnist, "SERVER_SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        start = time.monotonic()
        with pytest.raises(DownloadFailed, match="cannot be reached"):
            download(url, tmp_path / "file", md5=MD5, progress=False)
    assert time.monotonic() - start < 5


def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch, tmp_path):
    monkeypatch.delenv("TLCOURSE_OFFLINE")
    monkeypatch.setattr(medmnist, "SERVER_SECONDS", 0.1)
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: time.sleep(3))
    start = time.monotonic()
    with pytest.raises(DownloadFailed, match="no answer"):
        download("http://example.invalid/file", tmp_path / "file", md5=MD5, progress=False)
    assert time.monotonic() - start < 2


def test_offline_asks_nobody(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TLCOURSE_OFFLINE", "1")
    with pytest.raises(DownloadFailed, match="TLCOURSE_OFFLINE"):
        download(server.url, tmp_path / "file.npz", md5=MD5, progress=False)
    assert server.requests == []
    monkeypatch.setenv("TLCOURSE_OFFLINE", "0")
    assert download(server.url, tmp_path / "file.npz", md5=MD5, progress=False).is_file()


# The module is loaded by its path: importing the package would cost each process seconds.
ASK = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("downloads", sys.argv[1])
downloads = importlib.util.module_from_spec(spec)
spec.loader.exec_module(downloads)
downloads.download(sys.argv[2], Path(sys.argv[3]), md5=sys.argv[4], progress=False)
"""


@pytest.mark.slow
def test_processes_that_ask_at_once_download_once(server, tmp_path):
    server.delay = 2
    path = tmp_path / "file.npz"
    command = [sys.executable, "-c", ASK, medmnist.__file__, server.url, str(path), MD5]
    asking = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    outputs = [process.communicate(timeout=120)[1] for process in asking]
    assert [process.returncode for process in asking] == [0] * 4, outputs
    assert server.requests.count("GET") == 1
    assert path.read_bytes() == CONTENT
    assert visible(tmp_path) == ["file.npz"]


def test_a_lock_held_too_long_is_an_error(server, tmp_path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(medmnist, "DOWNLOAD_LOCK_SECONDS", 0.1)
    with FileLock(tmp_path / ".file.npz.lock"), pytest.raises(DownloadFailed, match="another"):
        download(server.url, tmp_path / "file.npz", md5=MD5, progress=False)


def test_breastmnist_is_looked_for_then_cached_then_downloaded(published, cache, monkeypatch):
    with pytest.raises(DatasetUnavailable, match="only looked for"):
        find_breastmnist(size=64)
    assert fetch_breastmnist(size=64, progress=False) == cache / "breastmnist_64.npz"
    assert find_breastmnist(size=64) == cache / "breastmnist_64.npz"
    own = cache.parent / "own"
    own.mkdir()
    (cache / "breastmnist_64.npz").replace(own / "breastmnist_64.npz")
    monkeypatch.setenv("TLCOURSE_DATA", str(own))
    assert fetch_breastmnist(size=64, progress=False) == own / "breastmnist_64.npz"
    assert published.requests.count("GET") == 1


def test_breast_is_the_real_set_once_it_is_downloaded(published, cache):
    data = load_images("breast", progress=False)
    assert (data.name, data.simulated, data.license) == ("breastmnist", False, "CC BY 4.0")
    assert data.classes == ("malignant", "normal or benign")
    assert "zenodo" in data.source


def test_a_damaged_file_in_the_cache_is_replaced(published, cache):
    cache.mkdir()
    (cache / "breastmnist_64.npz").write_bytes(b"damaged")
    with pytest.raises(DatasetUnavailable):
        find_breastmnist(64)
    fetch_breastmnist(64, progress=False)
    assert find_breastmnist(64).stat().st_size > 1000


def test_a_damaged_file_of_the_learner_is_an_error_and_stays(published, tmp_path, monkeypatch):
    monkeypatch.setenv("TLCOURSE_DATA", str(tmp_path))
    path = tmp_path / "breastmnist_64.npz"
    path.write_bytes(b"damaged")
    for name in ("breast", "breastmnist"):
        with pytest.raises(InvalidDataset, match="MD5") as caught:
            load_images(name, progress=False)
        assert str(path) in str(caught.value)
    assert path.read_bytes() == b"damaged"
    assert published.requests == []


def test_an_absent_set_says_exactly_how_to_get_it(cache, monkeypatch):
    monkeypatch.setenv("TLCOURSE_OFFLINE", "1")
    with pytest.raises(DatasetUnavailable) as caught:
        load_images("breastmnist", size=128, progress=False)
    message = str(caught.value)
    for part in (
        "128 px",
        "TLCOURSE_OFFLINE is set",
        "tlcourse fetch --size 128",
        "https://zenodo.org/records/10519652/files/breastmnist_128.npz?download=1",
        str(cache / "breastmnist_128.npz"),
        "363e4b3f8d712e9b5de15470a2aaadf1",
        "TLCOURSE_DATA",
    ):
        assert part in message


def test_a_failure_is_remembered_unless_a_new_try_is_asked_for(published):
    published.status = 503
    for _ in range(3):
        with pytest.raises(DatasetUnavailable, match="503"):
            fetch_breastmnist(64, retry=False, progress=False)
    assert published.requests.count("GET") == 1
    published.status = 200
    with pytest.raises(DatasetUnavailable):
        fetch_breastmnist(64, retry=False, progress=False)
    assert fetch_breastmnist(64, progress=False).is_file()


def test_a_folder_that_cannot_be_written_is_reported(published, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TLCOURSE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DatasetUnavailable, match="file"):
        fetch_breastmnist(64, progress=False)


@pytest.mark.parametrize("size", [0, 32, 256])
def test_only_published_sizes_exist(size):
    with pytest.raises(ValueError, match=r"\[28, 64, 128, 224\] px, not in"):
        find_breastmnist(size)


def test_the_data_cards_state_every_checksum():
    readme = (Path(__file__).parents[1] / "data" / "README.md").read_text(encoding="utf-8")
    for file in medmnist.FILES.values():
        assert file.name in readme
        assert file.md5 in readme
    for stated in (medmnist.LICENSE, "10519652", "not for diagnosis"):
        assert stated in readme

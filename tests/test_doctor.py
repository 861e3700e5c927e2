import shutil
import sys

import pytest

from tlcourse import backbones, doctor
from tlcourse.__main__ import main


@pytest.fixture
def empty_home(monkeypatch, tmp_path):
    """No weights, no images."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("TLCOURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def finding(name):
    return next(f for f in doctor.examine() if f.what == name)


def test_missing_weights_stop_the_course_and_name_the_remedy(empty_home, capsys):
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "MISSING  weights" in told
    assert f"mend it: {sys.executable} -m tlcourse fetch" in told
    assert "the course cannot run yet" in told


def test_missing_images_are_a_note_only(empty_home):
    found = finding("images")
    assert found.ok is None
    assert "simulated" in found.detail


def test_a_damaged_checkpoint_is_noticed(empty_home):
    path = backbones.checkpoint_path("mobilenet_v2")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half a file")
    found = finding("weights")
    assert found.ok is False
    assert "damaged" in found.detail
    assert f"delete {path}" in found.remedy


def test_real_images_are_found(real_data):
    assert finding("images").ok is True


def test_damaged_real_images_stop_the_course(real_data, monkeypatch, tmp_path):
    content = (real_data / "breastmnist_64.npz").read_bytes()
    (tmp_path / "breastmnist_64.npz").write_bytes(content[:1000])
    monkeypatch.setenv("TLCOURSE_DATA", str(tmp_path))
    assert finding("images").ok is False


def test_a_package_that_does_not_import_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "REQUIRED", ("torch", "no_such_package"))
    found = finding("packages")
    assert (found.ok, found.detail) == (False, "cannot import no_such_package")


def test_little_memory_is_a_note(monkeypatch):
    monkeypatch.setattr(doctor, "MINIMUM_MEMORY_GB", 1e6)
    assert finding("memory").ok is None


def test_a_machine_with_weights_can_run(monkeypatch, tmp_path, capsys):
    here = backbones.checkpoint_path("mobilenet_v2")
    if not here.is_file():
        pytest.skip("the MobileNetV2 checkpoint is not on this machine: make setup")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    copy = backbones.checkpoint_path("mobilenet_v2")
    copy.parent.mkdir(parents=True)
    shutil.copy(here, copy)
    assert main(["doctor"]) == 0
    assert "the course can run" in capsys.readouterr().out

import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES

import pytest
import torch

from tlcourse import backbones
from tlcourse.__main__ import main
from tlcourse.cli import doctor


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


def test_whole_packages_are_well():
    assert finding("packages").ok is True


def test_the_checkpoint_is_the_one_that_torchvision_loads(empty_home):
    found = finding("weights")
    assert str(backbones.checkpoint_path("mobilenet_v2")) in found.detail


@pytest.fixture
def package(monkeypatch, tmp_path):
    """Return a function that puts `made` beside the packages there are, and requires it alone."""

    def install(*files, recorded=()):
        for file in files:
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("raise RuntimeError('the doctor imports me')")
        info = tmp_path / "made_up-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in (*files, *recorded)))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(doctor, "REQUIRED", {"made": "made-up"})

    return install


@pytest.mark.parametrize(
    ("files", "recorded", "told"),
    [
        (["made/__init__.py"], ["made/gone.cpython.pyc"], None),
        ([], [], "made is not installed"),
        (["made/left.txt"], [], "made is not installed"),
        (["made/__init__.py"], ["made/core.so"], "made lacks 1 of its files, such as made/core.so"),
    ],
)
def test_a_broken_package_is_named_and_not_imported(package, files, recorded, told):
    package(*files, recorded=recorded)
    found = finding("packages")
    assert (found.ok, found.detail) == ((False, told) if told else (True, found.detail))


@pytest.mark.parametrize("content", [None, b"no library"])
def test_operators_that_do_not_load_are_told_with_both_versions(monkeypatch, tmp_path, content):
    """Torchvision for another torch: its library raises, or registers nothing."""
    if content is not None:
        (tmp_path / f"_C{EXTENSION_SUFFIXES[-1]}").write_bytes(content)
    else:
        monkeypatch.setattr(doctor.torch.ops, "torchvision", object())
    flaw = doctor._operator_flaw(tmp_path)
    assert f"does not fit torch {torch.__version__}" in flaw


def test_a_torch_that_does_not_import_is_a_finding_too():
    """None in sys.modules makes the import fail, as an install that is broken does."""
    code = "import sys; sys.modules['torch'] = None; from tlcourse.__main__ import main; "
    command = [sys.executable, "-c", code + "sys.exit(main(['doctor']))"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (1, "")
    assert "MISSING  packages: ModuleNotFoundError: import of torch halted" in run.stdout
    assert "mend it: make setup" in run.stdout


def test_the_doctor_imports_little_beyond_torch():
    """Each of these takes seconds; together they took it four times as long."""
    heavy = {"torchvision", "sklearn", "jupyterlab", "skimage", "matplotlib", "scipy.sparse"}
    code = "import sys; from tlcourse.__main__ import main; main(['doctor']); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(run.stdout.splitlines()[-1].split())


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

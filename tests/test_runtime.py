import contextlib
import random

import numpy as np
import pytest
import torch

from tlcourse import runtime
from tlcourse.training.checkpoint import random_state, restore_random_state


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_seeded_repeats_and_leaves_every_generator_as_it_was():
    random.seed(7), np.random.seed(7), torch.manual_seed(7)  # noqa: NPY002
    expected = draws()
    random.seed(7), np.random.seed(7), torch.manual_seed(7)  # noqa: NPY002
    with runtime.seeded(3):
        first = draws()
    with contextlib.suppress(KeyError), runtime.seeded(3):
        assert draws() == first
        raise KeyError
    assert draws() == expected


class FakeDevices:
    """Stands in for `torch.mps` or `torch.xpu`: a generator state per device, and what was done."""

    def __init__(self, count):
        self.states = [torch.tensor([10 + i], dtype=torch.uint8) for i in range(count)]

    def is_available(self):
        return True

    def device_count(self):
        return len(self.states)

    def _is_in_bad_fork(self):
        return False

    def manual_seed_all(self, seed):
        self.states = [torch.tensor([seed], dtype=torch.uint8) for _ in self.states]

    manual_seed = manual_seed_all

    def get_rng_state(self, device=0):
        return self.states[device].clone()

    def set_rng_state(self, state, device=0):
        self.states[device] = state


@pytest.fixture(params=[("mps", 1), ("xpu", 2)])
def accelerator(request, monkeypatch):
    name, count = request.param
    fake = FakeDevices(count)
    monkeypatch.setattr(torch, name, fake)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device(name))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
    torch.get_device_module.cache_clear()
    yield fake
    torch.get_device_module.cache_clear()


def numbers(states):
    return [int(state[0]) for state in states]


def test_seeded_seeds_and_restores_every_accelerator(accelerator):
    before = numbers(accelerator.states)
    with contextlib.suppress(KeyError), runtime.seeded(3):
        assert numbers(accelerator.states) == [3] * len(before)
        accelerator.states[0] = torch.tensor([99], dtype=torch.uint8)  # drawn from
        raise KeyError
    assert numbers(accelerator.states) == before


def test_a_checkpoint_holds_the_generators_of_every_accelerator(accelerator):
    before = numbers(accelerator.states)
    saved = random_state()
    accelerator.manual_seed_all(5)
    restore_random_state(saved)
    assert numbers(accelerator.states) == before


def test_generators_of_an_accelerator_that_is_gone_are_left_out(monkeypatch):
    saved = random_state() | {"accelerator": {"type": "mps", "states": [torch.zeros(1)]}}
    restore_random_state(saved)
    torch.manual_seed(1)


def test_data_dirs_come_in_order(monkeypatch, tmp_path):
    monkeypatch.setenv("TLCOURSE_DATA", str(tmp_path))
    monkeypatch.setenv("TLCOURSE_CACHE", str(tmp_path / "cache"))
    assert runtime.data_dirs() == [tmp_path, tmp_path / "cache"]


def test_data_dir_that_is_no_folder_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("TLCOURSE_DATA", str(tmp_path / "absent"))
    with pytest.raises(NotADirectoryError, match=r"TLCOURSE_DATA names .*absent.*unset it"):
        runtime.data_dirs()


def test_cache_lies_in_the_checkout(monkeypatch):
    monkeypatch.delenv("TLCOURSE_CACHE", raising=False)
    assert runtime.cache_dir() == runtime.repository_root() / "data" / "cache"


def test_cache_of_an_installed_package_is_the_users(monkeypatch):
    monkeypatch.delenv("TLCOURSE_CACHE", raising=False)
    monkeypatch.setattr(runtime, "repository_root", lambda: None)
    assert "tlcourse" in str(runtime.cache_dir())


def test_device_can_be_chosen(monkeypatch):
    monkeypatch.setenv("TLCOURSE_DEVICE", "meta")
    assert runtime.device() == torch.device("meta")


def test_threads_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1 thread, got 0"):
        runtime.set_threads(0)


def test_report_names_versions_and_memory():
    report = runtime.environment_report()
    assert report["torch"] == torch.__version__.split("+")[0] or report["torch"]
    assert report["memory"].endswith("GB")


def test_a_relative_folder_counts_from_here_or_from_the_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "repository_root", lambda: tmp_path / "checkout")
    (tmp_path / "checkout" / "notebooks").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    monkeypatch.setenv("TLCOURSE_DATA", "../images")
    for place in ("checkout", "checkout/notebooks"):  # where make stands, where a kernel stands
        monkeypatch.chdir(tmp_path / place)
        assert runtime.data_dirs()[0].resolve() == tmp_path / "images"


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("", False)])
def test_offline_is_what_the_variable_says(monkeypatch, value, expected):
    monkeypatch.setenv("TLCOURSE_OFFLINE", value)
    assert runtime.offline() is expected

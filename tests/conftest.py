import os

import matplotlib as mpl
import pytest

mpl.use("Agg")


@pytest.fixture(autouse=True)
def no_learner_environment(monkeypatch):
    """Tests choose their own images, cache and results folder, and stay off the network."""
    names = ("DATA", "IMAGES", "RESULTS", "DEVICE", "CACHE")
    for name in names:
        monkeypatch.delenv(f"TLCOURSE_{name}", raising=False)
    monkeypatch.setenv("TLCOURSE_OFFLINE", "1")
    # Tests compare bits and read tensors as arrays, whatever accelerator the machine has.
    monkeypatch.setenv("TLCOURSE_DEVICE", "cpu")


@pytest.fixture
def real_data(monkeypatch):
    """The folder with the real BreastMNIST; the test is skipped, with the reason, without it."""
    from pathlib import Path

    places = [os.environ.get("TLCOURSE_TEST_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    for place in places:
        if place and (Path(place) / "breastmnist_64.npz").is_file():
            monkeypatch.setenv("TLCOURSE_DATA", str(place))
            return Path(place)
    pytest.skip("the real BreastMNIST is not on this machine (set TLCOURSE_TEST_DATA)")

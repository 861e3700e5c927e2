"""The comparison with other libraries runs, reports who is absent, and forms ratios in pairs."""

import math
from dataclasses import replace

import pytest

from benchmarks import contenders, peers, sets
from benchmarks.contenders import BARE, COURSE, PEERS, UNCACHED
from benchmarks.jobs import BOUNDARY, Job, Measured, clocked, network
from benchmarks.ratios import ALLOWED, FASTEST, allowed, table
from benchmarks.turns import Part, Turn, in_fresh_process, parts, shared_images, take_turns
from tlcourse.backbones import preprocess
from tlcourse.datasets import load_images


@pytest.fixture
def without_peers(monkeypatch):
    absent = {"fastai": "no_such_library", "Lightning": "no_such_library_either"}
    monkeypatch.setattr(contenders, "_NEEDS", absent)


@pytest.fixture
def with_peers(monkeypatch):
    monkeypatch.setattr(contenders, "_NEEDS", {})


def turns_of(part, seconds):
    """Turns of a part, from the seconds of each contender per round."""
    return [
        Turn(part, number, name, 0, Measured(value, 0.5, 0.9))
        for name, values in seconds.items()
        for number, value in enumerate(values, start=1)
    ]


@pytest.mark.slow
def test_quick_run_without_the_peers_says_so_and_writes_nothing(
    without_peers, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("TLCOURSE_RESULTS", str(tmp_path))
    monkeypatch.setenv("TLCOURSE_DEVICE", "cpu")
    assert peers.main(["--quick"]) == 0
    said = capsys.readouterr().out
    for part in parts(1, 1, quick=True):
        assert f"{part.name}, {part.epochs} epochs, round 1 of 1: {COURSE}" in said
    for name in ("fastai", "Lightning"):
        rows = [line for line in said.splitlines() if f" {name} " in line]
        assert len(rows) == 3
        assert all("not installed" in row for row in rows)
    assert "no table is written" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_job_in_a_fresh_process_comes_back_with_its_times(tmp_path):
    images = shared_images(load_images("phantom", n=40, size=32, progress=False), tmp_path)
    small = {"size": 32, "batch_size": 14, "weights": None, "threads": 1}
    job = Job(UNCACHED, 1, BOUNDARY, images, cache=False, **small)
    measured = in_fresh_process(job)
    assert measured.seconds > 0
    assert 0 < measured.frozen_share < 1
    assert 0 <= measured.others <= 1
    with pytest.raises(RuntimeError, match=r"nobody failed:\n(.|\n)*KeyError"):
        in_fresh_process(replace(job, contender="nobody"))


def test_ratios_are_formed_within_a_round_and_the_fastest_is_looked_for_in_each(with_peers):
    part = Part("head only", 5, "backbone", (COURSE, *PEERS), 3)
    tutorial, fastai, lightning = PEERS
    seconds = {
        COURSE: [1, 2, 4],
        tutorial: [10, 20, 80],
        fastai: [30, 18, 60],
        lightning: [40, 40, 40],
    }
    found = table(turns_of(part, seconds), [part], images=100).set_index("contender")
    columns = ["times_longer_min", "times_longer", "times_longer_max"]
    assert found.loc[tutorial, columns].tolist() == [10, 10, 20]
    assert found.loc[fastai, columns].tolist() == [9, 15, 30]
    assert found.loc[FASTEST, columns].tolist() == [9, 10, 10]
    assert (found.loc[FASTEST, "wanted"], found.loc[FASTEST, "met"]) == (8, "yes")
    assert found.loc[COURSE, "images_per_second"] == 100 * 5 / 2


def test_a_claim_about_the_fastest_stays_open_while_a_peer_is_absent(without_peers):
    part = Part("full fine-tuning", 3, "", (COURSE, BARE, *PEERS), 1)
    found = table(turns_of(part, {COURSE: [1], BARE: [0.9], PEERS[0]: [2]}), [part], images=100)
    found = found.set_index("contender")
    assert found.loc[FASTEST, "met"] == "open: without fastai and Lightning"
    assert found.loc["fastai", "state"] == "not installed"
    assert math.isnan(found.loc["fastai", "seconds"])
    assert found.loc[BARE, "met"] == "no"


def test_the_bound_for_caching_comes_from_the_share_of_the_frozen_part(with_peers):
    part = Part("cached boundary", 10, BOUNDARY, (COURSE, UNCACHED), 2)
    found = table(turns_of(part, {COURSE: [1, 1], UNCACHED: [3, 1]}), [part], images=10)
    found = found.set_index("contender")
    assert found.loc[ALLOWED, "times_longer"] == pytest.approx(allowed(0.5, 10))
    assert found.loc[UNCACHED, "times_longer"] == 2
    assert found.loc[UNCACHED, "met"] == "yes"


def test_contenders_take_turns_and_each_peer_gets_its_better_number_of_workers(with_peers):
    asked = []

    def carry(job):
        asked.append(job)
        slow = 2 if (job.workers == 0) == (job.contender != "fastai") else 1
        return Measured(slow * job.epochs, math.nan, 0.9)

    part = Part("head only", 5, "backbone", (COURSE, *PEERS), 2)
    turns = take_turns([part], Job("", 0, "", "none"), carry, lambda line: None, trial=True)
    assert [turn.contender for turn in turns] == [COURSE, *PEERS] * 2
    workers = {turn.contender: turn.workers for turn in turns}
    assert workers == {COURSE: 0, PEERS[0]: 2, "fastai": 0, "Lightning": 2}
    assert {job.epochs for job in asked[:12]} == {2}
    assert {job.epochs for job in asked[12:]} == {5}


def test_the_clock_of_the_frozen_part_covers_every_forward_and_leaves_no_hook():
    job = Job(UNCACHED, 1, BOUNDARY, "none", cache=False, size=32, weights=None)
    model = network(job)
    images = preprocess(model, load_images("phantom", n=20, size=32, progress=False).val.images, 32)
    with clocked(model, job) as spent:
        model.eval()(images)
        model(images)
    assert len(spent) == 2
    assert min(spent) > 0
    model(images)
    assert len(spent) == 2
    with clocked(model, replace(job, cache=True)) as spent:
        model(images)
    assert spent == []


def test_what_images_cost_is_measured_beside_a_load(capsys):
    assert sets.main(["--quick"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in sets.works(2))


def test_loads_are_ratios_within_a_round(monkeypatch):
    own, beside = iter([2.0, 4.0, 6.0] * 4), iter([1.0, 4.0, 2.0] * 4)
    monkeypatch.setattr(
        sets, "processor_seconds", lambda work: next(beside if work is sets.load else own)
    )
    monkeypatch.setattr(sets, "works", lambda images: {"nothing": lambda: None})
    row = sets.table(20, 3).iloc[0]
    assert row["seconds"] == 4.0
    assert [row["loads_min"], row["loads"], row["loads_max"]] == [1.0, 2.0, 3.0]

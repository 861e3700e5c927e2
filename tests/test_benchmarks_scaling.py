"""The measurement of seconds and memory against the number of images."""

from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks import scaling
from benchmarks.scaling import ALL, FEATURES, HEAD, Taken, Task, beyond_limits, many_images, table
from tlcourse.backbones import load_backbone
from tlcourse.files import forget_pages
from tlcourse.loaders import PreparedImages, batches


def found(seconds, peak=500.0):
    """Tasks of one work with these seconds by number of images."""
    return [
        (Task(work, count), Taken(took, took, 300.0, peak))
        for work, counts in seconds.items()
        for count, took in counts.items()
    ]


def test_seconds_per_image_are_compared_with_the_next_smaller_number():
    rows = table(found({FEATURES: {1000: 2.0, 10_000: 10.0, 100_000: 110.0}, HEAD: {1000: 3.0}}))
    assert rows["work"].tolist() == [FEATURES] * 3 + [HEAD]
    assert rows["per_image"].round(6).tolist()[1:3] == [0.5, 1.1]
    assert rows["per_image"].isna().tolist() == [True, False, False, True]
    assert rows["images_per_second"].tolist()[:2] == [500, 1000]
    assert rows["images_mb"].tolist()[0] == pytest.approx(1000 * 64 * 64 / 1e6)


def test_memory_and_growth_beyond_the_limits_are_named():
    straight = {FEATURES: {10_000: 10.0, 100_000: 105.0}}
    assert beyond_limits(table(found(straight))) == []
    (heavy, *_) = beyond_limits(table(found(straight, peak=1600.0)))
    assert "1600 MB, the limit is 1500" in heavy
    (bent,) = beyond_limits(table(found({ALL: {10_000: 10.0, 100_000: 300.0}})))
    assert "all layers: an image takes 3.00 times as long" in bent


def test_many_images_differ_and_keep_their_labels():
    images, labels = many_images(1000, 16)
    again, _ = many_images(1000, 16)
    assert images.shape == (1000, 16, 16)
    assert len(np.unique(images.reshape(1000, -1), axis=0)) == 1000
    assert np.array_equal(images, again)
    assert 0.2 < (labels == 0).mean() < 0.35


@pytest.mark.slow
def test_a_quick_run_measures_every_work_and_writes_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TLCOURSE_RESULTS", str(tmp_path))
    assert scaling.main(["--quick"]) == 0
    said = capsys.readouterr().out
    for work in scaling.WORKS:
        assert f"{work}, 128 images" in said
    assert "no table is written" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_fresh_process_tells_its_own_peak(monkeypatch):
    ballast = np.ones(600_000_000, np.uint8)  # ru_maxrss would begin with it
    taken = scaling.in_fresh_process(Task(FEATURES, 32, size=32, threads=1))
    assert taken.seconds > 0
    assert taken.cpu_seconds > 0
    assert taken.start_mb <= taken.peak_mb < ballast.nbytes / 1e6 + taken.start_mb - 200
    with pytest.raises(RuntimeError, match=r"failed:\n(.|\n)*found none"):
        scaling.in_fresh_process(Task(FEATURES, 0, size=32, threads=1))


def test_prepared_images_take_so_much_memory_and_no_more(monkeypatch):
    model = load_backbone("shufflenet_v2_x0_5", weights=None)
    images = many_images(40, 32)[0]
    needed = len(images) * 3 * 32 * 32 * 4
    for limit, once in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(batches, "PREPARED_LIMIT", limit)
        assert PreparedImages(model, images, size=32).prepared_ahead == once


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells")
def test_pages_of_mapped_images_are_given_back_after_each_batch(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, np.ones((40_000, 40, 40), np.uint8))  # 64 MB
    images = np.load(path, mmap_mode="r")

    def resident():
        return psutil.Process().memory_info().rss / 1e6

    before = resident()
    assert images.sum() == images.size
    assert resident() > before + 40
    forget_pages(images[:10])  # a slice knows its map
    assert resident() < before + 20
    assert images.sum() == images.size


def test_what_was_changed_in_a_private_map_stays(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, np.ones((100, 64, 64), np.uint8))
    images = np.load(path, mmap_mode="c")
    images[:] = 7
    forget_pages(images)
    assert (images == 7).all()
    forget_pages(np.zeros(3))

"""`tlcourse bench` times four kinds of work and says what the cache saves."""

import pytest

from tlcourse.backbones import load_backbone, stages
from tlcourse.cli import bench as module
from tlcourse.cli.bench import TURNS, WORK, bench
from tlcourse.freezing import frozen_stages


def test_the_table_forms_its_ratios_side_by_side(monkeypatch):
    took = iter([1, 2, 8, 4, 6, 10, 2, 4, 8, 4, 8, 20, 1, 1, 9, 2, 8, 30])
    monkeypatch.setattr(module, "_turn", lambda *_: float(next(took)))
    table = bench("shufflenet_v2_x0_5", images=20, epochs=2, rounds=3, progress=False)
    assert tuple(table.index) == WORK
    assert table["seconds"].tolist() == [1, 2, 4, 20]
    assert table["images_per_second"].tolist() == [20, 20, 10, 2]
    assert table["uncached"].tolist()[1:3] == [4, 2]
    assert table["uncached"].isna().tolist() == [True, False, False, True]


def test_what_is_timed_is_what_the_name_says(monkeypatch):
    seen = []

    def fit(model, data, *, cache, **_):
        free = [name for name in stages(model) if name not in frozen_stages(model)]
        seen.append((free, cache))

    monkeypatch.setattr(module, "fit", fit)
    bench("shufflenet_v2_x0_5", images=20, size=32, epochs=1, rounds=1, progress=False)
    everything = list(stages(load_backbone("shufflenet_v2_x0_5", weights=None)))
    head, two = everything[-1:], everything[-2:]
    assert seen == [(head, True), (head, False), (two, True), (two, False), (everything, True)]
    assert len(TURNS) == 6


@pytest.mark.parametrize("options", [{"images": 19}, {"epochs": 0}, {"rounds": 0}])
def test_too_little_to_time_is_named(options):
    with pytest.raises(ValueError, match="expected at least 20 images, 1 epoch and 1 round, got"):
        bench("shufflenet_v2_x0_5", **options)

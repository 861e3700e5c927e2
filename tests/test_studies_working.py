"""Published runs are made once, and their grid lies beside them as a file that others can run."""

from pathlib import Path

from studies import working
from tlcourse.experiments import Grid

GRID = Grid({"seed": [0, 1], "size": [3]})


def scored(seed, size):
    with Path("made").open("a") as file:
        file.write(f"{seed} ")
    return {"auc": seed / size}


def test_missing_runs_are_made_once_and_the_grid_is_left_beside_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(working, "usable_cores", lambda: 1)
    threads = []
    monkeypatch.setattr(working.torch, "set_num_threads", threads.append)
    first, again = (working.completed(scored, GRID, "runs") for _ in range(2))
    assert first["auc"].tolist() == again["auc"].tolist() == [0, 1 / 3]
    assert threads == [1, 1], "published seconds are those of one thread"
    assert (tmp_path / "made").read_text().split() == ["0", "1"]
    left = Grid.from_file(working.WORKING / "runs_2.json")
    assert list(left.runs()) == list(GRID.runs())
    assert left.function == f"{__name__}:scored"

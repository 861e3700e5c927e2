import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from tlcourse.experiments import (
    Grid,
    RunsFailed,
    WorkersLost,
    read_failures,
    read_runs,
    run_grid,
    run_key,
)

GRID = Grid({"strategy": ["cold", "warmup"], "images": [50, None], "seed": range(3)})

WAIT_SECONDS = 600
"""Nothing here takes that long, on however busy a machine."""

SCRIPT = """
import os, sys, time
from pathlib import Path
from tlcourse.experiments import Grid, run_grid

path, log, (workers, free, makers) = sys.argv[1], Path(sys.argv[2]), map(int, sys.argv[3:])

def held():
    begun = [line.split()[1] for line in log.read_text().splitlines()]
    return len(begun) > free or len(set(begun)) < makers

def work(seed):
    with log.open("a") as file:
        file.write(f"{seed} {os.getpid()}\\n")
    while held():
        time.sleep(0.02)
    return {"score": seed / 2}

run_grid(work, Grid({"seed": range(24)}), path, workers=workers, progress=False)
print("done", flush=True)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


@pytest.fixture
def start(tmp_path, path):
    """Start `run_grid` over 24 seeds in a process of its own; it is ended with the test.

    Runs begun after the first `free` ones never end, and none does before `makers` processes have
    begun one: so that what a test does meanwhile comes in time, however slow the machine is.
    """
    processes = []

    def start(*, workers=1, free=1000, makers=1):
        arguments = [path, tmp_path / "log.txt", workers, free, makers]
        command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def scores(strategy, images, seed):
    return {"auc": seed / 10, "curve": np.arange(2), "drift": np.float32(0.5)}


def begun(log):
    """Seeds and processes in the order in which `SCRIPT` began them."""
    return [tuple(map(int, line.split())) for line in log.read_text().splitlines()]


def wait_until(condition):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.02)


def wait_for_rows(path, count):
    wait_until(lambda: len(read_runs(path)) >= count)


def test_a_row_per_run_in_the_order_of_the_grid(path):
    table = run_grid(scores, GRID, path, progress=False)
    assert list(table) == [
        *["key", "strategy", "images", "seed", "auc", "curve", "drift", "seconds"],
    ]
    assert table["key"].tolist() == [run_key(run) for run in GRID.runs()]
    assert table["curve"].iloc[0] == [0, 1]
    assert (table["seconds"] >= 0).all()


def test_a_second_call_runs_only_what_is_new(path):
    run_grid(scores, GRID, path, progress=False)
    made = []

    def note(strategy, images, seed):
        made.append((strategy, images, seed))
        return {"auc": 1.0, "extra": "columns may differ"}

    more = Grid(GRID.factors | {"seed": range(4)})
    table = run_grid(note, more, path, progress=False)
    assert made == [(s, i, 3) for s in ("cold", "warmup") for i in (50, None)]
    assert len(table) == 16
    assert table["extra"].notna().sum() == 4
    assert len(run_grid(note, GRID, path, progress=False)) == 12


@pytest.mark.parametrize("workers", [1, 2])
def test_failures_are_named_at_the_end_and_tried_again(path, workers):
    def fails(strategy, images, seed):
        if seed == 1 and images is None:
            raise ArithmeticError("on purpose")
        return {"auc": 0.5}

    with pytest.raises(RunsFailed, match="2 of 12 runs failed") as info:
        run_grid(fails, GRID, path, workers=workers, progress=False)
    for part in ("'strategy': 'warmup', 'images': None, 'seed': 1", "ArithmeticError: on purpose"):
        assert part in str(info.value)
    assert len(info.value.failed) == 2
    assert len(read_runs(path, GRID)) == 10
    notes = read_failures(path)
    assert len(notes) == 2
    assert all("in fails" in note["traceback"] for note in notes.values())
    assert len(run_grid(scores, GRID, path, workers=workers, progress=False)) == 12
    assert read_failures(path) == {}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "dict of scores by name, the function returned None"),
        ({0: 1}, "dict of scores by name"),
        ({"seed": 1, "seconds": 2}, r"got \['seconds', 'seed'\]: rename them"),
        ({"model": object()}, "expected numbers, text"),
    ],
)
def test_what_is_no_score_is_a_failed_run(path, result, message):
    with pytest.raises(RunsFailed, match=message):
        run_grid(lambda seed: result, Grid({"seed": [0]}), path, progress=False)
    assert len(read_runs(path)) == 0


def test_a_loss_that_ran_away_comes_back_as_it_was(path):
    result = {"loss": float("inf"), "auc": float("nan")}
    table = run_grid(lambda seed: result, Grid({"seed": [0]}), path, progress=False)
    assert table["loss"].tolist() == [np.inf]
    assert table["auc"].isna().all()


def test_several_processes_of_this_machine_share_the_runs(path, tmp_path):
    def whose(seed):
        (tmp_path / f"{os.getpid()}.begun").touch()
        while len(list(tmp_path.glob("*.begun"))) < 2:  # one may be long in starting
            time.sleep(0.02)
        return {"process": os.getpid()}

    table = run_grid(whose, Grid({"seed": range(8)}), path, workers=2, progress=False)
    assert table["seed"].tolist() == list(range(8))
    assert len(set(table["process"]) - {os.getpid()}) == 2


def killing(folder, times):
    """Return a function whose run 2 kills its worker that often, first while run 3 is beside it."""
    beside = folder / "beside"

    def work(seed):
        if seed == 3 and not beside.exists():
            beside.touch()
            time.sleep(WAIT_SECONDS)  # it ends with the other
        killed = len(list(folder.glob("*.killed")))
        if seed == 2 and killed < times:
            while not beside.exists():
                time.sleep(0.02)
            (folder / f"{killed}.killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"score": seed}

    return work


def test_a_run_that_kills_its_worker_fails_alone_and_all_others_get_their_rows(path, tmp_path):
    work = killing(tmp_path, times=2)
    with pytest.raises(RunsFailed, match="1 of 8 runs failed") as info:
        run_grid(work, Grid({"seed": range(8)}), path, workers=2, progress=False)
    assert "{'seed': 2}: a worker process died over this run (out of memory?)" in str(info.value)
    assert sorted(read_runs(path)["seed"]) == [0, 1, 3, 4, 5, 6, 7]
    assert [note["run"] for note in read_failures(path).values()] == [{"seed": 2}]
    table = run_grid(work, Grid({"seed": range(8)}), path, workers=2, progress=False)
    assert table["score"].tolist() == list(range(8))


def test_a_run_whose_worker_dies_once_is_made_by_another(path, tmp_path):
    work = killing(tmp_path, times=1)
    table = run_grid(work, Grid({"seed": range(8)}), path, workers=2, progress=False)
    assert table["score"].tolist() == list(range(8))
    assert read_failures(path) == {}


def test_workers_that_cannot_take_up_a_run_are_told(path, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def work(seed): return {}")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    (tmp_path / "only_here.py").rename(tmp_path / "gone.py")
    with pytest.raises(WorkersLost, match=r"(?s)could not take up a run.*importable"):
        run_grid(only_here.work, Grid({"seed": range(4)}), path, workers=2, progress=False)


def test_a_bar_shows_runs_done_left_and_time(path, capsys):
    run_grid(lambda seed: {}, Grid({"seed": range(2)}), path)
    run_grid(lambda seed: {}, Grid({"seed": range(4)}), path)
    shown = capsys.readouterr().err
    assert "2/4" in shown  # it starts from what was done before
    assert "4/4" in shown
    assert "left=0" in shown
    assert "run/s" in shown


@pytest.mark.parametrize(("workers", "scheduler"), [(0, None), (2, "tcp://127.0.0.1:1")])
def test_workers_are_checked(path, workers, scheduler):
    with pytest.raises(ValueError, match="expected at least 1 worker"):
        run_grid(scores, GRID, path, workers=workers, scheduler=scheduler, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_in_the_middle_and_resume(start, path, tmp_path, workers):
    killed = start(workers=workers, free=8)
    wait_for_rows(path, 5)
    killed.kill()
    killed.wait()
    before = read_runs(path)
    assert 5 <= len(before) < 24
    log = tmp_path / "log.txt"
    makers = {process for _, process in begun(log)}
    wait_until(lambda: not any(psutil.pid_exists(process) for process in makers))
    log.unlink()
    again = start(workers=workers)
    assert again.communicate(timeout=WAIT_SECONDS)[0] == "done\n"
    made_again = [seed for seed, _ in begun(log)]
    assert sorted([*made_again, *before["seed"]]) == list(range(24))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(row["seed"] for row in lines) == list(range(24))


@pytest.mark.slow
def test_two_processes_share_one_table_and_no_run_is_made_twice(start, path, tmp_path):
    processes = [start(makers=2), start(makers=2)]
    for process in processes:
        assert process.communicate(timeout=WAIT_SECONDS)[0] == "done\n"
    assert len(read_runs(path)) == 24
    made = begun(tmp_path / "log.txt")
    assert sorted(seed for seed, _ in made) == list(range(24))
    assert len({process for _, process in made}) == 2


@pytest.mark.slow
def test_the_runs_of_a_killed_process_are_taken_over_by_the_one_beside_it(start, path):
    victim = start(free=0)
    wait_until(lambda: list(path.parent.glob(".rows.jsonl.locks/*")))
    heir = start()
    wait_for_rows(path, 23)  # all but the one that the victim is at
    time.sleep(0.2)
    assert heir.poll() is None
    victim.kill()
    assert heir.communicate(timeout=WAIT_SECONDS)[0] == "done\n"
    assert sorted(read_runs(path)["seed"]) == list(range(24))
    assert not list(path.parent.glob(".rows.jsonl.locks"))


def test_grids_need_no_distributed_and_a_scheduler_says_so(path):
    """None in sys.modules makes the import fail, as it does where the extra is not installed."""
    code = (
        "import sys; sys.modules['distributed'] = None\n"
        "from tlcourse.experiments import Grid, run_grid\n"
        "grid = Grid({'seed': [0]})\n"
        "run_grid(lambda seed: {'x': seed}, grid, sys.argv[1], progress=False)\n"
        "run_grid(lambda seed: {}, Grid({'seed': [1]}), sys.argv[1], scheduler='tcp://127.0.0.1:1')"
    )
    command = [sys.executable, "-c", code, str(path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert "ImportError: a scheduler needs the package distributed: install it" in run.stderr
    assert read_runs(path)["x"].tolist() == [0]

"""A grid on a Dask cluster: a scheduler and worker processes on this machine's loopback."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tlcourse.experiments import Grid, RunsFailed, WorkersLost, read_runs, run_grid

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
GRID = Grid({"seed": range(16)})
WAIT_SECONDS = 600
"""Nothing here takes that long, on however busy a machine."""


class Cluster:
    """`dask scheduler` and `dask worker` as anybody would start them; nothing restarts a worker."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        announced = folder / "scheduler.json"
        self.scheduler = self.start(
            *("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
            *("--scheduler-file", str(announced)),
        )
        wait_until(lambda: announced.exists() and announced.read_text().endswith("}"))
        self.address = json.loads(announced.read_text())["address"]

    def start(self, *arguments):
        command = [sys.executable, "-m", "dask", *arguments]
        log = (self.folder / f"{len(self.processes)}.log").open("w")
        with log:
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def add_worker(self, threads=1):
        return self.start(
            *("worker", self.address, "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"),
            *("--nthreads", str(threads), "--local-directory", str(self.folder)),
        )

    def wait_for_workers(self, count):
        with distributed.Client(self.address, timeout=WAIT_SECONDS, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=WAIT_SECONDS)

    def close(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


def wait_until(condition):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.05)


def soon(condition, action):
    """Do something from another thread as soon as something holds."""

    def wait():
        wait_until(condition)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def logged(tmp_path, held):
    """Return a function for workers that notes in a file who begins which run, and its notes.

    A run goes on once `held` of the processes that began one so far says no: what must happen
    meanwhile happens, however slow the machine is.
    """
    log = tmp_path / "begun.txt"

    def begun():
        text = log.read_text() if log.exists() else ""
        return [tuple(map(int, line.split())) for line in text.splitlines()]

    def work(seed):
        with log.open("a") as file:
            file.write(f"{seed} {os.getpid()}\n")
        while held([process for _, process in begun()]):
            time.sleep(0.05)
        return {"score": seed / 2, "process": os.getpid()}

    return work, begun


@pytest.mark.slow
def test_a_killed_worker_loses_no_row_and_doubles_none(cluster, path, tmp_path):
    victim, other = cluster.add_worker(), cluster.add_worker()
    cluster.wait_for_workers(2)
    mark = victim.pid

    def held(begun):
        # The victim stays in its second run, where it is killed; the other waits until it is there.
        return (begun.count(mark) >= 2) == (os.getpid() == mark)

    work, begun = logged(tmp_path, held)

    def busy():
        begun_by_victim = [seed for seed, process in begun() if process == victim.pid]
        return len(read_runs(path)) >= 4 and len(begun_by_victim) >= 2

    killer = soon(busy, lambda: os.kill(victim.pid, signal.SIGKILL))
    table = run_grid(work, GRID, path, scheduler=cluster.address, progress=False)
    killer.join()
    assert victim.wait() == -signal.SIGKILL
    assert other.poll() is None
    assert table["seed"].tolist() == list(range(16))
    assert table["score"].tolist() == [seed / 2 for seed in range(16)]
    assert len(path.read_text().splitlines()) == 16
    assert set(table["process"]) <= {victim.pid, other.pid}
    # It died over a run, and that run was made by the other.
    begun_twice = {seed for seed, _ in begun() if [s for s, _ in begun()].count(seed) > 1}
    assert begun_twice
    assert set(table["process"][table["seed"].isin(begun_twice)]) == {other.pid}


@pytest.mark.slow
def test_one_worker_with_one_core_is_used_and_one_that_joins_later_too(cluster, path, tmp_path):
    """joblib alone would make all runs in this process when it sees a single core."""
    cluster.add_worker()
    # The third run waits for the worker that joins.
    work, _ = logged(tmp_path, lambda begun: len(begun) > 2 and len(set(begun)) < 2)
    joins = soon(lambda: len(read_runs(path)) >= 2, cluster.add_worker)
    grid = Grid({"seed": range(40)})
    table = run_grid(work, grid, path, scheduler=cluster.address, progress=False)
    joins.join()
    assert set(table["process"]) == {process.pid for process in cluster.processes[1:]}


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "threads"), [(2, 1), (1, 3)])
def test_a_run_that_kills_every_worker_fails_and_the_others_go_on(tmp_path, path, workers, threads):
    """joblib alone would wait forever for a task that Dask gives up.

    Dask gives up what waited on the workers that died, too: with three threads all runs that are
    left.
    """

    def work(seed):
        if seed == 2:
            os._exit(9)
        if seed == 3:
            raise ArithmeticError("on purpose")
        return {"score": seed}

    options = {"n_workers": workers, "threads_per_worker": threads, "dashboard_address": None}
    # `LocalCluster` itself, unlike `dask worker`, drops for good what is not back in 15 seconds.
    patience = {"distributed.deploy.lost-worker-timeout": f"{WAIT_SECONDS}s"}
    with (
        dask.config.set(patience),
        distributed.LocalCluster(local_directory=str(tmp_path), **options) as nannies,
        pytest.raises(RunsFailed, match="2 of 6 runs failed") as info,
    ):
        run_grid(
            work,
            Grid({"seed": range(6)}),
            path,
            scheduler=nannies.scheduler_address,
            progress=False,
        )
    assert "gave this run up: KilledWorker" in str(info.value)
    assert "ArithmeticError: on purpose" in str(info.value)
    assert sorted(read_runs(path)["seed"]) == [0, 1, 4, 5]


@pytest.mark.slow
def test_what_workers_cannot_import_is_told(cluster, path, tmp_path, monkeypatch):
    cluster.add_worker()
    (tmp_path / "only_here.py").write_text("def work(seed): return {}")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    monkeypatch.chdir("/")
    (tmp_path / "only_here.py").rename(tmp_path / "gone.py")
    with pytest.raises(RunsFailed, match="3 of 3 runs failed") as info:
        run_grid(
            only_here.work,
            Grid({"seed": range(3)}),
            path,
            scheduler=cluster.address,
            progress=False,
        )
    assert "only_here" in str(info.value)


@pytest.mark.slow
def test_a_scheduler_that_ends_is_told_and_another_goes_on(cluster, path, tmp_path):
    cluster.add_worker()
    work, _ = logged(tmp_path, lambda begun: len(begun) > 4)
    ends = soon(lambda: len(read_runs(path)) >= 3, cluster.close)
    with pytest.raises(WorkersLost, match="rows that were written are safe"):
        run_grid(work, GRID, path, scheduler=cluster.address, progress=False)
    ends.join()
    assert 3 <= len(read_runs(path)) < 16
    assert len(run_grid(lambda seed: {"score": 0}, GRID, path, progress=False)) == 16


@pytest.mark.slow
def test_a_worker_with_several_threads_makes_one_run_at_a_time(cluster, path):
    cluster.add_worker(threads=3)

    def work(seed):
        began = time.monotonic()
        time.sleep(0.1)
        return {"began": began, "ended": time.monotonic()}

    table = run_grid(
        work, Grid({"seed": range(6)}), path, scheduler=cluster.address, progress=False
    )
    table = table.sort_values("began")
    assert (table["began"].to_numpy()[1:] >= table["ended"].to_numpy()[:-1]).all()


def test_no_scheduler_is_told(path, monkeypatch):
    from tlcourse.experiments import workers

    monkeypatch.setattr(workers, "SCHEDULER_SECONDS", 0.5)
    with pytest.raises(ConnectionError, match=r"tcp://127.0.0.1:1, none answered .*dask scheduler"):
        run_grid(lambda seed: {}, GRID, path, scheduler="tcp://127.0.0.1:1", progress=False)


@pytest.mark.slow
def test_no_worker_is_told(cluster, path, monkeypatch):
    from tlcourse.experiments import workers as module

    monkeypatch.setattr(module, "WORKER_SECONDS", 0.5)
    with pytest.raises(ConnectionError, match=r"no worker for 0.5 s: start some with `dask worker"):
        run_grid(lambda seed: {}, GRID, path, scheduler=cluster.address, progress=False)

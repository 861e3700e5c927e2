import errno
import os
import subprocess
import sys

import pytest

from tlcourse.experiments import Grid, read_failures, read_runs, run_grid
from tlcourse.experiments.journal import Journal
from tlcourse.experiments.table import RunTable

GRID = Grid({"seed": range(4)})


def half(seed):
    return {"score": seed / 2}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


@pytest.fixture
def full_disk(monkeypatch):
    """From the given number of written lines on, half a line fits, then the disk is full."""
    real, written = os.write, []

    def arm(lines):
        def write(descriptor, data):
            if len(written) < lines:
                written.append(1)
                return real(descriptor, data)
            if len(data) > 10:
                return real(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", write)

    return arm


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_no_row_and_its_run_is_made_again(path, cut):
    whole = run_grid(half, GRID, path, progress=False)
    text = path.read_bytes()
    path.write_bytes(text[: -1 - cut])
    assert len(read_runs(path, GRID)) == 3
    made = []
    again = run_grid(lambda seed: made.append(seed) or half(seed), GRID, path, progress=False)
    assert made == [3]
    assert again.drop(columns="seconds").equals(whole.drop(columns="seconds"))
    assert path.read_bytes().count(b"\n") == 4


def test_a_whole_last_line_without_newline_is_kept(path):
    run_grid(half, GRID, path, progress=False)
    text = path.read_bytes()
    path.write_bytes(text[:-1])
    run_grid(lambda seed: pytest.fail("nothing was left to do"), GRID, path, progress=False)
    assert path.read_bytes() == text


def test_a_line_that_another_process_tore_is_cut_before_the_next_row(path):
    with RunTable(path) as mine:
        mine.add({"key": "a"})
        with path.open("ab") as other:
            other.write(b'{"key": "b", "sc')
        mine.add({"key": "c"})
    assert read_runs(path)["key"].tolist() == ["a", "c"]


def test_readers_pass_over_a_line_in_the_making_and_write_nothing(path):
    path.write_bytes(b'{"key": "a"}\n{"key": "b"')
    assert read_runs(path)["key"].tolist() == ["a"]
    assert path.read_bytes() == b'{"key": "a"}\n{"key": "b"'
    assert [p.name for p in path.parent.iterdir()] == ["rows.jsonl"]


def test_a_full_disk_leaves_no_half_row_and_says_what_to_do(path, full_disk, monkeypatch):
    full_disk(2)
    with pytest.raises(
        OSError, match=r"rows.jsonl .*No space left.*make room.*start again"
    ) as info:
        run_grid(half, GRID, path, progress=False)
    assert info.value.errno == errno.ENOSPC
    content = path.read_bytes()
    assert content.count(b"\n") == 2
    assert content.endswith(b"\n")
    monkeypatch.undo()
    assert run_grid(half, GRID, path, progress=False)["score"].tolist() == [0, 0.5, 1, 1.5]


def test_a_disk_that_refuses_at_the_end_leaves_no_row(path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        run_grid(half, GRID, path, progress=False)
    assert path.read_bytes() == b""


def test_a_full_disk_is_told_by_a_claim_too_and_by_several_workers(path, monkeypatch):
    """joblib asks for the next run in a thread of its own, where an error would be lost."""
    from tlcourse.experiments import journal

    real, taken = journal.RunLocks.take, []

    def take(self, key):
        taken.append(key)
        if len(taken) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, key)

    monkeypatch.setattr(journal.RunLocks, "take", take)
    with pytest.raises(OSError, match="make room on the disk"):
        run_grid(half, GRID, path, workers=2, progress=False)
    assert len(read_runs(path)) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
def test_a_file_that_may_not_grow_keeps_its_whole_rows(path):
    """No patched function: the system itself writes half a line and refuses the rest."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from tlcourse.experiments.journal import Journal\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for n in range(100): journal.append({'key': str(n), 'text': 'x' * 100})\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert "File too large" in run.stderr
    assert len(Journal(path).refresh()) == 8
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"key": "a"}\nnonsense\n{"key": "b"}\n', "line 2: expected a JSON object.*mend"),
        (b'{"key": "a"}\n\x00\x00\x00\n', "line 2: expected a JSON object"),
        (b'{"key": "a"}\n{"key": "a"}\n', "row 2: expected one row for each run.*'a' again"),
        (b'{"name": "a"}\n', "row 1: .*got key None"),
    ],
)
def test_what_is_no_row_is_named_and_nothing_is_run(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        run_grid(half, GRID, path, progress=False)
    assert path.read_bytes() == content


def test_a_table_that_shrinks_in_use_is_told(path):
    with RunTable(path) as table:
        table.add({"key": "a"})
        path.write_bytes(b"")
        with pytest.raises(ValueError, match="was cut or removed while it was in use"):
            table.rows()


def test_a_run_has_one_row_however_often_it_is_added(path):
    with RunTable(path) as one, RunTable(path) as other:
        assert one.add({"key": "a", "score": 1})
        assert not other.add({"key": "a", "score": 2})
        assert not other.lock("a")
    assert read_runs(path)["score"].tolist() == [1]


def test_a_run_is_claimed_by_one_until_it_fails(path):
    with RunTable(path) as one, RunTable(path) as other:
        assert one.lock("a")
        assert not other.lock("a")
        assert not one.lock("a")
        one.fail({"key": "a", "error": "ValueError: boom"})
        assert other.lock("a")
    assert read_failures(path)["a"]["error"] == "ValueError: boom"
    assert sorted(p.name for p in path.parent.iterdir() if not p.name.endswith(".lock")) == [
        "rows.failures.jsonl",
    ]


def test_claims_of_killed_processes_are_tidied_up_and_those_of_living_ones_kept(path):
    folder = path.with_name(".rows.jsonl.locks")
    folder.mkdir()
    (folder / "dead.lock").touch()
    with RunTable(path) as one:
        assert one.lock("alive")
        with RunTable(path):
            pass
        assert [lock.name for lock in folder.iterdir()] == ["alive.lock"]
    assert not folder.exists()


def test_only_jsonl_is_a_working_table(tmp_path):
    with pytest.raises(ValueError, match=r"ends in .jsonl, got .*rows.csv"):
        run_grid(half, GRID, tmp_path / "rows.csv", progress=False)

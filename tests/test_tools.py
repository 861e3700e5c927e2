import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools import bootstrap, lessons

TEXT = """# %% [markdown]
# # Title

# %% tags=["instructor"]
print("for the room only")

# %% tags=["exercise"]
# BEGIN SOLUTION
answer = 42
# STUB: answer = ...  # six times seven
# END SOLUTION
print("both")
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "00_try.py"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_the_learner_gets_the_stub(source):
    book = lessons.learner_copy(source)
    assert book.cells[1].source == 'answer = ...  # six times seven\nprint("both")'


def test_the_solution_copy_has_the_solution(source):
    book = lessons.solution_copy(source)
    assert book.cells[1].source == 'answer = 42\nprint("both")'


def test_instructor_cells_are_in_neither(source):
    for book in (lessons.learner_copy(source), lessons.solution_copy(source)):
        assert not any("room" in cell.source for cell in book.cells)


def test_ids_are_stable_and_unique(source):
    ids = [cell.id for cell in lessons.learner_copy(source).cells]
    assert ids == [cell.id for cell in lessons.learner_copy(source).cells]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "text",
    [
        "# BEGIN SOLUTION\na = 1\n# STUB: a = ...",
        "# BEGIN SOLUTION\na = 1\n# END SOLUTION",
        "# END SOLUTION",
        "# BEGIN SOLUTION\n# BEGIN SOLUTION\n# STUB: a = ...\n# END SOLUTION",
    ],
)
def test_broken_markers_are_an_error(text):
    with pytest.raises(ValueError, match=r"SOLUTION|marker"):
        lessons.lines(text)


def test_a_changed_copy_is_noticed(source, tmp_path):
    made = lessons.learner_copy(source)
    lessons.write(made, tmp_path / "copy.ipynb")
    assert lessons.same_cells(made, tmp_path / "copy.ipynb")
    changed = nbformat.read(tmp_path / "copy.ipynb", as_version=4)
    changed.cells[1].source += "\n# edited by hand"
    lessons.write(changed, tmp_path / "copy.ipynb")
    assert not lessons.same_cells(made, tmp_path / "copy.ipynb")


def test_outputs_survive_new_prose_but_not_new_code(source, tmp_path):
    ran = lessons.solution_copy(source)
    ran.cells[1].outputs = [nbformat.v4.new_output("stream", text="both")]
    lessons.write(ran, tmp_path / "ran.ipynb")
    source.write_text(TEXT.replace("# Title", "# Another title"), encoding="utf-8")
    rewritten = lessons.solution_copy(source)
    assert lessons.carry_outputs(rewritten, tmp_path / "ran.ipynb")
    assert rewritten.cells[1].outputs[0].text == "both"
    source.write_text(TEXT.replace("42", "43"), encoding="utf-8")
    assert not lessons.carry_outputs(lessons.solution_copy(source), tmp_path / "ran.ipynb")


def test_progress_bars_leave_no_broken_widget():
    view = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "50%"}
    outputs = [
        nbformat.v4.new_output("display_data", data=view),
        nbformat.v4.new_output("stream", text="kept"),
    ]
    cell = nbformat.v4.new_code_cell("1", outputs=outputs)
    lessons.drop_dead_widgets(cell)
    assert [output.output_type for output in cell.outputs] == ["stream"]


def test_bootstrap_names_its_commands():
    path = Path(bootstrap.__file__)
    run = subprocess.run([sys.executable, path, "dance"], capture_output=True, text=True)
    assert run.returncode == 2
    assert "expected one of: setup, lab, test, run, doctor" in run.stderr


def test_bootstrap_needs_only_the_standard_library():
    # -S -I: no site-packages, as on a fresh machine
    path = Path(bootstrap.__file__)
    run = subprocess.run([sys.executable, "-I", "-S", path], capture_output=True, text=True)
    assert "expected one of" in run.stderr


def test_an_old_python_is_told_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert bootstrap.main(["setup"]) == 2
    assert "needs Python 3.11 or newer, this is 3.9" in capsys.readouterr().err


def test_a_stamp_belongs_to_one_lock(monkeypatch, tmp_path):
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text("a")
    (tmp_path / "requirements.lock").write_text("torch==1")
    first = bootstrap.stamp("requirements.lock")
    (tmp_path / "requirements.lock").write_text("torch==2")
    assert bootstrap.stamp("requirements.lock") != first


def test_lab_is_told_not_to_fetch_news(tmp_path):
    bootstrap.write_lab_settings(tmp_path)
    (path,) = tmp_path.rglob("*.jupyterlab-settings")
    assert '"fetchNews": "false"' in path.read_text()


LOCK = """nvidia-nvtx==1.0 ; sys_platform == 'linux' \\
    --hash=sha256:aa
    # via torch
torch==2.14.1 \\
    --hash=sha256:bb
    # via cuda-pathfinder, triton
triton==3.0 \\
    --hash=sha256:cc
tqdm==4.1 \\
    --hash=sha256:dd
"""


def test_a_cpu_torch_needs_nothing_of_cuda():
    left = bootstrap.without_cuda(LOCK)
    assert re.findall(r"^(\S+)==", left, flags=re.M) == ["torch", "tqdm"]
    assert re.findall(r"sha256:(\w+)", left) == ["bb", "dd"]
    real = (bootstrap.ROOT / "requirements.lock").read_text(encoding="utf-8")
    names = re.findall(r"^([A-Za-z0-9_.-]+)==", real, flags=re.M)
    kept = re.findall(r"^([A-Za-z0-9_.-]+)==", bootstrap.without_cuda(real), flags=re.M)
    assert {"torch", "torchvision", "numpy"} <= set(kept) < set(names)
    assert not [name for name in kept if name.startswith(("nvidia", "cuda", "triton"))]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with a lock, and every call to another program written down in its place."""
    calls = []
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "PYTHON", tmp_path / ".venv" / "python")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "python").touch()
    (tmp_path / "requirements.lock").write_text(LOCK)
    (tmp_path / "pyproject.toml").write_text("")

    def run(command, **_options):
        calls.append([str(part) for part in command])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(bootstrap.subprocess, "run", run)
    return calls


def test_set_up_is_done_once_with_hashes_checked(checkout, tmp_path):
    bootstrap.install("requirements.lock")
    assert "--require-hashes" in checkout[0]
    assert len(checkout) == 2
    bootstrap.install("requirements.lock")
    assert len(checkout) == 2, "nothing is installed a second time"
    (tmp_path / "requirements.lock").write_text(LOCK + "# changed\n")
    bootstrap.install("requirements.lock")
    assert len(checkout) == 4


def test_a_cpu_torch_that_is_there_is_kept(checkout, tmp_path):
    (tmp_path / ".venv/lib/python3/site-packages/torch-2.14.1+cpu.dist-info").mkdir(parents=True)
    bootstrap.install("requirements.lock")
    wanted = tmp_path / ".venv" / "wanted.txt"
    assert str(wanted) in checkout[0]
    assert "nvidia" not in wanted.read_text()


def test_the_checkpoint_is_looked_for_where_torch_hub_puts_it(monkeypatch, tmp_path):
    from tlcourse.backbones import checkpoint_path

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert bootstrap.checkpoint() == checkpoint_path("mobilenet_v2")
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert bootstrap.checkpoint() == checkpoint_path("mobilenet_v2")


def test_what_was_fetched_is_fetched_again_when_it_is_gone(checkout, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    bootstrap.checkpoint().parent.mkdir(parents=True)
    bootstrap.checkpoint().touch()
    assert [bootstrap.fetch_once(), bootstrap.fetch_once()] == [0, 0]
    assert len(checkout) == 1, "nothing is fetched a second time"
    bootstrap.checkpoint().unlink()
    bootstrap.fetch_once()
    assert checkout[1][1:] == ["-m", "tlcourse", "fetch"]

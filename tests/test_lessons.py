"""What must hold of every lesson: shape, plain text, copies in step with their source."""

import ast
import re

import jupytext
import nbformat
import pytest

from tools import lessons

SOURCES = lessons.sources()
IDS = [source.stem for source in SOURCES]
each_lesson = pytest.mark.parametrize("source", SOURCES, ids=IDS)
FORBIDDEN = {
    r"^\s*[%!]": "magics and shell lines",
    r"\bpip\b": "pip",
    r"sys\.path": "sys.path",
    r"['\"](?:/|~|[A-Z]:\\|\.\./)": "paths",
    r"0\.485|0\.456|0\.229": "hard-coded normalisation",
    r"/\s*255": "hard-coded normalisation",
    r"warnings\.(?:filter|simplefilter)": "silenced warnings",
    r"pretrained\s*=\s*True": "the old torchvision argument",
}


def cells(source, kind=None):
    read = jupytext.read(source, fmt="py:percent").cells
    return [cell for cell in read if kind in (None, cell.cell_type)]


def prose(source):
    return "\n\n".join(cell.source for cell in cells(source, "markdown"))


def tags(cell):
    return set(cell.metadata.get("tags", []))


def test_there_are_lessons():
    assert IDS[:4] == [
        "00_meet_the_problem",
        "01_reuse_features",
        "02_see_what_each_layer_learned",
        "03_replace_the_head",
    ]


def test_copies_are_in_step_with_their_sources():
    assert lessons.out_of_step() == [], "run: make lessons"


@each_lesson
def test_shape(source):
    everything = [c for c in cells(source) if "instructor" not in tags(c)]
    assert len(everything) <= 40
    assert len(re.findall(r"^# ", prose(source), flags=re.M)) == 1
    assert everything[0].source.startswith("# ")
    for part in ("What you will be able to do", "What you need", "Minutes"):
        assert part in everything[0].source, f"the first cell lacks: {part}"
    for part in ("## Key points", "## Further reading"):
        assert part in prose(source), f"missing: {part}"


@each_lesson
def test_prose_is_short(source):
    shown = [c.source for c in cells(source, "markdown") if "instructor" not in tags(c)]
    assert sum(len(text.split()) for text in shown) <= 1600
    for text in shown[1:]:
        if not text.startswith(("## Key points", "## Further reading")):
            assert len(text.split()) <= 130, text[:60]


@each_lesson
def test_code_cells_are_short(source):
    sizes = []
    for cell in cells(source, "code"):
        made = [lessons.learner_text(cell.source), lessons.solution_text(cell.source)]
        sizes.append(max(len(text.splitlines()) for text in made))
    assert max(sizes) <= 15
    assert sorted(sizes)[len(sizes) // 2] <= 8


@each_lesson
def test_nothing_forbidden_in_code(source):
    for cell in cells(source, "code"):
        for pattern, what in FORBIDDEN.items():
            assert not re.search(pattern, cell.source, flags=re.M), f"{what} in: {cell.source}"


@each_lesson
def test_no_measured_figure_is_typed_into_prose(source):
    """Scores are printed by cells. Settings (in backticks or formulas) and papers may stay."""
    for cell in cells(source, "markdown"):
        if cell.source.startswith("## Further reading") or "instructor" in tags(cell):
            continue
        text = re.sub(r"`[^`]*`|\$[^$]*\$|\([^)]*\d{4}[^)]*\)", "", cell.source)
        assert not re.search(r"(?<![\d.])[01]?\.\d{2,}", text), cell.source
        assert not re.search(r"\d+(?:\.\d+)? ?%", text), cell.source


@each_lesson
def test_exercises_have_checks_that_stand_alone(source):
    code = cells(source, "code")
    exercises = [c for c in code if lessons.BEGIN in c.source]
    checks = [c for c in code if "check" in tags(c)]
    assert 2 <= len(exercises) <= 4
    assert len(checks) == len(exercises)
    for cell in exercises:
        assert "exercise" in tags(cell)
    assert len(re.findall(r"^### Exercise \d+ \(\d+ minutes?\)", prose(source), flags=re.M)) == len(
        exercises
    )


@each_lesson
def test_no_later_cell_needs_an_answer(source):
    """What an exercise binds is used by its own check only, so that blanks break nothing."""
    code = cells(source, "code")
    for index, cell in enumerate(code):
        if lessons.BEGIN not in cell.source:
            continue
        tree = ast.parse(lessons.solution_text(cell.source))
        bound = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
        bound |= {
            t.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for t in node.targets
            if isinstance(t, ast.Name)
        }
        for later in code[index + 1 :]:
            if "check" in tags(later):
                continue
            used = {n.id for n in ast.walk(ast.parse(later.source)) if isinstance(n, ast.Name)}
            assert not bound & used, f"{bound & used} of an exercise is used later"


@each_lesson
def test_claims_are_asserted(source):
    asserting = [
        c for c in cells(source, "code") if re.search(r"^\s*assert ", c.source, flags=re.M)
    ]
    assert len(asserting) >= 3


@each_lesson
def test_learner_copy_holds_no_outputs_and_no_solution(source):
    book = nbformat.read(lessons.LEARNER / f"{source.stem}.ipynb", as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert not any("SOLUTION" in cell.source or "STUB" in cell.source for cell in book.cells)
    assert book.metadata.kernelspec.name == "python3"


@each_lesson
def test_solution_copy_was_run_and_every_check_passed(source):
    book = nbformat.read(lessons.SOLUTIONS / f"{source.stem}.ipynb", as_version=4)
    for cell in (c for c in book.cells if c.cell_type == "code"):
        assert cell.execution_count, "a cell was not run"
        assert not any(output.output_type == "error" for output in cell.outputs)
        if "check" in tags(cell):
            assert "✔ Right" in str(cell.outputs), cell.source


@each_lesson
def test_solution_outputs_hold_no_machine_path_and_no_noise(source):
    text = (lessons.SOLUTIONS / f"{source.stem}.ipynb").read_text(encoding="utf-8")
    assert str(lessons.ROOT) not in text
    assert not re.search(r"(?<![\w.])/(?:root|home|Users|tmp|work)/", text)
    book = nbformat.reads(text, as_version=4)
    noise = [
        output.text
        for cell in book.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr"
    ]
    assert noise == []


@each_lesson
def test_every_picture_has_alt_text(source):
    book = nbformat.read(lessons.SOLUTIONS / f"{source.stem}.ipynb", as_version=4)
    for cell in book.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                alt = output.metadata.get("image/png", {}).get("alt")
                assert alt or "alt=" in data.get("text/html", ""), cell.source


def test_the_readme_lists_every_lesson_with_its_minutes():
    readme = (lessons.ROOT / "README.md").read_text(encoding="utf-8")
    for source in SOURCES:
        first = cells(source)[0].source
        title = first.splitlines()[0].removeprefix("# ")
        minutes = re.search(r"Minutes\D+(\d+)", first).group(1)
        assert re.search(
            rf"\| *\[{re.escape(title)}\]\(notebooks/{source.stem}\.ipynb\) *\|.*\| *{minutes} *\|",
            readme,
        ), f"README's table lacks: [{title}] with {minutes} minutes"

"""Draw the rooms of `tlcourse/` and list who imports whom, from the imports themselves.

On which floor a room stands is said by the table of docs/architecture.md alone; the picture
(docs/architecture.svg) and the list between the page's markers are made from it and the imports.

    python -m tools.architecture            # writes both
    python -m tools.architecture --check    # writes nothing; says whether they are in step
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "architecture.svg"
OWN = ("tlcourse", "studies", "tools", "benchmarks")
BEGIN, END = "<!-- imports: made by `python -m tools.architecture` -->\n", "<!-- end of imports -->"

Arrows = dict[str, set[str]]
"""Names of rooms or modules, with the names of those that each imports."""


class Room(NamedTuple):
    """What the page's table says of a room."""

    floor: int
    holds: str


def rooms() -> dict[str, Room]:
    """Read the rooms, by floor, from the table of the page.

    Raises:
        ValueError: If a row does not say of each of its rooms what it holds.
    """
    found = {}
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \|", PAGE.read_text("utf-8"), flags=re.M)
    for floor, names, holds in rows:
        listed, texts = re.findall(r"`(\w+)`", names), holds.split(";")
        if len(listed) != len(texts):
            raise ValueError(
                f"{PAGE.name}, floor {floor}: expected what each of {len(listed)} rooms holds, "
                f"divided by semicolons, got {len(texts)}: {holds!r}"
            )
        for name, text in zip(listed, texts, strict=True):
            found[name] = Room(int(floor), text.strip().replace("`", ""))
    return found


def modules(building: str = "tlcourse") -> list[Path]:
    """List the Python files of a building."""
    return sorted((ROOT / building).rglob("*.py"))


def dotted(path: Path) -> str:
    """Name a file as imports do.

    >>> dotted(ROOT / "tlcourse" / "freezing" / "__init__.py")
    'tlcourse.freezing'
    """
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """Name the room of a module.

    >>> room_of("tlcourse.backbones.stages")
    'backbones'
    """
    return module.split(".")[1]


def imported(path: Path) -> set[str]:
    """Name this repository's modules that a file imports, wherever in the file.

    Raises:
        ValueError: If an import is relative.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise ValueError(f"{path}: expected imports in full, got a relative one")
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if _is_module(name) else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= set(re.findall(r"\w+(?:\.\w+)+", ast.unparse(node.args[0])))
    return {name for name in found if name.split(".")[0] in OWN} - {"tlcourse"}


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def arrows() -> Arrows:
    """Return for each room the others that it imports."""
    found: Arrows = {name: set() for name in rooms()}
    for path in modules():
        if path.parent.name != "tlcourse" or path.stem != "__init__":
            own = room_of(dotted(path))
            found[own] |= {room_of(name) for name in imported(path)} - {own}
    return found


def reduced(found: Mapping[str, set[str]]) -> Arrows:
    """Leave out arrows that a longer way of arrows implies.

    >>> reduced({"fit": {"batches", "files"}, "batches": {"files"}, "files": set()})["fit"]
    {'batches'}
    """
    below: Arrows = {}

    def reached(name: str) -> set[str]:
        if name not in below:
            below[name] = set().union(*({other} | reached(other) for other in found[name]))
        return below[name]

    return {
        name: others - set().union(*(reached(other) for other in others))
        for name, others in found.items()
    }


def listed(found: Mapping[str, set[str]]) -> str:
    """Return the table of who imports whom, from the top floor down."""
    order = list(rooms())
    lines = ["| room | imports | is imported by |", "|---|---|---|"]
    for name in reversed(order):
        users = [other for other in order if name in found[other]]
        used = [other for other in order if other in found[name]]
        cells = (" ".join(f"`{room}`" for room in row) or "-" for row in (used, users))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


WIDTH, LEFT, FLOOR = 1060, 64, 92
"""Pixels: of the picture, of the column of floor numbers, from one floor to the next."""
BOX, TALL, GAP = 158, 44, 16
"""Pixels: width and height of a room, and between neighbours."""
LANE = 10
"""Width of the lane in which an arrow passes a floor."""

Lane = tuple[str, str, int]
"""Where an arrow passes a floor: from, to, the floor."""
Place = str | Lane


@dataclass
class Layout:
    """Rooms, and lanes of arrows that pass them by, in their order on each floor.

    Attributes:
        floors: Places from left to right, by floor.
        links: Pairs of places on neighbouring floors, upper first.
        x: The middle of each place in pixels.
    """

    floors: list[list[Place]]
    links: list[tuple[Place, Place]]
    x: dict[Place, float] = field(default_factory=dict)

    def crossings(self) -> int:
        """Count the pairs of links that cross."""
        at = {place: (n, i) for n, floor in enumerate(self.floors) for i, place in enumerate(floor)}
        ends = [(*at[one], at[other][1]) for one, other in self.links]
        return sum(
            floor == other and (a - c) * (b - d) < 0
            for (floor, a, b), (other, c, d) in combinations(ends, 2)
        )

    def neighbours(self) -> dict[Place, list[Place]]:
        """Return the places that each is linked with."""
        found: dict[Place, list[Place]] = defaultdict(list)
        for one, other in self.links:
            found[one].append(other)
            found[other].append(one)
        return found


def laid_out(found: Mapping[str, set[str]]) -> Layout:
    """Order the rooms on their floors so that few arrows cross; deterministic."""
    stands = {name: room.floor for name, room in rooms().items()}
    floors: list[list[Place]] = [[] for _ in range(max(stands.values()) + 1)]
    for name, floor in stands.items():
        floors[floor].append(name)
    links: list[tuple[Place, Place]] = []
    for name, others in sorted(found.items()):
        for other in sorted(others):
            passed = range(stands[name] - 1, stands[other], -1)
            lanes: list[Lane] = [(name, other, floor) for floor in passed]
            for lane in lanes:
                floors[lane[2]].append(lane)
            links += pairwise([name, *lanes, other])
    layout = Layout(floors, links)
    _untangle(layout)
    _place(layout)
    return layout


def _untangle(layout: Layout) -> None:
    """Swap neighbours as long as fewer arrows cross, from several orders of each floor."""
    linked, best = layout.neighbours(), (layout.crossings(), layout.floors)
    for sweep in range(12):
        order = range(len(layout.floors))
        for number in order if sweep % 2 else reversed(order):
            at = {p: i / len(f) for f in layout.floors for i, p in enumerate(f)}
            layout.floors[number] = sorted(
                layout.floors[number], key=lambda p: np.mean([at[q] for q in linked[p]] or [at[p]])
            )
        _swap(layout)
        best = min(best, (layout.crossings(), [[*f] for f in layout.floors]), key=lambda b: b[0])
    layout.floors = best[1]


def _swap(layout: Layout) -> None:
    least = layout.crossings()
    for floor in layout.floors:
        for i in range(len(floor) - 1):
            floor[i], floor[i + 1] = floor[i + 1], floor[i]
            if (now := layout.crossings()) < least:
                least = now
            else:
                floor[i], floor[i + 1] = floor[i + 1], floor[i]


def _place(layout: Layout) -> None:
    """Move each place as near to the middle of its neighbours as the others on its floor allow."""
    linked = layout.neighbours()
    middle = LEFT + (WIDTH - LEFT) / 2
    for floor in layout.floors:
        _pack(layout, floor, dict.fromkeys(floor, middle))
    for _ in range(60):
        for floor in layout.floors:
            wanted = {p: np.mean([layout.x[q] for q in linked[p]] or [layout.x[p]]) for p in floor}
            _pack(layout, floor, {p: float(x) for p, x in wanted.items()})
    layout.x = {place: round(x) for place, x in layout.x.items()}


def _pack(layout: Layout, floor: list[Place], wanted: Mapping[Place, float]) -> None:
    half = [(BOX if isinstance(place, str) else LANE) / 2 for place in floor]
    apart = np.cumsum([0.0, *(a + b + GAP for a, b in pairwise(half))])
    weights = [1.0 if isinstance(place, str) else 3.0 for place in floor]  # long arrows straight
    given = np.array([wanted[place] for place in floor]) - apart
    packed = isotonic_regression(given, weights=weights).x
    lowest, highest = LEFT + half[0], WIDTH - GAP - half[-1] - apart[-1]
    for place, x in zip(floor, np.clip(packed, lowest, highest) + apart, strict=True):
        layout.x[place] = float(x)


BACK, LINE, INK, QUIET, ARROW = "#f4f6f8", "#5a7184", "#1d2b36", "#5b6770", "#7d8f9c"


def drawn(found: Mapping[str, set[str]]) -> str:
    """Return the picture as SVG: rooms as boxes on floors, an arrow to what each imports.

    Arrows that a longer way implies are left out; the page's list has them all.
    """
    layout, known = laid_out(reduced(found)), rooms()
    top = len(layout.floors) - 1
    height = FLOOR * (top + 1)
    parts = [_band(floor, top) for floor in range(top, -1, -1)]
    parts += [_arrow(layout, path, top) for path in _ways(layout)]
    parts += [_box(name, layout.x[name], known[name], top) for name in known]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="Helvetica, Arial, sans-serif" text-anchor="middle">',
            "<title>Rooms of tlcourse on their floors, with arrows to what each imports</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="{LINE}"/></marker>',
            "</defs>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _top_of(floor: int, top: int) -> float:
    """Return where the boxes of a floor begin, in pixels from above."""
    return (top - floor) * FLOOR + (FLOOR - TALL) / 2


def _band(floor: int, top: int) -> str:
    y = (top - floor) * FLOOR
    shade = BACK if floor % 2 else "#ffffff"
    return f'<rect y="{y}" width="{WIDTH}" height="{FLOOR}" fill="{shade}"/>' + _text(
        str(floor), LEFT / 2, y + FLOOR / 2 + 7, 20, QUIET
    )


def _text(text: str, x: float, y: float, size: int, colour: str, weight: str = "normal") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" fill="{colour}">'
        f"{escape(text)}</text>"
    )


def _box(name: str, x: float, room: Room, top: int) -> str:
    y = _top_of(room.floor, top)
    return (
        f'<rect x="{x - BOX / 2:g}" y="{y:g}" width="{BOX}" height="{TALL}" rx="6" fill="#ffffff" '
        f'stroke="{LINE}"/>'
        + _text(name, x, y + 18, 15, INK, "bold")
        + _text(room.holds, x, y + 35, 11, QUIET)
    )


def _ways(layout: Layout) -> list[list[Place]]:
    """Return each arrow as the places it goes through, from room to room."""
    after: dict[Place, list[Place]] = defaultdict(list)
    for one, other in layout.links:
        after[one].append(other)
    ways: list[list[Place]] = []
    for one, other in layout.links:
        if isinstance(one, str):
            way = [one, other]
            while not isinstance(way[-1], str):
                way += after[way[-1]]
            ways.append(way)
    return ways


def _arrow(layout: Layout, way: list[Place], top: int) -> str:
    floors = {place: n for n, floor in enumerate(layout.floors) for place in floor}
    first, last = way[0], way[-1]
    x, y = _port(layout, first, way[1]), _top_of(floors[first], top) + TALL
    path = f"M{x:g} {y:g}"
    for place in way[1:]:
        to_x = _port(layout, last, way[-2]) if place == last else layout.x[place]
        to_y = _top_of(floors[place], top)
        path += f"C{x:g} {y + 24:g} {to_x:g} {to_y - 24:g} {to_x:g} {to_y:g}"
        if place != last:
            path += f"V{to_y + TALL:g}"
        x, y = to_x, to_y + TALL
    return (
        f'<path d="{path}" fill="none" stroke="{ARROW}" stroke-width="1.6" marker-end="url(#tip)"/>'
    )


def _port(layout: Layout, room: Place, towards: Place) -> float:
    """Return where an arrow touches a room: beside the others on that side, in their order."""
    above = {a for a, b in layout.links if b == room}
    side = above if towards in above else {b for a, b in layout.links if a == room}
    order = sorted(side, key=lambda place: (layout.x[place], str(place)))
    step = min(22, (BOX - 20) / len(order))
    return layout.x[room] + step * (order.index(towards) - (len(order) - 1) / 2)


def made() -> dict[Path, str]:
    """Return what both files are to hold.

    Raises:
        ValueError: If the page lacks the markers.
    """
    found, page = arrows(), PAGE.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE}: expected the lines {BEGIN!r} and {END!r}")
    return {PAGE: f"{before}{BEGIN}{listed(found)}{END}{after}", PICTURE: drawn(found)}


def stale() -> list[Path]:
    """Return the files that do not hold what they should."""
    return [
        path
        for path, text in made().items()
        if not path.is_file() or path.read_text("utf-8") != text
    ]


def main(arguments: list[str]) -> int:
    """Write both files, or with --check compare them."""
    parser = argparse.ArgumentParser(prog="python -m tools.architecture")
    parser.add_argument("--check", action="store_true", help="write nothing, list stale files")
    changed = stale()
    if parser.parse_args(arguments).check:
        print(
            "\n".join(
                [*(path.name for path in changed), "run: make lessons"] if changed else ["in step"]
            )
        )
        return 1 if changed else 0
    for path in changed:
        path.write_text(made()[path], encoding="utf-8")
        print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

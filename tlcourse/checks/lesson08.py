"""Checks of lesson 08, Use it on your own images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tlcourse.checks.core import call, check, check_letters, close, number, require

FILE_NAMES = ("slide03_cell031.png", "slide07_cell002.jpg", "slide12_cell110.png")
SLIDES = (3, 7, 12)


@check('the number between "slide" and the underscore: take the part before "_", cut "slide" off')
def check_slide_of(function: Callable[[str], int]) -> str:
    """Check a function that reads the number of the slide from a file's name."""
    answers = [call(function, name) for name in FILE_NAMES]
    first = answers[0]
    require(
        not isinstance(first, str),
        f"{FILE_NAMES[0]} gives the text {first!r}: make a number of it, int(...)",
    )
    found = [number(answer, f"the slide of {FILE_NAMES[0]}") for answer in answers]
    require(found != [31, 2, 110], "those are the cells: each image would be a group of its own")
    require(
        found != [0, 0, 1] and found != [3, 7, 2],
        f"{FILE_NAMES[2]} gives {found[2]:g}: a number of a slide may have more digits, and zeros",
    )
    require(len(set(found)) > 1, f"every name gives {found[0]:g}: all images would be one group")
    for name, slide, expected in zip(FILE_NAMES, found, SLIDES, strict=True):
        require(slide == expected, f"{name}: expected {expected}, got {slide:g}")
    same = call(function, "slide07_cell099.png")
    require(same == found[1], f"two cells of slide 7 get {found[1]:g} and {same}")
    return "what shares a number stays on one side; where names tell nothing, keep a table"


CHANGES = {
    "A": "A only goes on: that is what the checkpoint is for, as often as you like",
    "B": "B is another training: the schedule would have other steps, from the first one on",
    "C": "C is another training: it would have seen two versions of one image",
    "D": "D is the same training: the images count, not where they lie",
    "E": "E is another training: another head to start from, another order",
}


@check("three of the five: with which of them could the two halves not be one training?")
def check_refused(answer: str) -> str:
    """Check which second calls, by letter, are refused as another training; such as "AB"."""
    more = "what else would change the steps already made?"
    return check_letters(answer, CHANGES, frozenset("BCE"), verdict="is let through", more=more)


@check("images times the numbers of one image (np.prod of the shape) times 4 bytes")
def check_cache_bytes(function: Callable[[int, tuple[int, ...]], Any]) -> str:
    """Check the bytes that cached float32 activations of images take."""
    flat = number(call(function, 1000, (1280,)), "the bytes")
    maps = number(call(function, 1000, (96, 4, 4)), "the bytes")
    right_flat, right_maps = 4.0 * 1000 * 1280, 4.0 * 1000 * 96 * 16
    require(not close(flat, right_flat / 4), "those are numbers: each float32 takes 4 bytes")
    require(not close(flat, 2 * right_flat), "that is for float64: a float32 takes 4 bytes, not 8")
    require(not close(flat, 8 * right_flat), "those are bits: a float32 is 32 bits, 4 bytes")
    require(not close(flat, right_flat / 1000), "that is one image: multiply by the images")
    require(
        not close(flat, 4.0 * 1000),
        "the shape is left out: how many numbers has the answer for one image?",
    )
    require(close(flat, right_flat), f"1000 images of (1280,): expected {right_flat:g}, got {flat}")
    for wrong, what in (
        (4.0 * 1000 * 96, "only the channels count there, not the 4 x 4 places of each map"),
        (4.0 * 1000 * (96 + 4 + 4), "the sides of the shape are added: multiply them"),
        (4.0 * 1000 * 3, "that is the length of the shape: multiply what stands in it"),
    ):
        require(not close(maps, wrong), f"shape (96, 4, 4): {what}")
    require(close(maps, right_maps), f"shape (96, 4, 4): expected {right_maps:g}, got {maps}")
    return f"at 100,000 images, {4 * 100_000 * np.prod((1280,)) / 1e6:.0f} MB against 614 for maps"

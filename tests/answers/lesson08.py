"""Right, blank and wrong answers to the exercises of lesson 08."""

import re

import numpy as np

from tlcourse.checks import lesson08


def slide_of(name):
    return int(name.split("_")[0].removeprefix("slide"))


def cache_bytes(images, shape):
    return images * np.prod(shape) * 4


def digits(name):
    return re.findall(r"\d+", name)


RIGHT = [
    (lesson08.check_slide_of, slide_of),
    (lesson08.check_slide_of, lambda name: int(name[5:7])),
    (lesson08.check_refused, "BCE"),
    (lesson08.check_refused, "e, c, b"),
    (lesson08.check_cache_bytes, cache_bytes),
    (lesson08.check_cache_bytes, lambda images, shape: 4 * images * int(np.prod(shape))),
]
BLANK = [
    (lesson08.check_slide_of, lambda name: ...),
    (lesson08.check_refused, ...),
    (lesson08.check_cache_bytes, lambda images, shape: ...),
]
WRONG = [
    (lesson08.check_slide_of, lambda name: name[:7], "make a number"),
    (lesson08.check_slide_of, lambda name: digits(name)[0], "make a number"),
    (lesson08.check_slide_of, lambda name: int(digits(name)[1]), "those are the cells"),
    (lesson08.check_slide_of, lambda name: int(name[6]), "more digits"),
    (lesson08.check_slide_of, lambda name: int(name[5]), "more digits"),
    (lesson08.check_slide_of, lambda name: 1, "one group"),
    (lesson08.check_slide_of, lambda name: int(digits(name)[0]) + 1, "expected 3, got 4"),
    (lesson08.check_slide_of, lambda name: int(name), "ValueError"),
    (lesson08.check_refused, "A", "A is let through"),
    (lesson08.check_refused, "BCDE", "D is let through"),
    (lesson08.check_refused, "BC", "1 more"),
    (lesson08.check_refused, "F", "letters from A to E"),
    (lesson08.check_refused, 3, "expected letters"),
    (lesson08.check_cache_bytes, lambda n, shape: n * np.prod(shape), "4 bytes"),
    (lesson08.check_cache_bytes, lambda n, shape: 8 * n * np.prod(shape), "float64"),
    (lesson08.check_cache_bytes, lambda n, shape: 32 * n * np.prod(shape), "bits"),
    (lesson08.check_cache_bytes, lambda n, shape: 4 * np.prod(shape), "one image"),
    (lesson08.check_cache_bytes, lambda n, shape: 4 * n, "shape is left out"),
    (lesson08.check_cache_bytes, lambda n, shape: 4 * n * shape[0], "only the channels"),
    (lesson08.check_cache_bytes, lambda n, shape: 4 * n * sum(shape), "multiply them"),
    (lesson08.check_cache_bytes, lambda n, shape: 7, "got 7"),
]

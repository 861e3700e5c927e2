"""What README shows works: its code, and its commands."""

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlcourse.__main__ import COMMANDS
from tlcourse.backbones import checkpoint_path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.M | re.S)


@pytest.mark.slow
def test_the_code_example_runs(tmp_path, monkeypatch):
    (code,) = blocks("python")
    chance = np.random.default_rng(0)
    for label in ("benign", "malignant"):
        (tmp_path / "my_images" / label).mkdir(parents=True)
        for number in range(20):
            pixels = chance.integers(0, 256, (32, 32), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "my_images" / label / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    if not checkpoint_path("mobilenet_v2").is_file():  # a machine that never had a network
        code = code.replace('weights="imagenet"', "weights=None")
    names = {}
    exec(code.replace("epochs=5", "epochs=1, progress=False"), names)
    assert len(names["history"].table) == 1
    assert names["probs"].shape == (len(names["data"].test), 2)


def test_every_command_exists_and_takes_these_options():
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line[:8] == "tlcourse"]
    assert {words[0] for words in commands} == {"train", "predict", "report"}
    for name, *words in commands:
        assert name in COMMANDS
        parser = argparse.ArgumentParser()
        import_module(f"tlcourse.cli.{name}").add_arguments(parser)
        parser.parse_args(words)  # exits, and so fails, at what it does not know

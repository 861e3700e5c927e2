"""The command line: `tlcourse doctor`, `fetch`, `run`, `bench`, `train` and the others.

A command is a line of `COMMANDS` and a module of its name in `tlcourse/cli`, which has:

* `add_arguments(parser)`, which declares what it takes,
* `run(options)`, which does its work and returns its exit code (0: all is well),
* `REFUSALS`, the errors that say no more than that options or files are no good.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

COMMANDS = {
    "doctor": "say what this machine has and what is missing",
    "fetch": "get weights and images ahead of an offline day",
    "run": "execute every lesson without a browser",
    "bench": "time the course's trainings on this machine",
    "experiments": "run a grid of experiments, or go on",
    "train": "build a detector from your images, or go on",
    "predict": "ask a detector about image files",
    "report": "put what `train` came to on one page",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code (0: all is well, 2: it cannot be done as asked)."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="tlcourse", description="Transfer learning, measured.")
    commands = parser.add_subparsers(required=True, metavar="command")
    parsers = {name: commands.add_parser(name, help=text) for name, text in COMMANDS.items()}
    name = words[0] if words else ""
    if name not in COMMANDS:
        parser.parse_args(words)  # prints help, or what is wrong, and exits
    try:
        command = import_module(f"tlcourse.cli.{name}")  # only now: torch takes seconds
    except Exception as error:  # a broken torch raises anything; then that is the finding
        print(f"MISSING  packages: {type(error).__name__}: {error}\n         mend it: make setup")
        return 1
    command.add_arguments(parsers[name])
    try:
        return int(command.run(parser.parse_args(words)))
    except command.REFUSALS as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

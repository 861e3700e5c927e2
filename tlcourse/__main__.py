"""The command line: `tlcourse doctor`, `fetch`, `run`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code (0: all is well)."""
    options = _parser().parse_args(arguments)
    return int(options.command(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tlcourse", description="Transfer learning, measured.")
    commands = parser.add_subparsers(required=True, metavar="command")
    doctor = commands.add_parser("doctor", help="say what this machine has and what is missing")
    doctor.set_defaults(command=_doctor)
    fetch = commands.add_parser("fetch", help="get weights and images ahead of an offline day")
    fetch.add_argument(
        "--size", type=int, default=64, help="image size in pixels (28, 64, 128, 224)"
    )
    fetch.add_argument("--backbone", action="append", default=[], help="also fetch this network")
    fetch.set_defaults(command=_fetch)
    run = commands.add_parser("run", help="execute every lesson without a browser")
    run.add_argument("prefix", nargs="?", default="", help="only lessons that start so, such as 02")
    run.add_argument("--solutions", action="store_true", help="the complete copies")
    run.add_argument(
        "--json", type=Path, default=Path("build/run.json"), help="where the table goes"
    )
    run.set_defaults(command=_run)
    return parser


def _doctor(_options: argparse.Namespace) -> int:
    from tlcourse.doctor import can_run, examine, report

    findings = examine()
    print(report(findings))
    return 0 if can_run(findings) else 1


def _fetch(options: argparse.Namespace) -> int:
    from tlcourse.backbones import WeightsUnavailable, fetch_checkpoint
    from tlcourse.datasets import DatasetUnavailable, fetch_breastmnist

    failed = False
    for name in ["mobilenet_v2", *options.backbone]:
        try:
            print(f"weights of {name}: {fetch_checkpoint(name)}")
        except WeightsUnavailable as error:
            print(f"weights of {name}: {error}", file=sys.stderr)
            failed = True
    try:
        print(f"images: {fetch_breastmnist(size=options.size)}")
    except DatasetUnavailable as error:
        print(f"images: {error}\nthe lessons will use the simulated set", file=sys.stderr)
    return 1 if failed else 0


def _run(options: argparse.Namespace) -> int:
    from tlcourse.runner import find_lessons, format_table, run_lessons, save_json

    try:
        lessons = find_lessons(solutions=options.solutions, prefix=options.prefix)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    runs = run_lessons(lessons)
    save_json(runs, options.json)
    print(format_table(runs))
    return 0 if all(run.passed for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())

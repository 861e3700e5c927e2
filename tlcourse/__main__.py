"""The command line: `tlcourse doctor`, `fetch`, `run`, `bench`, `experiments`."""

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
    sizes = (28, 64, 128, 224)
    fetch.add_argument("--size", type=int, default=64, choices=sizes, help="of images, in pixels")
    fetch.add_argument("--backbone", action="append", default=[], help="also fetch this network")
    fetch.set_defaults(command=_fetch)
    run = commands.add_parser("run", help="execute every lesson without a browser")
    run.add_argument("prefix", nargs="?", default="", help="only lessons that start so, such as 02")
    run.add_argument("--solutions", action="store_true", help="the complete copies")
    run.add_argument(
        "--json", type=Path, default=Path("build/run.json"), help="where the table goes"
    )
    run.add_argument("--limit", type=float, help="seconds that no lesson may exceed")
    run.set_defaults(command=_run)
    bench = commands.add_parser("bench", help="time the course's trainings on this machine")
    bench.add_argument("--backbone", default="mobilenet_v2", help="a classifier of torchvision")
    bench.add_argument("--images", type=int, default=128, help="simulated images to train on")
    bench.add_argument("--size", type=int, default=128, help="side in pixels")
    bench.add_argument("--epochs", type=int, default=3, help="of each training")
    bench.add_argument("--rounds", type=int, default=3, help="turns of each; medians are shown")
    bench.set_defaults(command=_bench)
    _add_experiments(commands.add_parser("experiments", help="run a grid of experiments, or go on"))
    return parser


def _add_experiments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grid", type=Path, help="a .toml or .json file of factors and a function")
    parser.add_argument(
        "--out", type=Path, help="working table, .jsonl (default: build/experiments/GRID.jsonl)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes on this machine")
    parser.add_argument("--scheduler", help="address of a Dask scheduler, such as tcp://host:8786")
    parser.add_argument("--status", action="store_true", help="run nothing, say how far it is")
    parser.set_defaults(command=_experiments)


def _doctor(_options: argparse.Namespace) -> int:
    from tlcourse.doctor import can_run, examine, report

    findings = examine()
    print(report(findings))
    return 0 if can_run(findings) else 1


def _fetch(options: argparse.Namespace) -> int:
    needed = [_fetched_weights(name) for name in ["mobilenet_v2", *options.backbone]]
    if "resnet18" not in options.backbone and not _fetched_weights("resnet18"):
        print("lesson 03 then shows ResNet-18 with random weights", file=sys.stderr)
    return 0 if all([*needed, _fetched_images(options.size)]) else 1


def _fetched_weights(name: str) -> bool:
    from tlcourse.backbones import WeightsUnavailable, fetch_checkpoint

    try:
        print(f"weights of {name}: {fetch_checkpoint(name)}")
    except (WeightsUnavailable, ValueError) as error:
        print(f"weights of {name}: {error}", file=sys.stderr)
        return False
    return True


def _fetched_images(size: int) -> bool:
    """Fetch the real images; a course without them still runs, one with damaged ones does not."""
    from tlcourse.datasets import DatasetUnavailable, InvalidDataset, fetch_breastmnist

    try:
        print(f"images: {fetch_breastmnist(size=size)}")
    except DatasetUnavailable as error:
        print(f"images: {error}\nthe lessons will use the simulated set", file=sys.stderr)
    except (InvalidDataset, NotADirectoryError) as error:
        print(f"images: {error}", file=sys.stderr)
        return False
    return True


def _run(options: argparse.Namespace) -> int:
    from tlcourse.runner import find_lessons, format_table, run_lessons, save_json

    try:
        lessons = find_lessons(solutions=options.solutions, prefix=options.prefix)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    runs = run_lessons(lessons, limit=options.limit)
    save_json(runs, options.json)
    print(format_table(runs))
    return 0 if all(run.passed for run in runs) else 1


def _bench(options: argparse.Namespace) -> int:
    from tlcourse.bench import bench

    try:
        table = bench(
            options.backbone,
            images=options.images,
            size=options.size,
            epochs=options.epochs,
            rounds=options.rounds,
        )
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(table.to_string(float_format="{:.3g}".format, na_rep=""))
    return 0


def _experiments(options: argparse.Namespace) -> int:
    from tlcourse.experiments.command import default_table, run_file, show_status

    table = options.out or default_table(options.grid)
    if options.status:
        return show_status(options.grid, table)
    return run_file(options.grid, table, workers=options.workers, scheduler=options.scheduler)


if __name__ == "__main__":
    sys.exit(main())

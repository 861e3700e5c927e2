"""The command line: `tlcourse doctor`, `fetch`, `run`, `bench`, `train` and the others."""

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
    _add_train(commands.add_parser("train", help="build a detector from your images, or go on"))
    _add_predict(commands.add_parser("predict", help="ask a detector about image files"))
    report = commands.add_parser("report", help="put what `train` came to on one page")
    report.add_argument("folder", type=Path, help="what `tlcourse train --out` names")
    report.add_argument("--out", type=Path, help="an .html file (default: report.html there)")
    report.set_defaults(command=_report)
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


def _add_train(parser: argparse.ArgumentParser) -> None:
    given = " (default: %(default)s)"
    parser.add_argument(
        "--data",
        required=True,
        help="a folder of images per class, an .npz in MedMNIST's layout, or a name: phantom, "
        "breast, breastmnist; divided in the same way whatever the seed",
    )
    parser.add_argument("--backbone", default="mobilenet_v2", help="of torchvision" + given)
    parser.add_argument(
        "--strategy",
        default="warmup",
        help="how it is carried over: scratch, frozen, cold, warmup, lp_ft, discriminative, decay, "
        "gradual or warmup_discriminative" + given,
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder for all that comes of it")
    parser.add_argument("--epochs", type=int, default=10, help="times an image is seen" + given)
    rates = "rate of the head, or several to choose from (default: 0.001)"
    parser.add_argument("--lr", type=float, nargs="+", help=rates)
    parser.add_argument("--size", type=int, default=128, help="side in pixels" + given)
    parser.add_argument("--seed", type=int, default=0, help="of head, order, mirroring" + given)
    weights = "balanced: every class counts alike in the loss, however few its images are"
    parser.add_argument("--class-weights", choices=["balanced"], help=weights)
    copies = "correlation above which images count as copies and stay in one part" + given
    parser.add_argument("--copies-above", type=float, default=0.95, help=copies)
    _add_skip_bad(parser)
    parser.set_defaults(command=_train)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("detector", type=Path, help="a file that `tlcourse train` wrote")
    parser.add_argument("images", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument("--out", type=Path, help="a CSV file; left out: the terminal")
    _add_skip_bad(parser)
    parser.set_defaults(command=_predict)


def _add_skip_bad(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skip-bad", action="store_true", help="go on without files that cannot be read"
    )


def _doctor(_options: argparse.Namespace) -> int:
    try:
        from tlcourse.cli.doctor import can_run, examine, report
    except Exception as error:  # a broken torch raises anything; then that is the finding
        print(f"MISSING  packages: {type(error).__name__}: {error}\n         mend it: make setup")
        return 1
    findings = examine()
    print(report(findings))
    return 0 if can_run(findings) else 1


def _fetch(options: argparse.Namespace) -> int:
    needed = [_fetched_weights(name) for name in ["mobilenet_v2", *options.backbone]]
    if "resnet18" not in options.backbone and not _fetched_weights("resnet18"):
        print("lesson 03 then shows ResNet-18 with random weights", file=sys.stderr)
    return 0 if all([*needed, _fetched_images(options.size)]) else 1


def _fetched_weights(name: str) -> bool:
    from tlcourse.backbones.weights import WeightsUnavailable, fetch_checkpoint

    try:
        print(f"weights of {name}: {fetch_checkpoint(name)}")
    except (WeightsUnavailable, ValueError) as error:
        print(f"weights of {name}: {error}", file=sys.stderr)
        return False
    return True


def _fetched_images(size: int) -> bool:
    """Fetch the real images; a course without them still runs, one with damaged ones does not."""
    from tlcourse.datasets.base import InvalidDataset
    from tlcourse.datasets.medmnist import DatasetUnavailable, fetch_breastmnist

    try:
        print(f"images: {fetch_breastmnist(size=size)}")
    except DatasetUnavailable as error:
        print(f"images: {error}\nthe lessons will use the simulated set", file=sys.stderr)
    except (InvalidDataset, NotADirectoryError) as error:
        print(f"images: {error}", file=sys.stderr)
        return False
    return True


def _run(options: argparse.Namespace) -> int:
    from tlcourse.cli.lessons import find_lessons, format_table, run_lessons, save_json

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
    from tlcourse.cli.bench import bench

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
    from tlcourse.cli.experiments import default_table, run_file, show_status

    table = options.out or default_table(options.grid)
    if options.status:
        return show_status(options.grid, table)
    return run_file(options.grid, table, workers=options.workers, scheduler=options.scheduler)


def _train(options: argparse.Namespace) -> int:
    from tlcourse.cli.train import train_command

    return train_command(options)


def _predict(options: argparse.Namespace) -> int:
    from tlcourse.cli.train import predict_command

    return predict_command(options)


def _report(options: argparse.Namespace) -> int:
    from tlcourse.cli.report import report_command

    return report_command(options)


if __name__ == "__main__":
    sys.exit(main())

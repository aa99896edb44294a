"""The commands `realfake photo.jpg`, `realfake check` and `realfake report`."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from realfake_hf.console import run_command

if TYPE_CHECKING:
    from realfake_hf.check.models import LoadedModel

Item = TypeVar("Item")

EXIT: Final = "The exit status is 0 whatever the verdicts, 1 if a file cannot be read, 2 if the command is wrong."
LIMITS: Final = "A verdict is no evidence, least of all against a person."


def check(argv: Sequence[str]) -> int:
    """Judge images, and print their verdicts; return the exit status."""
    arguments = _check_parser().parse_args(argv)
    return run_command(lambda: _check(arguments), name="realfake")


def report(argv: Sequence[str]) -> int:
    """Judge images, and write a page with all of them; return the exit status."""
    arguments = _report_parser().parse_args(argv)
    return run_command(lambda: _report(arguments), name="realfake report")


def _check_parser() -> argparse.ArgumentParser:
    parser = _parser("check", "Judge images: real or AI-generated? One line for each image.")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object a line instead of text")
    form.add_argument("--csv", action="store_true", help="print CSV instead of text")
    return parser


def _report_parser() -> argparse.ArgumentParser:
    parser = _parser(
        "report", "Judge images, and write one HTML page: those that need a look first, with maps and file facts."
    )
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    parser.add_argument("--no-maps", action="store_true", help="leave the maps out, which take most of the time")
    return parser


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"realfake {name}", description=f"{description} {LIMITS}", epilog=EXIT, allow_abbrev=False
    )
    parser.add_argument("images", nargs="+", help="image files, folders, or quoted globs")
    parser.add_argument("--model", help="a folder of a model, or a Hub id (default: the model of the package)")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub id (default: main)")
    parser.add_argument(
        "--trust", type=Path, metavar="FILE", help="PEM file of the signers of Content Credentials to trust"
    )
    return parser


def _find(arguments: argparse.Namespace) -> "tuple[list[Path], LoadedModel]":
    """Find the images first, because loading the model takes longer."""
    from realfake_hf.data.folders import find_image_files

    files = find_image_files(arguments.images)
    from realfake_hf.check.models import load_model

    return files, load_model(arguments.model, revision=arguments.revision)


def _check(arguments: argparse.Namespace) -> int:
    from realfake_hf.check.run import COLUMNS, check_files, csv_line, json_line

    files, model = _find(arguments)
    if arguments.csv:
        sys.stdout.write(csv_line(COLUMNS))
    failures = 0
    checked = (each for each, _ in check_files(files, model, trust=arguments.trust))
    for each in _with_bar(checked, len(files), hidden=sys.stdout.isatty()):
        if arguments.json:
            sys.stdout.write(json_line(each))
        elif arguments.csv:
            sys.stdout.write(csv_line(each.to_dict().values()))
        else:
            sys.stdout.write(f"{each.to_text()}\n")
        sys.stdout.flush()
        failures += bool(each.error)
    return 1 if failures else 0


def _report(arguments: argparse.Namespace) -> int:
    from realfake_hf.check.report import Entry, explainer, write_report
    from realfake_hf.check.run import check_files

    files, model = _find(arguments)
    explain = None if arguments.no_maps else explainer(model)
    results = check_files(files, model, trust=arguments.trust)
    entries = [Entry.of(each, image, explain) for each, image in _with_bar(results, len(files))]
    write_report(entries, arguments.output, model=model.place, has_maps=explain is not None)
    print(f"{len(entries):,} images: {arguments.output}")
    return 1 if any(entry.checked.error for entry in entries) else 0


def _with_bar(items: Iterable[Item], total: int, *, hidden: bool = False) -> Iterator[Item]:
    """Show a progress bar on stderr if there are several items, and stderr is a terminal."""
    from tqdm import tqdm

    return iter(tqdm(items, total=total, desc="judging", unit="image", disable=True if hidden or total < 2 else None))  # noqa: PLR2004

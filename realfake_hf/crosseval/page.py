"""A grid as one page that needs nothing else: warnings, findings, figures, tables, methods, passport."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from realfake_hf.crosseval.findings import findings
from realfake_hf.crosseval.grid import Grid
from realfake_hf.crosseval.sections import sections
from realfake_hf.metrics.operating_point import DEFAULT
from realfake_hf.pages.page import Section, write_page
from realfake_hf.tables import Table

TITLE: Final = "Detectors on data they were not trained on"
QUESTION: Final = (
    "Does a detector of generated images hold elsewhere, why not, can its confidence be trusted, and who is wronged?"
)
SHEETS: Final = (
    "The most confident errors, spread over contents: the image, where the model looked (a claim about the model, no "
    "proof), and the training images of both labels that are nearest in its own embedding."
)
METHODS: Final = (
    (
        "FAKE is the positive class. A model calls FAKE what it gives a probability above the threshold that was "
        "chosen "
        "on "
        "the validation split of its training and travels with it; nothing was tuned on the pictures reported here."
    ),
    (
        "Intervals in brackets hold 95 %: percentiles of a bootstrap over pictures, and exact ones (Clopper and "
        "Pearson) "
        "for "
        "rates. p-values are corrected for the number of tests of their table (Holm)."
    ),
    (
        "ECE is the expected calibration error over 15 equal bins of the probability of FAKE. The temperature divides "
        "log-odds; it and the unsure band were fitted on validation. The band is the narrowest around the threshold "
        "of "
        "which "
        "an exact test on validation says, with 95 % certainty, that the verdicts outside keep the promise."
    ),
    (
        "The trivial baseline, where it is there, is a logistic regression on colours and spectrum of 32-pixel "
        "copies. A "
        "detector that does not beat it has learnt little else."
    ),
    (
        "Leak-free means without the test pictures that also occur, pixel for pixel, in another split of the same "
        "data "
        "set."
    ),
)
CITE: Final = (
    "The realfake developers, realfake: telling real photographs from AI-generated images, version 0.1.0.",
    (
        "J. J. Bird and A. Lotfi (2024), CIFAKE: Image Classification and Explainable Identification of AI-Generated "
        "Synthetic "
        "Images, IEEE Access 12:15642-15650, doi 10.1109/ACCESS.2024.3356122. Data sets have their own authors and "
        "licences."
    ),
)


def write_grid_page(
    grid: Grid, file: Path, *, folder: Path | None = None, shown: Collection[str] | None = None
) -> Path:
    """Write the page of a grid and give its path.

    Args:
        grid: a finished one.
        file: an HTML file; its folder is made.
        folder: of the grid, in which the sheets of errors lie; None leaves them out.
        shown: the data sets whose sheets are shown, as pictures may not be anybody's to pass on; None means all.
    """
    wanted = [one for one in grid.errors if folder and (shown is None or one.dataset in shown)]
    names = dict.fromkeys(one.file for one in wanted if folder and (folder / one.file).exists())
    sheets = {_sheet_title(grid, name): folder / name for name in names if folder}
    return write_page(
        file,
        title=TITLE,
        subtitle=f"{QUESTION} {len(grid.facts['models'])} models on {len(grid.facts['data'])} data sets.",
        warnings=warnings(grid),
        findings=findings(grid),
        sections=[
            *sections(grid),
            *([Section("errors", "Errors", [SHEETS], files=sheets)] if sheets else []),
            Section("methods", "Methods", METHODS),
            Section("cite", "How to cite", CITE),
            Section("passport", "Settings and environment", tables=_passport(grid)),
        ],
    )


def _sheet_title(grid: Grid, file: str) -> str:
    one = next(error for error in grid.errors if error.file == file)
    called = "real pictures called FAKE" if one.kind == "false positive" else "fakes called REAL"
    return f"{one.model} on {one.dataset} {one.split}: {called}"


def warnings(grid: Grid) -> list[str]:
    """What a reader must know before any number."""
    found = [one.words.replace("WARNING: ", "") for one in grid.shortcuts if one.warning]
    points = {cell.model: cell.point for cell in grid.cells}
    found += [
        f"No threshold is frozen on validation for {name}." for name, point in points.items() if point == DEFAULT
    ]
    one_label = {
        f"{cell.dataset} {cell.split}": None for cell in grid.cells if not (cell.report.n_real and cell.report.n_fake)
    }
    found += [f"{name} has pictures of one label only: what needs both is undefined." for name in one_label]
    found += [
        f"{len(one['unreadable']):,} files of {name} cannot be read and are left out."
        for name, one in grid.facts["data"].items()
        if one.get("unreadable")
    ]
    return found


def _passport(grid: Grid) -> list[Table]:
    facts = grid.facts
    models = [
        [name, str(one["place"]), str(one["trained_on"]), one["weights"][:12], _point(one["point"])]
        for name, one in facts["models"].items()
    ]
    data = [
        [name, str(one["source"]), str(one["split"]), f"{one['n']:,}", one["sha256"][:12]]
        for name, one in facts["data"].items()
    ]
    machine = [[name, _plain(facts.get(name))] for name in ("commit", "python", "versions", "machine")]
    return [
        Table("Models.", ("model", "place", "trained on", "weights, SHA-256", "operating point"), models, wrap=True),
        Table("Pictures.", ("data", "source", "split", "n", "SHA-256"), data, wrap=True),
        Table(
            "Settings.",
            ("what", "value"),
            [[name, _plain(value)] for name, value in facts["settings"].items()],
            wrap=True,
        ),
        Table("Code and machine.", ("what", "value"), machine, wrap=True),
    ]


def _point(point: Mapping[str, Any]) -> str:
    band = point.get("band")
    unsure = f"; unsure from {band['low']:.3f} to {band['high']:.3f}" if band and band["low"] < band["high"] else ""
    return f"{point['threshold']:.3f}, {point['chosen']}{unsure}"


def _plain(value: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    return value if isinstance(value, str) else json.dumps(value)

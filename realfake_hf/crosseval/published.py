"""Publish a grid: its numbers as JSON, its main figure, its page.

`python -m realfake_hf.crosseval.published --grid runs/crosseval/grid.json --output_file results/crosseval.json` is
what `make crosseval` calls after the grid, with `--page_file` and `--figure_file`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from realfake_hf.cli import parse
from realfake_hf.crosseval.findings import findings
from realfake_hf.crosseval.grid import Grid
from realfake_hf.crosseval.page import write_grid_page
from realfake_hf.crosseval.sections import transfer_figure
from realfake_hf.figures import save_figure
from realfake_hf.store import write_json


@dataclass
class PublishArguments:
    """Which grid, and where its parts go."""

    grid: Path = field(metadata={"help": "grid.json of crosseval.py."})
    output_file: Path = field(metadata={"help": "The numbers, a JSON file of results/."})
    page_file: Path | None = field(default=None, metadata={"help": "The page."})
    figure_file: Path | None = field(default=None, metadata={"help": "The main figure."})
    shown: list[str] = field(
        default_factory=list,
        metadata={"help": "Data sets whose errors the page shows: none by default, as pictures have owners."},
    )


def load_grid(file: Path) -> Grid:
    """Read a grid.

    Raises:
        OSError: there is no such file.
        ValueError: it holds something else.
    """
    try:
        return Grid.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"wanted a grid of crosseval.py in {file}; found something else ({error!r}).") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Read, write, print the findings; give the exit status."""
    [arguments] = parse(PublishArguments, argv=argv, description=__doc__)
    try:
        grid = load_grid(arguments.grid)
    except (OSError, ValueError) as error:
        print(f"crosseval: {error}", file=sys.stderr)
        return 1
    write_json(arguments.output_file, grid.to_dict())
    if arguments.page_file:
        write_grid_page(grid, arguments.page_file, folder=arguments.grid.parent, shown=arguments.shown)
    if arguments.figure_file:
        save_figure(transfer_figure(grid), arguments.figure_file)
    print("\n".join(f"- {sentence}" for sentence in findings(grid)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

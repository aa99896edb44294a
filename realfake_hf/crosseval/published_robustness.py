"""Publish what models withstand: the steps as JSON and as a figure.

`python -m realfake_hf.crosseval.published_robustness --grid runs/robustness/grid.json --output_file
results/robustness_cifake.json` is what `make robust` calls after the grid, with `--figure_file`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from realfake_hf.cli import parse
from realfake_hf.crosseval.drawing import robustness
from realfake_hf.crosseval.published import load_grid
from realfake_hf.estimate import to_plain
from realfake_hf.figures import save_figure
from realfake_hf.store import write_json


@dataclass
class RobustnessArguments:
    """Which grid, and where its steps go."""

    grid: Path = field(metadata={"help": "grid.json of crosseval.py --robustness with one data set."})
    output_file: Path = field(metadata={"help": "The steps, a JSON file of results/."})
    figure_file: Path | None = field(default=None, metadata={"help": "The curves."})


def main(argv: Sequence[str] | None = None) -> int:
    """Read and write; give the exit status."""
    [arguments] = parse(RobustnessArguments, argv=argv, description=__doc__)
    try:
        grid = load_grid(arguments.grid)
        measured = {one.dataset for one in grid.robustness}
        if len(measured) != 1:
            raise ValueError(
                f"wanted a grid of crosseval.py --robustness with one data set in {arguments.grid}; found "
                f"{', '.join(sorted(measured)) or 'none'}."
            )
    except (OSError, ValueError) as error:
        print(f"robustness: {error}", file=sys.stderr)
        return 1
    write_json(arguments.output_file, {**grid.facts, "robustness": [to_plain(one) for one in grid.robustness]})
    if arguments.figure_file:
        save_figure(robustness(grid.robustness), arguments.figure_file)
    return 0


if __name__ == "__main__":
    sys.exit(main())

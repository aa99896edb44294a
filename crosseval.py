"""Measure detectors on data sets they were not trained on: `crosseval.py --models cnn=space/models/cifake-cnn
--datasets cifake=cifake art=pictures/ --output_dir runs/grid`.

`grid.html` in the output folder is the report, `grid.json` and `grid.md` hold every cell, PNGs the figures; finished
cells are kept, `--fresh` does them again.
"""  # noqa: D205 - one command does not fit one line

import logging
import sys
from collections.abc import Sequence

from accelerate import PartialState
from transformers.utils.logging import disable_progress_bar

from realfake_hf.cli import parse
from realfake_hf.crosseval.arguments import CrossevalArguments
from realfake_hf.crosseval.drawing import draw
from realfake_hf.crosseval.grid import run_grid
from realfake_hf.crosseval.page import write_grid_page
from realfake_hf.crosseval.tables import to_markdown
from realfake_hf.figures import save_figure
from realfake_hf.store import write_json


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, write and print; give the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("realfake_hf").setLevel(logging.INFO)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files; the pictures keep theirs
    [arguments] = parse(CrossevalArguments, argv=argv, description=__doc__)
    try:
        grid = run_grid(arguments)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on from {arguments.output_dir}", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"crosseval.py: {error}", file=sys.stderr)
        return 1
    if PartialState().is_main_process:
        text = to_markdown(grid)
        write_json(arguments.output_dir / "grid.json", grid.to_dict())
        (arguments.output_dir / "grid.md").write_text(f"{text}\n", encoding="utf-8")
        write_grid_page(grid, arguments.output_dir / "grid.html", folder=arguments.output_dir)
        for name, figure in draw(grid):
            save_figure(figure, arguments.output_dir / name)
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

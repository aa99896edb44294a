"""Measure detectors on data sets they were not trained on: `crosseval.py --models cnn=space/models/cifake-cnn
--datasets cifake=cifake art=photos/ --output_dir runs/grid`.

The output folder contains the report `grid.html`, all cells as `grid.json` and `grid.md`, and the figures. Finished
cells are kept; `--fresh` computes them again.
"""  # noqa: D205 - one command does not fit one line

import sys

from realfake_hf.commands.crosseval import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

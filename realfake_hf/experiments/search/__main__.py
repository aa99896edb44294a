"""Search for the CNN's topology as the paper did.

`python -m realfake_hf.experiments.search --config recipes/paper_search.yaml`

Started several times, on one machine or on several that see the same folder, the workers share the trainings.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import optuna
from transformers.utils.logging import disable_progress_bar

from realfake_hf.cli import parse
from realfake_hf.experiments.search.plan import SearchArguments
from realfake_hf.experiments.search.run import search
from realfake_hf.experiments.search.table import draw, to_markdown
from realfake_hf.figures import save_figure
from realfake_hf.store import write_json


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train what is left, write the table and its figure after each training; give the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("realfake_hf").setLevel(logging.INFO)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files
    (asked,) = parse(SearchArguments, argv=argv, description=__doc__)
    try:
        table = search(asked, keep=partial(_write, asked))
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on from {asked.output_dir}", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"search: {error}", file=sys.stderr)
        return 1
    _write(asked, table)
    print(to_markdown(table))
    return 0


def _write(asked: SearchArguments, table: Mapping[str, Any]) -> None:
    write_json(asked.output_file, table)
    if asked.figure_file is not None and table["rows"]:
        save_figure(draw(table), asked.figure_file)


if __name__ == "__main__":
    sys.exit(main())

"""Score any number of pictures: `python -m realfake_hf.score --model MODEL --data FOLDER --output scores`.

The scores are parquet files, written part by part; an interrupted or killed scoring goes on when the same command is
given again. `accelerate launch -m realfake_hf.score ...` shares the work out among processes.
"""

import logging
import sys
from collections.abc import Sequence

from transformers.utils.logging import disable_progress_bar

from realfake_hf.cli import parse
from realfake_hf.score.run import ScoreArguments, score


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, score, print the counts; give the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("realfake_hf").setLevel(logging.INFO)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files; the pictures keep theirs
    (arguments,) = parse(ScoreArguments, argv=argv, description=__doc__)
    try:
        found = score(arguments)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on from {arguments.output}", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"score: {error}", file=sys.stderr)
        return 1
    if found.counts:
        print(found.to_markdown())
        print(f"\nscores: {found.folder}")
    if found.missing:
        print(f"\nscore: {found.missing:,} parts are missing; the same command scores them", file=sys.stderr)
    return 1 if found.missing else 0


if __name__ == "__main__":
    sys.exit(main())

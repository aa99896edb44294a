"""Score any number of images: `python -m realfake_hf.score --model MODEL --data FOLDER --output scores`.

Scores are written as parquet files, part by part. To resume, repeat the command. `accelerate launch -m
realfake_hf.score ...` distributes the parts over processes.
"""

import sys
from collections.abc import Sequence

from realfake_hf.cli import parse, run_command
from realfake_hf.score.arguments import ScoreArguments


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, score, and print the counts; return the exit status."""
    (arguments,) = parse(ScoreArguments, argv=argv, description=__doc__)
    return run_command(lambda: _score(arguments), name="score", resumable=arguments.output, others="awaited")


def _score(arguments: ScoreArguments) -> int:
    from realfake_hf.score.run import score

    summary = score(arguments)
    if summary.counts:
        print(f"{summary.to_markdown()}\n\nscores: {arguments.output}")
    if summary.missing:
        print(f"score: {summary.missing:,} parts are missing; to score them, repeat the command", file=sys.stderr)
    return 1 if summary.missing else 0


if __name__ == "__main__":
    sys.exit(main())

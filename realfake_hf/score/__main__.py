"""Score any number of images: `python -m realfake_hf.score --model MODEL --data FOLDER --output scores`.

Scores are written as parquet files, part by part. To resume, repeat the command. `accelerate launch -m
realfake_hf.score ...` distributes the parts over processes.
"""

import sys

from realfake_hf.cli import command
from realfake_hf.score.arguments import ScoreArguments


@command(ScoreArguments, name="score", description=__doc__, resumable="output", others="awaited")
def main(arguments: ScoreArguments) -> int:
    """Score, and print the counts; return 1 if parts are missing."""
    from realfake_hf.score.run import score

    summary = score(arguments)
    if summary.counts:
        print(f"{summary.to_markdown()}\n\nscores: {arguments.output}")
    if summary.missing:
        print(f"score: {summary.missing:,} parts are missing; to score them, repeat the command", file=sys.stderr)
    return 1 if summary.missing else 0


if __name__ == "__main__":
    sys.exit(main())

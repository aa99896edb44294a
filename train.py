"""Train a detector: `accelerate launch train.py --config recipes/cifake_cnn.yaml`."""

import logging
import sys
from collections.abc import Sequence

from transformers.utils.logging import disable_progress_bar

from realfake_hf.cli import parse
from realfake_hf.training.arguments import DataArguments, ModelArguments, RunArguments
from realfake_hf.training.run import train


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, print the test figures; give the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files; the Trainer keeps its own
    data, model, run = parse(DataArguments, ModelArguments, RunArguments, argv=argv, description=__doc__)
    try:
        outcome = train(data, model, run)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on from the last epoch in {run.output_dir}", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    if run.process_index == 0:
        print(outcome.to_markdown())
        print(f"\nmodel, measurements and figures: {run.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

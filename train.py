"""Train a detector: `accelerate launch train.py --config recipes/cifake_cnn.yaml`.

With `--push_to_hub --hub_model_id user/name` the finished run is published: model, card, figures, measurements.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from realfake_hf.cli import parse
from realfake_hf.hub.push import check_publishable, publish_model
from realfake_hf.training.arguments import DataArguments, ModelArguments, RunArguments
from realfake_hf.training.run import train


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, print the test figures; give the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files; the Trainer keeps its own
    data, model, run = parse(DataArguments, ModelArguments, RunArguments, argv=argv, description=__doc__)
    pushing, run.push_to_hub = run.push_to_hub, False  # not by the Trainer, which would send checkpoints
    try:
        if pushing:
            check_publishable(run.hub_model_id, token=run.hub_token)
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
        return _publish(run) if pushing else 0
    return 0


def _publish(run: RunArguments) -> int:
    folder = Path(str(run.output_dir))
    private, revision = run.hub_private_repo, run.hub_revision
    try:
        done = publish_model(folder, str(run.hub_model_id), private=private, revision=revision, token=run.hub_token)
    except (OSError, ValueError) as error:
        again = f"python -m realfake_hf.hub --model_dir {folder} --hub_model_id {run.hub_model_id}"
        print(f"train.py: {error} The run is whole; to publish it: {again}", file=sys.stderr)
        return 1
    print(f"published: {done.url}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

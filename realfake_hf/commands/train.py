"""Train a detector: `accelerate launch train.py --config recipes/cifake_cnn.yaml`.

With `--push_to_hub --hub_model_id user/name` the finished run is published: model, card, figures, measurements.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from realfake_hf.cli import HELP_ALL, check, parse
from realfake_hf.console import run_command
from realfake_hf.training.arguments import (
    DataArguments,
    MachineSettings,
    ModelArguments,
    PublicationSettings,
    RunSettings,
    names_of_training_arguments,
)

if TYPE_CHECKING:
    from realfake_hf.training.run_arguments import RunArguments


def main(argv: Sequence[str] | None = None) -> int:
    """Train, and print the test results; return the exit status."""
    data, model, run = _parse(list(sys.argv[1:] if argv is None else argv))
    return run_command(lambda: _train(data, model, run), name="train.py", resumable=run.output_dir)


def _parse(words: list[str]) -> "tuple[DataArguments, ModelArguments, RunArguments]":
    if HELP_ALL not in words:
        kinds = (DataArguments, ModelArguments, RunSettings, MachineSettings, PublicationSettings)
        later = names_of_training_arguments()
        text = "List the settings of transformers' TrainingArguments, too, all of which can be set."
        check(*kinds, argv=words, description=__doc__, later=later, help_all=text)
    from realfake_hf.training.run_arguments import RunArguments  # imports PyTorch

    words = ["--help" if word == HELP_ALL else word for word in words]
    data, model, run = parse(DataArguments, ModelArguments, RunArguments, argv=words, description=__doc__)
    return data, model, run


def _train(data: DataArguments, model: ModelArguments, run: "RunArguments") -> int:
    from realfake_hf.run_folder import say_next
    from realfake_hf.training.run import train

    publishes, run.push_to_hub = run.push_to_hub, False  # not by the Trainer, which would also send checkpoints
    if publishes:
        from realfake_hf.hub.push import check_publishable

        check_publishable(run.hub_model_id, token=run.hub_token)
    outcome = train(data, model, run)
    if run.process_index != 0:
        return 0
    print(outcome.to_markdown())
    print(f"\nmodel, measurements and figures: {run.output_dir}")
    if publishes:
        _publish(run)
    print(f"\n{say_next(Path(str(run.output_dir)))}")
    return 0


def _publish(run: "RunArguments") -> None:
    from realfake_hf.hub.push import publish_model

    folder, name = Path(str(run.output_dir)), str(run.hub_model_id)
    private, revision = run.hub_private_repo, run.hub_revision
    try:
        published = publish_model(folder, name, private=private, revision=revision, token=run.hub_token)
    except (OSError, ValueError) as error:
        command = f"python -m realfake_hf.hub --model_dir {folder} --hub_model_id {name}"
        raise OSError(f"{error} The training is finished; to publish it, run {command}") from error
    print(f"published: {published.url}")

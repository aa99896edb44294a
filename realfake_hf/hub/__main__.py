"""Publish a run on the Hub: `python -m realfake_hf.hub --model_dir runs/mine --hub_model_id user/name`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from realfake_hf.cli import parse
from realfake_hf.hub.push import Published, publish_dataset, publish_model, publish_space


@dataclass
class PublishArguments:
    """What is published, and where."""

    model_dir: Path | None = field(default=None, metadata={"help": "A folder of train.py, or one of space/models."})
    hub_model_id: str | None = field(default=None, metadata={"help": "user/name of the model."})
    results: Path | None = field(
        default=None, metadata={"help": "A folder of results that may say more of the same weights, for the card."}
    )
    private: bool = field(default=False, metadata={"help": "Make a new repository private."})
    revision: str | None = field(default=None, metadata={"help": "A branch; main by default."})
    tag: str | None = field(default=None, metadata={"help": "Given to the commit."})
    space: str | None = field(default=None, metadata={"help": "user/name of the Space, if it is to be published."})
    space_dir: Path = field(default=Path("space"), metadata={"help": "The folder of the Space."})
    dataset: str | None = field(default=None, metadata={"help": "user/name of a data set, if one is to be published."})
    data: str | None = field(default=None, metadata={"help": "Its source, as train.py takes it."})
    license: str | None = field(default=None, metadata={"help": "Its licence, as the Hub names it, such as mit."})
    with_pictures: bool = field(
        default=False, metadata={"help": "Publish its pictures, too, which the licence has to allow."}
    )
    dry_run: bool = field(default=False, metadata={"help": "List what would go, and send nothing."})

    def __post_init__(self) -> None:
        """Refuse half a wish.

        Raises:
            ValueError: a model without a name, a data set without a licence, or nothing at all.
        """
        if (self.model_dir is None) != (self.hub_model_id is None):
            raise ValueError("wanted --model_dir and --hub_model_id together; found one of them.")
        if len({value is None for value in (self.dataset, self.data, self.license)}) > 1:
            raise ValueError("wanted --dataset, --data and --license together; found some of them.")
        if not (self.model_dir or self.space or self.dataset):
            raise ValueError("wanted --model_dir, --space or --dataset; found none of them.")


def publish(arguments: PublishArguments) -> list[Published]:
    """Publish the model, then the Space with the model pinned to what was published.

    Raises:
        OSError: the Hub refuses, or does not answer.
        ValueError: there is no finished run, or something that should not leave this machine.
    """
    done: list[Published] = []
    private = arguments.private or None
    if arguments.model_dir and arguments.hub_model_id:
        done.append(
            publish_model(
                arguments.model_dir, arguments.hub_model_id, results=arguments.results, private=private,
                revision=arguments.revision, tag=arguments.tag, dry_run=arguments.dry_run,
            )
        )  # fmt: skip
    if arguments.space:
        pinned = {one.repo_id: one.commit or "main" for one in done}
        done.append(
            publish_space(
                arguments.space_dir, arguments.space, models=pinned or None, private=private, dry_run=arguments.dry_run
            )
        )
    if arguments.dataset and arguments.data and arguments.license:
        done.append(
            publish_dataset(
                arguments.data, arguments.dataset, licence=arguments.license, with_pictures=arguments.with_pictures,
                private=private, dry_run=arguments.dry_run,
            )
        )  # fmt: skip
    return done


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, publish, print; give the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files
    [arguments] = parse(PublishArguments, argv=argv, description=__doc__)
    try:
        done = publish(arguments)
    except (OSError, ValueError) as error:
        print(f"publish: {error}", file=sys.stderr)
        return 1
    for one in done:
        print(one.to_markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())

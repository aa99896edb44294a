"""Publish a model, a Space or a data set on the Hugging Face Hub.

`python -m realfake_hf.hub --model_dir runs/mine --hub_model_id user/name`
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from realfake_hf.cli import parse, run_command
from realfake_hf.labels import LabelArguments


@dataclass
class PublishArguments(LabelArguments):
    """What to publish, and where."""

    model_dir: Path | None = field(default=None, metadata={"help": "Output folder of train.py."})
    hub_model_id: str | None = field(default=None, metadata={"help": "user/name of the model."})
    results: Path | None = field(default=None, metadata={"help": "Folder of further results for the model card."})
    private: bool = field(default=False, metadata={"help": "Make a new repository private."})
    revision: str | None = field(default=None, metadata={"help": "Branch of the model; main by default."})
    tag: str | None = field(default=None, metadata={"help": "Tag of the model's commit."})
    space: str | None = field(default=None, metadata={"help": "user/name of the Space."})
    space_dir: Path = field(default=Path("space"), metadata={"help": "Folder of the Space."})
    dataset: str | None = field(default=None, metadata={"help": "user/name of the data set."})
    data: str | None = field(default=None, metadata={"help": "Source of the data set, as train.py takes it."})
    license: str | None = field(default=None, metadata={"help": "Licence id of the data set, such as mit."})
    with_pictures: bool = field(default=False, metadata={"help": "Publish the images, too, if the licence allows it."})
    dry_run: bool = field(default=False, metadata={"help": "List the files without uploading them."})

    def __post_init__(self) -> None:
        """Reject incomplete options."""
        super().__post_init__()
        if (self.model_dir is None) != (self.hub_model_id is None):
            raise ValueError("expected --model_dir and --hub_model_id together; found one of them.")
        if len({value is None for value in (self.dataset, self.data, self.license)}) > 1:
            raise ValueError("expected --dataset, --data and --license together; found some of them.")
        if not (self.model_dir or self.space or self.dataset):
            raise ValueError("expected --model_dir, --space or --dataset; found none of them.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    [arguments] = parse(PublishArguments, argv=argv, description=__doc__)
    return run_command(lambda: _work(arguments), name="publish")


def _work(arguments: PublishArguments) -> int:
    """Publish the model, then the Space with the model pinned to its new commit, then the data set."""
    from realfake_hf.hub.push import Options, publish_dataset, publish_model, publish_space

    options: Options = {"private": arguments.private or None, "dry_run": arguments.dry_run}
    models = {}
    if arguments.model_dir and arguments.hub_model_id:
        own: Options = {**options, "revision": arguments.revision, "tag": arguments.tag}
        model = publish_model(arguments.model_dir, arguments.hub_model_id, results=arguments.results, **own)
        models[model.repo_id] = model.commit or "main"
        print(model.to_markdown())
    if arguments.space:
        print(publish_space(arguments.space_dir, arguments.space, models=models, **options).to_markdown())
    if arguments.dataset and arguments.data and arguments.license:
        license, with_images = arguments.license, arguments.with_pictures
        data_set = publish_dataset(
            arguments.data,
            arguments.dataset,
            labels=arguments.labels,
            license=license,
            with_images=with_images,
            **options,
        )
        print(data_set.to_markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())

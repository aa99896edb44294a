"""Publish a model, a Space or a data set on the Hugging Face Hub.

`python -m realfake_hf.hub --model_dir runs/mine --hub_model_id user/name`
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from realfake_hf.cli import command, setting
from realfake_hf.labels import LabelArguments


@dataclass
class PublishArguments(LabelArguments):
    """What to publish, and where."""

    model_dir: Path | None = setting(None, "Output folder of train.py.")
    hub_model_id: str | None = setting(None, "user/name of the model.")
    results: Path | None = setting(None, "Folder of further results for the model card.")
    private: bool = setting(False, "Make a new repository private.")
    revision: str | None = setting(None, "Branch of the model; main by default.")
    tag: str | None = setting(None, "Tag of the model's commit.")
    space: str | None = setting(None, "user/name of the Space.")
    space_dir: Path = setting(Path("space"), "Folder of the Space.")
    dataset: str | None = setting(None, "user/name of the data set.")
    data: str | None = setting(None, "Source of the data set, as train.py takes it.")
    license: str | None = setting(None, "Licence id of the data set, such as mit.")
    with_pictures: bool = setting(False, "Publish the images, too, if the licence allows it.")
    dry_run: bool = setting(False, "List the files without uploading them.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.model_dir is None) != (self.hub_model_id is None):
            raise ValueError("expected --model_dir and --hub_model_id together; found one of them.")
        if len({value is None for value in (self.dataset, self.data, self.license)}) > 1:
            raise ValueError("expected --dataset, --data and --license together; found some of them.")
        if not (self.model_dir or self.space or self.dataset):
            raise ValueError("expected --model_dir, --space or --dataset; found none of them.")


@command(PublishArguments, name="publish", description=__doc__)
def main(arguments: PublishArguments) -> None:
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
        data_set = publish_dataset(
            arguments.data,
            arguments.dataset,
            labels=arguments.labels,
            license=arguments.license,
            with_images=arguments.with_pictures,
            **options,
        )
        print(data_set.to_markdown())


if __name__ == "__main__":
    sys.exit(main())

"""Play the Grid Pointing Game with large images: does a map of the whole image find the crop, or splice, of its label?

`python -m realfake_hf.explain_study.large_grids --model space/models/wild --data
data/second/diffusiondb-coco-imagenet --output_file results/grid_pointing_game.json`

Each of 2 x 2 crops is of an image that the model classifies correctly, and that it was not trained on. The heads of
`wild` have seen all images of its manifest, so the images have to come from elsewhere. With `--training_data`,
near-duplicates of training images are left out and counted; without it, the result says that nobody looked.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from realfake_hf.attribution.methods import CLASS_METHODS, METHODS
from realfake_hf.cli import command, setting
from realfake_hf.estimate import to_plain
from realfake_hf.labels import LabelArguments
from realfake_hf.store import write_results

if TYPE_CHECKING:
    from datasets import Dataset

    from realfake_hf.detector import Detector

SLOW: Final = "integrated_gradients"  # dozens of passes for each view
MIN_SIDE: Final = 64  # of which a quarter, the least side of a splice, is two blocks of JPEG
STEP: Final = 16  # so that half a side consists of such blocks


@dataclass
class GridArguments(LabelArguments):
    """The model, the images and the output file."""

    data: str = field(metadata={"help": "The data set, as for train.py; the model was not trained on it."})
    output_file: Path = field(metadata={"help": "JSON file of the results; the Markdown table is written beside it."})
    model: str = setting("space/models/wild", "A model that reads images of any size: a folder or a Hub id.")
    split: str | None = setting(None, "Split of the data set; by default test, or the only split.")
    training_data: str | None = setting(None, "What the model was trained on, to leave out near-duplicates.")
    methods: list[str] = setting([], f"Methods of explanation; by default all that fit the model except {SLOW}.")
    side: int = setting(512, "Side of a mosaic in pixels; each crop has half of it.")
    n: int = setting(40, "Mosaics for each label, and splices.")
    bootstrap_samples: int = setting(10_000, "Bootstrap replicates of each interval and p-value.")
    seed: int = setting(0, "Seed of all random draws.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side < MIN_SIDE or self.side % STEP:
            raise ValueError(f"expected --side of at least {MIN_SIDE}, a multiple of {STEP}; found {self.side}.")
        if unknown := sorted(set(self.methods) - METHODS.keys()):
            raise ValueError(f"expected --methods among {', '.join(METHODS)}; found {', '.join(unknown)}.")
        if self.n < 2 or self.bootstrap_samples < 1:  # noqa: PLR2004 - an interval needs two images
            raise ValueError(
                "expected --n of at least 2 and --bootstrap_samples of at least 1; found "
                f"{self.n} and {self.bootstrap_samples}."
            )


def run_game(arguments: GridArguments) -> dict[str, Any]:
    """Draw the images, play, and return the content of the results file."""
    from realfake_hf.data.loading import load_split
    from realfake_hf.detector import load_detector
    from realfake_hf.environment import environment, split_fingerprint
    from realfake_hf.explain_study.grid_game import correct_games
    from realfake_hf.explain_study.mosaics import draw_candidates, measure_mosaics

    facts, began = environment(), time.monotonic()
    detector = load_detector("--model", arguments.model)
    methods = _choose_methods(detector, arguments.methods)
    split, rows = load_split(arguments.data, arguments.split, labels=arguments.labels)
    data = {"source": arguments.data, "split": split, **split_fingerprint(rows)}
    rows, data["near_duplicates"] = _leave_out_known(rows, arguments)
    drawing: Any = {"side": arguments.side, "n": arguments.n, "seed": arguments.seed}
    rows, data["fitting"] = draw_candidates(rows, **drawing)
    _check_whole(detector, rows)
    measured = measure_mosaics(detector, rows, methods, samples=arguments.bootstrap_samples, **drawing)
    models = to_plain({Path(arguments.model).name: measured["games"]})
    correct_games(models)
    return {
        "settings": to_plain(arguments), **facts, "weights": detector.digest(),
        "data": {**data, "scored": len(rows), "right": measured["right"]}, "class_methods": sorted(CLASS_METHODS),
        "models": models, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render where the images come from, and the tables of the game."""
    from realfake_hf.explain_study.grid_game_section import grid_tables

    data, known = results["data"], results["data"]["near_duplicates"]
    check = (
        "Whether the model has seen some of them was not checked."
        if known is None
        else f"{known:,} near-duplicates of images that the model was trained on were left out."
    )
    note = (
        f"Mosaics of {results['settings']['side']} pixels of images of {data['source']}, split {data['split']}; "
        f"they are drawn from {data['right']:,} of {data['scored']:,} with a correct verdict, and unknown contents "
        f"count as one. {check}"
    )
    tables = grid_tables(results["models"], results["class_methods"])
    return "\n\n".join([note, *(table.to_markdown() for table in tables)])


def _choose_methods(detector: "Detector", asked: list[str]) -> list[str]:
    fitting = detector.methods()
    if unfit := sorted(set(asked) - {*fitting, SLOW}):
        raise ValueError(f"expected --methods that fit the model ({', '.join(fitting)}); found {', '.join(unfit)}.")
    return asked or [method for method in fitting if method != SLOW]


def _leave_out_known(rows: "Dataset", arguments: GridArguments) -> "tuple[Dataset, int | None]":
    """Leave out near-duplicates of training images, and count them; None if the training data are not given."""
    if arguments.training_data is None:
        return rows, None
    import numpy as np

    from realfake_hf.data.duplicates import far_from, hash_images
    from realfake_hf.data.loading import load_images

    splits = load_images(arguments.training_data, one_class=True)
    known = np.concatenate([hash_images(images, name=f"training: {name}").hashes for name, images in splits.items()])
    is_new = far_from(hash_images(rows, name="images").hashes, known)
    return rows.select(np.flatnonzero(is_new)), int((~is_new).sum())


def _check_whole(detector: "Detector", rows: "Dataset") -> None:
    """Raise a `ValueError` if a map of the model covers only a part of an image."""
    for image in rows["image"][:1]:
        if detector.view(image).shape[1::-1] != image.size:
            raise ValueError("expected --model whose maps cover the whole image; found one that crops it.")


@command(GridArguments, name="large_grids", description=__doc__)
def main(arguments: GridArguments) -> None:
    """Play, and print the tables."""
    results = run_game(arguments)
    print(write_results(arguments.output_file, results, to_markdown(results)))


if __name__ == "__main__":
    sys.exit(main())

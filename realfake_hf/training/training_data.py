"""The pictures that a published model was trained and tuned on, from what its passport says."""

from collections.abc import Mapping
from typing import Any

from datasets import DatasetDict

from realfake_hf.data.loading import load_images
from realfake_hf.data.splits import add_missing_splits
from realfake_hf.environment import data_fingerprint


def splits_of_training(
    asked: Mapping[str, Any], *, stated: Mapping[str, Any], source: str | None = None
) -> DatasetDict:
    """Load the splits of a training, and make sure that its validation pictures are those it was tuned on.

    Args:
        asked: the arguments in its passport.
        stated: what the passport says of the validation split: n and sha256.
        source: the data of the training; None for what the arguments name.

    Raises:
        OSError: there is no such data set.
        ValueError: its validation split is another.
    """
    shares = {name: asked[name] for name in ("validation_share", "test_share")}
    place = source or asked["data"]
    images = add_missing_splits(load_images(place), **shares, seed=asked["split_seed"])
    [found] = data_fingerprint(DatasetDict({"validation": images["validation"]})).values()
    if found["sha256"] != stated["sha256"]:
        raise ValueError(
            f"wanted the {stated['n']:,} validation pictures of the training in {place}; found {found['n']:,} "
            "others. Give the --data of its training."
        )
    return images

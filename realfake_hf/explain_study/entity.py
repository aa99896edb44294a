"""Does the entity hold the evidence? Score models with the entity hidden, an equal area of background, or all but it.

Bird and Lotfi (2024, *CIFAKE*, IEEE Access, abstract) conclude from Grad-CAM that "the actual entity itself does not
hold useful information for classification". CIFAKE has no masks of its entities; those of this part are of images on
which two unsupervised segmenters agree (`realfake_hf.experiments.entity_masks`), so they are not a random sample.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from realfake_hf.estimate import to_plain
from realfake_hf.explain_study.maps import MapSet, Plain, Sample, StudyModel, sample_rows
from realfake_hf.explain_study.occlusion import (
    FILLS,
    Fill,
    Mask,
    compare_scores,
    fill_in,
    filled,
    mass_share,
    performance,
)
from realfake_hf.labels import FAKE
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.metrics.significance import correct_differences

COMPARISONS: Final = {  # what is hidden in the first scores, and in those that are subtracted
    "entity less background": ("entity", "background"),
    "entity alone less fill": ("all but the entity", "everything"),
}


def read_masks(file: Path) -> dict[str, Mask]:
    """Read the masks of entities, (height, width) bool, by the ids of their images.

    Raises:
        ValueError: the file is not an .npz archive with `id` (n,) and `mask` (n, height, width), without pickles.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            names, masks = stored["id"].tolist(), stored["mask"]
        return dict(zip(names, masks.astype(np.bool_, casting="no"), strict=True))
    except (OSError, EOFError, BadZipFile, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"expected --entity_masks with the arrays id and mask (bool), as `make masks` writes; found {file}, which "
            f"cannot be read as such ({error}). Make the masks again."
        ) from error


def check_masks(masks: Mapping[str, Mask], ids: Iterable[str]) -> None:
    """Raise a `ValueError` if a mask belongs to none of the images, given their ids."""
    if unknown := sorted(masks.keys() - set(ids)):
        raise ValueError(
            f"expected --entity_masks of images of the split; found {len(unknown):,} of {len(masks):,} masks of other "
            f"images, such as {unknown[0]!r}. Make masks of this split."
        )


def draw_entities(
    rows: Dataset, p_fake: Mapping[str, NDArray[np.floating]], masks: Mapping[str, Mask]
) -> tuple[Sample, Mask]:
    """Return the images of a split that have masks, as a sample that represents itself, and the masks (n, h, w)."""
    chosen = np.flatnonzero([name in masks for name in rows["id"][:]])
    stratum = np.asarray(rows["label"][:])[chosen] == FAKE
    sample = sample_rows(rows, p_fake, chosen, stratum=stratum.astype(np.intp), weight=np.ones(len(chosen)))
    found = np.stack([masks[name] for name in sample.ids])
    if found.shape != sample.images.shape[:3]:
        raise ValueError(
            f"expected --entity_masks of the images' shape, {sample.images.shape[1:3]}; found {found.shape[1:]}. "
            "Make them again."
        )
    return sample, found


def background_masks(entities: Mask) -> Mask:
    """Select the background pixels that are farthest from each entity, as many as it has: (n, height, width).

    An entity covers at most half of its image.
    """
    masks = np.zeros_like(entities)
    for entity, mask in zip(entities, masks, strict=True):
        distance = np.where(entity, -1.0, distance_transform_edt(~entity))
        farthest = np.argsort(-distance, axis=None, kind="stable")[: int(entity.sum())]
        mask.flat[farthest] = True
    return masks


def measure_entity(
    models: Sequence[StudyModel], maps: Iterable[MapSet], sample: Sample, entities: Mask, *, samples: int, seed: int
) -> Plain:
    """Hide the entity, as much background, all but the entity, or everything, and find the mass of maps in the entity.

    Entities, (n, height, width), and maps are of the images of the sample. The result is plain JSON: `n`, `area`, the
    share of the image that the entity covers, and for each of the `models` its performance on `untouched` images and,
    by fill, with each region `hidden`, with the `differences` of `COMPARISONS`; and for each kind of map its `mass` in
    the entity, and that less the area (`mass_less_area`). The p-values of all differences are corrected together.
    """
    resampling = sample.resampling(samples=samples, seed=seed)
    results = {
        model.name: {
            "untouched": performance(sample, resampling, model.probabilities(sample.images)),
            "fills": {fill: _hide_entity(model, sample, resampling, entities, fill) for fill in FILLS},
        }
        for model in models
    }
    area = entities.mean(axis=(1, 2))
    counts = {"n": len(sample), "n_real": int((~sample.is_fake).sum()), "n_fake": int(sample.is_fake.sum())}
    shares = {each.name: _mass(each, entities, resampling) for each in maps}
    measured = to_plain({**counts, "area": resampling.mean(area), "fills": FILLS, "models": results, "maps": shares})
    rows = [row for tested in measured["models"].values() for row in tested["fills"].values()]
    tests = [test for row in rows for both in row["differences"].values() for test in both.values()]
    correct_differences(tests + [share["mass_less_area"] for share in measured["maps"].values()])
    return measured


def _hide_entity(model: StudyModel, sample: Sample, resampling: Resampling, entities: Mask, fill: Fill) -> Plain:
    images = sample.images
    masks = {"entity": entities, "background": background_masks(entities), "all but the entity": ~entities}
    scores = {name: model.probabilities(fill_in(images, mask, fill=fill)) for name, mask in masks.items()}
    scores["everything"] = model.probabilities(filled(images, fill=fill))
    return {
        "hidden": {name: performance(sample, resampling, each) for name, each in scores.items()},
        "differences": {
            name: compare_scores(sample, resampling, scores[first], scores[second])
            for name, (first, second) in COMPARISONS.items()
        },
    }


def _mass(maps: MapSet, entities: Mask, resampling: Resampling) -> Plain:
    mass = np.concatenate([mass_share(heat[None], mask) for heat, mask in zip(maps.heat, entities, strict=True)])
    less_area = resampling.change(mass - entities.mean(axis=(1, 2)))
    return {"mass": resampling.mean(mass), "mass_less_area": less_area}

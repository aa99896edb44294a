"""Fine-tuned fidelity (Zheng et al., 2025, *F-Fidelity: A Robust Framework for Faithfulness Evaluation*, ICLR).

A model that never saw hidden cells may change its prediction because they look strange. So a copy of it, fine-tuned
on images with random cells hidden (`train.py --hidden_share`), scores images from which a random part of the highest
cells of a map is removed, or of the others, and never more cells than the fine-tuning hid. No map is used for the
fine-tuning, so none has an advantage.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm.auto import tqdm

from realfake_hf.data.augment import HIDDEN_GRID
from realfake_hf.explain_study.maps import Images, StudyModel, Values, load_model
from realfake_hf.explain_study.trials import Flags, Orders, Trial, is_undefined, order_of, seeds_of, summarize
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.run_folder import read_record

SPARSITIES: Final = (0.1, 0.3, 0.5, 0.7, 0.9)  # shares of the cells that count as the highest
REMOVED: Final = 0.5  # of these cells, or of the others, at random: the share in the authors' code for CIFAR-100
DRAWS: Final = 5  # of the removed cells, for each image and sparsity


@dataclass(frozen=True)
class Hardened:
    """A copy of a model under study, fine-tuned on images with hidden cells, and the largest share that was hidden."""

    model: StudyModel
    share: float


def hidden_share(place: str) -> float:
    """Read the largest share of the cells that the fine-tuning of a run folder hid; a `ValueError` without any."""
    share = read_record(Path(place).expanduser()).get("arguments", {}).get("hidden_share")
    if not share:
        raise ValueError(
            f"expected --hardened with an output folder of train.py --hidden_share, whose run.json has it above 0; "
            f"found {place}, which has not. Fine-tune the model, as in recipes/studies/hardened_cnn.yaml."
        )
    return float(share)


def load_hardened(name: str, place: str) -> Hardened:
    """Load the copy of the model of a name from its run folder; see `hidden_share`."""
    return Hardened(share=hidden_share(place), model=load_model(name, place))


def measure_fidelity(
    model: StudyModel,
    copy: Hardened,
    images: Images,
    maps: Mapping[str, Values],
    resampling: Resampling,
    *,
    seed: int,
) -> tuple[dict[str, Any], dict[str, dict[str, Values]]]:
    """Measure the fidelity of maps, (n, *GRID) by name and NaN if empty, to the predictions of a model on images.

    Returns:
        The `share` of the copy, the share of intact images to which it gives the `same_label` as the model, and by map
        the mean drops and their differences to references, see `measure_drops` and `summarize`; and the drops of each
        image, (n,) by test and by map, with the sign by which more is more faithful.
    """
    called_fake = model.probabilities(images) > 0.5  # noqa: PLR2004 - one half
    trial = Trial(images, score=copy.model.probabilities, fill="mean", called_fake=called_fake)
    drops = measure_drops(trial, maps, share=copy.share, seed=seed)
    found = {
        "share": copy.share,
        "same_label": resampling.mean(trial.intact > 0.5),  # noqa: PLR2004 - one half
        "orders": summarize(drops, resampling),
    }
    scores = {
        "Fid+": {name: each["plus"] for name, each in drops.items()},
        "Fid-": {name: -each["minus"] for name, each in drops.items()},
    }
    return found, scores


def measure_drops(
    trial: Trial, maps: Mapping[str, Values], *, share: float, seed: int
) -> dict[str, dict[str, Values]]:
    """Measure by how much the probability of the predictions drops when a random part of the cells is removed.

    Args:
        trial: the images, scored by the copy; predictions are those of the model itself.
        maps: (n, *GRID) by name; NaN if empty.
        share: largest share of the cells that may be removed.
        seed: seed of ties, random orders and the removed cells, which are drawn alike for all maps.

    Returns:
        By map, (n,) in [-1, 1]: the mean drop without a part of the highest cells (`plus`, high is faithful), without
        a part of the others (`minus`, low is faithful), and their `difference`; NaN for an empty map.
    """
    drops = {}
    for name in tqdm(maps, desc="fine-tuned fidelity", unit="order", disable=None):
        orders = (order_of(maps[name], seed=each) for each in seeds_of(name, seed))
        plus, minus = np.where(is_undefined(maps[name]), np.nan, _mean_drops(trial, orders, share=share, seed=seed))
        drops[name] = {"plus": plus, "minus": minus, "difference": plus - minus}
    return drops


def draw_cells(candidates: Flags, *, share: float, generator: np.random.Generator) -> Flags:
    """Draw `REMOVED` of the candidates, (n, cells), at most this share of all cells, at random: (n, cells).

    Every row has the same number of candidates.
    """
    count = min(round(REMOVED * int(candidates[0].sum())), math.floor(share * candidates.shape[1]))
    priority = np.where(candidates, generator.random(candidates.shape), 1.0)
    return np.asarray(priority.argsort(axis=1).argsort(axis=1) < count)


def _mean_drops(trial: Trial, orders: Iterable[Orders], *, share: float, seed: int) -> Values:
    """Return both mean drops over orders, sparsities and draws: (2, n)."""
    totals, n_drops = np.zeros((2, len(trial.images))), 0
    for order in orders:
        generator = np.random.default_rng(seed)
        places = order.argsort(axis=1)
        for sparsity in np.repeat(SPARSITIES, DRAWS):
            highest = places < round(sparsity * places.shape[1])
            for total, candidates in zip(totals, (highest, ~highest), strict=True):
                removed = draw_cells(candidates, share=share, generator=generator)
                total += trial.intact - trial.score_hidden(removed.reshape(-1, *HIDDEN_GRID))
            n_drops += 1
    return totals / n_drops

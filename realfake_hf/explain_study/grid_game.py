"""The Grid Pointing Game: do maps find the one image of their label in a grid of 2 x 2?

Böhle et al. (2021, *Convolutional Dynamic Alignment Networks*, CVPR), and for vision transformers Böhle et al. (2023,
*Holistically Explainable Vision Transformers*, arXiv:2301.08669). Here one quadrant is of an image of the target
label, and three are of images of the other label. All show the same content, the model classifies each of them
correctly, and each quadrant is taken from its own place in its image. There is no control as in `measure_planted`: a
map that marks whatever differs from the rest is credited, too.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.attribution.methods import CLASS_METHODS
from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.explain_study.agreement import centre_gaussian
from realfake_hf.explain_study.maps import GRID, Images, Plain, Sample, StudyModel, maps_on_grid
from realfake_hf.explain_study.pointing_game import (
    QUADRANTS,
    Flags,
    Found,
    Rows,
    draw_quadrants,
    draw_rows,
    inside,
    locate,
    plant,
)
from realfake_hf.labels import LabelName
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.metrics.significance import correct_differences

GAMES: Final[Mapping[str, LabelName]] = {"fake among real": "FAKE", "real among fake": "REAL"}  # labels to be found
OTHERS: Final = QUADRANTS - 1
PRIOR: Final = "prior"  # name of the baseline `centre_gaussian`


def measure_grids(
    models: Sequence[StudyModel], sample: Sample, *, n: int, samples: int = 1000, seed: int = 0
) -> Plain:
    """Play the Grid Pointing Game with every method of each model.

    At most n grids for each label, balanced by content, are drawn from the sample; as with planted evidence, each
    counts once. The seed is that of the grids, the quadrants and the bootstrap. The result is plain JSON: the scores
    of an uninformative map (`chance`), the `class_methods`, whose maps depend on the label, and for each of the
    `models` and each of `GAMES` the result of `summarize`. By symmetry, the centre prior scores chance in each grid,
    so that a difference to one is a difference to both. The p-values of all differences are corrected together.
    """
    draws = {
        (model.name, name): draw_grids(
            sample.is_fake,
            sample.is_right[model.name],
            sample.content,
            target=target,
            model=model.name,
            n=n,
            seed=seed,
        )
        for model in models
        for name, target in GAMES.items()
    }
    results = {}
    for model in models:
        progress = tqdm(GAMES.items(), desc=f"{model.name}: grids", unit="game", disable=None)
        results[model.name] = {
            name: _play(model, sample.images, draws[model.name, name], target, samples=samples, seed=seed)
            for name, target in progress
        }
    chance = {"hits": 1 / QUADRANTS, "mass": 1 / QUADRANTS, "roc_auc": 1 / 2}
    settings = {"chance": chance, "grid": GRID, "class_methods": sorted(CLASS_METHODS)}
    measured = to_plain(settings | {"models": results})
    correct_games(measured["models"])
    return measured


def draw_grids(
    is_fake: Flags, is_right: Flags, content: Sequence[str], *, target: LabelName, model: str, n: int, seed: int
) -> Rows:
    """Draw the images of at most n grids from those that the model classifies correctly: (4, grids).

    The first of a grid has the target label, the three others differ. Few others are used repeatedly. The first three
    arguments are (images,).

    Raises:
        ValueError: no content has enough images.
    """
    is_target = is_fake == (target == "FAKE")
    rows = draw_rows(is_right & is_target, is_right & ~is_target, content, _give_others, n=n, seed=seed)
    if not rows.size:
        other = "REAL" if target == "FAKE" else "FAKE"
        raise ValueError(
            f"expected a {target} image and three {other} ones of the same content that {model} classifies correctly; "
            "found none. Draw a larger sample."
        )
    return rows


def compose(images: Images, rows: Rows, quadrants: NDArray[np.integer]) -> Images:
    """Compose grids, (grids, height, width, 3) uint8, of rows, (4, grids), of images of the same size.

    Each quadrant stays at its place: the first image of a grid fills one of the quadrants, (grids,), and the others
    fill those that follow.
    """
    grids: Images = images[rows[0]]
    size = images.shape[1], images.shape[2]
    for number in range(1, QUADRANTS):
        grids = plant(grids, images[rows[number]], inside((quadrants + number) % QUADRANTS, size))
    return grids


def summarize(
    found: Mapping[str, Found],
    baselines: Mapping[str, Mapping[str, Found]],
    p_fake: NDArray[np.floating],
    *,
    target: LabelName,
    samples: int,
    seed: int,
) -> Plain:
    """Average the measures of each method over images, and test the paired differences to baselines.

    Args:
        found: measures by method, see `pointing_game.locate`.
        baselines: measures by the name of the baseline, then by method.
        p_fake: (images,) verdicts on the composed images.
        target: the explained label, which is the label of the region.
        samples: replicates of the bootstrap over images.
        seed: of the bootstrap.

    Returns:
        `n`, `target`, the mean probability of the target (`p_target`), and for each of the `methods` the estimates by
        measure, and by baseline the differences (`less`).
    """
    resampling = Resampling(np.ones(len(p_fake)), samples=samples, seed=seed)

    def summarize_method(method: str) -> dict[str, Estimate | Plain]:
        own = found[method]
        less = {
            name: {key: resampling.change(own[key] - values[method][key]) for key in own}
            for name, values in baselines.items()
        }
        return {**{key: resampling.mean(values) for key, values in own.items()}, "less": less}

    return {
        "n": len(p_fake),
        "target": target,
        "p_target": resampling.mean(p_fake if target == "FAKE" else 1 - p_fake),
        "methods": {method: summarize_method(method) for method in found},
    }


def correct_games(models: Mapping[str, Plain]) -> None:
    """Add `p_holm` to all differences of the games of all models, in plain JSON, in place: one family."""
    rows = [row for games in models.values() for game in games.values() for row in game["methods"].values()]
    correct_differences([test for row in rows for less in row["less"].values() for test in less.values()])


def _give_others(targets: Rows, others: Rows) -> Rows:
    """Give each target three other images: (4, targets), none if there are too few."""
    if len(others) < OTHERS:
        return np.empty((QUADRANTS, 0), dtype=np.intp)
    places = np.arange(OTHERS * len(targets)).reshape(-1, OTHERS)
    return np.stack([targets, *np.resize(others, places.size)[places].T])


def _play(model: StudyModel, images: Images, rows: Rows, target: LabelName, *, samples: int, seed: int) -> Plain:
    quadrants = draw_quadrants(rows.shape[1], seed=seed)
    grids, where = compose(images, rows, quadrants), inside(quadrants, GRID)
    found = {method: locate(maps_on_grid(model, grids, method, target=target), where) for method in model.methods}
    prior = locate(np.broadcast_to(centre_gaussian(), where.shape), where)
    return summarize(
        found, {PRIOR: dict.fromkeys(found, prior)}, model.probabilities(grids), target=target, samples=samples,
        seed=seed,
    )  # fmt: skip

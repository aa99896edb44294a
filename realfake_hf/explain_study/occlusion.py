"""Where is the evidence? Score models with the centre of each image hidden, and with equal areas elsewhere hidden.

Bird and Lotfi (2024, *CIFAKE*, IEEE Access, abstract) conclude from Grad-CAM that "the actual entity itself does not
hold useful information for classification", and that small imperfections of the background do. CIFAKE often shows the
entity in the centre, but the centre is not the entity (`entity.py` measures with masks of it), and a rim is no compact
region. So the centre is compared with a rim and with a square in a corner of the same area. No model was trained on
occluded images, so only occlusions of equal area and fill are compared.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from realfake_hf.estimate import Difference, Estimate, to_plain
from realfake_hf.explain_study.maps import (
    Images,
    Maps,
    Plain,
    Sample,
    StudyModel,
    Values,
    mass_inside,
    pixels_of_cells,
)
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.metrics.report import roc_auc
from realfake_hf.metrics.significance import correct_differences

Fill = Literal["blur", "mean"]
Mask = NDArray[np.bool_]
Scores = NDArray[np.floating]

FILLS: Final = ("blur", "mean")
BLUR: Final = 1 / 8  # sigma as a share of the sides: 4 of 32 pixels, one cell of a grid of 8; no detail remains
AREAS: Final = (0.25, 0.5, 0.75)
MAP_AREAS: Final = (0.25, 0.5)


def fill_in(images: Images, hidden: Mask, *, fill: Fill) -> Images:
    """Replace the hidden pixels, (n, height, width) or (height, width) for all, of images (n, height, width, 3) uint8.

    Neither fill adds a colour that the image lacks, as black would: "blur" is the image blurred by a Gaussian,
    mirrored at its borders, which adds no edge of high contrast; "mean" its mean colour, which leaves no structure. A
    result that holds for both is not an artefact of the fill.
    """
    return np.where(hidden[..., None], filled(images, fill=fill), images)


def filled(images: Images, *, fill: Fill) -> Images:
    """Return images with all pixels hidden: (n, height, width, 3) uint8."""
    pixels = images.astype(np.float32)
    if fill == "blur":
        height, width = images.shape[1:3]
        hidden = gaussian_filter(pixels, sigma=(0, BLUR * height, BLUR * width, 0), mode="reflect")
    else:
        hidden = np.broadcast_to(pixels.mean(axis=(1, 2), keepdims=True), pixels.shape)
    return np.rint(hidden).astype(np.uint8)  # type: ignore[no-any-return]


def centre_mask(shape: tuple[int, int], share: float) -> Mask:
    """Select the pixels nearest to the centre of an image, `round(share * height * width)` of them: (height, width).

    Pixels are ordered by their Chebyshev distance from the centre, relative to the sides of the image, so that regions
    are frames of the image; pixels of one frame by their Euclidean distance, so that corners come last; then in
    opposite pairs, so that a region with an even number of pixels keeps its centre of mass in the centre.

    >>> centre_mask((4, 4), 0.25).astype(int)
    array([[0, 0, 0, 0],
           [0, 1, 1, 0],
           [0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    return _ranks(shape) < round(share * shape[0] * shape[1])


def rim_mask(shape: tuple[int, int], share: float) -> Mask:
    """Select the last pixels in the order of `centre_mask`, of the same total area."""
    ranks = _ranks(shape)
    return ranks >= ranks.size - round(share * ranks.size)


def corner_masks(shape: tuple[int, int], share: float, corners: NDArray[np.intp]) -> Mask:
    """Select the pixels nearest to a corner of each image, of the same total area: (n, height, width).

    The corners, (n,), are numbered row by row from the upper left. Up to a quarter of the area, a corner does not
    overlap with the opposite ones; a corner of half of the area covers a part of the centre.

    >>> corner_masks((4, 4), 0.25, np.array([1]))[0].astype(int)
    array([[0, 0, 1, 1],
           [0, 0, 1, 1],
           [0, 0, 0, 0],
           [0, 0, 0, 0]])
    """
    upper_left = _ranks(shape, from_corner=True) < round(share * shape[0] * shape[1])
    masks = [upper_left, upper_left[:, ::-1], upper_left[::-1], upper_left[::-1, ::-1]]
    return np.stack(masks)[corners]


def mass_share(maps: Maps, mask: Mask) -> Values:
    """Compute the share of each map's mass inside a region of the image: (n,) in [0, 1]; NaN for an empty map.

    The maps, (n, grid_h, grid_w), are not negative and not finer than the mask, (height, width). A uniform map would
    have the region's share of the area.
    """
    inside, whole = (pixels_of_cells(each, maps.shape[1:]) for each in (mask, np.ones_like(mask)))
    return mass_inside(maps, inside, whole)


def measure_occlusion(models: Sequence[StudyModel], sample: Sample, *, samples: int = 1000, seed: int = 0) -> Plain:
    """Score models on images with the centre, an equal area of the rim or of a corner, everything, or nothing hidden.

    Every model scores each image 21 times. The bootstrap replicates are the same for all estimates, and the seed is
    also that of the corners. The result is plain JSON: `n`, `areas`, `fills`, and for each of the `models` its
    performance on `untouched` images, with everything hidden (`all_hidden`, by fill), and with a region hidden
    (`hiding`, see `_hide_regions`). The p-values of all differences over all images are corrected together.
    """
    resampling = sample.resampling(samples=samples, seed=seed)
    masks = {area: _regions(sample, area, seed=seed) for area in AREAS}
    results = {}
    for model in models:
        hidden = {fill: model.probabilities(filled(sample.images, fill=fill)) for fill in FILLS}
        results[model.name] = {
            "untouched": performance(sample, resampling, model.probabilities(sample.images)),
            "all_hidden": {fill: performance(sample, resampling, scores) for fill, scores in hidden.items()},
            "hiding": [
                {"area": area, "fill": fill, **_hide_regions(model, sample, resampling, masks[area], fill)}
                for area in AREAS
                for fill in FILLS
            ],
        }
    measured = to_plain({"n": len(sample), "areas": AREAS, "fills": FILLS, "models": results})
    rows = [row for tested in measured["models"].values() for row in tested["hiding"]]
    differences = [difference for row in rows for difference in row["centre_less"].values()]
    correct_differences([difference[name] for difference in differences for name in ("accuracy", "roc_auc")])
    return measured


def map_shares(maps: Mapping[str, Maps], resampling: Resampling, *, shape: tuple[int, int]) -> dict[str, list[Plain]]:
    """Compute the share of each kind of map's mass in the centre and in the rim.

    The maps, (n, grid_h, grid_w) and not negative, are of the same images, whose height and width are `shape`. The
    result has, by name, one entry for each of `MAP_AREAS`: `area`, the share of the image in each region, which is
    also the share of a uniform map's mass; and the estimates `centre` and `rim`, without empty maps.
    """
    masks = {"centre": centre_mask, "rim": rim_mask}
    return to_plain(
        {
            name: [
                {"area": area}
                | {region: resampling.mean(mass_share(heat, mask(shape, area))) for region, mask in masks.items()}
                for area in MAP_AREAS
            ]
            for name, heat in maps.items()
        }
    )


def performance(sample: Sample, resampling: Resampling, p_fake: Scores) -> dict[str, Estimate]:
    """Measure how well REAL and FAKE are separated, with FAKE predicted above 0.5.

    `called_fake` is the share predicted FAKE: occlusion can push all predictions to one label, which lowers the
    accuracy and not the AUC.
    """
    right = _is_right(sample, p_fake)
    return {
        "accuracy": resampling.mean(right),
        "accuracy_real": resampling.mean(right, where=~sample.is_fake),
        "accuracy_fake": resampling.mean(right, where=sample.is_fake),
        "called_fake": resampling.mean(right == sample.is_fake),
        "roc_auc": resampling.statistic(partial(roc_auc, sample.is_fake, p_fake)),
    }


def compare_scores(sample: Sample, resampling: Resampling, first: Scores, second: Scores) -> dict[str, Difference]:
    """Test the accuracy and the ROC AUC of scores (n,) less those of other scores of the same images, paired."""
    auc: Callable[..., Values] = partial(roc_auc, sample.is_fake)
    return {
        "accuracy": resampling.change(_is_right(sample, first) * 1.0 - _is_right(sample, second)),
        "roc_auc": resampling.statistic_change(lambda weights: auc(first, weights) - auc(second, weights)),
    }


def _regions(sample: Sample, area: float, *, seed: int) -> dict[str, Mask]:
    """Return the masks of centre, rim and corner; all four corners occur equally often."""
    shape = (sample.images.shape[1], sample.images.shape[2])
    corners = np.random.default_rng(seed).permutation(np.arange(len(sample)) % 4)
    return {
        "centre": centre_mask(shape, area), "rim": rim_mask(shape, area), "corner": corner_masks(shape, area, corners),
    }  # fmt: skip


def _hide_regions(
    model: StudyModel, sample: Sample, resampling: Resampling, masks: Mapping[str, Mask], fill: Fill
) -> Plain:
    """Score the same images with each region `hidden`; differences are centre less the other, also by content."""
    scores = {name: model.probabilities(fill_in(sample.images, mask, fill=fill)) for name, mask in masks.items()}
    right = {name: _is_right(sample, each) * 1.0 for name, each in scores.items()}

    def compare(other: str) -> Plain:
        gain = right["centre"] - right[other]
        contents = {name: resampling.mean(gain, where=where) for name, where in sample.by_content.items()}
        return {**compare_scores(sample, resampling, scores["centre"], scores[other]), "by_content": contents}

    return {
        "hidden": {name: performance(sample, resampling, each) for name, each in scores.items()},
        "centre_less": {other: compare(other) for other in ("rim", "corner")},
    }


def _is_right(sample: Sample, p_fake: Scores) -> NDArray[np.bool_]:
    return np.asarray((p_fake > 0.5) == sample.is_fake)  # noqa: PLR2004 - one half


def _ranks(shape: tuple[int, int], *, from_corner: bool = False) -> NDArray[np.intp]:
    """Number the pixels from the centre or the upper left corner, computed in integers so that ties are exact."""
    height, width = shape
    top, left = (-1, -1) if from_corner else (height - 1, width - 1)
    down = (2 * np.arange(height) - top)[:, None] * width + np.zeros(width, dtype=np.intp)
    right = (2 * np.arange(width) - left)[None, :] * height + np.zeros((height, 1), dtype=np.intp)
    frame = np.maximum(np.abs(down), np.abs(right))
    keys = (right, down, down * right > 0, np.abs(down), down**2 + right**2, frame)  # the last key is the first
    ranks = np.empty(height * width, dtype=np.intp)
    ranks[np.lexsort([key.ravel() for key in keys])] = np.arange(height * width)
    return ranks.reshape(shape)

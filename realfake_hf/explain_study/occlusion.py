"""Where is the evidence? Score models with the centre of each image hidden, and with an equal area of its rim hidden.

Bird and Lotfi (2024, *CIFAKE*, IEEE Access, abstract) conclude from Grad-CAM that "the actual entity itself does not
hold useful information for classification", and that small imperfections of the background do. CIFAKE shows the
entity in the centre. If the claim holds, hiding the rim costs more than hiding the centre, and the centre alone
informs no better than the fill, which preserves the colours of the image. The centre represents the entity on average,
not in each image. No model was trained on occluded images, so only occlusions of equal area and fill are compared.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.explain_study.maps import Images, Maps, Plain, Sample, StudyModel, Values, mass_inside
from realfake_hf.metrics.intervals import Resampling
from realfake_hf.metrics.report import roc_auc

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


def mass_share(maps: Maps, mask: Mask) -> Values:
    """Compute the share of each map's mass inside a region of the image: (n,) in [0, 1]; NaN for an empty map.

    The maps, (n, grid_h, grid_w), are not negative and not finer than the mask, (height, width). A cell covers the
    pixels over which it is drawn, with sharp edges: pixel row i shows cell row i * grid_h // height. A uniform map
    would have the region's share of the area.
    """
    inside, whole = _pixels_of_cells(mask, maps.shape[1:]), _pixels_of_cells(np.ones_like(mask), maps.shape[1:])
    return mass_inside(maps, inside, whole)


def measure_occlusion(models: Sequence[StudyModel], sample: Sample, *, samples: int = 1000, seed: int = 0) -> Plain:
    """Score models on images with the centre, an equal area of the rim, everything, or nothing hidden.

    Every model scores each image 15 times. The bootstrap replicates are the same for all estimates. The result is
    plain JSON: `n`, `areas`, `fills`, and for each of the `models` its performance on `untouched` images, with
    everything hidden (`all_hidden`, by fill), and with centre or rim hidden (`hiding`, for each area and fill).
    """
    resampling = sample.resampling(samples=samples, seed=seed)
    performance = partial(_performance, sample, resampling)
    results = {
        model.name: {
            "untouched": performance(model.probabilities(sample.images)),
            "all_hidden": {fill: performance(model.probabilities(filled(sample.images, fill=fill))) for fill in FILLS},
            "hiding": [
                _hide_centre_and_rim(model, sample, resampling, area, fill) for area in AREAS for fill in FILLS
            ],
        }
        for model in models
    }
    return to_plain({"n": len(sample), "areas": AREAS, "fills": FILLS, "models": results})


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


def _hide_centre_and_rim(model: StudyModel, sample: Sample, resampling: Resampling, area: float, fill: Fill) -> Plain:
    """Score the same images with the centre and with the rim hidden; differences are centre minus rim, paired."""
    masks = (make(sample.images.shape[1:3], area) for make in (centre_mask, rim_mask))
    centre, rim = (model.probabilities(fill_in(sample.images, mask, fill=fill)) for mask in masks)
    gain = _is_right(sample, centre) * 1.0 - _is_right(sample, rim)
    auc: Callable[..., Values] = partial(roc_auc, sample.is_fake)
    return {
        "area": area,
        "fill": fill,
        "centre": _performance(sample, resampling, centre),
        "rim": _performance(sample, resampling, rim),
        "accuracy_difference": resampling.mean(gain),
        "roc_auc_difference": resampling.statistic(lambda weights: auc(centre, weights) - auc(rim, weights)),
        "by_content": {name: resampling.mean(gain, where=where) for name, where in sample.by_content.items()},
    }


def _performance(sample: Sample, resampling: Resampling, p_fake: Scores) -> dict[str, Estimate]:
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


def _is_right(sample: Sample, p_fake: Scores) -> NDArray[np.bool_]:
    return np.asarray((p_fake > 0.5) == sample.is_fake)  # noqa: PLR2004 - one half


def _ranks(shape: tuple[int, int]) -> NDArray[np.intp]:
    """Number the pixels from the centre outwards, computed in integers so that ties are exact."""
    height, width = shape
    down = (2 * np.arange(height) - (height - 1))[:, None] * width + np.zeros(width, dtype=np.intp)
    right = (2 * np.arange(width) - (width - 1))[None, :] * height + np.zeros((height, 1), dtype=np.intp)
    frame = np.maximum(np.abs(down), np.abs(right))
    keys = (right, down, down * right > 0, np.abs(down), down**2 + right**2, frame)  # the last key is the first
    ranks = np.empty(height * width, dtype=np.intp)
    ranks[np.lexsort([key.ravel() for key in keys])] = np.arange(height * width)
    return ranks.reshape(shape)


def _pixels_of_cells(mask: Mask, grid: tuple[int, ...]) -> Values:
    """Count the selected pixels that each cell covers: of the grid's shape."""
    rows, columns = (np.arange(side) * cells // side for side, cells in zip(mask.shape, grid, strict=True))
    counts = np.zeros(grid)
    np.add.at(counts, np.ix_(rows, columns), mask)
    return counts

"""Noisy linear imputation (Rong et al., 2022, *A Consistent and Efficient Evaluation Strategy*, ICML).

A blur or a mean colour shows which pixels are hidden, and the shape of the hidden region alone can change a
prediction. Here, hidden pixels continue their surroundings without an edge.
"""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array, eye_array, kron
from scipy.sparse.linalg import splu

from realfake_hf.explain_study.maps import Images, Values
from realfake_hf.explain_study.occlusion import Mask

DIRECT: Final = 1 / 6  # weight of a neighbour above, below or beside
DIAGONAL: Final = 1 / 12
NOISE: Final = 0.01 * 255  # grey levels; 0.01 of [0, 1] in the authors' code, tleemann/road_evaluation


def impute(images: Images, hidden: Mask, *, seed: int) -> Images:
    """Replace the hidden pixels, (n, height, width) or (height, width) for all, of images (n, height, width, 3) uint8.

    Each hidden pixel is the weighted mean of its neighbours, hidden ones included, plus Gaussian noise. At a border,
    the weights of the remaining neighbours are scaled to sum to 1. An image that is hidden as a whole has nothing to
    continue, and becomes its mean colour plus the noise. The noise of a pixel depends on the seed and its position in
    the array alone, so that all masks of an image share it.
    """
    masks = np.broadcast_to(hidden, images.shape[:3])
    smooth = np.stack([_interpolated(image, mask) for image, mask in zip(images, masks, strict=True)])
    noise = np.random.default_rng(seed).normal(0, NOISE, images.shape)
    return np.where(masks[..., None], np.rint(smooth + noise).clip(0, 255).astype(np.uint8), images)


def _interpolated(image: NDArray[np.uint8], hidden: Mask) -> Values:
    """Solve for the hidden pixels, (height, width), of an image (height, width, 3); its channels share a matrix."""
    pixels, unknown = image.reshape(-1, 3).astype(np.float64), hidden.ravel()
    if unknown.all():
        pixels[:] = pixels.mean(axis=0)
    elif unknown.any():
        weights = _neighbour_weights(*hidden.shape)[unknown]
        system = eye_array(int(unknown.sum())) - weights[:, unknown]
        pixels[unknown] = splu(system.tocsc()).solve(weights[:, ~unknown] @ pixels[~unknown])
    return pixels.reshape(image.shape)


@cache
def _neighbour_weights(height: int, width: int) -> csr_array:
    """Return the weight of each pixel in the mean of each pixel's neighbours: (pixels, pixels), rows sum to 1."""
    down, right = (diags_array([1.0, 1.0], offsets=[-1, 1], shape=(side, side)) for side in (height, width))
    direct = kron(down, eye_array(width)) + kron(eye_array(height), right)
    weights = DIRECT * direct + DIAGONAL * kron(down, right)
    return csr_array(diags_array(1 / weights.sum(axis=1)) @ weights)

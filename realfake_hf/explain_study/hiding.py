"""Deletion and insertion (Petsiuk et al., 2018, *RISE*, BMVC): does the verdict hang on what a map calls important?

Cells of a grid are hidden, or shown in a filled picture, in the order of a map. It knows pictures, orders and scores,
and no model. A cell is hidden by a fill, and no fill is neutral, so that a curve means something only beside another
one with the same fill: that of a random order, or of a map that always looks at the centre.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realfake_hf.explain_study.fills import Fill, fill_in, filled

Pictures = NDArray[np.uint8]
Orders = NDArray[np.intp]
Values = NDArray[np.float64]
Score = Callable[[Pictures], NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class Trial:
    """Pictures and what is made of them whole and with all hidden: where the curves of every order begin and end.

    Attributes:
        pictures: (n, height, width, 3) uint8 [0, 255].
        fill: what takes the place of hidden pixels.
        score: gives `p_fake` of pictures, (n,) in [0, 1].
        called_fake: (n,) the verdict on the whole picture, whose probability is followed.
        whole: (n,) its probability with nothing hidden.
        hidden: (n,) its probability with everything hidden.
    """

    pictures: Pictures
    fill: Fill
    score: Score
    called_fake: NDArray[np.bool_]
    whole: Values
    hidden: Values


@dataclass(frozen=True, eq=False)
class Curves:
    """The probability of the first verdict while cells are hidden or shown, the highest first.

    Attributes:
        shares: (steps + 1,) of the cells that are hidden, or shown, from 0 to 1.
        deletion: (n, steps + 1) in [0, 1], from the whole picture to the hidden one. Low curves are faithful.
        insertion: (n, steps + 1) in [0, 1], from the hidden picture to the whole one. High curves are faithful.
    """

    shares: Values
    deletion: Values
    insertion: Values

    @property
    def deletion_auc(self) -> Values:
        """Area under each deletion curve by the trapezoid rule: (n,) in [0, 1]."""
        return np.asarray(np.trapezoid(self.deletion, self.shares, axis=1))

    @property
    def insertion_auc(self) -> Values:
        """Area under each insertion curve by the trapezoid rule: (n,) in [0, 1]."""
        return np.asarray(np.trapezoid(self.insertion, self.shares, axis=1))


def begin(pictures: Pictures, *, score: Score, fill: Fill) -> Trial:
    """Score pictures whole and with all hidden, once for all orders."""
    p_fake = _scored(score, pictures)
    called_fake = p_fake > 0.5  # noqa: PLR2004 - one half
    hidden = _scored(score, filled(pictures, fill=fill))
    return Trial(
        pictures, fill, score, called_fake, _of_verdict(p_fake, called_fake), _of_verdict(hidden, called_fake)
    )


def trace(trial: Trial, orders: Orders, *, grid: tuple[int, int], steps: int) -> Curves:
    """Hide and show the cells of each picture in its order.

    Args:
        trial: the pictures.
        orders: (n, cells) the cells of each picture, row by row through the grid, the first to be hidden first.
        grid: cells, as height and width.
        steps: in which all cells are hidden; of as equal size as can be.

    Raises:
        ValueError: no steps, or more than cells.
    """
    counts = step_cells(grid, steps=steps)
    places = np.argsort(orders, axis=1).reshape(-1, *grid)  # of each cell in its picture's order
    deletion = [_hiding(trial, places < count) for count in counts[1:-1]]
    insertion = [_hiding(trial, places >= count) for count in counts[1:-1]]
    return Curves(
        shares=counts / counts[-1],
        deletion=np.stack([trial.whole, *deletion, trial.hidden], axis=1),
        insertion=np.stack([trial.hidden, *insertion, trial.whole], axis=1),
    )


def order_of(maps: NDArray[np.floating], *, seed: int) -> Orders:
    """Order the cells of maps, (n, height, width), the highest first: (n, cells). Cells that tie are drawn by lot."""
    flat = maps.reshape(len(maps), -1)
    lots = np.random.default_rng(seed).random(flat.shape)
    return np.lexsort((lots, -flat), axis=1)


def step_cells(grid: tuple[int, int], *, steps: int) -> NDArray[np.intp]:
    """Count the cells that are hidden, or shown, at each point of a curve: (steps + 1,) from none to all.

    Raises:
        ValueError: no steps, or more than cells.
    """
    cells = grid[0] * grid[1]
    if not 1 <= steps <= cells:
        raise ValueError(f"wanted steps of one cell or more, from 1 to {cells} of them; found {steps}.")
    return np.rint(np.linspace(0, cells, steps + 1)).astype(np.intp)


def _hiding(trial: Trial, cells: NDArray[np.bool_]) -> Values:
    """Score the pictures with some cells hidden, (n, *grid): (n,) the probability of the first verdict."""
    hidden = _over_pixels(cells, trial.pictures.shape[1:3])
    return _of_verdict(_scored(trial.score, fill_in(trial.pictures, hidden, fill=trial.fill)), trial.called_fake)


def _over_pixels(cells: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.bool_]:
    rows, columns = (np.arange(side) * count // side for side, count in zip(size, cells.shape[1:], strict=True))
    return cells[:, rows[:, None], columns]


def _scored(score: Score, pictures: Pictures) -> Values:
    return np.asarray(score(pictures), dtype=np.float64)


def _of_verdict(p_fake: Values, called_fake: NDArray[np.bool_]) -> Values:
    return np.where(called_fake, p_fake, 1 - p_fake)

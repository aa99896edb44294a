"""Means over a stratified sample, each with its n and its bootstrap interval."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realfake_hf.estimate import Estimate

_PERCENTILES = (2.5, 97.5)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Resampling:
    """Draws of a stratified sample, made once, so that every mean is taken over the same replicates.

    A picture counts as often as its weight says: the pictures of its stratum in the whole set for each one in the
    sample, so that means are those of the whole set. A replicate draws, with replacement, as many pictures of each
    stratum as the sample has. Intervals are those of the percentiles (Efron & Tibshirani, 1993, ch. 13).

    Args:
        weight: (n,) not negative.
        stratum: (n,) codes; None means one stratum.
        samples: replicates; 0 for no intervals.
        seed: of the draws.
    """

    def __init__(
        self, weight: Floats, *, stratum: NDArray[np.integer[Any]] | None = None, samples: int = 1000, seed: int = 0
    ) -> None:
        codes = np.zeros(len(weight), dtype=np.intp) if stratum is None else stratum
        self._weight = np.asarray(weight, dtype=np.float64)
        self._drawn = _draws(codes, samples, np.random.default_rng(seed)) * self._weight  # (samples, n)

    def mean(self, values: NDArray[Any], *, where: Flags | None = None) -> Estimate:
        """Average the values of some pictures.

        Args:
            values: (n,); NaN where a picture has none.
            where: (n,) which pictures are meant; None means all.
        """
        chosen = np.ones(len(values), dtype=np.bool_) if where is None else where
        defined = chosen & ~np.isnan(values)
        return self._summed(*self._means(values, defined), n=defined, chosen=chosen)

    def difference(self, values: NDArray[Any], *, of: Flags, less: Flags) -> Estimate:
        """Average the values of some pictures, less the average of others: two (n,) choices that share none."""
        known = ~np.isnan(values)
        one, two = self._means(values, of & known), self._means(values, less & known)
        return self._summed(one[0] - two[0], one[1] - two[1], n=(of | less) & known, chosen=of | less)

    def statistic(self, of: Callable[[Floats], Floats]) -> Estimate:
        """Compute any statistic of all pictures, such as a ranking's, and its interval over the same replicates.

        Args:
            of: takes (weightings, n), how often each picture counts, and gives (weightings,); NaN where undefined.
        """
        everything = np.ones(len(self._weight), dtype=np.bool_)
        return self._summed(float(of(self._weight[None])[0]), of(self._drawn), n=everything, chosen=everything)

    def _means(self, values: NDArray[Any], defined: Flags) -> tuple[float, Floats]:
        plain = np.where(defined, values, 0.0).astype(np.float64)
        with np.errstate(invalid="ignore"):  # 0 / 0 where nothing is defined
            value = np.divide(self._weight @ plain, self._weight @ defined)
            replicates = np.divide(self._drawn @ plain, self._drawn @ defined.astype(np.float64))
        return float(value), replicates

    @staticmethod
    def _summed(value: float, replicates: Floats, *, n: Flags, chosen: Flags) -> Estimate:
        counts = {"n": int(n.sum()), "undefined": int(chosen.sum() - n.sum())}
        known = replicates[~np.isnan(replicates)]
        if np.isnan(value):
            return Estimate(None, **counts)
        if not known.size:
            return Estimate(value, **counts)
        low, high = np.percentile(known, _PERCENTILES)
        return Estimate(value, float(low), float(high), **counts)


def _draws(stratum: NDArray[np.integer[Any]], samples: int, generator: np.random.Generator) -> Floats:
    """How often each picture is drawn: (samples, n)."""
    drawn = np.zeros((samples, len(stratum)))
    for code in np.unique(stratum):
        members = np.flatnonzero(stratum == code)
        drawn[:, members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), size=samples)
    return drawn

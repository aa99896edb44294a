"""Do tests of faithfulness agree on which methods are faithful? Ranks of the methods, and their rank correlation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Final

import numpy as np
from scipy.stats import rankdata

from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.explain_study.maps import Plain, Values
from realfake_hf.metrics.intervals import Resampling

DECIMALS: Final = 12  # of mean scores; a smaller difference is a rounding error, and a tie


def compare_tests(tests: Mapping[str, Mapping[str, Values]], resampling: Resampling) -> Plain:
    """Rank methods by each of two or more tests, and correlate the rankings of every two.

    The scores are (n,) by test and by method, the same methods for every test; higher is more faithful, NaN is
    undefined. Methods are compared on the same images, those on which every method has a score in every test; a method
    without any score in some test is left out. The intervals resample images.

    Returns:
        Plain JSON: by test and method the rank of the mean score (`ranks`; 1 is the most faithful, ties share their
        mean rank), Kendall's tau-b of every two tests `a` and `b` (`pairs`), and its mean over all pairs (`mean_tau`).
        Tau is undefined if a test ranks no method above another one.
    """
    first = next(iter(tests.values()))
    methods = [name for name in first if not any(np.isnan(scores[name]).all() for scores in tests.values())]
    shape = (len(tests), len(methods), len(next(iter(first.values()))))
    stacked = np.reshape([[scores[name] for name in methods] for scores in tests.values()], shape)
    known = ~np.isnan(stacked).any(axis=(0, 1))
    by_test = dict(zip(tests, stacked[:, :, known], strict=True))

    def estimate(of: Callable[[Values], Values]) -> Estimate:
        found = resampling.statistic(lambda weights: of(weights[:, known]))
        return replace(found, n=int(known.sum()), undefined=int((~known).sum()))

    pairs = {pair: (by_test[pair[0]], by_test[pair[1]]) for pair in combinations(tests, 2)}
    return to_plain(
        {
            "ranks": {
                test: {name: estimate(partial(_rank, scores, place)) for place, name in enumerate(methods)}
                for test, scores in by_test.items()
            },
            "pairs": [{"a": a, "b": b, "tau": estimate(partial(_mean_tau, [both]))} for (a, b), both in pairs.items()],
            "mean_tau": estimate(partial(_mean_tau, list(pairs.values()))),
        }
    )


def kendall_tau(a: Values, b: Values) -> Values:
    """Compute Kendall's tau-b of the columns of each row, (rows, columns): (rows,) in [-1, 1]; NaN if all are tied."""
    x, y = (np.sign(values[:, :, None] - values[:, None, :]) for values in (a, b))
    both, x_untied, y_untied = (products.sum(axis=(1, 2)) for products in (x * y, x * x, y * y))
    with np.errstate(invalid="ignore"):  # 0 / 0
        return np.asarray(both / np.sqrt(x_untied * y_untied))


def _means(scores: Values, weights: Values) -> Values:
    """Return the weighted means of scores (methods, n) by weights (weightings, n): (weightings, methods)."""
    with np.errstate(invalid="ignore"):  # 0 / 0 without images
        return np.asarray(np.round(weights @ scores.T / weights.sum(axis=1, keepdims=True), DECIMALS))


def _rank(scores: Values, place: int, weights: Values) -> Values:
    return np.asarray(rankdata(-_means(scores, weights), axis=1)[:, place])


def _mean_tau(pairs: Sequence[tuple[Values, Values]], weights: Values) -> Values:
    taus = [kendall_tau(*(_means(scores, weights) for scores in both)) for both in pairs]
    return np.asarray(np.mean(taus, axis=0))

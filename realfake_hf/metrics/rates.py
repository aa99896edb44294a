"""Shares of items, with exact intervals."""

from scipy.stats import binomtest

from realfake_hf.estimate import Estimate


def share(k: int, n: int) -> Estimate:
    """Return k / n with its exact 95 % interval (Clopper & Pearson, 1934, *Biometrika* 26:404-413).

    >>> print(share(3, 60), share(0, 0), sep="; ")
    0.050 (0.010 to 0.139); undefined
    """
    if not n:
        return Estimate(None, n=n, k=k)
    interval = binomtest(k, n).proportion_ci(method="exact")
    return Estimate(k / n, float(interval.low), float(interval.high), n=n, k=k)

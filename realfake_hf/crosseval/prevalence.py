"""What an accusation is worth: how many pictures called FAKE are real, where fakes are as rare as they may be."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realfake_hf.estimate import Estimate
from realfake_hf.metrics.intervals import percentile_interval

_DRAWS = 20_000


@dataclass(frozen=True)
class Accusations:
    """Of pictures called FAKE, how many are real.

    Attributes:
        share_fake: how many of all pictures are FAKE, in [0, 1].
        wrong: share of real pictures among those called FAKE; None where nothing is called FAKE.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    share_fake: float
    wrong: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.wrong is None or self.low is None or self.high is None:
            return "undefined"
        return f"{100 * self.wrong:.0f} % ({100 * self.low:.0f} to {100 * self.high:.0f})"


def accusations(
    real_called_fake: Estimate, fake_called_fake: Estimate, *, share_fake: float, seed: int = 0
) -> Accusations:
    """Apply Bayes' rule to the rates that were measured.

    The interval draws both rates from their posteriors under Jeffreys' prior, Beta(k + 1/2, n - k + 1/2).

    Args:
        real_called_fake: of the REAL pictures measured, how many are called FAKE.
        fake_called_fake: of the FAKE ones.
        share_fake: how many of the pictures that will be judged are FAKE, in (0, 1).
        seed: of the draws.

    Raises:
        ValueError: the share is outside (0, 1), or a label has no pictures.
    """
    if not 0 < share_fake < 1:
        raise ValueError(f"wanted a share of FAKE pictures in (0, 1); found {share_fake}.")
    if real_called_fake.value is None or fake_called_fake.value is None:
        raise ValueError("wanted rates of REAL and of FAKE pictures; found one label only.")
    generator = np.random.default_rng(seed)
    false, true = (
        generator.beta((rate.k or 0) + 0.5, (rate.n or 0) - (rate.k or 0) + 0.5, _DRAWS)
        for rate in (real_called_fake, fake_called_fake)
    )
    if not real_called_fake.k and not fake_called_fake.k:
        return Accusations(share_fake, None, None, None)
    wrong = _wrong(np.array(real_called_fake.value), np.array(fake_called_fake.value), share_fake)
    low, high = percentile_interval(_wrong(false, true, share_fake))
    return Accusations(share_fake, float(wrong), low, high)


def _wrong(false: NDArray[np.float64], true: NDArray[np.float64], share_fake: float) -> NDArray[np.float64]:
    real, fake = (1 - share_fake) * false, share_fake * true
    return np.asarray(real / (real + fake))

"""False alarms: how many real images are called FAKE, by content, and how often a FAKE verdict is then wrong."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.estimate import Estimate
from realfake_hf.metrics.intervals import percentile_interval, share

UNKNOWN: Final = "unknown"
PEOPLE: Final = frozenset({
    "baby", "boy", "bride", "child", "children", "crowd", "face", "faces", "girl", "groom", "human", "kid", "man",
    "men", "people", "person", "persons", "player", "portrait", "selfie", "woman", "women",
})  # fmt: skip


@dataclass(frozen=True)
class FalseAlarms:
    """The share of the real images of one content, or of `UNKNOWN` content, that are called FAKE."""

    content: str
    shows_people: bool
    called_fake: Estimate


def shows_people(content: str) -> bool:
    """Return whether the name of a content contains a word for people.

    >>> [shows_people(name) for name in ("person", "portrait_of_a_woman", "frog", "mango")]
    [True, True, False, False]
    """
    return bool(PEOPLE & set(re.split(r"[\W_]+", content.lower())))


def false_alarms_by_content(
    is_fake: NDArray[np.bool_], called_fake: NDArray[np.bool_], content: Sequence[str | None]
) -> tuple[FalseAlarms, ...]:
    """Count false alarms by content; all arguments are (n,), and unknown contents are None.

    Contents that show people come first, then those with the highest lower end of the interval, so that a content of
    three images does not lead the list by chance.
    """
    names = np.array([name or UNKNOWN for name in content])
    is_real = ~np.asarray(is_fake, dtype=np.bool_)
    rows = []
    for name in np.unique(names[is_real]).tolist():
        chosen = is_real & (names == name)
        rows.append(FalseAlarms(name, shows_people(name), share(int(called_fake[chosen].sum()), int(chosen.sum()))))
    return tuple(sorted(rows, key=lambda row: (not row.shows_people, -(row.called_fake.low or 0), row.content)))


def false_discovery_rate(
    real_called_fake: Estimate, fake_called_fake: Estimate, *, prevalence: float, seed: int = 0
) -> Estimate:
    """Estimate the share of real images among those called FAKE, by Bayes' rule.

    Both rates need k and n; the prevalence is the share of fakes among all images. For the interval, both rates are
    drawn from their posteriors under Jeffreys' prior, Beta(k + 1/2, n - k + 1/2).

    Returns:
        An estimate without n; undefined if no image was called FAKE.

    Raises:
        ValueError: the prevalence is outside (0, 1), or a label has no images.
    """
    if not 0 < prevalence < 1:
        raise ValueError(f"expected a prevalence of fakes in (0, 1); found {prevalence}.")
    if real_called_fake.value is None or fake_called_fake.value is None:
        raise ValueError("expected rates of real and of fake images; found images of one label only.")
    if not real_called_fake.k and not fake_called_fake.k:
        return Estimate(None)
    generator = np.random.default_rng(seed)
    real, fake = (
        generator.beta((rate.k or 0) + 0.5, (rate.n or 0) - (rate.k or 0) + 0.5, 20_000)
        for rate in (real_called_fake, fake_called_fake)
    )
    value = _discoveries(np.array(real_called_fake.value), np.array(fake_called_fake.value), prevalence)
    return Estimate(float(value), *percentile_interval(_discoveries(real, fake, prevalence)))


def _discoveries(real: NDArray[np.float64], fake: NDArray[np.float64], prevalence: float) -> NDArray[np.float64]:
    false, true = (1 - prevalence) * real, prevalence * fake
    return np.asarray(false / (false + true))

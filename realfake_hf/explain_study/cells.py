"""Cells of the study's tables: formatted estimates, and flags that follow their intervals and corrected p-values."""

from collections.abc import Iterable
from typing import Final

from realfake_hf.estimate import Difference, Estimate
from realfake_hf.explain_study.names import Results

NUMBER: Final = "z.3f"  # without negative zeros
SIGNED: Final = "+z.3f"
PERCENT: Final = ".1%"
POINTS: Final = "+z.1%"
NO_BETTER: Final = "no better than the centre prior"


def cell(mean: Results | None, spec: str = NUMBER) -> str:
    """Format an estimate with its interval; empty if it is missing."""
    return Estimate.from_dict(mean).format(spec) if mean else ""


def count(mean: Results) -> str:
    """Format the number of images of an estimate, and that of images without a value."""
    return f"{mean['n']:,}, {mean['undefined']:,} undefined" if mean.get("undefined") else f"{mean['n']:,}"


def tested_cells(difference: Results, spec: str) -> tuple[str, str]:
    """Return the cells of a difference and of its corrected p-value."""
    p_holm = difference.get("p_holm")
    return cell(difference, spec), "" if p_holm is None else f"{p_holm:.2g}"


def sign(difference: Results, below: str = "negative", above: str = "positive") -> str:
    """Name the sign of a difference, if it is significant; see `Difference.side`."""
    return {-1: below, 0: "unclear", 1: above}[Difference.from_dict(difference).side]


def above(mean: Results, reference: float | None) -> str:
    """Flag an estimate whose whole interval lies above a number."""
    if mean["low"] is None or reference is None:
        return ""
    return "yes" if mean["low"] > reference else "no"


def costs_more(centre_less_other: Results, other: str) -> str:
    """Name the region whose hiding costs more."""
    return sign(centre_less_other, "centre", other)


def better_than_random(order: Results) -> str:
    """Name the tests in which an order of cells is significantly better than a random one."""
    return _better_in(order, "random")


def against_centre(order: Results) -> str:
    """Say in which tests an order of cells is significantly better than one from the centre outwards."""
    tests = _better_in(order, "centre")
    return NO_BETTER if tests == "neither" else tests and f"better in {tests}"


def _better_in(order: Results, baseline: str) -> str:
    if f"deletion_less_{baseline}" not in order:
        return ""
    deletion = sign(order[f"deletion_less_{baseline}"]) == "negative"
    insertion = sign(order[f"insertion_less_{baseline}"]) == "positive"
    if deletion and insertion:
        return "both"
    return "deletion" if deletion else "insertion" if insertion else "neither"


def listed(names: Iterable[str]) -> str:
    """Join names with commas; "none" without any."""
    return ", ".join(names) or "none"

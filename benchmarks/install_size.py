"""Megabytes that pip installs: to judge images, and with the extra `train`.

`python -m benchmarks.install_size --output_file results/benchmark_install.json` adds up the files of the distributions
that are installed here, so that all packages of both must be.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from benchmarks.comparison import Pair, compare, report, results_file, run_benchmark

PACKAGE: Final = "realfake-hf"
JUDGE, TRAIN = "pip install realfake-hf", "pip install realfake-hf[train]"


@dataclass
class Settings:
    """Where to write."""

    output_file: Path = results_file("benchmark_install")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_benchmark(Settings, measure, to_markdown, argv, name="install_size", description=__doc__)


def measure(_: Settings) -> dict[str, Any]:
    """Add up both."""
    names = {JUDGE: required(PACKAGE), TRAIN: required(PACKAGE, extra="train")}
    values = {way: [sum(map(_megabytes, packages))] for way, packages in names.items()}
    return {
        **compare(values, [Pair(TRAIN, JUDGE, goal=2)], unit="MB"),
        "packages": {way: sorted(packages) for way, packages in names.items()},
    }


def required(name: str, *, extra: str = "") -> set[str]:
    """Return the names of the distributions that a distribution requires on this machine, without itself."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = [(name, extra)]
    while waiting:
        place, wanted = waiting.pop()
        for text in distribution(place).requires or ():
            each = Requirement(text)
            if each.marker and not any(each.marker.evaluate({"extra": one}) for one in {wanted, ""}):
                continue
            waiting += [
                (each.name, one)
                for one in (each.extras or {""})
                if (each.name, one) not in waiting and each.name not in found
            ]
            found.add(each.name)
    return {each for each in found - {name} if _is_installed(each)}


def to_markdown(content: Mapping[str, Any]) -> str:
    """Render the sizes."""
    counts = ", ".join(f"{len(packages)} packages for `{way}`" for way, packages in content["packages"].items())
    return report(content, note=f"{counts}; PyTorch in its build for CPUs.")


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _megabytes(name: str) -> float:
    files = (Path(str(file.locate())) for file in distribution(name).files or ())
    return sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc") / 1e6


if __name__ == "__main__":
    sys.exit(main())

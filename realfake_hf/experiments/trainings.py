"""Experiments of several trainings: a YAML plan, a recipe for each training, and statistics over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import yaml

from realfake_hf.cli import parse
from realfake_hf.store import write_text

if TYPE_CHECKING:
    from realfake_hf.training.arguments import DataArguments, ModelArguments
    from realfake_hf.training.run_arguments import RunArguments


def read_plan(file: Path, *, keys: Sequence[str]) -> dict[str, Any]:
    """Read a YAML file that has the given keys and no others.

    Raises:
        ValueError: the file is missing, or its keys differ.
    """
    if not file.is_file():
        raise ValueError(f"expected a YAML plan at {file}; found no such file.")
    plan = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(plan, Mapping) or set(plan) != set(keys):
        found = ", ".join(sorted(plan)) if isinstance(plan, Mapping) else type(plan).__name__
        raise ValueError(f"expected the keys {', '.join(sorted(keys))} in {file}; found {found}.")
    return dict(plan)


def write_recipe(file: Path, *, base: str, changes: Mapping[str, Any]) -> Path:
    """Write a recipe that differs from a base recipe in some settings, and return its path."""
    settings = yaml.safe_load(Path(base).read_text(encoding="utf-8"))
    write_text(file, yaml.safe_dump({**settings, **changes, "disable_tqdm": True}))
    return file


def parse_recipe(recipe: Path) -> "tuple[DataArguments, ModelArguments, RunArguments]":
    """Read the settings of a training from a recipe, with the checks of `train.py`."""
    from realfake_hf.training.arguments import DataArguments, ModelArguments
    from realfake_hf.training.run_arguments import RunArguments

    data, model, run = parse(DataArguments, ModelArguments, RunArguments, argv=["--config", str(recipe)])
    return data, model, run


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean over seeds, the standard deviation (None for a single value), and the values as `runs`."""
    return {"mean": mean(values), "sd": stdev(values) if len(values) > 1 else None, "runs": list(values)}


def format_spread(statistic: Mapping[str, Any], spec: str = ".2f", *, scale: float = 1) -> str:
    """Format a mean and, if there is one, its standard deviation.

    >>> format_spread({"mean": 0.95, "sd": 0.002}, scale=100), format_spread({"mean": 0.5, "sd": None}, "+.1f")
    ('95.00 ± 0.20', '+0.5')
    """
    middle = f"{scale * statistic['mean']:{spec}}"
    return middle if statistic["sd"] is None else f"{middle} ± {scale * statistic['sd']:{spec.lstrip('+')}}"

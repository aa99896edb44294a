"""What experiments with several trainings share: YAML plans, recipes, and statistics over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeVar

import yaml

from realfake_hf.cli import parse
from realfake_hf.store import write_text

Plan = TypeVar("Plan")


@dataclass
class PlanArguments:
    """The plan and the output files."""

    plan: Path = field(metadata={"help": "YAML file of the plan, such as those in recipes/."})
    output_dir: Path = field(metadata={"help": "Folder of the finished trainings; repeat the command to resume."})
    output_file: Path = field(metadata={"help": "JSON file of the results; the Markdown table is written beside it."})


def read_plan(kind: type[Plan], file: Path) -> Plan:
    """Read a dataclass from a YAML file that has exactly its fields as keys."""
    if not file.is_file():
        raise ValueError(f"expected a YAML plan at {file}; found no such file.")
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    keys = {key.name for key in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(content, Mapping) or set(content) != keys:
        found = ", ".join(sorted(content)) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"expected the keys {', '.join(sorted(keys))} in {file}; found {found}.")
    return kind(**content)


def write_recipe(file: Path, *, base: str, changes: Mapping[str, Any]) -> tuple[Any, ...]:
    """Write a base recipe with some settings changed, and return the arguments of `training.run.train` from it."""
    from realfake_hf.training.arguments import DataArguments, ModelArguments
    from realfake_hf.training.run_arguments import RunArguments

    settings = yaml.safe_load(Path(base).read_text(encoding="utf-8"))
    write_text(file, yaml.safe_dump({**settings, **changes, "disable_tqdm": True}))
    return parse(DataArguments, ModelArguments, RunArguments, argv=["--config", str(file)])


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

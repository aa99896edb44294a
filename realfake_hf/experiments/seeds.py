"""Summarize runs of one recipe with several seeds, and copy the model with the best validation accuracy.

`python -m realfake_hf.experiments.seeds --runs runs/cifake-cnn-seed-0 runs/cifake-cnn-seed-1 --output_file
results/cifake_cnn.json --model_dir space/models/cifake-cnn`
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from realfake_hf.cli import command, default_of, setting
from realfake_hf.experiments.trainings import format_spread, spread
from realfake_hf.store import write_results
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from realfake_hf.metrics.report import Report
    from realfake_hf.run_folder import Run

SHOWN: Final = {
    "accuracy": "accuracy",
    "accuracy_real": "accuracy on real",
    "accuracy_fake": "accuracy on fake (recall)",
    "precision": "precision",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "ece_before": "calibration error (ECE) before temperature scaling",
    "ece": "calibration error (ECE)",
    "brier": "Brier score",
}
PERCENT: Final = ("accuracy", "accuracy_real", "accuracy_fake", "precision", "f1", "ece_before", "ece")


@dataclass
class SeedsArguments:
    """The runs and the output files."""

    runs: list[str] = field(metadata={"help": "Output folders of train.py: one recipe, several seeds."})
    output_file: Path = field(metadata={"help": "JSON file of the results; the Markdown table is written beside it."})
    model_dir: Path | None = setting(None, "Folder for the model that is best on validation.")


def summarize(runs: "Sequence[Run]") -> dict[str, Any]:
    """Return the measurements of all seeds: each value, their mean and their standard deviation."""
    _check_comparable(runs)
    first, tests = runs[0].record, runs[0].outcome.tests
    return {
        "arguments": _without_seed(runs[0]),
        **{name: first[name] for name in ("commit", "python", "versions", "machine", "data")},
        "seeds": [run.seed for run in runs],
        "best_epoch": [run.outcome.best_epoch for run in runs],
        "seconds": [round(run.record["seconds"], 1) for run in runs],
        "peak_memory_gib": [round(run.record["peak_memory_gib"], 3) for run in runs],
        "validation": _over_seeds(runs, "validation"),
        **{name: _over_seeds(runs, name) for name in tests if all(name in run.outcome.tests for run in runs)},
    }


def _check_comparable(runs: "Sequence[Run]") -> None:
    names = {name for run in runs for name in _without_seed(run)}
    for run in runs[1:]:
        if _values(run, names) != _values(runs[0], names) or run.record["data"] != runs[0].record["data"]:
            raise ValueError(
                f"expected runs that differ only in their seed; found other arguments or data in {run.folder} than in "
                f"{runs[0].folder}. Summarize them separately."
            )
    if len({run.seed for run in runs}) < len(runs):
        raise ValueError(f"expected a different seed for each run; found {[run.seed for run in runs]}.")


def _without_seed(run: "Run") -> dict[str, Any]:
    return {name: value for name, value in run.record["arguments"].items() if name != "seed"}


def _values(run: "Run", names: Iterable[str]) -> dict[str, Any]:
    """Return the values of settings; one that a run of an older version does not know has its default."""
    from realfake_hf.training.arguments import DataArguments, ModelArguments, RunSettings

    known = [each for kind in (DataArguments, ModelArguments, RunSettings) for each in fields(kind)]
    defaults = {each.name: default_of(each) for each in known}
    return {name: _without_seed(run).get(name, defaults.get(name)) for name in names}


def _over_seeds(runs: "Sequence[Run]", name: str) -> dict[str, Any]:
    reports: list[Report] = [getattr(run.outcome, name) for run in runs]
    before = [run.outcome.ece_before[name].value if run.outcome.ece_before else None for run in runs]
    values = [
        {**report.point_values(), **({} if ece is None else {"ece_before": ece})}
        for report, ece in zip(reports, before, strict=True)
    ]
    first = reports[0]
    return {
        **{name: getattr(first, name) for name in ("n", "n_real", "n_fake")},
        "statistics": {  # runs of older versions lack some
            name: spread([row[name] for row in values]) for name in values[0] if all(name in row for row in values)
        },
        **{name: [getattr(report, name) for report in reports] for name in ("false_positives", "false_negatives")},
        "by_content": {
            name: {"n": row.n, **spread([report.by_content[name].accuracy.value or 0 for report in reports])}
            for name, row in first.by_content.items()
        },
        "first_seed": first.to_dict(),
    }


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render the statistics on the whole test split and its parts, and the accuracy by content."""
    from realfake_hf.run_folder import TESTS

    whole, n_seeds = results["test"], len(results["seeds"])
    seeds, statistics = ("1 seed", "") if n_seeds == 1 else (f"{n_seeds} seeds", "Mean ± standard deviation. ")
    splits = {
        f"{title.full}, n = {results[name]['n']:,}": results[name] for name, title in TESTS.items() if name in results
    }
    shown = {name: title for name, title in SHOWN.items() if name in whole["statistics"]}
    rows = [[title, *(_statistic(name, split) for split in splits.values())] for name, title in shown.items()]
    note = (
        f"{statistics}Errors per run on the whole test split: {_range(whole['false_positives'])} real images called "
        f"FAKE, {_range(whole['false_negatives'])} fake images called REAL. One training took "
        f"{_range([seconds / 60 for seconds in results['seconds']])} minutes on {results['machine']['cores']} cores "
        f"and at most {max(results['peak_memory_gib']):.2f} GiB of memory."
    )
    contents = [
        [name, f"{row['n']:,}", f"{format_spread(row, scale=100)}%"] for name, row in whole["by_content"].items()
    ]
    return "\n\n".join(
        [markdown_table([seeds, *splits], rows), note, markdown_table(["content", "n", "accuracy"], contents)]
    )


def _statistic(name: str, split: Mapping[str, Any]) -> str:
    value = split["statistics"][name]
    return f"{format_spread(value, scale=100)}%" if name in PERCENT else format_spread(value, ".4f")


def _range(values: Sequence[float]) -> str:
    low, high = round(min(values)), round(max(values))
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


@command(SeedsArguments, name="seeds", description=__doc__)
def main(arguments: SeedsArguments) -> None:
    """Summarize the runs, and print the table."""
    from realfake_hf.run_folder import copy_model, read_run

    runs = [read_run(Path(folder)) for folder in arguments.runs]
    results = summarize(runs)
    if arguments.model_dir:
        best = max(runs, key=lambda run: run.outcome.validation.accuracy.value or 0)
        copy_model(best, arguments.model_dir)
        results["kept_seed"] = best.seed
    print(write_results(arguments.output_file, results, to_markdown(results)))


if __name__ == "__main__":
    sys.exit(main())

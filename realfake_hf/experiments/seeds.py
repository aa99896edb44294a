"""Gather the runs of one recipe with several seeds into one file of `results/`, and keep the chosen model.

`python -m realfake_hf.experiments.seeds --runs runs/cifake-cnn-seed-0 runs/cifake-cnn-seed-1 --output_file
results/cifake_cnn.json --model_dir space/models/cifake-cnn` is what `make cnn` calls after the trainings.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

from realfake_hf.cli import parse
from realfake_hf.metrics.intervals import STATISTICS
from realfake_hf.metrics.operating_point import OPERATING_POINT
from realfake_hf.metrics.report import Report
from realfake_hf.run_folder import FIGURES, HISTORY, METRICS, RECORD, Run, read_run
from realfake_hf.store import write_json

MODEL_FILES: Final = ("config.json", "model.safetensors", "preprocessor_config.json", "cifake_cnn.py", OPERATING_POINT)


@dataclass
class ResultsArguments:
    """Which runs, and where their summary goes."""

    runs: list[str] = field(metadata={"help": "Output folders of train.py: one recipe, several seeds."})
    output_file: Path = field(metadata={"help": "The summary, a JSON file of results/."})
    model_dir: Path | None = field(default=None, metadata={"help": "Keep the run that is best on validation here."})


def summarize(runs: Sequence[Run]) -> dict[str, Any]:
    """Put the figures of several seeds into one table: each run's value, their mean and standard deviation.

    Raises:
        ValueError: the runs differ in more than their seed.
    """
    _refuse_mixed(runs)
    first = runs[0].record
    return {
        "arguments": _without_seed(runs[0]),
        **{name: first[name] for name in ("commit", "python", "versions", "machine", "data")},
        "seeds": [run.seed for run in runs],
        "best_epoch": [run.outcome.best_epoch for run in runs],
        "seconds": [round(run.record["seconds"], 1) for run in runs],
        "peak_memory_gib": [round(run.record["peak_memory_gib"], 3) for run in runs],
        "validation": _over_seeds([run.outcome.validation for run in runs]),
        "test": _over_seeds([run.outcome.test for run in runs]),
        "test_leak_free": _over_seeds([run.outcome.test_leak_free for run in runs]),
    }


def best_on_validation(runs: Sequence[Run]) -> Run:
    """The run whose kept epoch is most accurate on validation; the test split has no say."""
    return max(runs, key=lambda run: run.outcome.validation.accuracy.value or 0)


def keep_model(run: Run, folder: Path) -> None:
    """Copy what loading a run's model takes, its measurements and its record; no optimizer state, no pickles."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*MODEL_FILES, METRICS, HISTORY, RECORD):
        if (run.folder / name).exists():
            shutil.copyfile(run.folder / name, folder / name)
    shutil.copytree(run.folder / FIGURES, folder / FIGURES, dirs_exist_ok=True)


def _over_seeds(reports: Sequence[Report]) -> dict[str, Any]:
    first = reports[0]
    return {
        "n": first.n,
        "n_real": first.n_real,
        "n_fake": first.n_fake,
        "statistics": {
            name: _spread([report.point_values()[name] for report in reports])
            for name in STATISTICS
            if all(name in report.point_values() for report in reports)  # an older run knows fewer
        },
        "false_positives": [report.false_positives for report in reports],
        "false_negatives": [report.false_negatives for report in reports],
        "by_content": {
            name: {"n": row.n} | _spread([report.by_content[name].accuracy.value or 0 for report in reports])
            for name, row in first.by_content.items()
        },
        "first_seed": first.to_dict(),
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": mean(values), "sd": stdev(values) if len(values) > 1 else None, "runs": list(values)}


def _without_seed(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.record["arguments"].items() if name != "seed"}


def _refuse_mixed(runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        if _without_seed(run) != _without_seed(runs[0]) or run.record["data"] != runs[0].record["data"]:
            raise ValueError(
                f"wanted runs that differ in their seed only; found other arguments or data in {run.folder} than in "
                f"{runs[0].folder}. Summarize them apart."
            )
    if len({run.seed for run in runs}) < len(runs):
        raise ValueError(f"wanted another seed in each run; found {[run.seed for run in runs]}.")


def main(argv: Sequence[str] | None = None) -> None:
    """Summarize runs, and keep the model of one of them where asked."""
    (arguments,) = parse(ResultsArguments, argv=argv, description=__doc__)
    runs = [read_run(Path(folder)) for folder in arguments.runs]
    summary = summarize(runs)
    if arguments.model_dir:
        chosen = best_on_validation(runs)
        keep_model(chosen, arguments.model_dir)
        summary["kept_seed"] = chosen.seed
    write_json(arguments.output_file, summary)


if __name__ == "__main__":
    main()

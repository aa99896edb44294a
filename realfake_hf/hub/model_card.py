"""The model card, rendered from a run folder and from `results/`.

`python -m realfake_hf.hub.model_card --model_dir space/models/cifake-vit --output_file model_card.md`
"""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from realfake_hf.cli import command, setting
from realfake_hf.crosseval.arguments import TRIVIAL
from realfake_hf.data.folders import CIFAKE
from realfake_hf.environment import main_versions
from realfake_hf.store import read_json, without_local_paths
from realfake_hf.training.arguments import MULTIVIEW, MultiviewSettings

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    from realfake_hf.crosseval.grid import Grid
    from realfake_hf.detector import Detector
    from realfake_hf.metrics.report import Report
    from realfake_hf.run_folder import Run

CIFAKE_DESCRIPTION: Final = (
    "CIFAKE: photographs of CIFAR-10, and images of Stable Diffusion 1.4 that imitate them. 32 x 32 pixels, JPEG of "
    "quality 75; published by its authors under the MIT licence."
)
SETTINGS: Final = (
    "labels", "balance", "model", "image_size", "patch_size", "num_train_epochs", "learning_rate", "lr_scheduler_type",
    "warmup_steps", "weight_decay", "per_device_train_batch_size", "bf16", "flip", "crop_padding", "robust_share",
    "hidden_share", "cutmix", "patch_share", "full_epochs", "ema_decay", "seed",
)  # fmt: skip  # run.json holds all
CARD: Final = "README.md"
METRICS: Final = ("accuracy", "balanced_accuracy", "roc_auc", "f1", "brier")  # in the front matter
WATTS_PER_CORE: Final = 10  # assumed: a server processor under load, with its share of cooling
WATTS_PER_GPU: Final = 400
JOULES_PER_KWH: Final = 3.6e6


@dataclass
class CardArguments:
    """The model and its card."""

    model_dir: Path = field(metadata={"help": "Output folder of train.py."})
    output_file: Path = setting(Path("model_card.md"), "Markdown file of the card.")
    repo_id: str = setting("user/name", "Name of the model on the Hub.")
    results: Path = setting(Path("results"), "Folder of further results of the same weights.")


def make_card(folder: Path, *, repo_id: str, results: Path | None = None) -> "ModelCard":
    """Render the card of a finished run, with further results of the same weights from a folder, if given."""
    from huggingface_hub import ModelCard
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from realfake_hf.detector import Detector
    from realfake_hf.run_folder import read_run

    run = read_run(folder)
    run = replace(run, record=without_local_paths(run.record))
    detector = Detector.from_pretrained(folder)
    grid = _grid_of(detector.digest(), results) if results else None
    environment = Environment(
        loader=PackageLoader("realfake_hf.hub", "."), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip  # Markdown, not HTML
    fields = {
        "repo_id": repo_id,
        "title": repo_id.rpartition("/")[2] if repo_id != CardArguments.repo_id else run.folder.resolve().name,
        "run": run,
        "detector": detector,
        "is_cnn": detector.model.config.model_type == "cifake_cnn",
        "has_code": bool(getattr(detector.model.config, "auto_map", None)),
        "base": _base_model(run),
        **_training_fields(run, results),
        **_evaluation_fields(detector.digest(), grid, results),
    }
    text = environment.get_template("card.md.j2").render(**fields)
    return ModelCard(f"---\n{_front_matter(run, detector, repo_id, grid).to_yaml()}\n---\n{text}")


def complete_card(folder: Path, *, repo_id: str, results: Path | None = None) -> str:
    """Complete the hand-written card of a model that `train.py` did not write, with its measurements out of fold.

    The card names the model as `user/name`. The measurements are those of `wild.json` in `results`, if its weights are
    the same.
    """
    from realfake_hf.detector import Detector

    digest = Detector.from_pretrained(folder).digest()
    text = (folder / CARD).read_text(encoding="utf-8").replace(CardArguments.repo_id, repo_id)
    if results is None or read_json(results / "wild.json")["kept"]["weights"] != digest:
        return text
    return f"{text}\n## Evaluation\n\n{(results / 'wild.md').read_text(encoding='utf-8')}"


def _grid_of(digest: str, results: Path) -> "Grid | None":
    """Return the published grid of the model with these weights and the baseline; None if the model is not in it."""
    from realfake_hf.crosseval.grid import Grid

    grid = Grid.from_dict(read_json(results / "crosseval.json"))
    names = {facts["weights"]: name for name, facts in grid.facts["models"].items()}
    if digest not in names:
        return None
    shown = (names[digest], TRIVIAL)
    models = {name: facts for name, facts in grid.facts["models"].items() if name in shown}
    cells = tuple(cell for cell in grid.cells if cell.model in shown)
    unused: dict[str, Any] = dict.fromkeys(("pairs", "protocol_gaps", "robustness", "errors"), ())
    return replace(grid, facts={**grid.facts, "models": models}, cells=cells, **unused)


def _training_fields(run: "Run", results: Path | None) -> dict[str, Any]:
    from realfake_hf.data.loading import CIFAKE_MIRROR, CIFAKE_PAGE

    record = run.record
    arguments, machine = record["arguments"], record["machine"]
    is_cifake, on_cpu = arguments["data"] == CIFAKE, machine["device"] == "cpu"
    description = f"`{_shown(arguments['data'])}`."
    if is_cifake:
        place = CIFAKE_MIRROR if record.get("source") == CIFAKE_MIRROR else CIFAKE_PAGE
        description = f"{CIFAKE_DESCRIPTION} Read from {place}."
    watts, n_units = (WATTS_PER_CORE, machine["cores"]) if on_cpu else (WATTS_PER_GPU, record["processes"])
    names = [*SETTINGS, *(each.name for each in fields(MultiviewSettings) if arguments["model"] == MULTIVIEW)]
    settings = {name: arguments[name] for name in names if arguments.get(name) is not None}
    flags = " ".join(f"--{name} {_words(value)}" for name, value in {"data": arguments["data"], **settings}.items())
    return {
        "data_description": description,
        "audit": read_json(results / "cifake_audit.json") if results and is_cifake else None,
        "settings": settings,
        "versions": main_versions(record["versions"]),
        "on_cpu": on_cpu,
        "hardware": f"{machine['cores']} cores ({machine['processor']})" if on_cpu else machine["device"],
        "watts": watts,
        "kwh": watts * n_units * record["seconds"] / JOULES_PER_KWH,
        "command": f"python train.py {flags} --output_dir runs/again",
    }


def _evaluation_fields(digest: str, grid: "Grid | None", results: Path | None) -> dict[str, Any]:
    from realfake_hf.crosseval.tables import warnings

    if grid is None or results is None:
        return {"away": [], "cells": [], "warnings": [], "tables": {}}
    [name] = grid.trained_models
    elsewhere = grid.away(name)
    wrong = [cell.confidence.wrong.value or 0 for cell in elsewhere]
    return {
        "away": elsewhere,
        "wrong_away": f"{100 * min(wrong):.0f}% to {100 * max(wrong):.0f}%",
        "cells": [cell for cell in grid.cells if cell.model == name and cell.is_whole_split],
        "baseline": {cell.place: cell.report.roc_auc for cell in grid.cells if cell.model == TRIVIAL},
        "warnings": warnings(grid),
        "tables": dict(_further_tables(name, digest, results)),
    }


def _further_tables(name: str, digest: str, results: Path) -> Iterator[tuple[str, str]]:
    """Yield title and table of each further result of the model."""
    from realfake_hf.crosseval.robustness import Robustness, robustness_table
    from realfake_hf.estimate import from_plain
    from realfake_hf.explain_study.findings import findings
    from realfake_hf.training.posthoc import to_markdown as familiarity_table

    facts = read_json(results / "familiarity.json")["models"].get(name)
    if facts and facts["weights"] == digest:
        yield "Distance from the Training Data", familiarity_table({"models": {name: facts}})
    measured = [from_plain(Robustness, row) for row in read_json(results / "robustness_cifake.json")["robustness"]]
    own = [robustness for robustness in measured if robustness.model == name]
    if own:
        yield "Robustness", robustness_table(own, strongest=True).to_markdown()
    study = read_json(results / "explanation_study.json")
    if name in study["models"]:
        lines = "\n".join(f"- {finding}" for finding in findings(study))
        yield "Explanations", f"In a comparison of {' and '.join(study['models'])}:\n\n{lines}"


def _words(value: object) -> str:
    """Return a setting as words of a command line."""
    return " ".join(map(str, value)) if isinstance(value, list) else shlex.quote(str(value))


def _shown(source: str) -> str:
    """Return the name of one or several sources without their folders."""
    return ", ".join(Path(part).name for part in source.split(","))


def _base_model(run: "Run") -> str | None:
    """Return the Hub id of the model that was fine-tuned, if it has one."""
    arguments = run.record["arguments"]
    model: str = arguments["tower"] if arguments["model"] == MULTIVIEW else arguments["model"]
    return model if "/" in model and not Path(model).exists() else None


def _front_matter(run: "Run", detector: "Detector", repo_id: str, grid: "Grid | None") -> "ModelCardData":
    from huggingface_hub import ModelCardData

    from realfake_hf.run_folder import TESTS

    source = run.record.get("source", run.record["arguments"]["data"])
    splits = {name: "test" if name == "test" else f"test, {title.short}" for name, title in TESTS.items()}
    reports = [(source, splits[name], report) for name, report in run.outcome.tests.items()]
    if grid:
        reports += [(cell.dataset, cell.split, cell.report) for cell in grid.away(*grid.trained_models)]
    return ModelCardData(
        license="mit",
        library_name="transformers",
        pipeline_tag="image-classification",
        base_model=_base_model(run),
        datasets=[source] if "/" in source and "," not in source and not Path(source).exists() else None,
        metrics=["accuracy", "roc_auc", "f1", "brier_score"],
        tags=["image-classification", "ai-generated-image-detection", "calibration", "explainability", "realfake"],
        model_name=repo_id.rpartition("/")[2],
        eval_results=[result for row in reports for result in _eval_results(*row)],
        architectures=[type(detector.model).__name__],
    )


def _eval_results(source: str, split: str, report: "Report") -> "Iterator[EvalResult]":
    from huggingface_hub import EvalResult

    for metric in METRICS:
        value = getattr(report, metric).value
        if value is not None:
            yield EvalResult(
                task_type="image-classification",
                dataset_type=_shown(source),
                dataset_name="CIFAKE, archive of its authors" if source == CIFAKE else _shown(source),
                dataset_split=split,
                metric_type=metric,
                metric_name=f"{metric.replace('_', ' ')}, n = {report.n:,}",
                metric_value=round(value, 6),
            )


@command(CardArguments, name="model_card", description=__doc__)
def main(arguments: CardArguments) -> None:
    """Write the card of a model."""
    card = make_card(arguments.model_dir, repo_id=arguments.repo_id, results=arguments.results)
    card.save(arguments.output_file)


if __name__ == "__main__":
    sys.exit(main())

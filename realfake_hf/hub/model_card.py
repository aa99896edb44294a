"""The model card, rendered from a run's passport and measurements and from `results/`; never edited by hand.

`python -m realfake_hf.hub.model_card --model_dir space/models/cifake-vit --output_file model_card.md`
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from realfake_hf.cli import parse
from realfake_hf.crosseval.arguments import TRIVIAL
from realfake_hf.crosseval.cells import away, whole_cells
from realfake_hf.crosseval.findings import findings
from realfake_hf.crosseval.grid import Grid
from realfake_hf.data.loading import CIFAKE_MIRROR
from realfake_hf.detector import Detector
from realfake_hf.environment import without_local_paths
from realfake_hf.hub.readme import RENDERERS, STATISTICS
from realfake_hf.hub.readme_crosseval import cells_table, robustness_of
from realfake_hf.metrics.report import Report
from realfake_hf.run_folder import Run, read_run

CIFAKE_WORDS: Final = (
    "photographs of CIFAR-10 and pictures of Stable Diffusion 1.4 made to look like them (CIFAKE; its authors publish "
    "it under the MIT licence), 32 x 32 pixels, JPEG of quality 75"
)
SETTINGS: Final = (
    "model", "image_size", "patch_size", "num_train_epochs", "learning_rate", "lr_scheduler_type", "warmup_steps",
    "weight_decay", "per_device_train_batch_size", "bf16", "flip", "crop_padding", "robust_share", "ema_decay", "seed",
)  # fmt: skip  # that say most; the passport holds all
WATTS_A_CORE: Final = 10  # an assumption: a server processor under load, its share of cooling included
WATTS_A_GPU: Final = 400


@dataclass
class CardArguments:
    """Which model, and where its card goes."""

    model_dir: Path = field(metadata={"help": "A folder of train.py."})
    output_file: Path = field(default=Path("model_card.md"), metadata={"help": "The card."})
    repo_id: str = field(default="user/name", metadata={"help": "What the model is called on the Hub."})
    results: Path = field(default=Path("results"), metadata={"help": "The folder of results."})


def make_card(folder: Path, *, repo_id: str, results: Path | None = None) -> ModelCard:
    """Make the card of a finished run.

    Args:
        folder: of train.py, or one of `space/models`.
        repo_id: what the model is called on the Hub.
        results: where more was measured of the same weights, as `results/`; None for the run's own folder alone.

    Raises:
        OSError: there is no such model.
        ValueError: there is no finished run in the folder.
        jinja2.UndefinedError: a field of the card has no value.
    """
    run = read_run(folder)
    run = replace(run, record=without_local_paths(run.record))
    detector = Detector.from_pretrained(folder)
    more = _measured(detector.digest(), results) if results else {}
    data = _front_matter(run, detector, repo_id, more)
    environment = Environment(
        loader=PackageLoader("realfake_hf.hub", "."), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip  # Markdown, not HTML
    text = environment.get_template("card.md.j2").render(**_fields(run, detector, repo_id, more, results))
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{text}")


def _measured(digest: str, results: Path) -> dict[str, Any]:
    """What the results say of the model with these weights, and of no other."""
    found: dict[str, Any] = {}
    grid = Grid.from_dict(json.loads((results / "crosseval.json").read_text(encoding="utf-8")))
    names = {facts["weights"]: name for name, facts in grid.facts["models"].items()}
    if digest not in names:
        return found
    name = names[digest]
    cells = tuple(one for one in grid.cells if one.model in (name, TRIVIAL))
    found["grid"] = replace(grid, cells=cells, pairs=(), robustness=(), errors=())
    found["name"] = name
    familiar = json.loads((results / "familiarity.json").read_text(encoding="utf-8"))["models"]
    found["familiar"] = name in familiar and familiar[name]["weights"] == digest
    return found


def _front_matter(run: Run, detector: Detector, repo_id: str, more: Mapping[str, Any]) -> ModelCardData:
    asked = run.record["arguments"]
    is_cifake = asked["data"] == "cifake"
    return ModelCardData(
        license="mit",
        library_name="transformers",
        pipeline_tag="image-classification",
        base_model=_base(run),
        datasets=[CIFAKE_MIRROR] if is_cifake else None,
        metrics=["accuracy", "roc_auc", "f1", "brier_score"],
        tags=["image-classification", "ai-generated-image-detection", "calibration", "explainability", "realfake"],
        model_name=repo_id.rpartition("/")[2],
        eval_results=[*_own_results(run), *(_grid_results(more["grid"], more["name"]) if more else ())],
        architectures=[type(detector.model).__name__],
    )


def _base(run: Run) -> str | None:
    model = run.record["arguments"]["model"]
    return model if "/" in model and not Path(model).exists() else None


def _own_results(run: Run) -> Iterator[EvalResult]:
    source = run.record["arguments"]["data"]
    for split, report in (("test", run.outcome.test), ("test, leak-free", run.outcome.test_leak_free)):
        yield from _results(source, split, report)


def _grid_results(grid: Grid, model: str) -> Iterator[EvalResult]:
    for cell in away(grid, model):
        yield from _results(cell.dataset, cell.split, cell.report)


def _results(source: str, split: str, report: Report) -> Iterator[EvalResult]:
    name = "CIFAKE" if source == "cifake" else Path(source).name
    kind = CIFAKE_MIRROR if source == "cifake" else Path(source).name
    for metric in ("accuracy", "balanced_accuracy", "roc_auc", "f1", "brier"):
        value = getattr(report, metric).value
        if value is not None:
            yield EvalResult(
                task_type="image-classification",
                dataset_type=kind,
                dataset_name=name,
                dataset_split=split,
                metric_type=metric,
                metric_name=f"{metric.replace('_', ' ')}, n = {report.n:,}",
                metric_value=round(value, 6),
            )


def _fields(
    run: Run, detector: Detector, repo_id: str, more: Mapping[str, Any], results: Path | None
) -> dict[str, Any]:
    asked, grid = run.record["arguments"], more.get("grid")
    studied = results if grid is not None else None
    return {
        "title": repo_id.rpartition("/")[2] if repo_id != CardArguments.repo_id else run.folder.resolve().name,
        "repo_id": repo_id,
        "what": _what(run, detector),
        "judged": "by a threshold"
        + (" and with a band in which it says *unsure*" if detector.point.band else "")
        + ".",
        "needs_code": (run.folder / "cifake_cnn.py").exists(),
        "elsewhere": _elsewhere(more),
        "data": _data(run),
        "leaks": RENDERERS["cifake_audit"](results) if results and asked["data"] == "cifake" else "",
        "settings": [(f"`{name}`", f"{asked[name]}") for name in SETTINGS if asked.get(name) is not None],
        "validation": run.outcome.validation,
        "best_epoch": run.outcome.best_epoch,
        "test": run.outcome.test,
        "clean": run.outcome.test_leak_free,
        "statistics": [("balanced_accuracy", "balanced accuracy"), *STATISTICS.items()],
        "contents": sorted(run.outcome.test.by_content.items()),
        "band": _band(detector, more),
        "measured": grid and {"table": cells_table(grid), "findings": "\n".join(f"- {one}" for one in findings(grid))},
        "familiarity": RENDERERS["familiarity"](studied) if studied and more["familiar"] else "",
        "robustness": robustness_of(studied, more["name"]) if studied else "",
        "explanations": RENDERERS["explanation_study"](studied) if studied else "",
        "cost": _cost(run),
        "command": _command(asked),
        "commit": run.record["commit"] or "unknown",
        "versions": ", ".join(f"{name} {version}" for name, version in run.record["versions"].items()),
    }


def _what(run: Run, detector: Detector) -> str:
    config, base = detector.model.config, _base(run)
    n = sum(one.numel() for one in detector.model.parameters())
    size = detector.processor.to_dict()["size"]
    made = f"fine-tuned from {base}" if base else "trained from scratch"
    kind = "convolutional network of Bird & Lotfi (2024)" if config.model_type == "cifake_cnn" else config.model_type
    side = f"{size['width']} x {size['height']} pixels" if "width" in size else "any size"
    return (
        f"A classifier that tells photographs from AI-generated pictures: {kind}, {n:,} parameters, {made}, on "
        f"pictures of {side}."
    )


def _elsewhere(more: Mapping[str, Any]) -> str:
    cells = away(more["grid"], more["name"]) if more else []
    wrong = [one.confidence.wrong.value for one in cells if one.confidence.wrong.value is not None]
    if not wrong:
        return ""
    return (
        f"On {len(wrong)} sets of pictures from elsewhere {min(wrong):.0%} to {max(wrong):.0%} of its sure verdicts "
        "were wrong."
    )


def _data(run: Run) -> str:
    asked, data = run.record["arguments"], run.record["data"]
    n = "; ".join(
        f"{split} {facts['n']:,} ({facts['n_real']:,} real, {facts['n_fake']:,} fake)" for split, facts in data.items()
    )
    words = CIFAKE_WORDS if asked["data"] == "cifake" else f"`{Path(asked['data']).name}`"
    return f"{words[0].upper()}{words[1:]}. Pictures: {n}. Copies of a picture are never in both train and validation."


def _band(detector: Detector, more: Mapping[str, Any]) -> str:
    point = detector.point
    words = [f"FAKE above {point}."]
    if point.temperature:
        words.append(f"Log-odds divided by {point.temperature:.3f} are calibrated on validation.")
    if point.band:
        words.append(f"It is {point.band}; chosen on validation.")
    for cell in whole_cells(more["grid"], more["name"]) if more else ():
        found = cell.confidence
        words.append(
            f"On {cell.dataset} {found.decided.value:.1%} of {found.decided.n:,} pictures were decided and "
            f"{found.wrong.value:.1%} of these wrong: the promise is {found.promise}."
        )
    return " ".join(words)


def _cost(run: Run) -> str:
    seconds, machine = run.record["seconds"], run.record["machine"]
    is_cpu = machine["device"] == "cpu"
    watts = WATTS_A_CORE * machine["cores"] if is_cpu else WATTS_A_GPU * run.record["processes"]
    rate = f"{WATTS_A_CORE} W for each of {machine['cores']} cores" if is_cpu else f"{WATTS_A_GPU} W for each device"
    place = machine["processor"] if is_cpu else machine["device"]
    return (
        f"One training took {seconds / 60:.1f} minutes on {place} and at most "
        f"{run.record['peak_memory_gib']:.1f} GiB of memory. Estimated energy: {watts * seconds / 3.6e6:.3f} kWh, "
        f"at {rate}, which is an assumption and was not metered; trials before this training are not in it."
    )


def _command(asked: Mapping[str, Any]) -> str:
    flags = (f"--{name} {asked[name]}" for name in ("data", *SETTINGS) if asked.get(name) is not None)
    return f"train.py {' '.join(flags)} --output_dir runs/again"


def main(argv: Sequence[str] | None = None) -> int:
    """Render, write; give the exit status."""
    [arguments] = parse(CardArguments, argv=argv, description=__doc__)
    try:
        card = make_card(arguments.model_dir, repo_id=arguments.repo_id, results=arguments.results)
    except (OSError, ValueError) as error:
        print(f"card: {error}", file=sys.stderr)
        return 1
    card.save(arguments.output_file)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Compare trained models on the same test images: accuracy, cost, and McNemar's test of each pair.

`python -m realfake_hf.experiments.compare --models cnn=space/models/cifake-cnn vit=runs/vit --data cifake
--output_file results/cifake_comparison.json`

Each model scores the test split once; the accuracy must agree with the `metrics.json` of its training.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from realfake_hf.cli import parse, read_names, run_command
from realfake_hf.estimate import Estimate
from realfake_hf.experiments.search.plan import PAPER_ACCURACY
from realfake_hf.store import write_results
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    import numpy as np
    from datasets import DatasetDict
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from realfake_hf.detector import Detector
    from realfake_hf.run_folder import Run
    from realfake_hf.training.arguments import DataArguments

THRESHOLD: Final = 0.5  # an image is called FAKE above it
TOLERANCE: Final = 0.0005  # of accuracy: another device or batch size moves a few images across the threshold


@dataclass
class CompareArguments:
    """The models and the output files."""

    models: list[str] = field(metadata={"help": "Two or more NAME=FOLDER, output folders of train.py."})
    output_file: Path = field(metadata={"help": "JSON file of the results; the Markdown table is written beside it."})
    figure_file: Path | None = field(default=None, metadata={"help": "PNG file: accuracy against training time."})
    bootstrap_samples: int = field(default=1000, metadata={"help": "Replicates of each bootstrap interval."})

    def __post_init__(self) -> None:
        """Check that there are two or more models with different names.

        Raises:
            ValueError: there are not.
        """
        if len(self.folders) < 2:  # noqa: PLR2004
            raise ValueError(f"expected two or more --models; found {', '.join(self.folders)}")

    @property
    def folders(self) -> dict[str, Path]:
        """Name -> folder."""
        return {name: Path(folder) for name, folder in read_names("--models", self.models, kind="FOLDER").items()}


@dataclass(frozen=True)
class TrainedModel:
    """A detector and the run that trained it."""

    name: str
    run: "Run"
    detector: "Detector"


def load_model(name: str, folder: Path) -> TrainedModel:
    """Load a trained model and its run, onto the accelerator if there is one.

    Raises:
        OSError: the folder, its model or its operating point does not exist.
        ValueError: the run is not finished.
    """
    from realfake_hf.detector import load_detector
    from realfake_hf.metrics.operating_point import OPERATING_POINT
    from realfake_hf.run_folder import read_run

    if not folder.is_dir():
        raise FileNotFoundError(f"expected an output folder of train.py for {name}; found none at {folder}.")
    if not (folder / OPERATING_POINT).is_file():
        raise FileNotFoundError(
            f"expected the operating point of {name} in {folder / OPERATING_POINT}; found none. Write it with "
            "python -m realfake_hf.training.posthoc --operating_point."
        )
    return TrainedModel(name, read_run(folder), load_detector(name, str(folder)))


def compare(models: Sequence[TrainedModel], images: "DatasetDict", *, bootstrap_samples: int = 1000) -> dict[str, Any]:
    """Score the test split once with each model, and test the difference of each pair.

    Args:
        models: two or more.
        images: with the splits of the models' training, from `add_missing_splits`.
        bootstrap_samples: replicates of each interval; 0 for no intervals.

    Returns:
        `threshold`, `models` (size, training and reports by name) and `pairs` (McNemar's tests), as plain JSON.

    Raises:
        ValueError: the images or the weights are not those of a model's `metrics.json`.
    """
    import numpy as np

    from realfake_hf.data.duplicates import leak_free_mask
    from realfake_hf.metrics.significance import mcnemar

    for model in models:
        _check_number_of_images(model, n=len(images["test"]))
    clean = np.flatnonzero(leak_free_mask(images))
    rows, is_right = {}, {}
    for model in models:
        rows[model.name], is_right[model.name] = _measure(model, images, clean, samples=bootstrap_samples)
    pairs = [
        {
            "a": a,
            "b": b,
            "test": mcnemar(is_right[a], is_right[b]).to_dict(),
            "test_leak_free": mcnemar(is_right[a][clean], is_right[b][clean]).to_dict(),
        }
        for a, b in combinations(rows, 2)
    ]
    return {"threshold": THRESHOLD, "models": rows, "pairs": pairs}


def _measure(
    model: TrainedModel, images: "DatasetDict", clean: "NDArray[np.intp]", *, samples: int
) -> "tuple[dict[str, Any], NDArray[np.bool_]]":
    """Return the entry of a model, and on which test images, (n,), its verdict at `THRESHOLD` is right."""
    import numpy as np
    from tqdm.auto import tqdm

    from realfake_hf.labels import FAKE
    from realfake_hf.metrics.report import Report, make_report

    test, point = images["test"], model.detector.point
    is_fake = np.asarray(test["label"][:]) == FAKE
    content = np.asarray(test["content"][:], dtype=object)
    p_fake = model.detector.probabilities(tqdm(test["image"], desc=model.name, unit="image", disable=None))

    def report(rows: "NDArray[np.intp]", threshold: float) -> Report:
        labels = content[rows].tolist()
        return make_report(is_fake[rows], p_fake[rows], content=labels, threshold=threshold, bootstrap_samples=samples)

    everything = np.arange(len(test))
    whole = report(everything, THRESHOLD)
    _check_accuracy(model, whole.accuracy.value or 0, n=whole.n)
    record = model.run.record
    entry = {
        "parameters": sum(weights.numel() for weights in model.detector.model.parameters()),
        "seed": model.run.seed,
        "training": {name: record[name] for name in ("seconds", "resumed", "processes", "machine", "commit")},
        "test": whole.to_dict(),
        "test_leak_free": report(clean, THRESHOLD).to_dict(),
        "test_at_threshold": report(everything, point.threshold).to_dict(),
    }
    return entry, (p_fake > THRESHOLD) == is_fake


def _check_number_of_images(model: TrainedModel, *, n: int) -> None:
    expected = model.run.outcome.test.n
    if n != expected:
        raise ValueError(
            f"expected the {expected:,} test images of the metrics.json of {model.name}; found {n:,}. Repeat the "
            "--data of its training."
        )


def _check_accuracy(model: TrainedModel, accuracy: float, *, n: int) -> None:
    expected = model.run.outcome.test.accuracy.value or 0
    if round(abs(accuracy - expected), 9) > TOLERANCE:
        raise ValueError(
            f"expected the test accuracy {expected:.4f} of the metrics.json of {model.name}; found {accuracy:.4f} on "
            f"{n:,} images. Repeat the --data of its training, and use the weights that were measured."
        )


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render one row per model, and McNemar's test of each pair on the whole and the leak-free test split."""
    from realfake_hf.metrics.significance import McNemar

    models = results["models"]
    first = next(iter(models.values()))
    whole, clean = (f"n = {first[name]['n']:,}" for name in ("test", "test_leak_free"))
    tests = [
        McNemar(**pair[split]).to_markdown(a=pair["a"], b=pair["b"])
        for pair in results["pairs"]
        for split in ("test", "test_leak_free")
    ]
    head = [
        "model", "parameters", f"accuracy, {whole}", f"leak-free, {clean}", "at its threshold", "ROC AUC", "ECE",
        "errors", "minutes",
    ]  # fmt: skip
    table = markdown_table(head, [_model_row(*model) for model in models.items()])
    note = (
        f"An image is called FAKE above {THRESHOLD}, and in the fifth column above the threshold that the model "
        "carries, chosen on validation. In parentheses: 95 % intervals; real images called FAKE + fake images called "
        "REAL; the machine of the training. ROC AUC, ECE and errors refer to the whole test split."
    )
    return "\n\n".join([table, note, *tests])


def _model_row(name: str, model: Mapping[str, Any]) -> list[str]:
    whole, clean, chosen, training = (
        model[key] for key in ("test", "test_leak_free", "test_at_threshold", "training")
    )
    false_positives, false_negatives = whole["false_positives"], whole["false_negatives"]
    machine = training["machine"]
    place = f"{machine['cores']} cores" if machine["device"] == "cpu" else machine["device"]
    return [
        name,
        f"{model['parameters']:,}",
        _percent(whole["accuracy"]),
        _percent(clean["accuracy"]),
        f"{100 * chosen['accuracy']['value']:.2f} % at {chosen['threshold']:.3f}",
        f"{whole['roc_auc']['value']:.4f}",
        f"{100 * whole['ece']['value']:.2f} %",
        f"{false_positives + false_negatives:,} ({false_positives:,} + {false_negatives:,})",
        f"{training['seconds'] / 60:.1f} ({place})",
    ]


def _percent(accuracy: Mapping[str, float | None]) -> str:
    value, *ends = (100 * accuracy[key] for key in ("value", "low", "high") if accuracy[key] is not None)  # type: ignore[operator]
    return f"{value:.2f} %" + (f" ({ends[0]:.2f}-{ends[1]:.2f})" if ends else "")


def draw(results: Mapping[str, Any], *, paper_accuracy: float | None = None) -> "Figure":
    """Draw accuracy against training time, with the accuracy reported by the paper as a dashed line if given."""
    from realfake_hf.figures.comparison import accuracy_against_time

    models = {
        name: (model["training"]["seconds"], Estimate.from_dict(model["test"]["accuracy"]))
        for name, model in results["models"].items()
    }
    n = next(iter(results["models"].values()))["test"]["n"]
    return accuracy_against_time(models, n=n, paper_accuracy=paper_accuracy)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    from realfake_hf.training.arguments import DataArguments

    arguments, data = parse(CompareArguments, DataArguments, argv=argv, description=__doc__)
    return run_command(lambda: _work(arguments, data), name="compare")


def _work(arguments: CompareArguments, data: "DataArguments") -> int:
    from realfake_hf.data.folders import CIFAKE
    from realfake_hf.data.loading import load_images
    from realfake_hf.data.splits import add_missing_splits
    from realfake_hf.environment import data_fingerprint, environment

    models = [load_model(name, folder) for name, folder in arguments.folders.items()]
    shares = {"validation_share": data.validation_share, "test_share": data.test_share}
    images = add_missing_splits(load_images(data.data), **shares, seed=data.split_seed)
    comparison = compare(models, images, bootstrap_samples=arguments.bootstrap_samples)
    facts = {**environment(), "data": {"source": data.data, **data_fingerprint(images)}}
    table = to_markdown(comparison)
    write_results(arguments.output_file, {**facts, **comparison}, table)
    print(table)
    if arguments.figure_file:
        from realfake_hf.figures.style import save_figure

        is_cifake = set(images["test"]["source"][:]) == {CIFAKE}
        save_figure(draw(comparison, paper_accuracy=PAPER_ACCURACY if is_cifake else None), arguments.figure_file)
    return 0


if __name__ == "__main__":
    sys.exit(main())

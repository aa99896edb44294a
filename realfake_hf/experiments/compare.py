"""Compare trained models on the same test images: accuracy, cost, and McNemar's test of each pair.

`python -m realfake_hf.experiments.compare --models cnn=space/models/cifake-cnn vit=runs/vit --data cifake
--output_file results/cifake_comparison.json`

Each model scores the test split once, with the temperature of its operating point; the accuracy must agree with the
`metrics.json` of its training.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.cli import command, read_names, setting
from realfake_hf.estimate import Estimate
from realfake_hf.experiments.search.plan import PAPER_ACCURACY
from realfake_hf.labels import FAKE
from realfake_hf.store import write_results
from realfake_hf.tables import markdown_table
from realfake_hf.training.arguments import DataArguments

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from realfake_hf.metrics.report import Report
    from realfake_hf.run_folder import Run

THRESHOLD: Final = 0.5
TOLERANCE: Final = 0.0005  # in accuracy: another device or batch size moves a few images across the threshold


@dataclass
class CompareArguments:
    """The models and the output files."""

    models: list[str] = field(metadata={"help": "Two or more NAME=FOLDER, output folders of train.py."})
    output_file: Path = field(metadata={"help": "JSON file of the results; the Markdown table is written beside it."})
    figure_file: Path | None = setting(None, "PNG file: accuracy against training time.")
    bootstrap_samples: int = setting(1000, "Replicates of each bootstrap interval.")

    def __post_init__(self) -> None:
        if len(self.folders) < 2:  # noqa: PLR2004
            raise ValueError(f"expected two or more --models; found {', '.join(self.folders)}")

    @property
    def folders(self) -> dict[str, Path]:
        """Name -> folder."""
        return {name: Path(folder) for name, folder in read_names("--models", self.models, kind="FOLDER").items()}


def compare(runs: "Mapping[str, Run]", images: "DatasetDict", *, bootstrap_samples: int = 1000) -> dict[str, Any]:
    """Score the test split once with each model, and test the difference of each pair.

    The images are the splits of their training, from `add_missing_splits`; without samples, there are no intervals.
    The result has `threshold`, `models` (size, training and reports by name) and `pairs` (McNemar's tests, whose
    `p_holm` are corrected for the number of pairs), as plain JSON.
    """
    from realfake_hf.data.duplicates import leak_free_mask
    from realfake_hf.metrics.significance import holm, mcnemar

    test = images["test"]
    for name, run in runs.items():
        if run.outcome.test.n != len(test):
            raise ValueError(
                f"expected the {run.outcome.test.n:,} test images of the metrics.json of {name}; found {len(test):,}. "
                "Repeat the --data of its training."
            )
    clean = np.flatnonzero(leak_free_mask(images))
    rows, is_right, pairs = {}, {}, [*combinations(runs, 2)]
    for name, run in runs.items():
        rows[name], is_right[name] = _measure(name, run, test, clean, samples=bootstrap_samples)
    tests: list[dict[str, Any]] = [{"a": a, "b": b} for a, b in pairs]
    for part, chosen in (("test", np.arange(len(test))), ("test_leak_free", clean)):
        found = [mcnemar(is_right[a][chosen], is_right[b][chosen]) for a, b in pairs]
        for entry, each, p_holm in zip(tests, found, holm([each.p_value for each in found]), strict=True):
            entry[part] = {**asdict(each), "p_holm": p_holm}
    return {"threshold": THRESHOLD, "models": rows, "pairs": tests}


def _measure(
    name: str, run: "Run", test: "Dataset", clean: NDArray[np.intp], *, samples: int
) -> tuple[dict[str, Any], NDArray[np.bool_]]:
    """Return the entry of a model, and whether its verdict at `THRESHOLD` is right on each test image, (n,)."""
    from tqdm.auto import tqdm

    from realfake_hf.detector import load_detector
    from realfake_hf.metrics.report import make_report

    detector = load_detector(name, str(run.folder))
    is_fake = np.asarray(test["label"][:]) == FAKE
    content = np.asarray(test["content"][:], dtype=object)
    p_fake = detector.probabilities(tqdm(test["image"], desc=name, unit="image", disable=None))

    def report(rows: NDArray[np.intp], threshold: float) -> "Report":
        labels = content[rows].tolist()
        return make_report(is_fake[rows], p_fake[rows], content=labels, threshold=threshold, bootstrap_samples=samples)

    everything = np.arange(len(test))
    whole = report(everything, THRESHOLD)
    expected, accuracy = run.outcome.test.accuracy.value or 0, whole.accuracy.value or 0
    if round(abs(accuracy - expected), 9) > TOLERANCE:
        raise ValueError(
            f"expected the test accuracy {expected:.4f} of the metrics.json of {name}; found {accuracy:.4f} on "
            f"{whole.n:,} images. Repeat the --data of its training, and use the weights that were measured."
        )
    entry = {
        "parameters": detector.model.num_parameters(),
        "seed": run.seed,
        "training": {key: run.record[key] for key in ("seconds", "resumed", "processes", "machine", "commit")},
        "test": whole.to_dict(),
        "test_leak_free": report(clean, THRESHOLD).to_dict(),
        "test_at_threshold": report(everything, detector.point.threshold).to_dict(),
    }
    return entry, (p_fake > THRESHOLD) == is_fake


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render one row per model, and McNemar's test of each pair on the whole and the leak-free test split."""
    models = results["models"]
    first = next(iter(models.values()))
    whole, clean = (f"n = {first[split]['n']:,}" for split in ("test", "test_leak_free"))
    header = [
        "model", "parameters", f"accuracy, {whole}", f"leak-free, {clean}", "at its threshold", "ROC AUC", "ECE",
        "errors", "minutes",
    ]  # fmt: skip
    note = (
        f"Images with a calibrated probability over {THRESHOLD} are called FAKE, and in the fifth column images above "
        "the threshold shipped with the model, chosen on validation. ROC AUC, ECE and errors refer to the whole test "
        "split. In parentheses: 95% intervals; real images called FAKE + fake images called REAL; the machine of the "
        "training."
    )
    tests = (
        "McNemar's exact test: the number of images on which only one model of a pair is right, and the difference in "
        f"accuracy with its 95% interval. p is corrected for the {len(results['pairs'])} pairs (Holm)."
    )
    columns = ["pair", "n", "only the first right", "only the second right", "first less second, points", "p (Holm)"]
    pairs = [_pair_row(pair, part) for pair in results["pairs"] for part in ("test", "test_leak_free")]
    table = markdown_table(header, [_model_row(*model) for model in models.items()])
    return "\n\n".join([table, note, tests, markdown_table(columns, pairs)])


def _model_row(name: str, model: Mapping[str, Any]) -> list[str]:
    from realfake_hf.metrics.report import Report

    whole, clean, chosen = (Report.from_dict(model[key]) for key in ("test", "test_leak_free", "test_at_threshold"))
    machine = model["training"]["machine"]
    device = f"{machine['cores']} cores" if machine["device"] == "cpu" else machine["device"]
    errors = whole.false_positives + whole.false_negatives
    return [
        name,
        f"{model['parameters']:,}",
        whole.accuracy.format(".2%"),
        clean.accuracy.format(".2%"),
        f"{chosen.accuracy.value:.2%} at {chosen.threshold:.3f}",
        f"{whole.roc_auc.value:.4f}",
        f"{whole.ece.value:.2%}",
        f"{errors:,} ({whole.false_positives:,} + {whole.false_negatives:,})",
        f"{model['training']['seconds'] / 60:.1f} ({device})",
    ]


def _pair_row(pair: Mapping[str, Any], part: str) -> list[str]:
    from realfake_hf.metrics.significance import format_p

    test = pair[part]
    points = Estimate(*(100 * test[key] for key in ("difference", "difference_low", "difference_high")))
    return [
        f"{pair['a']}, {pair['b']}",
        f"{test['n']:,}{' leak-free' if part == 'test_leak_free' else ''}",
        f"{test['only_a']:,}",
        f"{test['only_b']:,}",
        points.format("+.2f"),
        format_p(test["p_holm"]).removeprefix("p ").removeprefix("= "),
    ]


@command(CompareArguments, DataArguments, name="compare", description=__doc__)
def main(arguments: CompareArguments, data: DataArguments) -> None:
    """Compare the models, and print the table."""
    from realfake_hf.data.folders import CIFAKE
    from realfake_hf.environment import data_fingerprint, environment
    from realfake_hf.metrics.operating_point import OPERATING_POINT
    from realfake_hf.run_folder import read_run
    from realfake_hf.training.data import load_splits

    runs = {name: read_run(folder) for name, folder in arguments.folders.items()}
    for name, folder in arguments.folders.items():
        if not (folder / OPERATING_POINT).is_file():
            raise FileNotFoundError(
                f"expected the operating point of {name} in {folder / OPERATING_POINT}; found none. Write it with "
                "python -m realfake_hf.training.posthoc --operating_point."
            )
    images = load_splits(data)
    comparison = compare(runs, images, bootstrap_samples=arguments.bootstrap_samples)
    facts = {**environment(), "data": {"source": data.data, **data_fingerprint(images)}}
    print(write_results(arguments.output_file, {**facts, **comparison}, to_markdown(comparison)))
    if arguments.figure_file:
        from realfake_hf.experiments.figures import accuracy_against_time
        from realfake_hf.figures.style import save_figure

        is_cifake = set(images["test"]["source"][:]) == {CIFAKE}
        paper = PAPER_ACCURACY if is_cifake else None
        save_figure(accuracy_against_time(comparison, paper_accuracy=paper), arguments.figure_file)


if __name__ == "__main__":
    sys.exit(main())

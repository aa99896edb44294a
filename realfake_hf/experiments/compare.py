"""Compare trained models on the same test images: accuracy, cost, and McNemar's test of each pair.

`python -m realfake_hf.experiments.compare --models cnn=space/models/cifake-cnn vit=runs/vit --data cifake
--output_file results/cifake_comparison.json` scores the test split once with each model, and
checks it against the model's own `metrics.json`.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
from datasets import Dataset, DatasetDict
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar

from realfake_hf.cli import parse, read_names
from realfake_hf.data.duplicates import leak_free_mask
from realfake_hf.data.folders import CIFAKE
from realfake_hf.data.loading import load_images
from realfake_hf.data.splits import add_missing_splits
from realfake_hf.detector import Detector, load_detector
from realfake_hf.environment import data_fingerprint, environment
from realfake_hf.experiments.search.plan import PAPER_ACCURACY
from realfake_hf.figures import CostPoint, accuracy_against_time, save_figure
from realfake_hf.hub.readme import comparison_table
from realfake_hf.labels import FAKE
from realfake_hf.metrics.operating_point import OPERATING_POINT
from realfake_hf.metrics.report import Report, make_report
from realfake_hf.metrics.significance import McNemar, mcnemar
from realfake_hf.run_folder import Run, read_run
from realfake_hf.store import write_json
from realfake_hf.training.arguments import DataArguments

THRESHOLD: Final = 0.5  # called FAKE above it
TOLERANCE: Final = 0.0005  # of accuracy: another device or batch size moves a few images across the threshold


@dataclass
class CompareArguments:
    """Which models, and where the comparison goes."""

    models: list[str] = field(metadata={"help": "Two or more NAME=FOLDER, folders of train.py."})
    output_file: Path = field(metadata={"help": "The comparison, a JSON file of results/."})
    figure_file: Path | None = field(default=None, metadata={"help": "Draw accuracy against training time here."})
    bootstrap_samples: int = field(default=1000, metadata={"help": "Replicates behind each interval."})

    def __post_init__(self) -> None:
        """Refuse models that are fewer than two, without a folder, or of the same name."""
        if len(self.folders) < 2:  # noqa: PLR2004 - a pair
            raise ValueError(f"wanted two or more --models; found {', '.join(self.folders)}")

    @property
    def folders(self) -> dict[str, Path]:
        """The folder of each name."""
        return {name: Path(folder) for name, folder in read_names("--models", self.models, kind="FOLDER").items()}


@dataclass(frozen=True)
class Candidate:
    """A trained model that takes part."""

    name: str
    run: Run
    detector: Detector

    def to_dict(self) -> dict[str, Any]:
        """Its size, and what its training took."""
        passport = self.run.record
        return {
            "parameters": sum(weights.numel() for weights in self.detector.model.parameters()),
            "seed": self.run.seed,
            "training": {name: passport[name] for name in ("seconds", "resumed", "processes", "machine", "commit")},
        }


@dataclass(frozen=True, eq=False)
class Scored:
    """A model on the test images.

    Attributes:
        candidate: the model.
        is_right: (n,) bool, at the threshold of one half.
        test: on the whole test split.
        test_leak_free: on the test pictures that occur in no other split.
        test_at_threshold: on the whole test split, with the threshold that the model carries, chosen on validation.
    """

    candidate: Candidate
    is_right: NDArray[np.bool_]
    test: Report
    test_leak_free: Report
    test_at_threshold: Report

    def to_dict(self) -> dict[str, Any]:
        """What is known of the model, and what was measured, as plain numbers and dictionaries."""
        names = ("test", "test_leak_free", "test_at_threshold")
        return {**self.candidate.to_dict(), **{name: getattr(self, name).to_dict() for name in names}}

    def to_point(self) -> CostPoint:
        """The model as a point of accuracy and time."""
        accuracy = self.test.accuracy
        ends = None if accuracy.low is None or accuracy.high is None else (accuracy.low, accuracy.high)
        seconds = self.candidate.run.record["seconds"]
        return CostPoint(self.candidate.name, seconds, accuracy.value or 0, ends)


@dataclass(frozen=True)
class Pair:
    """Two models by name, and McNemar's test of them on both test sets."""

    a: str
    b: str
    test: McNemar
    test_leak_free: McNemar


@dataclass(frozen=True)
class Comparison:
    """Models on the same test images, in the order in which they were named."""

    models: Sequence[Scored]
    pairs: Sequence[Pair]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain numbers, strings and dictionaries."""
        models = {model.candidate.name: model.to_dict() for model in self.models}
        return {"threshold": THRESHOLD, "models": models, "pairs": [asdict(pair) for pair in self.pairs]}

    def to_markdown(self) -> str:
        """Render the table of the models, and for each pair the tables of right and wrong on both test sets."""
        tests = [
            test.to_markdown(a=pair.a, b=pair.b) for pair in self.pairs for test in (pair.test, pair.test_leak_free)
        ]
        return "\n\n".join([comparison_table(self.to_dict()), *tests])


def load_candidate(name: str, folder: Path) -> Candidate:
    """Load a trained model and its passport, on the accelerator where there is one.

    Raises:
        OSError: there is no such folder, or no model or threshold in it.
        ValueError: there is no finished run in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"wanted a folder of train.py for {name}; found none at {folder}.")
    if not (folder / OPERATING_POINT).is_file():
        raise FileNotFoundError(
            f"wanted the threshold of {name}, chosen on validation, in {folder / OPERATING_POINT}; found none. Write "
            "it with python -m realfake_hf.training.posthoc --operating_point."
        )
    return Candidate(name, read_run(folder), load_detector(name, str(folder)))


def compare(candidates: Sequence[Candidate], images: DatasetDict, *, bootstrap_samples: int = 1000) -> Comparison:
    """Score the test split once with each model, and test each pair.

    Args:
        candidates: two or more models.
        images: with the splits of their training, from `add_missing_splits`.
        bootstrap_samples: replicates behind each interval; 0 for no intervals.

    Raises:
        ValueError: a model's own measurements say that these are not its test images, or not its weights.
    """
    for candidate in candidates:
        _refuse_other_images(candidate, n=len(images["test"]))
    clean = np.flatnonzero(leak_free_mask(images))
    models = [_score(model, images, clean, bootstrap_samples=bootstrap_samples) for model in candidates]
    return Comparison(models, [_pair(a, b, clean) for a, b in combinations(models, 2)])


def draw(comparison: Comparison, images: DatasetDict) -> Figure:
    """Draw accuracy against training time, with the paper's accuracy where the test images are CIFAKE's."""
    paper = PAPER_ACCURACY if set(images["test"]["source"][:]) == {CIFAKE} else None
    points = [model.to_point() for model in comparison.models]
    return accuracy_against_time(points, n=len(images["test"]), paper_accuracy=paper)


def _score(candidate: Candidate, images: DatasetDict, clean: NDArray[np.intp], *, bootstrap_samples: int) -> Scored:
    is_fake, p_fake = _probabilities(candidate, images["test"])
    content = images["test"]["content"][:]
    report = partial(make_report, bootstrap_samples=bootstrap_samples)
    test = report(is_fake, p_fake, content=content, threshold=THRESHOLD)
    _refuse_other_accuracy(candidate, test)
    clean_content = [content[row] for row in clean]
    test_leak_free = report(is_fake[clean], p_fake[clean], content=clean_content, threshold=THRESHOLD)
    test_at_threshold = report(is_fake, p_fake, content=content, threshold=candidate.detector.point.threshold)
    return Scored(candidate, (p_fake > THRESHOLD) == is_fake, test, test_leak_free, test_at_threshold)


def _probabilities(candidate: Candidate, rows: Dataset) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    pictures = tqdm(rows["image"], desc=candidate.name, unit="image", disable=None)
    return np.asarray(rows["label"][:]) == FAKE, candidate.detector.probabilities(pictures)


def _pair(a: Scored, b: Scored, clean: NDArray[np.intp]) -> Pair:
    test, test_leak_free = mcnemar(a.is_right, b.is_right), mcnemar(a.is_right[clean], b.is_right[clean])
    return Pair(a.candidate.name, b.candidate.name, test, test_leak_free)


def _refuse_other_images(candidate: Candidate, *, n: int) -> None:
    stated = candidate.run.outcome.test.n
    if n != stated:
        raise ValueError(
            f"wanted the {stated:,} test images on which metrics.json of {candidate.name} was measured; found {n:,}. "
            "Give the --data of its training."
        )


def _refuse_other_accuracy(candidate: Candidate, found: Report) -> None:
    stated, measured = candidate.run.outcome.test.accuracy.value or 0, found.accuracy.value or 0
    if round(abs(measured - stated), 9) > TOLERANCE:
        raise ValueError(
            f"wanted the test accuracy of {stated:.4f} that metrics.json of {candidate.name} states; found "
            f"{measured:.4f} on {found.n:,} images. The data are not those of its training, or the weights are not "
            "those that were measured."
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, write, print; give the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files
    arguments, data = parse(CompareArguments, DataArguments, argv=argv, description=__doc__)
    try:
        comparison = _run(arguments, data)
    except (OSError, ValueError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    print(comparison.to_markdown())
    return 0


def _run(arguments: CompareArguments, data: DataArguments) -> Comparison:
    candidates = [load_candidate(name, folder) for name, folder in arguments.folders.items()]
    arguments.output_file.parent.mkdir(parents=True, exist_ok=True)
    shares = {"validation_share": data.validation_share, "test_share": data.test_share}
    images = add_missing_splits(load_images(data.data), **shares, seed=data.split_seed)
    comparison = compare(candidates, images, bootstrap_samples=arguments.bootstrap_samples)
    facts = {**environment(), "data": {"source": data.data, **data_fingerprint(images)}}
    write_json(arguments.output_file, {**facts, **comparison.to_dict()})
    if arguments.figure_file:
        save_figure(draw(comparison, images), arguments.figure_file)
    return comparison


if __name__ == "__main__":
    sys.exit(main())

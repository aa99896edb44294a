"""Fit the familiarity and the operating point of a trained model, or measure it again.

`python -m realfake_hf.training.posthoc --models cnn=space/models/cifake-cnn --datasets cifake=cifake art=PLACE
--output_file results/familiarity.json` writes familiarity.safetensors into the folder of each model, and measures
the share of images of other data sets that are far from the training images.

`python -m realfake_hf.training.posthoc --operating_point --model_dir space/models/cifake-cnn` chooses temperature,
threshold and band on the validation split of the training, and writes operating_point.json into the folder.

`python -m realfake_hf.training.posthoc --outcome --model_dir space/models/cifake-cnn` measures the weights in the
folder, with the temperature of its operating point, on validation and test, and writes metrics.json and its figure.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from realfake_hf.cli import command, read_names, setting
from realfake_hf.environment import environment, split_fingerprint
from realfake_hf.estimate import Estimate, to_plain
from realfake_hf.labels import FAKE, LabelArguments
from realfake_hf.sampling import take_evenly
from realfake_hf.store import write_json, write_results
from realfake_hf.tables import markdown_table
from realfake_hf.training.arguments import DataArguments

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from realfake_hf.crosseval.datasets import EvalDataset
    from realfake_hf.detector import Detector
    from realfake_hf.metrics.out_of_distribution import Familiarity
    from realfake_hf.training.outcome import Predictions

OPERATING_POINT_FLAG: Final = "--operating_point"
OUTCOME_FLAG: Final = "--outcome"

Distances = NDArray[np.float64]
Scores = tuple[NDArray[np.bool_], NDArray[np.floating]]  # is_fake and p_fake, (n,) each


@dataclass
class FamiliarityArguments(LabelArguments):
    """The models, and the data sets on which their familiarity is measured."""

    models: list[str] = field(metadata={"help": "NAME=FOLDER of train.py."})
    datasets: list[str] = field(metadata={"help": "NAME=SOURCE of test images; the data set of the training first."})
    output_file: Path = field(metadata={"help": "The measurements, a JSON file in results/."})
    n: int = setting(20_000, "Training images to fit on, balanced by label.")
    limit: int | None = setting(None, "Images of each data set; by default all.")
    far: float = setting(0.01, "Share of the validation images beyond the limit.")
    seed: int = setting(0, "Seed of all samples.")


@dataclass
class OutcomeArguments(LabelArguments):
    """The model, and the data set of its training."""

    model_dir: Path = field(metadata={"help": "A folder of train.py, into which the result is written."})
    data: str | None = setting(None, "The data set of the training; by default as in run.json.")


@dataclass
class OperatingPointArguments(OutcomeArguments):
    """The model, and the predictions or images of its validation split."""

    probabilities: Path | None = setting(
        None, "validation_probabilities.npz of the run; by default the file in the folder, else the images are scored."
    )
    promised: float = setting(0.01, "Highest share of wrong verdicts among those that are not unsure.")


@command(OperatingPointArguments, name="posthoc", description=__doc__)
def choose(arguments: OperatingPointArguments) -> None:
    """Choose the operating point of a model on its validation split, write it into its folder, and print it."""
    from realfake_hf.metrics.calibration import choose_operating_point
    from realfake_hf.metrics.operating_point import OPERATING_POINT
    from realfake_hf.run_folder import VALIDATION, read_run

    run = read_run(arguments.model_dir)
    file = arguments.probabilities or arguments.model_dir / VALIDATION
    if arguments.probabilities or file.exists():
        is_fake, p_fake = _recorded_scores(file, run.record, epoch=run.outcome.best_epoch)
    else:
        is_fake, p_fake = _new_scores(arguments, run.record)
    digest = run.record["data"]["validation"]["sha256"]
    point = choose_operating_point(is_fake, p_fake, sha256=digest, promised=arguments.promised)
    write_json(arguments.model_dir / OPERATING_POINT, to_plain(point))
    print(f"{arguments.model_dir}: FAKE above {point}; {point.band or 'no band meets the promised error rate'}")


@command(OutcomeArguments, name="posthoc", description=__doc__)
def measure_again(arguments: OutcomeArguments) -> None:
    """Measure a finished run again from its weights, keep its epoch and history, and print the test results."""
    from realfake_hf.detector import Detector
    from realfake_hf.run_folder import RECORD, read_run, write_measurements
    from realfake_hf.training.data import TrainingData
    from realfake_hf.training.outcome import make_outcome

    run, measured = read_run(arguments.model_dir), environment()
    data = TrainingData(_splits_of_training(run.record, data=arguments.data, labels=arguments.labels))
    detector = Detector.from_pretrained(arguments.model_dir)
    outcome = make_outcome(
        _predictions(detector, data.images["validation"], "validation"),
        _predictions(detector, data.images["test"], "test"),
        {"test_leak_free": data.leak_free(), "test_no_near_duplicate": data.near_duplicate_free()},
        best_epoch=run.outcome.best_epoch,
        bootstrap_samples=run.outcome.test.bootstrap_samples,
        seed=run.outcome.test.seed,
    )
    write_measurements(arguments.model_dir, outcome)
    write_json(arguments.model_dir / RECORD, {**run.record, "measured": measured})
    print(outcome.to_markdown())


def _predictions(detector: "Detector", rows: "Dataset", title: str) -> "Predictions":
    from realfake_hf.metrics.calibration import scale
    from realfake_hf.training.outcome import Predictions

    p_fake = _probabilities(detector, rows, title)
    before = scale(p_fake, 1 / (detector.point.temperature or 1.0))
    return Predictions(np.asarray(rows["label"][:]) == FAKE, rows["content"][:], p_fake, before)


def fit(folder: Path, *, n: int, far: float, seed: int) -> "Familiarity":
    """Fit the familiarity of a model on n training images and the validation images, and write it into its folder.

    A share `far`, in (0, 1), of the validation images is beyond the limit.
    """
    from realfake_hf.detector import Detector
    from realfake_hf.metrics.out_of_distribution import fit_familiarity
    from realfake_hf.run_folder import read_run

    record = read_run(folder).record
    images = _splits_of_training(record)
    training, validation = images["train"], images["validation"]
    order = np.random.default_rng(seed).permutation(len(training))
    labels = np.asarray(training["label"][:])[order]
    training = training.select(order[take_evenly(labels.tolist(), min(n, len(training)))])
    detector = Detector.from_pretrained(folder)
    familiarity = fit_familiarity(
        _embeddings(detector, training, "training images"),
        np.asarray(training["label"][:]) == FAKE,
        _embeddings(detector, validation, "validation"),
        far=far,
        sha256=record["data"]["validation"]["sha256"],
    )
    familiarity.save(folder)
    return familiarity


def measure(detector: "Detector", familiarity: "Familiarity", sets: "Sequence[EvalDataset]") -> dict[str, Any]:
    """Measure the share of far images in each data set, and how well the distance separates it from the first."""
    distances = {data.name: familiarity.distances(_embeddings(detector, data.rows, data.name)) for data in sets}
    home = distances[sets[0].name]
    facts = {name: getattr(familiarity, name) for name in ("limit", "far", "n", "n_validation", "sha256")}
    rows = {
        name: _row(values, familiarity.limit, None if values is home else home) for name, values in distances.items()
    }
    return {**facts, "weights": detector.digest(), "sets": rows}


@command(FamiliarityArguments, name="posthoc", description=__doc__)
def fit_and_measure(arguments: FamiliarityArguments) -> None:
    """Fit and measure the familiarity of each model, write the results, and print their table."""
    from realfake_hf.crosseval.datasets import load_dataset
    from realfake_hf.detector import Detector

    places = read_names("--models", arguments.models, kind="FOLDER")
    sources = read_names("--datasets", arguments.datasets, kind="SOURCE")
    settings = {name: getattr(arguments, name) for name in ("limit", "labels", "seed")}
    sets = [load_dataset(name, source, **settings) for name, source in sources.items()]
    code_and_machine = environment()  # before the folders of the models change, which git may track
    models = {}
    for name, place in places.items():
        familiarity = fit(Path(place), n=arguments.n, far=arguments.far, seed=arguments.seed)
        models[name] = measure(Detector.from_pretrained(place), familiarity, sets)
    results = {"settings": to_plain(arguments), **code_and_machine, "models": models}
    print(write_results(arguments.output_file, results, to_markdown(results)))


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render the content of results/familiarity.json as a table and a note."""
    rows = [
        [
            model,
            name,
            f"{row['far']['n']:,}",
            Estimate.from_dict(row["far"]),
            "" if row["roc_auc"] is None else f"{row['roc_auc']:.3f}",
        ]
        for model, facts in results["models"].items()
        for name, row in facts["sets"].items()
    ]
    facts = next(iter(results["models"].values()))
    table = markdown_table(["model", "images", "n", "far", "ROC AUC"], rows, align="llr")
    return (
        f"{table}\n\nFar: farther from the training images of the nearer label than all but {facts['far']:.0%} of "
        f"{facts['n_validation']:,} validation images, by Mahalanobis distance in the embedding before the head, "
        f"fitted on {facts['n']:,} training images. ROC AUC: how well the distance separates the images from those "
        "of the first row."
    )


def _row(distances: Distances, limit: float, home: Distances | None) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

    from realfake_hf.metrics.intervals import share

    far = to_plain(share(int((distances > limit).sum()), len(distances)))
    if home is None:
        return {"far": far, "roc_auc": None}
    is_away = np.repeat([0, 1], [len(home), len(distances)])
    return {"far": far, "roc_auc": float(roc_auc_score(is_away, np.concatenate([home, distances])))}


def _embeddings(detector: "Detector", rows: "Dataset", title: str) -> NDArray[np.float32]:
    from tqdm.auto import tqdm

    return detector.embeddings(tqdm(rows["image"], desc=title, unit="image", disable=None))


def _recorded_scores(file: Path, record: Mapping[str, Any], *, epoch: int) -> Scores:
    from realfake_hf.run_folder import ValidationRun

    n, validation = record["data"]["validation"]["n"], ValidationRun.read(file)
    if len(validation.is_fake) != n or epoch not in validation.epoch:
        raise ValueError(
            f"expected {n:,} validation images and epoch {epoch} in {file}; found {len(validation.is_fake):,} and "
            f"epochs {', '.join(map(str, validation.epoch))}. Name the file of the model's own run."
        )
    return validation.is_fake, validation.p_fake[validation.epoch.tolist().index(epoch)]


def _new_scores(arguments: OperatingPointArguments, record: Mapping[str, Any]) -> Scores:
    """Score the validation split without the temperature of an operating point that the folder may have."""
    from realfake_hf.detector import Detector
    from realfake_hf.metrics.operating_point import DEFAULT

    rows = _splits_of_training(record, data=arguments.data, labels=arguments.labels)["validation"]
    detector = Detector.from_pretrained(arguments.model_dir)
    detector.point = DEFAULT
    return np.asarray(rows["label"][:]) == FAKE, _probabilities(detector, rows, "validation")


def _probabilities(detector: "Detector", rows: "Dataset", title: str) -> NDArray[np.float32]:
    from tqdm.auto import tqdm

    return detector.probabilities(tqdm(rows["image"], desc=title, unit="image", disable=None))


def _splits_of_training(record: Mapping[str, Any], **given: str | None) -> "DatasetDict":
    """Load the splits of a training run, with other settings if given, and check the validation and the test split."""
    from realfake_hf.training.data import load_splits

    names = (
        "data", "labels", "fold_column", "validation_fold", "validation_share", "test_share", "split_seed",
        "train_size",
    )  # fmt: skip
    recorded = {name: record["arguments"][name] for name in names if name in record["arguments"]}
    settings = recorded | {name: value for name, value in given.items() if value}
    images = load_splits(DataArguments(**settings))
    for split in ("validation", "test"):
        expected, actual = record["data"][split], split_fingerprint(images[split])
        if actual["sha256"] != expected["sha256"]:
            raise ValueError(
                f"expected the {expected['n']:,} {split} images of the training run in {settings['data']}; found "
                f"{actual['n']:,} others. Use the --data of the training run."
            )
    return images


def main(argv: Sequence[str] | None = None) -> int:
    """Fit the familiarity or the operating point, or measure again, and print the result; return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    for flag, work in ((OPERATING_POINT_FLAG, choose), (OUTCOME_FLAG, measure_again)):
        if flag in words:
            words.remove(flag)
            return work(words)
    return fit_and_measure(words)


if __name__ == "__main__":
    sys.exit(main())

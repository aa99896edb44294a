"""Learn where training pictures lie in what models see, and measure which pictures from elsewhere are called far.

`python -m realfake_hf.training.posthoc --models cnn=space/models/cifake-cnn --datasets cifake=cifake art=PLACE
--output_file results/familiarity.json` writes familiarity.safetensors into each model's folder.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar

from realfake_hf.cli import parse, read_names
from realfake_hf.crosseval.datasets import TestSet, load_test_set
from realfake_hf.data.sampling import take_evenly
from realfake_hf.detector import Detector
from realfake_hf.environment import environment
from realfake_hf.estimate import to_plain
from realfake_hf.experiments.seeds import read_run
from realfake_hf.labels import FAKE
from realfake_hf.metrics.intervals import share
from realfake_hf.metrics.out_of_distribution import Familiarity, fit_familiarity
from realfake_hf.store import write_json
from realfake_hf.training.training_data import splits_of_training

Distances = NDArray[np.float64]


@dataclass
class FamiliarityArguments:
    """Which models, and on what their warning is tried."""

    models: list[str] = field(metadata={"help": "NAME=FOLDER of train.py."})
    datasets: list[str] = field(
        metadata={"help": "NAME=SOURCE of the pictures to try it on; those of the training first."}
    )
    output_file: Path = field(metadata={"help": "What was measured, a JSON file of results/."})
    n: int = field(default=20_000, metadata={"help": "Training pictures that it is learnt from, evenly by label."})
    limit: int | None = field(default=None, metadata={"help": "Pictures of each data set; all by default."})
    far: float = field(default=0.01, metadata={"help": "Share of the validation pictures beyond the limit."})
    seed: int = field(default=0, metadata={"help": "Of every draw."})


def learn(folder: Path, *, n: int, far: float, seed: int) -> Familiarity:
    """Fit a model's familiarity on its training pictures and their validation, and write it into its folder.

    Raises:
        OSError: there is no such data set.
        ValueError: there is no finished run in the folder, or the data are others than those of its training.
    """
    passport = read_run(folder).passport
    stated = passport["data"]["validation"]
    images = splits_of_training(passport["arguments"], stated=stated)
    training, validation = images["train"], images["validation"]
    drawn = np.random.default_rng(seed).permutation(len(training))
    labels = np.asarray(training["label"][:])[drawn]
    training = training.select(drawn[sorted(take_evenly(labels.tolist(), min(n, len(training))))])
    detector = Detector.from_pretrained(folder)
    found = fit_familiarity(
        _embeddings(detector, training, "training pictures"),
        np.asarray(training["label"][:]) == FAKE,
        _embeddings(detector, validation, "validation"),
        far=far,
        sha256=stated["sha256"],
    )
    found.save(folder)
    return found


def _embeddings(detector: Detector, rows: Dataset, title: str) -> NDArray[np.float32]:
    return detector.embeddings(tqdm(rows["image"], desc=title, unit="image", disable=None))


def measure(detector: Detector, found: Familiarity, sets: Sequence[TestSet]) -> dict[str, Any]:
    """Say of each data set how many pictures are called far, and how well the distance tells them from the first's."""
    distances = {one.name: found.distances(_embeddings(detector, one.rows, one.name)) for one in sets}
    home = distances[sets[0].name]
    facts = {name: getattr(found, name) for name in ("limit", "far", "n", "n_validation", "sha256")}
    rows = {name: _row(found, values, None if values is home else home) for name, values in distances.items()}
    return {**facts, "weights": detector.digest(), "sets": rows}


def _row(found: Familiarity, values: Distances, home: Distances | None) -> dict[str, Any]:
    far = share(int((values > found.limit).sum()), len(values))
    if home is None:
        return {"far": to_plain(far), "roc_auc": None}
    truth = np.repeat([0, 1], [len(home), len(values)])
    return {"far": to_plain(far), "roc_auc": float(roc_auc_score(truth, np.concatenate([home, values])))}


def learn_and_measure(arguments: FamiliarityArguments) -> dict[str, Any]:
    """Do all of it, and write it down.

    Raises:
        OSError: there is no such data set.
        ValueError: a name is given twice, or a model's folder holds no finished run.
    """
    places: Mapping[str, str] = read_names("--models", arguments.models, kind="FOLDER")
    sources = read_names("--datasets", arguments.datasets, kind="SOURCE")
    sets = [
        load_test_set(name, source, limit=arguments.limit, seed=arguments.seed) for name, source in sources.items()
    ]
    code_and_machine = environment()  # before the models' folders, which may be tracked, change
    models = {}
    for name, place in places.items():
        found = learn(Path(place), n=arguments.n, far=arguments.far, seed=arguments.seed)
        models[name] = measure(Detector.from_pretrained(place), found, sets)
    settings = {**to_plain(arguments), "output_file": str(arguments.output_file)}
    write_json(arguments.output_file, {"settings": settings, **code_and_machine, "models": models})
    return models


def main(argv: Sequence[str] | None = None) -> int:
    """Learn, measure, write, print; give the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files
    [arguments] = parse(FamiliarityArguments, argv=argv, description=__doc__)
    try:
        models = learn_and_measure(arguments)
    except (OSError, ValueError) as error:
        print(f"familiarity: {error}", file=sys.stderr)
        return 1
    for name, row in models.items():
        shares = (f"{one['far']['value']:.1%} of {place}" for place, one in row["sets"].items())
        print(f"{name}: far are {', '.join(shares)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Freeze a model's threshold, temperature and band on the validation split of its training, in the model's folder.

`python -m realfake_hf.training.operating_point --model_dir space/models/cifake-cnn` scores that split, unless the
run's validation probabilities lie in the folder or are named with `--probabilities`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar

from realfake_hf.cli import parse
from realfake_hf.detector import Detector
from realfake_hf.experiments.seeds import read_run
from realfake_hf.labels import FAKE
from realfake_hf.metrics.calibration import PROMISED, choose_operating_point
from realfake_hf.metrics.operating_point import OPERATING_POINT, OperatingPoint
from realfake_hf.run_folder import VALIDATION
from realfake_hf.store import write_json
from realfake_hf.training.training_data import splits_of_training
from realfake_hf.validation_run import ValidationRun

Scored = tuple[NDArray[np.bool_], NDArray[np.floating]]


@dataclass
class OperatingPointArguments:
    """Which model, and where its validation probabilities or pictures are."""

    model_dir: Path = field(metadata={"help": "A folder of train.py, into which operating_point.json is written."})
    data: str | None = field(
        default=None, metadata={"help": "The data of its training; by default what run.json says."}
    )
    probabilities: Path | None = field(
        default=None, metadata={"help": f"{VALIDATION} of the run; by default that of the folder, if it has one."}
    )
    promised: float = field(
        default=PROMISED, metadata={"help": "Share of wrong verdicts among those that are not called unsure."}
    )


def freeze(arguments: OperatingPointArguments) -> OperatingPoint:
    """Choose them on validation, write them, and give them.

    Raises:
        OSError: there is no such data set.
        ValueError: there is no finished run in the folder, the validation split is not that of its training, or the
            promised error rate is outside (0, 1).
    """
    run = read_run(arguments.model_dir)
    stated = run.passport["data"]["validation"]
    file = arguments.probabilities or arguments.model_dir / VALIDATION
    if arguments.probabilities or file.exists():
        is_fake, p_fake = _kept(file, epoch=run.outcome.best_epoch, stated=stated)
    else:
        is_fake, p_fake = _scored(arguments, run.passport["arguments"], stated=stated)
    point = choose_operating_point(is_fake, p_fake, sha256=stated["sha256"], promised=arguments.promised)
    write_json(arguments.model_dir / OPERATING_POINT, point.to_dict())
    return point


def _kept(file: Path, *, epoch: int, stated: dict[str, Any]) -> Scored:
    kept = ValidationRun.read(file)
    if len(kept.is_fake) != stated["n"] or epoch not in kept.epoch:
        raise ValueError(
            f"wanted {stated['n']:,} validation pictures and epoch {epoch} in {file}; found {len(kept.is_fake):,} and "
            f"epochs {', '.join(map(str, kept.epoch))}. Name the file of the model's own run."
        )
    return kept.is_fake, kept.p_fake[kept.epoch.tolist().index(epoch)]


def _scored(arguments: OperatingPointArguments, asked: dict[str, Any], *, stated: dict[str, Any]) -> Scored:
    rows = splits_of_training(asked, stated=stated, source=arguments.data)["validation"]
    detector = Detector.from_pretrained(arguments.model_dir)
    pictures = tqdm(rows["image"], desc="validation", unit="image", disable=None)
    return np.asarray(rows["label"][:]) == FAKE, detector.probabilities(pictures)


def main(argv: Sequence[str] | None = None) -> int:
    """Choose, write, print; give the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files
    [arguments] = parse(OperatingPointArguments, argv=argv, description=__doc__)
    try:
        point = freeze(arguments)
    except (OSError, ValueError) as error:
        print(f"operating_point: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.model_dir}: FAKE above {point}; {point.band or 'no band keeps the promise'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

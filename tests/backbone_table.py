"""Train, compare and explain a tiny classifier of each family.

`python tests/backbone_table.py` writes docs/backbones.md.
"""

import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from datasets import DatasetDict
from tiny_classifiers import EXCLUDED, FAMILIES, Family, pictures
from transformers import BaseImageProcessor, PreTrainedModel, pipeline

from realfake_hf.attribution.methods import ATTENTION_METHODS, METHODS, method_name
from realfake_hf.data.loading import load_images
from realfake_hf.data.pixels import PixelDataset, cached_pixels
from realfake_hf.detector import Detector
from realfake_hf.models.heads import head_modules
from realfake_hf.models.pretrained import load_pretrained
from realfake_hf.training.arguments import ModelArguments
from realfake_hf.training.callbacks import ValidationRecorder
from realfake_hf.training.run_arguments import RunArguments
from realfake_hf.training.trainer import build_trainer

PAGE: Final = Path(__file__).parents[1] / "docs/backbones.md"
TOLERANCE: Final = 1e-4  # of p_fake against the pipeline
SIZE: Final = 64  # pixels, where a processor has no fixed size
OPTIONS: Final[Mapping[str, dict[str, Any]]] = {"integrated_gradients": {"steps": 4}}


@dataclass(frozen=True)
class Outcome:
    """What came of one family.

    Attributes:
        refusal: why it is not fine-tuned; None if it is.
        sized: whether it is only fine-tuned with `--image_size`.
        losses: training losses, with all weights and with a frozen backbone.
        moved: names of weights that training changed, of all weights and with a frozen backbone.
        head: prefixes of the names of the head.
        difference: largest difference between the `p_fake` of `Detector` and of `pipeline`.
        maps: height and width of the map of each method, or why there is none.
    """

    refusal: str | None = None
    sized: bool = False
    losses: tuple[float, ...] = ()
    moved: tuple[frozenset[str], ...] = ()
    head: tuple[str, ...] = ()
    difference: float = np.inf
    maps: dict[str, tuple[int, int] | str] = field(default_factory=dict)


def few_images() -> DatasetDict:
    """Nine training images, whose last batch of four has one image, and two validation images."""
    splits = load_images("demo")
    return DatasetDict(
        {"train": splits["train"].select(range(9)), "validation": splits["validation"].select(range(2))}
    )


def outcome_of(name: str, images: DatasetDict, folder: Path) -> Outcome:
    """Fine-tune a tiny classifier of a family with five labels, and use the result."""
    checkpoint = FAMILIES[name].save(folder / "checkpoint", tuple("abcde"))
    try:
        outcome = _trained(checkpoint, images, folder)
    except ValueError as error:
        if "fixed output size" not in str(error):
            return Outcome(refusal=_plain(error, FAMILIES[name], folder))
        outcome = replace(_trained(checkpoint, images, folder, image_size=SIZE), sized=True)
    detector = Detector.from_pretrained(folder / "model")
    asked = pipeline("image-classification", model=str(folder / "model"))
    expected = [{each["label"]: each["score"] for each in asked(image)}["FAKE"] for image in pictures(5)]
    difference = float(np.abs(detector.probabilities(pictures(5)) - expected).max())
    maps = {method: _map(detector, method, FAMILIES[name], folder) for method in METHODS}
    return replace(outcome, difference=difference, maps=maps)


def _trained(checkpoint: Path, images: DatasetDict, folder: Path, image_size: int | None = None) -> Outcome:
    losses, moved = [], []
    for is_frozen in (True, False):
        torch.manual_seed(0)
        model, processor = load_pretrained(str(checkpoint), image_size=image_size)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        losses.append(_train(model, processor, images, folder, is_frozen=is_frozen))
        after = model.state_dict()
        moved.append(frozenset(key for key in before if not torch.equal(before[key], after[key])))
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    head = tuple(f"{key}." for key in head_modules(model))
    return Outcome(losses=tuple(reversed(losses)), moved=tuple(reversed(moved)), head=head)


def _train(
    model: PreTrainedModel, processor: BaseImageProcessor, images: DatasetDict, folder: Path, *, is_frozen: bool
) -> float:
    sets = {
        split: PixelDataset(cached_pixels(rows, processor, cache_dir=folder), rows["label"][:])
        for split, rows in images.items()
    }
    run = RunArguments(
        output_dir=str(folder / "run"), num_train_epochs=1, per_device_train_batch_size=4, eval_strategy="no",
        save_strategy="no", load_best_model_at_end=False, disable_tqdm=True, report_to=[], warmup_steps=0,
    )  # fmt: skip
    trainer = build_trainer(
        model, processor, sets, recorder=ValidationRecorder(images["validation"], folder),
        model=ModelArguments(model=str(folder), freeze_backbone=is_frozen), run=run,
    )  # fmt: skip
    return float(trainer.train().training_loss)


def _map(detector: Detector, method: str, family: Family, folder: Path) -> tuple[int, int] | str:
    try:
        [explanation] = detector.explain(pictures(1), method=method, options=OPTIONS.get(method))
    except ValueError as error:
        return _plain(error, family, folder)
    assert np.isfinite(explanation.map).all()
    height, width = explanation.map.shape
    return height, width


def _plain(error: Exception, family: Family, folder: Path) -> str:
    """A reason, without what differs between families for the same reason."""
    return re.sub(r"\s+", " ", str(error).replace(f" at '{folder}/checkpoint'", "").replace(family.model, "the model"))


def row(name: str, outcome: Outcome) -> str:
    """The row of a family in the table."""
    trains = "no" if outcome.refusal else "with `--image_size`" if outcome.sized else "yes"
    equal = "" if outcome.refusal else "yes" if outcome.difference <= TOLERANCE else f"{outcome.difference:.1g}"
    maps = [outcome.maps.get(method, "") for method in METHODS]
    cells = [f"{each[0]}x{each[1]}" if isinstance(each, tuple) else "no" if each else "" for each in maps]
    return "| " + " | ".join([name, f"`{FAMILIES[name].model}`", trains, equal, *cells]) + " |"


def reasons(outcome: Outcome) -> dict[str, list[str]]:
    """What a family is refused, by reason."""
    found: dict[str, list[str]] = {outcome.refusal: ["fine-tuning"]} if outcome.refusal else {}
    for method, reason in outcome.maps.items():
        if isinstance(reason, str):
            found.setdefault(reason, []).append(method_name(method))
    return found


def _words(what: Sequence[str]) -> str:
    is_attention = set(what) == {method_name(method) for method in ATTENTION_METHODS}
    return "attention methods" if is_attention else ", ".join(what)


def is_stated(name: str, what: Sequence[str], reason: str, written: Sequence[str]) -> bool:
    """Whether a line of the page says that a family is refused this, for this reason."""
    start = f"| {_words(what)} | {reason} | "
    return any(name in line[len(start) : -2].split("; ") for line in written if line.startswith(start))


def page(outcomes: Mapping[str, Outcome]) -> str:
    """The page of all families."""
    methods = [method_name(method) for method in METHODS]
    header = ["family", "class of transformers", "fine-tunes", "equals `pipeline`", *methods]
    by_reason: dict[str, list[str]] = {}
    for name, outcome in outcomes.items():
        for reason, what in reasons(outcome).items():
            by_reason.setdefault(f"{_words(what)} | {reason}", []).append(name)
    lines = [
        INTRODUCTION, "| " + " | ".join(header) + " |", "|---" * len(header) + "|",
        *(row(name, outcome) for name, outcome in outcomes.items()), "", "## Reasons", "",
        "| what is refused | sentence | families |", "|---|---|---|",
        *(f"| {reason} | {'; '.join(names)} |" for reason, names in by_reason.items()), "", "## Not in the table", "",
        *(f"- `{model}`: {reason}." for model, reason in EXCLUDED.items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


INTRODUCTION: Final = """# Backbones

`--model` takes any image classifier of transformers. This table is measured on tiny models with random weights, one of
each class that transformers registers for image classification. `python tests/backbone_table.py` writes it, and a test
compares it with what the models do.

- *Fine-tunes*: only the head is new, training changes all weights, and with `--freeze_backbone` the head alone.
- *Equals `pipeline`*: `Detector` and `pipeline("image-classification")` agree within 0.0001.
- *Methods*: height and width of the map, or no; integrated gradients has the grid that is asked for.

The head is what depends on the number of labels, whatever a family calls it. `--layer_decay` counts the members of the
lists of blocks and stages. `--image_size` works if the model accepts another size, and is refused before training if
not. Processors that crop are replaced by one that resizes; the channel order of MobileViT is kept. Models with batch
norms leave out the last batch of an epoch if it is a single image.
"""


def main(names: Sequence[str]) -> None:
    """Write the page, or print the rows of some families."""
    images = few_images()
    outcomes = {}
    for name in names or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            outcomes[name] = outcome_of(name, images, Path(folder))
        sys.stdout.write(f"{row(name, outcomes[name])}\n")
    if not names:
        PAGE.write_text(page(outcomes), encoding="utf-8")


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main(sys.argv[1:])

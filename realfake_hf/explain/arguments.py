"""Settings of `explain.py`: models, images and method."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from realfake_hf.attribution.methods import METHODS, Target
from realfake_hf.cli import read_names, setting
from realfake_hf.labels import LabelArguments
from realfake_hf.places import default_model

ONLY: Final = "model"  # name of a single model

_METHOD_HELP: Final = (
    f"Method: {', '.join(METHODS)}; for all models, or as NAME=METHOD. Default: relevance where attention spans all "
    "tokens, else grad_cam."
)


@dataclass
class ExplainArguments(LabelArguments):
    """Models, images, method and output folder."""

    output_dir: Path = field(metadata={"help": "Output folder; new or empty."})
    model: str | None = setting(None, "Output folder of train.py, or a Hub id; by default the model of the package.")
    compare: list[str] = setting([], "Instead of --model: two or more models as NAME=MODEL, side by side.")
    images: list[str] = setting([], "Image files, folders, or quoted globs.")
    data: str | None = setting(None, "A data set, as for train.py; adds images whose label is known.")
    split: str | None = setting(None, "Split of --data; by default test, or the only split.")
    limit: int = setting(48, "Images of --data, balanced between labels and correct and wrong predictions; 0: all.")
    seed: int = setting(0, "Seed of the draw of --limit.")
    method: list[str] = setting([], _METHOD_HELP)
    target: Target = setting("predicted", "Label to explain; predicted: the label that the model predicts.")
    layer: list[str] = setting([], "Layer that grad_cam reads, for all models or as NAME=LAYER.")
    options: list[str] = setting(
        [], "Options of the methods as KEY=VALUE, such as head_fusion=max discard_ratio=0.5 grid=8x8."
    )
    strength: float = setting(0.6, "Opacity of the map in the overlay, in [0, 1].")
    batch_size: int = setting(16, "Images per forward pass, and in memory at a time.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is not None and self.compare:
            raise ValueError("expected --model MODEL, or --compare NAME=MODEL NAME=MODEL; found both.")
        if self.compare and len(self.models) == 1:
            raise ValueError(f"expected two or more models in --compare; found {self.compare[0]}.")
        if not self.images and self.data is None:
            raise ValueError("expected images; found neither --images nor --data. Pass one of them, or both.")
        if self.batch_size < 1 or self.limit < 0 or not 0 <= self.strength <= 1:
            raise ValueError(
                "expected --batch_size of at least 1, --limit of at least 0 and --strength in [0, 1]; found "
                f"{self.batch_size}, {self.limit} and {self.strength}."
            )
        if unknown := sorted(set(self.methods.values()) - METHODS.keys()):
            raise ValueError(f"expected --method of {', '.join(METHODS)}; found {', '.join(unknown)}.")
        self.layers, self.typed_options  # noqa: B018  raise if invalid

    @property
    def models(self) -> dict[str, str]:
        """The folder or Hub id of each model, by name."""
        if self.compare:
            return read_names("--compare", self.compare, kind="MODEL")
        return {ONLY: self.model or str(default_model())}

    @property
    def methods(self) -> dict[str, str]:
        """The method of each model for which one was given, by the model's name."""
        return _by_model("--method", self.method, self.models)

    @property
    def layers(self) -> dict[str, str]:
        """The layer of each model for which one was given as NAME=LAYER, by the model's name."""
        return {} if self._one_layer else _by_model("--layer", self.layer, self.models)

    @property
    def typed_options(self) -> dict[str, Any]:
        """The options for all methods that accept them, with the types of their defaults."""
        return dict(_option(word) for word in self.options) | ({"layer": self.layer[0]} if self._one_layer else {})

    @property
    def _one_layer(self) -> bool:
        return len(self.layer) == 1 and "=" not in self.layer[0]


def _by_model(flag: str, words: Sequence[str], models: Iterable[str]) -> dict[str, str]:
    """Parse one word for all models, or NAME=WORD for some."""
    if len(words) == 1 and "=" not in words[0]:
        return dict.fromkeys(models, words[0])
    values = read_names(flag, words, kind=flag.removeprefix("--").upper())
    if unknown := sorted(values.keys() - set(models)):
        raise ValueError(f"expected {flag} for the models {', '.join(models)}; found {', '.join(unknown)}.")
    return values


def _option(word: str) -> tuple[str, Any]:
    known = {name: default for options in METHODS.values() for name, default in options.items()}
    name, _, text = word.partition("=")
    if name not in known or not text:
        raise ValueError(f"expected --options KEY=VALUE of {', '.join(known)}; found {word!r}.")
    return name, _typed(name, text, known[name])


def _typed(name: str, text: str, default: Any) -> Any:  # noqa: ANN401 - an option has any type
    try:
        if isinstance(default, tuple):
            height, width = text.split("x")
            return int(height), int(width)
        return text if default is None else type(default)(text)
    except ValueError as error:
        example = "x".join(map(str, default)) if isinstance(default, tuple) else default
        raise ValueError(f"expected a value of {name} such as {example}; found {text!r}.") from error

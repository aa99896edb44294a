"""The settings of explain.py: which models, which pictures, which method. Each is a flag and a key of a recipe."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from realfake_hf.attribution.methods import METHODS, Target, default_options

ONLY: Final = "model"  # what a single model is called

_METHOD_HELP: Final = (
    f"{', '.join(METHODS)}; for all models or as NAME=METHOD. By default relevance where a class token attends to all "
    "patches, else grad_cam."
)


@dataclass
class ExplainArguments:
    """Which models explain which pictures, how, and where the explanations go."""

    output_dir: Path = field(metadata={"help": "Where the explanations go: a new or an empty folder."})
    model: str | None = field(default=None, metadata={"help": "A folder of train.py, or a Hub id."})
    compare: list[str] = field(
        default_factory=list, metadata={"help": "Instead of --model: two or more NAME=MODEL, drawn side by side."}
    )
    images: list[str] = field(default_factory=list, metadata={"help": "Picture files, folders, quoted globs."})
    data: str | None = field(
        default=None, metadata={"help": "Also pictures of a data set, whose truth is known: what train.py takes."}
    )
    split: str = field(default="test", metadata={"help": "The split of --data."})
    limit: int = field(
        default=48,
        metadata={"help": "Pictures of --data, even in labels and in right and wrong verdicts; 0: all of them."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of the draw of --limit."})
    method: list[str] = field(default_factory=list, metadata={"help": _METHOD_HELP})
    target: Target = field(
        default="predicted", metadata={"help": "The label whose evidence is shown; predicted: the one that was given."}
    )
    layer: list[str] = field(
        default_factory=list, metadata={"help": "grad_cam: the layer that is read, for all models or as NAME=LAYER."}
    )
    options: list[str] = field(
        default_factory=list,
        metadata={"help": "KEY=VALUE of the methods, such as head_fusion=max discard_ratio=0.5 grid=8x8."},
    )
    strength: float = field(default=0.6, metadata={"help": "Share of the map's colours in the overlay, in [0, 1]."})
    batch_size: int = field(
        default=16, metadata={"help": "Pictures that are in memory and go through a model at once."}
    )

    def __post_init__(self) -> None:
        """Refuse what is missing, unknown, out of range, or contradicts something else.

        Raises:
            ValueError: something is.
        """
        if (self.model is None) == (not self.compare):
            found = "neither" if self.model is None else "both"
            raise ValueError(f"wanted --model MODEL, or --compare NAME=MODEL NAME=MODEL; found {found}.")
        _check_compared(self.compare)
        if not self.images and self.data is None:
            raise ValueError("wanted pictures; found neither --images nor --data. Give one of them, or both.")
        if self.batch_size < 1 or self.limit < 0 or not 0 <= self.strength <= 1:
            raise ValueError(
                "wanted --batch_size of at least 1, --limit of at least 0 and --strength in [0, 1]; found "
                f"{self.batch_size}, {self.limit} and {self.strength}."
            )
        unknown = sorted(set(self.methods.values()) - METHODS.keys())
        if unknown:
            raise ValueError(f"wanted --method of {', '.join(METHODS)}; found {', '.join(unknown)}.")
        self.layers, self.typed_options  # noqa: B018  refuses

    @property
    def models(self) -> dict[str, str]:
        """The folder or Hub id of each model, by its name."""
        if self.model is not None:
            return {ONLY: self.model}
        return {name: model for name, _, model in (word.partition("=") for word in self.compare)}

    @property
    def methods(self) -> dict[str, str]:
        """The method of each model for which one was given, by the model's name."""
        return _of_each("--method", self.method, self.models)

    @property
    def layers(self) -> dict[str, str]:
        """The layer of each model for which one was given as NAME=LAYER, by the model's name."""
        return {} if self._one_layer else _of_each("--layer", self.layer, self.models)

    @property
    def typed_options(self) -> dict[str, Any]:
        """The options for all methods that have them, each of the type that its default has."""
        return dict(_option(word) for word in self.options) | ({"layer": self.layer[0]} if self._one_layer else {})

    @property
    def _one_layer(self) -> bool:
        return len(self.layer) == 1 and "=" not in self.layer[0]


def _check_compared(words: Sequence[str]) -> None:
    for word in words:
        if not re.fullmatch(r"[\w.-]+=.+", word):
            raise ValueError(f"wanted --compare NAME=MODEL NAME=MODEL, names of letters and digits; found {word!r}.")
    names = [word.partition("=")[0] for word in words]
    if len(names) == 1 or len(set(names)) < len(names):
        raise ValueError(
            f"wanted two or more models of --compare, each with a name of its own; found {', '.join(names)}."
        )


def _of_each(flag: str, words: Sequence[str], models: Iterable[str]) -> dict[str, str]:
    """Read a word for all models, or NAME=WORD for some."""
    if len(words) == 1 and "=" not in words[0]:
        return dict.fromkeys(models, words[0])
    pairs = [word.partition("=")[::2] for word in words]
    names = [name for name, _ in pairs]
    if set(names) - set(models) or len(set(names)) < len(names) or not all(value for _, value in pairs):
        raise ValueError(
            f"wanted {flag} WORD for all models, or {flag} NAME=WORD, once for each of the names "
            f"{', '.join(models)}; found {' '.join(words)}."
        )
    return dict(pairs)


def _option(word: str) -> tuple[str, Any]:
    known = {name: default for method in METHODS for name, default in default_options(method).items()}
    name, _, text = word.partition("=")
    if name not in known or not text:
        raise ValueError(f"wanted --options KEY=VALUE of {', '.join(known)}; found {word!r}.")
    return name, _typed(name, text, known[name])


def _typed(name: str, text: str, default: Any) -> Any:  # noqa: ANN401 - an option has any type
    try:
        if isinstance(default, tuple):
            height, width = text.split("x")
            return int(height), int(width)
        return text if default is None else type(default)(text)
    except ValueError as error:
        like = "x".join(map(str, default)) if isinstance(default, tuple) else default
        raise ValueError(f"wanted a value of {name} like {like}; found {text!r}.") from error

"""Load image classifiers from folders and from the Hub; every model of this project is loaded here.

Code that comes with a checkpoint does not run unless it is asked for, and missing weights are an error. transformers
itself asks on the terminal whether to run code, imports modules that an adapter names, and draws missing weights.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from realfake_hf.labels import fake_index
from realfake_hf.metrics.operating_point import find_beside
from realfake_hf.models.heads import head_modules
from realfake_hf.network import offline_if_unreachable
from realfake_hf.store import check_not_pointer, read_object

SOFTMAX: Final = "single_label_classification"  # the `problem_type` of this project
_CONFIG: Final = "config.json"
_PROCESSOR: Final = ("preprocessor_config.json", "processor_config.json")
_ADAPTER: Final = "adapter_config.json"
WEIGHT_SUFFIXES: Final = (".safetensors", ".bin")
_PROCESSOR_CLASS: Final = re.compile(r"(?!Auto)\w+(ImageProcessor|FeatureExtractor)(Fast|Pil)?")
_SEARCHED: Final = 1000  # folders in which to look for a model of a similar name


def load_classifier(
    place: str | os.PathLike[str],
    *,
    config: PreTrainedConfig | None = None,
    revision: str = "main",
    trust_remote_code: bool = False,
    only_safetensors: bool = False,
    attn_implementation: str | None = None,
    dtype: torch.dtype | None = None,
    allow_new_head: bool = False,
) -> PreTrainedModel:
    """Load an image classifier with all its weights.

    Args:
        place: a folder or a Hub id.
        config: its configuration, if it is loaded already.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: run code that comes with the model.
        only_safetensors: reject weights in formats that can contain code.
        attn_implementation: `sdpa` or `eager`; None leaves the choice to transformers.
        dtype: dtype of the model; None means that of the weights.
        allow_new_head: initialise a head that is missing or has another shape, for fine-tuning.

    Raises:
        OSError: the model does not exist in an accepted format.
        ValueError: a file is broken, weights are missing, have another shape or are not finite, or it is an adapter.
    """
    place = locate(place)
    settings: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = config or load_config(place, **settings)
    config.transformers_weights = None  # a file name, also of a pickle
    _check_weight_files(place)
    with _in_one_sentence(f"the weights of a {config.model_type} classifier of transformers", place):
        model, info = AutoModelForImageClassification.from_pretrained(
            place, config=config, use_safetensors=only_safetensors or None, attn_implementation=attn_implementation,
            dtype=dtype, ignore_mismatched_sizes=True, output_loading_info=True, **settings,
        )  # fmt: skip
    lost = info["missing_keys"] | {name for name, *_ in info["mismatched_keys"]}
    heads = tuple(f"{name}." for name in head_modules(model)) if allow_new_head else ()
    _check_weights(model, {name for name in lost if not name.startswith(heads)}, place)
    return model  # type: ignore[no-any-return]


def load_tower(place: str | os.PathLike[str], config: PreTrainedConfig) -> PreTrainedModel:
    """Load a vision tower, also out of a larger model, in float32; see `load_classifier`.

    The configuration of the tower may have fewer layers than the checkpoint.
    """
    place = locate(place)
    _check_weight_files(place)
    with _in_one_sentence(f"the weights of a {config.model_type} of transformers", place):
        tower_class: Any = MODEL_MAPPING[type(config)]
        model, info = tower_class.from_pretrained(
            place, config=config, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    _check_weights(model, info["missing_keys"] | {name for name, *_ in info["mismatched_keys"]}, place)
    return model  # type: ignore[no-any-return]


def load_config(
    place: str | os.PathLike[str], *, revision: str = "main", trust_remote_code: bool = False
) -> PreTrainedConfig:
    """Load the configuration of a model that is not an adapter; see `load_classifier`."""
    place = locate(place)
    [adapter] = _objects(place, revision, _ADAPTER)
    if adapter is not None:
        raise ValueError(f"expected a whole model at {place!r}; found an adapter: merge it with merge_and_unload.")
    _objects(place, revision, _CONFIG)
    with _in_one_sentence("the config.json of a model of transformers", place):
        config: Any = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=trust_remote_code)
        names = config.id2label
        if sorted(names) != list(range(len(names))) or not all(isinstance(name, str) for name in names.values()):
            raise ValueError(f"id2label is {names}")
        return config  # type: ignore[no-any-return]


def load_processor(
    place: str | os.PathLike[str],
    config: PreTrainedConfig,
    *,
    revision: str = "main",
    trust_remote_code: bool = False,
) -> BaseImageProcessor:
    """Load the image processor of a model with this configuration; see `load_classifier`."""
    place = locate(place)
    found = [settings for settings in _objects(place, revision, *_PROCESSOR) if settings]
    parts = [*found, *(settings.get("image_processor") for settings in found)]  # nested in processor_config.json
    keys = ("image_processor_type", "feature_extractor_type")
    names = [part.get(key) for part in parts if isinstance(part, dict) for key in keys]
    with _in_one_sentence("the preprocessor_config.json of an image processor beside the model", place):
        for name in () if trust_remote_code else (*names, getattr(config, "image_processor_type", None)):
            if name and not _PROCESSOR_CLASS.fullmatch(str(name)):  # transformers would load any class, with its code
                raise ValueError(f"its class is {name!r}")
        return AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call,no-any-return]
            place, config=config, backend="pil", revision=revision, trust_remote_code=trust_remote_code
        )


def fake_output(config: Any) -> int:  # noqa: ANN401 - a configuration of transformers
    """Return the index of the FAKE logit of a model whose two logits, for real and fake, pass through a softmax."""
    problem = getattr(config, "problem_type", None)
    if problem not in (None, SOFTMAX):
        raise ValueError(f"expected a classifier with problem_type {SOFTMAX} in its config; found {problem!r}.")
    return fake_index(config.id2label)


def locate(place: str | os.PathLike[str]) -> str:
    """Return the folder of a model, or its Hub id.

    Raises:
        OSError: it is a path, and there is no such folder.

    >>> locate("user/name")
    'user/name'
    """
    name = os.fspath(place)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder)
    first, _, last = name.partition("/")
    if first and last and "/" not in last and not name.startswith((".", "~")) and not Path(first).exists():
        return name
    found = "a file" if folder.exists() else "no such folder"
    similar = _similar_folder(folder)
    raise OSError(
        f"expected the folder of a model, or a Hub id user/name; found {found} at {name!r}"
        f"{f'; did you mean {similar}?' if similar else '.'}"
    )


def first_sentence(error: Exception) -> str:
    """Return the first sentence of an error message, without its full stop; the name of the class without message."""
    return re.split(r"\n|\. ", str(error).strip(), maxsplit=1)[0].rstrip(".") or type(error).__name__


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Suppress warnings of transformers, and its bars, which last a fraction of a second; downloads keep theirs."""

    def hidden(bar: Callable[..., Any], args: tuple[Any, ...], settings: dict[str, Any]) -> Any:  # noqa: ANN401
        return bar(*args, **{**settings, "disable": True})

    verbosity, hook = logging.get_verbosity(), logging.set_tqdm_hook(hidden)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.set_tqdm_hook(hook)


@contextmanager
def _in_one_sentence(what: str, place: str) -> Iterator[None]:
    """Raise OSError or ValueError with one sentence for any error of transformers, and suppress its reports."""
    try:
        with quiet_transformers(), nullcontext() if Path(place).is_dir() else offline_if_unreachable():
            yield
    except OSError as error:
        raise OSError(f"expected {what} at {place!r}; found none ({first_sentence(error)}).") from error
    except Exception as error:  # broken files fail anywhere in transformers
        raise ValueError(f"expected {what} at {place!r}; found something else ({first_sentence(error)}).") from error


def _objects(place: str, revision: str, *names: str) -> list[dict[str, Any] | None]:
    """Read JSON files of a model that contain an object; None for files that it does not have."""
    with _in_one_sentence("a model", place):
        files = [find_beside(place, name, revision=revision) for name in names]
    return [read_object(file) if file else None for file in files]


def _check_weight_files(place: str) -> None:
    folder = Path(place)
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.suffix in WEIGHT_SUFFIXES:
            check_not_pointer(file)


def _check_weights(model: PreTrainedModel, lost: set[str], place: str) -> None:
    if lost:
        raise ValueError(
            f"expected all {len(model.state_dict())} weights of a {model.config.model_type} classifier in {place}; "
            f"found none, or another shape, for {len(lost)} of them: {', '.join(sorted(lost)[:3])}."
        )
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.is_meta and not value.float().isfinite().all():
            raise ValueError(f"expected finite weights in {place}; found NaN or infinity in {name}.")


def _similar_folder(folder: Path) -> str | None:
    """Return the model folder below the working directory or an ancestor of `folder` whose name is the closest."""
    ancestor = next((parent for parent in folder.parents if parent.is_dir()), Path())
    near = {path.resolve().name: path for root in (ancestor, Path()) for path in _model_folders(root)}
    names = difflib.get_close_matches(folder.name, near, n=1)
    return str(near[names[0]]) if names else None


def _model_folders(root: Path, *, depth: int = 3) -> Iterator[Path]:
    for folder, folders, files in islice(os.walk(root), _SEARCHED):
        if _CONFIG in files:
            yield Path(folder)
        is_deep = len(Path(folder).relative_to(root).parts) >= depth
        folders[:] = [] if is_deep else sorted(name for name in folders if not name.startswith("."))

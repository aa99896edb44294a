"""Command lines: dataclasses, a YAML recipe and flags as one parser, and what all commands do around their work."""

import argparse
import difflib
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import yaml
from transformers import HfArgumentParser


def parse(*dataclass_types: Any, argv: Sequence[str] | None = None, description: str | None = None) -> tuple[Any, ...]:  # noqa: ANN401
    """Fill dataclasses from defaults, then `--config recipe.yaml`, then flags.

    A field `output_dir` is the flag `--output_dir` and the recipe's key `output_dir`; a flag wins over the recipe.

    Args:
        dataclass_types: what to fill; a field's `metadata={"help": ...}` is shown by `--help`.
        argv: the words of the command line; those of this process by default.
        description: what the program does, for `--help`.

    Returns:
        One instance of each dataclass, in order.

    Raises:
        SystemExit: with status 2 and a sentence on stderr, where a flag, key or value does not fit.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(dataclass_types, description)
    try:
        recipe, words = _take_recipe(words)
        if recipe:
            words = [*_use_recipe(recipe, parser, dataclass_types), *words]
        _, unknown = parser.parse_known_args(words)
        if unknown:
            flags = ["--config", *(flag for action in parser._actions for flag in action.option_strings)]
            raise ValueError(f"unknown setting {' '.join(unknown)}{_hint(unknown[0].split('=')[0], flags)}")
        return tuple(parser.parse_args_into_dataclasses(words, look_for_args_file=False))
    except ValueError as error:
        parser.error(str(error))


def run_command(work: Callable[[], int], *, name: str, resumable: str | Path | None = None) -> int:
    """Run the work of a command: set up logging on stderr, and report expected errors in one line.

    Args:
        work: does it, prints its results on stdout and returns an exit status.
        name: of the command, which error messages begin with.
        resumable: the output folder from which the same command resumes after an interruption, if any.

    Returns:
        The exit status: that of the work; 1 after an `OSError` or `ValueError`; 130 after an interruption.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("realfake_hf").setLevel(logging.INFO)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # of weight files; images keep theirs
    try:
        return work()
    except KeyboardInterrupt:
        hint = f"; to resume from {resumable}, repeat the command" if resumable else ""
        print(f"\n{name}: interrupted{hint}", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1


def read_names(flag: str, words: Sequence[str], *, kind: str) -> dict[str, str]:
    """Read words of the form NAME=PLACE, each name once, in order.

    Args:
        flag: that they were given to, for the message.
        words: of the command line or a recipe.
        kind: what stands behind the equals sign, such as MODEL, for the message.

    Raises:
        ValueError: a word is no pair, or a name comes twice.

    >>> read_names("--models", ["cnn=runs/cnn"], kind="MODEL")
    {'cnn': 'runs/cnn'}
    """
    for word in words:
        if not re.fullmatch(r"[\w.-]+=.+", word):
            raise ValueError(f"wanted {flag} NAME={kind}, names of letters and digits; found {word!r}.")
    pairs = [word.partition("=")[::2] for word in words]
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"wanted a name of its own for each of {flag}; found {', '.join(names)}.")
    return dict(pairs)


class _RecipeLoader(yaml.SafeLoader):
    """YAML in which 3e-3 is a number, as in YAML 1.2; PyYAML's 1.1 reads a string."""


_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parser(dataclass_types: Sequence[Any], description: str | None) -> HfArgumentParser:
    parser = HfArgumentParser(
        dataclass_types,
        description=description,
        allow_abbrev=False,
        usage="%(prog)s [--config FILE] [--setting VALUE ...]",
        epilog="--config FILE reads these settings from a YAML recipe; flags win over it.",
    )
    for action in parser._actions:
        action.help = action.help.replace("%", "%%").replace("%%%%", "%%") if action.help else action.help
    return parser


def _take_recipe(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    found, rest = finder.parse_known_args(words)
    return found.config, rest


def _use_recipe(recipe: Path, parser: HfArgumentParser, dataclass_types: Sequence[Any]) -> list[str]:
    """A recipe as the words of a command line, so that both are checked by the same rules; null becomes a default."""
    hints = {name: hint for kind in dataclass_types for name, hint in get_type_hints(kind).items()}
    types = {field.name: hints[field.name] for kind in dataclass_types for field in fields(kind) if field.init}
    settings = _read_recipe(recipe)
    for name, value in settings.items():
        if name not in types:
            raise ValueError(f"unknown setting {name} in {recipe}{_hint(str(name), types)}")
        if value is None and NoneType not in get_args(types[name]):
            raise ValueError(f"wanted a value of {name} in {recipe}; found none")
    parser.set_defaults(**{name: None for name, value in settings.items() if value is None})
    return [word for name, value in settings.items() if value is not None for word in _words(name, value)]


def _read_recipe(recipe: Path) -> Mapping[Any, Any]:
    if not recipe.is_file():
        raise ValueError(f"wanted a YAML recipe at {recipe}; found no such file")
    try:
        settings = yaml.load(recipe.read_text(encoding="utf-8"), Loader=_RecipeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"wanted YAML in {recipe}; found an error {' '.join(str(error).split())}") from error
    if not isinstance(settings, Mapping):
        found = "nothing" if settings is None else f"a {type(settings).__name__}"
        raise ValueError(f"wanted lines of `setting: value` in {recipe}; found {found}")
    return settings


def _words(name: str, value: object) -> list[str]:
    if isinstance(value, list):
        return [f"--{name}", *(str(item) for item in value)]
    return [f"--{name}={json.dumps(value, default=str) if isinstance(value, Mapping) else value}"]


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else "; --help lists them"

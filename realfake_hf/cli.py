"""Dataclasses, a YAML recipe and the command line as one parser; the only module that knows argparse."""

import argparse
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    recipe, words = _take_recipe(words)
    try:
        settings = _recipe_words(recipe) if recipe else []
        _, unknown = parser.parse_known_args([*settings, *words])
        if unknown:
            raise ValueError(_unknown(unknown, parser))
        return tuple(parser.parse_args_into_dataclasses([*settings, *words], look_for_args_file=False))
    except ValueError as error:
        parser.error(str(error))


def _parser(dataclass_types: Sequence[Any], description: str | None) -> HfArgumentParser:
    parser = HfArgumentParser(
        dataclass_types,
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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


def _recipe_words(recipe: Path) -> list[str]:
    """A recipe as the words of a command line, so that both are checked by the same rules."""
    if not recipe.is_file():
        raise ValueError(f"wanted a YAML recipe at {recipe}; found no such file")
    try:
        settings = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"wanted YAML in {recipe}; found {str(error).splitlines()[0]}") from error
    if not isinstance(settings, Mapping):
        raise ValueError(f"wanted lines of `setting: value` in {recipe}; found {type(settings).__name__}")
    return [word for name, value in settings.items() if value is not None for word in _words(str(name), value)]


def _words(name: str, value: object) -> list[str]:
    if isinstance(value, Mapping):
        return [f"--{name}", json.dumps(value)]
    values = value if isinstance(value, list) else [value]
    return [f"--{name}", *(str(item) for item in values)]


def _unknown(words: Sequence[str], parser: argparse.ArgumentParser) -> str:
    flags = sorted(flag for action in parser._actions for flag in action.option_strings)
    first = words[0].split("=")[0]
    close = difflib.get_close_matches(first, flags, n=1)
    hint = f"; did you mean {close[0]}?" if close else "; --help lists them"
    return f"unknown setting {' '.join(words)}{hint}"

"""Command lines: parse dataclasses from a YAML recipe and flags, and run the work of a command."""

import argparse
import difflib
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from functools import wraps
from inspect import get_annotations
from pathlib import Path
from types import NoneType
from typing import Any, Final, NoReturn, TypeVar, get_args, get_type_hints

import yaml
from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from realfake_hf.console import VERBOSE, Others, run_command, without_tokens

Value = TypeVar("Value")

HELP_ALL: Final = "--help-all"  # lists settings of other libraries, too

_METAVARS: Final[Mapping[Any, str]] = {int: "N", float: "X", str: "TEXT", Path: "PATH", string_to_bool: "true|false"}
_MAX_CHOICES: Final = 32  # characters in one line


def setting(default: Value, help: str) -> Value:
    """Declare an optional field of a dataclass for `parse`: its default, and its text in `--help`."""
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={"help": help})  # type: ignore[return-value]
    return field(default=default, metadata={"help": help})


def default_of(declared: Field[Any]) -> Any:  # noqa: ANN401 - of any type
    """Return the default of a field that `setting` declares."""
    return declared.default if declared.default_factory is MISSING else declared.default_factory()


def parse(*dataclass_types: Any, argv: Sequence[str] | None = None, description: str | None = None) -> tuple[Any, ...]:  # noqa: ANN401
    """Fill dataclasses from defaults, then `--config recipe.yaml`, then flags.

    A field `output_dir` is the flag `--output_dir` and the recipe's key `output_dir`; a flag wins over the recipe.
    `--help` shows the description, and the settings in groups: one for each dataclass that declares some, under the
    first sentence of its docstring. By default, `argv` are the words of this process.

    Returns:
        One instance of each dataclass, in order.

    Raises:
        SystemExit: with status 2 and a message on stderr if a flag, key or value is invalid.
    """
    return _fill(_parser(dataclass_types, description), sys.argv[1:] if argv is None else argv)


def check(
    *dataclass_types: Any,  # noqa: ANN401
    argv: Sequence[str],
    description: str | None,
    later: Collection[str],
    help_all: str,
) -> None:
    """Answer `--help` and reject invalid settings, before a slow import; see `parse`.

    The dataclasses are those that are cheap to import; `parse` checks the values of `later` settings after the import,
    and lists them for `--help-all`, whose text in `--help` is given.
    """
    parser = _parser(dataclass_types, description)
    parser.add_argument(HELP_ALL, nargs=0, help=help_all, action=_Later)
    for name in sorted(set(later) - {action.dest for action in parser._actions}):
        for flag, n_values in ((name, "*"), (f"no_{name}", 0)):
            spellings = dict.fromkeys((f"--{flag}", f"--{flag.replace('_', '-')}"))
            parser.add_argument(*spellings, dest=flag, nargs=n_values, help=argparse.SUPPRESS, action=_Later)
    _fill(parser, argv, later)


def command(
    *dataclass_types: Any,  # noqa: ANN401
    name: str,
    description: str | None,
    resumable: str | None = None,
    others: Others = "refused",
) -> Callable[[Callable[..., int | None]], Callable[..., int]]:
    """Decorate the work of a command, which takes its settings, to take the words of the command line instead.

    The decorated function returns the exit status: that of the work, or 0 if it returns None. `resumable` names the
    field of the first dataclass with the output folder; for the other arguments, see `parse` and `run_command`.
    """

    def decorate(work: Callable[..., int | None]) -> Callable[..., int]:
        @wraps(work)
        def main(argv: Sequence[str] | None = None) -> int:
            settings = parse(*dataclass_types, argv=argv, description=description)
            folder = getattr(settings[0], resumable) if resumable else None
            return run_command(lambda: work(*settings) or 0, name=name, resumable=folder, others=others)

        return main

    return decorate


def read_names(flag: str, words: Sequence[str], *, kind: str) -> dict[str, str]:
    """Parse words of the form NAME=PLACE into a dictionary; their flag and kind, such as MODEL, are for messages.

    Raises:
        ValueError: a word is not a pair, or a name is repeated.

    >>> read_names("--models", ["cnn=runs/cnn"], kind="MODEL")
    {'cnn': 'runs/cnn'}
    """
    for word in words:
        if not re.fullmatch(r"[\w.-]+=.+", word):
            raise ValueError(f"expected {flag} NAME={kind}, with a NAME of letters and digits; found {word!r}.")
    pairs = [word.partition("=")[::2] for word in words]
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"expected distinct names in {flag}; found {', '.join(names)}.")
    return dict(pairs)


class _Parser(HfArgumentParser):
    """A parser with a group of settings for each dataclass that declares some, and no tokens in its error messages."""

    def _add_dataclass_arguments(self, dtype: Any) -> None:  # noqa: ANN401
        hints, settings = get_type_hints(dtype), {each.name: each for each in fields(dtype) if each.init}
        for kind in _declaring(dtype):
            group = self.add_argument_group(_title(kind))
            for each in [settings.pop(name) for name in get_annotations(kind) if name in settings]:
                each.type = hints[each.name]
                self._parse_dataclass_field(group, each)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        super().error(without_tokens(message))


def _declaring(dtype: type) -> list[type]:
    """Return the dataclasses that declare the settings of a dataclass: itself before those from which it inherits."""
    return [kind for kind in dtype.__mro__ if get_annotations(kind)]


def _title(kind: type) -> str:
    """Return the first sentence of a docstring."""
    return re.split(r"\.(?:\s|$)", kind.__doc__ or "")[0]


class _HelpFormatter(argparse.HelpFormatter):
    """Format paragraphs, and settings in one spelling, in lines of at most 100 characters."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=min(shutil.get_terminal_size().columns, 102) - 2)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Omit --a-b beside --a_b."""
        names = action.option_strings
        flags = [name for name in names if (other := f"--{name[2:].replace('-', '_')}") == name or other not in names]
        values = "" if action.nargs == 0 else self._format_args(action, "TEXT")
        return f"{', '.join(flags)} {values}".strip()

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:  # noqa: ARG002
        return "\n\n".join("\n".join(self._split_lines(part, width)) for part in text.split("\n\n"))


class _RecipeLoader(yaml.SafeLoader):
    """YAML in which 3e-3 is a number, as in YAML 1.2; PyYAML implements 1.1, where it is a string."""


_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class _Later(argparse.Action):
    """Accept a flag with any values and store nothing."""

    def __call__(self, *_: object) -> None:
        pass


def _parser(dataclass_types: Sequence[Any], description: str | None) -> HfArgumentParser:
    parser = _Parser(
        dataclass_types,
        prog=_program(),
        description=description,
        allow_abbrev=False,
        usage="%(prog)s [--config FILE] [--setting VALUE ...]",
        formatter_class=_HelpFormatter,
    )
    first = {"options", *(_title(_declaring(each)[0]) for each in dataclass_types)}
    parser._action_groups.sort(key=lambda group: group.title not in first)
    for action in parser._actions[1:]:  # without --help
        action.help = _help(action)
        action.metavar = _METAVARS.get(action.type) if action.choices is None else _choices(action.choices)
    text = "Read settings from a YAML recipe; flags win over it."
    parser.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help=text)
    parser.add_argument(
        "--verbose", action="store_true", default=argparse.SUPPRESS, help="Print the warnings of libraries."
    )
    return parser


def _program() -> str | None:
    """Return how this process was started as a module, such as `python -m realfake_hf.score`; else None.

    Then it is a script, or a command of `realfake`, whose name is in `sys.argv`.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or sys.argv[0].startswith("realfake "):
        return None
    return f"python -m {spec.name.removesuffix('.__main__')}"


def _help(action: argparse.Action) -> str:
    """Return the text of a setting with its default; none where the default is nothing, or what the text says."""
    if action.nargs == 0:
        return argparse.SUPPRESS  # --no_flip beside --flip
    value = getattr(action.default, "value", action.default)  # of an enumeration
    text = (action.help or "").replace("%", "%%").replace("%%%%", "%%")
    if action.choices and _choices(action.choices) == "NAME" and any(str(each) not in text for each in action.choices):
        text += f" One of {', '.join(map(str, action.choices))}."
    if action.required:
        return f"{text} (required)".strip()
    if isinstance(value, bool):
        value = str(value).lower()
    words = " ".join(map(str, value)) if isinstance(value, list) else value
    return text if words in (None, "") else f"{text} (default: {words})".strip()


def _choices(choices: Iterable[object]) -> str:
    """Return what a setting with a few choices takes, such as `{predicted,FAKE,REAL}`, or NAME for many of them."""
    words = f"{{{','.join(map(str, choices))}}}"
    return words if len(words) <= _MAX_CHOICES else "NAME"


def _fill(parser: HfArgumentParser, argv: Sequence[str], later: Collection[str] = ()) -> tuple[Any, ...]:
    try:
        recipe, words = _take_recipe(argv)
        if recipe:
            words = [*_use_recipe(recipe, parser, later), *words]
        unknown = _unknown_words(parser, words)
        if unknown:
            flags = [flag for action in parser._actions for flag in action.option_strings]
            raise ValueError(f"unknown setting {' '.join(unknown)}{_hint(unknown[0], flags)}")
        return tuple(parser.parse_args_into_dataclasses(words, look_for_args_file=False))
    except ValueError as error:
        parser.error(str(error))


def _unknown_words(parser: HfArgumentParser, words: Sequence[str]) -> list[str]:
    """Return the flags that match no setting, without their values, which may be secret; or the words if no flag does.

    Settings that are required may be missing.
    """
    required = [action for action in parser._actions if action.required]
    for action in required:
        action.required = False
    _, unknown = parser.parse_known_args(words)
    for action in required:
        action.required = True
    return [word.split("=")[0] for word in unknown if word.startswith("--")] or unknown


def _take_recipe(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    finder.add_argument("--verbose", action="store_true")
    namespace, words = finder.parse_known_args(argv)
    if namespace.verbose:
        os.environ[VERBOSE] = "1"
    return namespace.config, words


def _use_recipe(recipe: Path, parser: HfArgumentParser, later: Collection[str]) -> list[str]:
    """Convert a recipe to words of a command line, for the same checks; null becomes a default."""
    hints = {name: hint for kind in parser.dataclass_types for name, hint in get_type_hints(kind).items()}
    types = {field.name: hints[field.name] for kind in parser.dataclass_types for field in fields(kind) if field.init}
    settings = _read_recipe(recipe)
    for name, value in settings.items():
        if name not in {*types, *later}:
            raise ValueError(f"unknown setting {name} in {recipe}{_hint(str(name), {*types, *later})}")
        if value is None and name in types and NoneType not in get_args(types[name]):
            raise ValueError(f"expected a value of {name} in {recipe}; found none")
    parser.set_defaults(**{name: None for name, value in settings.items() if value is None})
    return [word for name, value in settings.items() if value is not None for word in _words(name, value)]


def _read_recipe(recipe: Path) -> Mapping[Any, Any]:
    if not recipe.is_file():
        raise ValueError(f"expected a YAML recipe at {recipe}; found no such file")
    try:
        settings = yaml.load(recipe.read_text(encoding="utf-8"), Loader=_RecipeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"expected YAML in {recipe}; found an error {' '.join(str(error).split())}") from error
    if not isinstance(settings, Mapping):
        found = "nothing" if settings is None else f"a {type(settings).__name__}"
        raise ValueError(f"expected lines of `setting: value` in {recipe}; found {found}")
    return settings


def _words(name: str, value: object) -> list[str]:
    if isinstance(value, list):
        return [f"--{name}", *(str(item) for item in value)]
    return [f"--{name}={json.dumps(value, default=str) if isinstance(value, Mapping) else value}"]


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else "; --help lists them"

"""Command lines: parse dataclasses from a YAML recipe and flags, and run the work of a command."""

import argparse
import difflib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, field, fields
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Any, Final, Literal, NoReturn, TypeVar, get_args, get_type_hints

import yaml
from transformers import HfArgumentParser

logger = logging.getLogger(__name__)

Others = Literal["refused", "awaited", "allowed"]
Value = TypeVar("Value")

_FULL_DISK: Final = re.compile("No space left on device|Disk quota exceeded|inline_container")  # in torch.save


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
    `--help` shows the description and each field's `metadata={"help": ...}`. By default, `argv` are the words of this
    process.

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
    epilog: str,
) -> None:
    """Answer `--help` and reject invalid settings, before a slow import; see `parse`.

    The dataclasses are those that are cheap to import; `parse` checks the values of `later` settings after the import;
    the epilog is the text at the end of `--help`.
    """
    parser = _parser(dataclass_types, description, epilog)
    for name in sorted(set(later) - {action.dest for action in parser._actions}):
        for flag, n_values in ((name, "*"), (f"no_{name}", 0)):
            spellings = dict.fromkeys((f"--{flag}", f"--{flag.replace('_', '-')}"))
            parser.add_argument(*spellings, dest=flag, nargs=n_values, help=argparse.SUPPRESS, action=_Later)
    _fill(parser, argv, later)


def run_command(
    work: Callable[[], int], *, name: str, resumable: str | Path | None = None, others: Others = "refused"
) -> int:
    """Run the work of a command: log on stderr, and report an `OSError`, a `ValueError` or a full disk in one line.

    Args:
        work: a function that prints results on stdout and returns the exit status.
        name: name of the command, the prefix of error messages.
        resumable: the output folder from which a repeated command resumes.
        others: whether the command is refused, waits or runs if another command is writing to that folder.

    Returns:
        The exit status of the work, 1 after an error, or 130 after an interruption.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("realfake_hf").setLevel(logging.INFO)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # for weight files
    try:
        with _lock(resumable, others):
            return work()
    except KeyboardInterrupt:
        hint = f"; to resume from {resumable}, repeat the command" if resumable else ""
        print(f"\n{name}: interrupted{hint}", file=sys.stderr)
        return 130
    except Exception as error:
        message = str(error)
        if _FULL_DISK.search(message):
            message = f"cannot write a file: {message}. Free some disk space, and repeat the command."
        elif not isinstance(error, OSError | ValueError):
            raise
        print(f"{name}: {_without_tokens(message)}", file=sys.stderr)
        return 1


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


@contextmanager
def _lock(folder: str | Path | None, others: Others) -> Iterator[None]:
    """Hold the lock of an output folder; the processes of one launch hold it together."""
    if folder is None or others == "allowed" or os.environ.get("RANK", "0") != "0":
        yield
        return
    from filelock import FileLock, Timeout

    place = Path(folder).resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{place}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if others == "refused":
            raise ValueError(
                f"expected no other command that writes to {folder}; found one. Wait for it, or use another folder."
            ) from None
        logger.info("waiting for another command that writes to %s", folder)
        lock.acquire()
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held; a waiting process locks a new file
        lock.release()


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


def _without_tokens(message: str) -> str:
    """Hide the access tokens of the Hugging Face Hub in a message."""
    return re.sub(r"\bhf_[\w.-]{20,}", "hf_...", message)


class _Parser(HfArgumentParser):
    """A parser whose error messages contain no tokens."""

    def error(self, message: str) -> NoReturn:
        super().error(_without_tokens(message))


class _RecipeLoader(yaml.SafeLoader):
    """YAML in which 3e-3 is a number, as in YAML 1.2; PyYAML implements 1.1, where it is a string."""


_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class _Later(argparse.Action):
    """Accept a flag with any values and store nothing."""

    def __call__(self, *_: object) -> None:
        pass


def _parser(dataclass_types: Sequence[Any], description: str | None, epilog: str = "") -> HfArgumentParser:
    parser = _Parser(
        dataclass_types,
        description=description,
        allow_abbrev=False,
        usage="%(prog)s [--config FILE] [--setting VALUE ...]",
        epilog=f"--config FILE reads these settings from a YAML recipe; flags win over it. {epilog}".strip(),
    )
    for action in parser._actions:
        action.help = action.help.replace("%", "%%").replace("%%%%", "%%") if action.help else action.help
    return parser


def _fill(parser: HfArgumentParser, argv: Sequence[str], later: Collection[str] = ()) -> tuple[Any, ...]:
    try:
        recipe, words = _take_recipe(argv)
        if recipe:
            words = [*_use_recipe(recipe, parser, later), *words]
        unknown = _unknown_words(parser, words)
        if unknown:
            flags = ["--config", *(flag for action in parser._actions for flag in action.option_strings)]
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
    namespace, words = finder.parse_known_args(argv)
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

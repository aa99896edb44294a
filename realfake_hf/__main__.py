"""The command `realfake`, also `python -m realfake_hf`: judge images, explain, train, evaluate and publish.

`realfake photo.jpg` judges an image. A first word that names another command runs that command.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Final


@dataclass(frozen=True)
class Command:
    """Where a command is, `module:function`, what it does in a few words, and the extra of packages that it needs."""

    place: str
    does: str
    extra: str | None = None

    def load(self) -> Callable[[Sequence[str]], int]:
        """Import the function that takes the words of the command line."""
        module, _, function = self.place.partition(":")
        command: Callable[[Sequence[str]], int] = getattr(import_module(module), function)
        return command


COMMANDS: Final = {
    "check": Command("realfake_hf.commands.check:check", "judge images; `realfake photo.jpg` is short for it"),
    "report": Command("realfake_hf.commands.check:report", "judge a folder, and write one HTML page"),
    "explain": Command("realfake_hf.commands.explain:main", "draw where a model looked", "train"),
    "score": Command("realfake_hf.score.__main__:main", "judge any number of images, resumable", "train"),
    "train": Command("realfake_hf.commands.train:main", "train a detector", "train"),
    "crosseval": Command("realfake_hf.commands.crosseval:main", "measure detectors on several data sets", "train"),
    "publish": Command("realfake_hf.hub.__main__:main", "publish a model, a Space or a data set", "train"),
    "space": Command("realfake_hf.commands.space:main", "open the demo page", "space"),
}
EXTRAS: Final = {"train": "transformers", "space": "gradio"}  # extra -> a package of it


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else 2
    if words == ["--version"]:
        print(f"realfake {version('realfake-hf')}")
        return 0
    name, rest = (words[0], words[1:]) if words[0] in COMMANDS else ("check", words)
    command = COMMANDS[name]
    if command.extra and find_spec(EXTRAS[command.extra]) is None:
        print(f"realfake {name}: expected the packages of realfake-hf[{command.extra}]; found none of them. Install "
              f"them: pip install 'realfake-hf[{command.extra}]'", file=sys.stderr)  # fmt: skip
        return 1
    sys.argv[0] = f"realfake {name}"  # as `--help` shows it
    return command.load()(rest)


def _help() -> str:
    rows = "\n".join(f"  {name:<10} {command.does}" for name, command in COMMANDS.items())
    return (
        "usage: realfake IMAGE [IMAGE ...]\n       realfake COMMAND ...\n\n"
        "Real photograph or AI-generated image? A verdict is no evidence, least of all against a person.\n\n"
        f"commands:\n{rows}\n\n`realfake COMMAND --help` lists the settings of a command."
    )


if __name__ == "__main__":
    sys.exit(main())

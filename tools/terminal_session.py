"""Record commands of `realfake` with their output as a picture: `python -m tools.terminal_session`."""

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from realfake_hf.cli import command, setting

WIDTH: Final = 112  # characters
COMMANDS: Final = (
    "realfake --help",
    "realfake space/examples/rocket.jpg",
    "realfake check space/examples/",
    "realfake check space/examples/rocket.jpg README.md --csv",
)


@dataclass
class SessionArguments:
    """The file to write."""

    output_file: Path = setting(Path("docs/terminal.svg"), "SVG picture.")


@command(SessionArguments, name="terminal_session", description=__doc__)
def main(arguments: SessionArguments) -> None:
    """Run the commands here, and write the picture."""
    from rich.console import Console
    from rich.text import Text

    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        for words in COMMANDS:
            console.print(Text(f"$ {words}", style="bold"))
            program = [sys.executable, "-m", "realfake_hf", *shlex.split(words)[1:]]
            done = subprocess.run(program, capture_output=True, text=True, check=False)
            console.print(Text(f"{done.stdout}{done.stderr}".rstrip()), overflow="fold")
            console.print()
        console.save_svg(str(arguments.output_file), title="realfake", unique_id="terminal")
    print(arguments.output_file)


if __name__ == "__main__":
    sys.exit(main())

"""The exact duplicates of a source as a results file.

`python -m realfake_hf.experiments.data_audit --data cifake --output_file results/cifake_audit.json`
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from realfake_hf.cli import parse
from realfake_hf.data.duplicates import find_duplicates
from realfake_hf.data.loading import load_images
from realfake_hf.store import write_json


@dataclass
class AuditArguments:
    """What to audit, and where to keep the answer."""

    data: str = field(metadata={"help": "A source of pictures, as train.py takes it."})
    output_file: Path | None = field(default=None, metadata={"help": "A JSON file for the counts."})


def main(argv: Sequence[str] | None = None) -> int:
    """Print the duplicates of a source, and keep their counts where asked; give the exit status."""
    (arguments,) = parse(AuditArguments, argv=argv, description=__doc__)
    try:
        report = find_duplicates(load_images(arguments.data))
    except (OSError, ValueError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return 1
    if arguments.output_file:
        write_json(arguments.output_file, report.to_dict())
    print(report.to_markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())

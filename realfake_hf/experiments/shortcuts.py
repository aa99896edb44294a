"""What the files of a data set give away of the label, and which pictures it shares with others, as a results file.

`python -m realfake_hf.experiments.shortcuts --data cifake --limit 1000 --output_file results/shortcuts_cifake.json`
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from realfake_hf.cli import parse
from realfake_hf.crosseval.shortcuts import (
    SourceAudit,
    audit_source,
    near_duplicates_of_sources,
    near_duplicates_of_splits,
)
from realfake_hf.data.duplicates import THRESHOLD, NearDuplicates
from realfake_hf.data.loading import find_source, load_images
from realfake_hf.store import write_json


@dataclass
class ShortcutArguments:
    """What to audit, and where to keep the answer."""

    data: str = field(metadata={"help": "A source of pictures, as train.py takes it."})
    limit: int | None = field(
        default=None, metadata={"help": "Audit the facts of at most so many files, half of them fake."}
    )
    against: list[str] = field(
        default_factory=list, metadata={"help": "Other sources in which near-duplicates are looked for, all pictures."}
    )
    splits: bool = field(
        default=False, metadata={"help": "Look for near-duplicates between the source's own splits, all pictures."}
    )
    threshold: int = field(
        default=THRESHOLD,
        metadata={"help": "Bits of 64 in which the perceptual hashes of near-duplicates differ at most."},
    )
    seed: int = field(default=0, metadata={"help": "Of the draw, the folds, the models and the bootstrap."})
    output_file: Path | None = field(default=None, metadata={"help": "A JSON file for the numbers."})


def main(argv: Sequence[str] | None = None) -> int:
    """Print the shortcuts of a source, and keep their numbers where asked; give the exit status."""
    (arguments,) = parse(ShortcutArguments, argv=argv, description=__doc__)
    try:
        audit = _run(arguments)
    except (OSError, ValueError) as error:
        print(f"shortcuts: {error}", file=sys.stderr)
        return 1
    if arguments.output_file:
        write_json(arguments.output_file, audit.to_dict())
    print(audit.to_markdown())
    return 0


def _run(arguments: ShortcutArguments) -> SourceAudit:
    for source in (arguments.data, *arguments.against):
        find_source(source)
    audit = audit_source(arguments.data, limit=arguments.limit, seed=arguments.seed)
    found: tuple[NearDuplicates, ...] = ()
    if arguments.splits:
        found += near_duplicates_of_splits(load_images(arguments.data), threshold=arguments.threshold)
    if arguments.against:
        found += near_duplicates_of_sources(arguments.data, arguments.against, threshold=arguments.threshold)
    return replace(audit, near_duplicates=found)


if __name__ == "__main__":
    sys.exit(main())

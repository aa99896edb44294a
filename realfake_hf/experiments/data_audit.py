"""Audit a data set: exact duplicates, or what its files reveal about the label.

`python -m realfake_hf.experiments.data_audit --data cifake --output_file results/cifake_audit.json` counts images that
are equal pixel by pixel. With `--file_facts`, a small model predicts the label from file facts alone, and
`--splits` and `--against` look for near-duplicates between splits and in other sources.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realfake_hf.cli import parse, run_command
from realfake_hf.store import write_results

if TYPE_CHECKING:
    from realfake_hf.crosseval.shortcuts import SourceAudit
    from realfake_hf.data.duplicates import DuplicateReport, NearDuplicates


@dataclass
class AuditArguments:
    """The data set, and what to audit."""

    data: str = field(metadata={"help": "Source of images, as train.py takes it."})
    output_file: Path | None = field(
        default=None, metadata={"help": "JSON file of the results; the Markdown table is written beside it."}
    )
    file_facts: bool = field(
        default=False, metadata={"help": "Audit file facts (format, size, bytes, ...) instead of exact duplicates."}
    )
    limit: int | None = field(
        default=None, metadata={"help": "With --file_facts: maximum number of files, half of them fake."}
    )
    splits: bool = field(
        default=False, metadata={"help": "With --file_facts: find near-duplicates between the splits of the source."}
    )
    against: list[str] = field(
        default_factory=list, metadata={"help": "With --file_facts: find near-duplicates in these sources."}
    )
    threshold: int = field(
        default=4,
        metadata={"help": "Maximum distance of near-duplicates: differing bits of 64-bit perceptual hashes."},
    )
    seed: int = field(
        default=0, metadata={"help": "Random seed of the sample, the folds, the models and the bootstrap."}
    )

    def __post_init__(self) -> None:
        """Check that options of the file audit come with `--file_facts`.

        Raises:
            ValueError: they do not.
        """
        if (self.limit or self.splits or self.against) and not self.file_facts:
            raise ValueError("expected --file_facts with --limit, --splits and --against; found none.")


def audit(arguments: AuditArguments) -> "DuplicateReport | SourceAudit":
    """Audit a source.

    Raises:
        OSError: a source does not exist.
        ValueError: a source cannot be read, or has too few files of a label.
    """
    from realfake_hf.crosseval.shortcuts import audit_source, near_duplicates_of_sources, near_duplicates_of_splits
    from realfake_hf.data.duplicates import find_duplicates
    from realfake_hf.data.loading import find_source, load_images

    if not arguments.file_facts:
        return find_duplicates(load_images(arguments.data))
    for source in (arguments.data, *arguments.against):
        find_source(source)
    report = audit_source(arguments.data, limit=arguments.limit, seed=arguments.seed)
    pairs: tuple[NearDuplicates, ...] = ()
    if arguments.splits:
        pairs += near_duplicates_of_splits(load_images(arguments.data), threshold=arguments.threshold)
    if arguments.against:
        pairs += near_duplicates_of_sources(arguments.data, arguments.against, threshold=arguments.threshold)
    return replace(report, near_duplicates=pairs)


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render the tables of an audit."""
    from realfake_hf.crosseval.shortcuts import SourceAudit
    from realfake_hf.data.duplicates import DuplicateReport

    is_of_files = "shortcuts" in results
    return SourceAudit.from_dict(results).to_markdown() if is_of_files else DuplicateReport(**results).to_markdown()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    (arguments,) = parse(AuditArguments, argv=argv, description=__doc__)
    return run_command(lambda: _work(arguments), name="data_audit")


def _work(arguments: AuditArguments) -> int:
    results = audit(arguments).to_dict()
    table = to_markdown(results)
    if arguments.output_file:
        write_results(arguments.output_file, results, table)
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

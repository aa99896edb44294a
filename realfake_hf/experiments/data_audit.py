"""Audit a data set: exact duplicates, or what its files reveal about the label.

`python -m realfake_hf.experiments.data_audit --data cifake --output_file results/cifake_audit.json` counts images that
are equal pixel by pixel, and test images that also occur in the train or validation split of `train.py`. With
`--file_facts`, a small model predicts the label from file facts alone; with it, `--splits` and `--against` find
near-duplicates between splits and in other sources, and `--limit` bounds the files.
"""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realfake_hf.cli import command, setting
from realfake_hf.estimate import from_plain, to_plain
from realfake_hf.labels import LabelArguments
from realfake_hf.store import write_results

if TYPE_CHECKING:
    from datasets import DatasetDict

logger = logging.getLogger(__name__)


@dataclass
class AuditArguments(LabelArguments):
    """The data set, and what to audit."""

    data: str = field(metadata={"help": "Source of images, as train.py takes it."})
    output_file: Path | None = setting(None, "JSON file of the results; .md: the table.")
    file_facts: bool = setting(False, "Audit file facts (format, size, bytes, ...) instead.")
    limit: int | None = setting(None, "Maximum number of files, half of them fake.")
    splits: bool = setting(False, "Find near-duplicates between the splits of the source.")
    against: list[str] = setting([], "Find near-duplicates in these sources.")
    threshold: int = setting(4, "Near-duplicates: maximum distance of their 64-bit hashes.")
    seed: int = setting(0, "Random seed of sample, folds, models and bootstrap.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.limit or self.splits or self.against) and not self.file_facts:
            raise ValueError("expected --file_facts with --limit, --splits and --against; found none.")


def audit(arguments: AuditArguments) -> dict[str, Any]:
    """Audit a source, and return the content of the results file."""
    from realfake_hf.crosseval.shortcuts import audit_shortcuts
    from realfake_hf.data.loading import find_source, load_images
    from realfake_hf.data.metadata import read_file_properties

    if not arguments.file_facts:
        return _exact_duplicates(load_images(arguments.data, labels=arguments.labels))
    for source in (arguments.data, *arguments.against):
        find_source(source, labels=arguments.labels)
    seed = arguments.seed
    files = read_file_properties(arguments.data, labels=arguments.labels, limit=arguments.limit, seed=seed)
    shortcuts = audit_shortcuts(files.columns, is_fake=files.is_fake, groups=files.digest, seed=seed)
    return {
        "data": files.name,
        "as_stored": files.as_stored,
        "unreadable": files.unreadable,
        "same_encoding": shortcuts.same_encoding,
        "shortcuts": shortcuts.to_dict(),
        "near_duplicates": _near_duplicates(arguments),
    }


def _exact_duplicates(images: "DatasetDict") -> dict[str, Any]:
    from realfake_hf.data.duplicates import find_duplicates, leaks_by_split
    from realfake_hf.data.splits import add_missing_splits

    report = find_duplicates(images)
    if {"train", "test"} <= images.keys():
        try:
            images = add_missing_splits(images)
        except ValueError as error:  # too few images to draw a validation split
            logger.warning("%s", error)
        report = replace(report, leaked_to=leaks_by_split(images))
    return to_plain(report)


def _near_duplicates(arguments: AuditArguments) -> list[dict[str, Any]]:
    """Compare the splits with each other, and the source with other sources."""
    from datasets import concatenate_datasets

    from realfake_hf.data.duplicates import find_near_duplicates, hash_images
    from realfake_hf.data.loading import find_source, load_images

    load = partial(load_images, labels=arguments.labels)
    splits = load(arguments.data).items() if arguments.splits else ()
    sources = (arguments.data, *arguments.against) if arguments.against else ()
    parts = [hash_images(rows, name=name) for name, rows in splits]
    wholes = [
        hash_images(concatenate_datasets(list(load(source).values())), name=find_source(source).name)
        for source in sources
    ]
    pairs = [*combinations(parts, 2), *((wholes[0], other) for other in wholes[1:])]
    return [to_plain(find_near_duplicates(*pair, threshold=arguments.threshold)) for pair in pairs]


def to_markdown(results: Mapping[str, Any]) -> str:
    """Render the tables of an audit."""
    from realfake_hf.crosseval.shortcuts import SAME_ENCODING, ShortcutAudit
    from realfake_hf.data.duplicates import DuplicateReport, NearDuplicates

    if "shortcuts" not in results:
        return DuplicateReport(**results).to_markdown()
    origin = " as stored in the data set; the original files may differ" if results["as_stored"] else ""
    omitted = f" ({results['unreadable']:,} unreadable files omitted)" if results["unreadable"] else ""
    notes = [f"{results['data']}: file facts{origin}{omitted}", *([SAME_ENCODING] if results["same_encoding"] else [])]
    shortcuts = from_plain(ShortcutAudit, results["shortcuts"]).to_markdown()
    pairs = [from_plain(NearDuplicates, pair).to_markdown() for pair in results["near_duplicates"]]
    return "\n\n".join([*notes, shortcuts, *pairs])


@command(AuditArguments, name="data_audit", description=__doc__)
def main(arguments: AuditArguments) -> None:
    """Audit a data set, and print the tables."""
    results = audit(arguments)
    table = to_markdown(results)
    if arguments.output_file:
        write_results(arguments.output_file, results, table)
    print(table)


if __name__ == "__main__":
    sys.exit(main())

"""Decode and check every image of a source once, and store the rows as memory-mapped Arrow files."""

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
from datasets import ClassLabel, Features, Image, Value

from realfake_hf.data.decoding import UnreadableImageError, pixel_hash, to_rgb_file
from realfake_hf.data.folders import DEFAULT_SPLIT, Record
from realfake_hf.labels import LABEL_NAMES, LabelName
from realfake_hf.parallel import map_in_processes
from realfake_hf.store import CHECKSUMS, write_checksums

SCHEMA: Final = Features(
    {
        "image": Image(),  # decodes to an upright RGB image
        "label": ClassLabel(names=list(LABEL_NAMES)),  # REAL = 0, FAKE = 1
        "content": Value("string"),  # subject of the image, such as "frog"; null if unknown
        "generator": Value("string"),  # model that generated it, such as "stable-diffusion-1.4"; null for real images
        "source": Value("string"),  # data set of the image
        "group": Value("string"),  # who made or owns the image, kept on one side of a split; null if unknown
        "id": Value("string"),  # 16 hexadecimal digits that reveal neither label nor content
        "sha256": Value("string"),  # hash of the decoded image (`decoding.pixel_hash`), equal for re-saved copies
    }
)
UNREADABLE_LIMIT: Final = 0.01  # share of unreadable images above which a source is rejected as broken

Row = dict[str, Any]


class Reader(Protocol):
    """Reads the image files of a source; must be picklable."""

    def read(self, path: str, /) -> bytes:
        """Return the whole file at a record's key."""


@dataclass(frozen=True)
class Unreadable:
    """A file that was skipped, and why."""

    key: str
    reason: str


def write_splits(
    records: Sequence[Record], reader: Reader, folder: Path, *, name: str, one_class: bool = False
) -> None:
    """Read all images and write `{split}.arrow` and `unreadable.json` to a new folder, atomically."""
    require_both_classes(((record.split, record.label) for record in records), name, one_class=one_class)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}.part-"))
    try:
        unreadable: list[Unreadable] = []
        for split in sorted({record.split for record in records}):
            in_split = sorted((record for record in records if record.split == split), key=attrgetter("opaque_id"))
            unreadable += _write_split(in_split, reader, scratch / f"{split}.arrow", name=f"{name} {split}")
        if len(unreadable) > UNREADABLE_LIMIT * len(records):
            examples = "; ".join(f"{file.key} ({file.reason})" for file in unreadable[:5])
            raise ValueError(
                f"expected at most {UNREADABLE_LIMIT:.0%} unreadable images in {name}; found {len(unreadable):,} of "
                f"{len(records):,}, such as {examples}. Download the data set again, or remove these files."
            )
        skipped = {file.key for file in unreadable}
        readable = [(record.split, record.label) for record in records if record.key not in skipped]
        require_both_classes(readable, name, one_class=one_class)
        (scratch / "unreadable.json").write_text(json.dumps([asdict(file) for file in unreadable], indent=1))
        write_checksums(sorted(scratch.iterdir()), scratch / CHECKSUMS)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def require_both_classes(images: Iterable[tuple[str, LabelName]], name: str, *, one_class: bool) -> None:
    """Check the images of the source `name`, given the split and label of each.

    Raises:
        ValueError: a split has no real or no fake images or, with `one_class`, no images.
    """
    counts = Counter(images)
    for split in sorted({split for split, _ in counts}) or [DEFAULT_SPLIT]:
        real, fake = (counts[split, label] for label in LABEL_NAMES)
        if not (real or fake if one_class else real and fake):
            raise ValueError(
                f"expected real and fake images in the split {split} of {name}; found {real:,} real and {fake:,} "
                "fake. Put them in folders named real and fake, or state the labels in a metadata.csv."
            )


def _write_split(records: Sequence[Record], reader: Reader, file: Path, *, name: str) -> list[Unreadable]:
    unreadable: list[Unreadable] = []
    schema = SCHEMA.arrow_schema
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        for _, results in map_in_processes(partial(_read_rows, reader), records, description=f"reading {name}"):
            rows = [result for result in results if not isinstance(result, Unreadable)]
            unreadable += [result for result in results if isinstance(result, Unreadable)]
            stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    return unreadable


def _read_rows(reader: Reader, records: Sequence[Record]) -> list[Row | Unreadable]:
    return [_read_row(reader, record) for record in records]


def _read_row(reader: Reader, record: Record) -> Row | Unreadable:
    try:
        data, image = to_rgb_file(reader.read(record.key))
    except (UnreadableImageError, OSError) as error:
        return Unreadable(record.key, str(error))
    return {
        "image": {"bytes": data, "path": None},
        "label": LABEL_NAMES.index(record.label),
        "content": record.content,
        "generator": record.generator,
        "source": record.source,
        "group": record.group,
        "id": record.opaque_id,
        "sha256": pixel_hash(image),
    }

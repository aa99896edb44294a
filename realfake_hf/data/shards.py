"""Write a source as parquet shards with checksums and a data card: `python -m realfake_hf.data.shards --data cifake`.

Each shard is written atomically and then recorded in `shards.json`. To resume an interrupted command, repeat it:
damaged shards are written again.
"""

import logging
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tqdm.auto import tqdm

from realfake_hf.cli import command, setting
from realfake_hf.data.splits import FoldArguments
from realfake_hf.environment import data_fingerprint
from realfake_hf.labels import FAKE
from realfake_hf.store import changed_settings, foreign_files, read_json, sha256_of, write_json
from realfake_hf.tables import markdown_table

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from huggingface_hub import DatasetCard

logger = logging.getLogger(__name__)

MANIFEST: Final = "shards.json"
CARD: Final = "README.md"
DATA: Final = "data"
MIB: Final = 2**20
_ROW_GROUP: Final = 256  # rows; a reader holds at least one row group in memory
_ROW_OVERHEAD: Final = 200  # bytes of a row besides its image, approximately
_COLUMNS: Final = {
    "image": "the image file; plain RGB files keep their original encoding",
    "label": "REAL = 0, FAKE = 1",
    "content": "subject of the image; null if unknown",
    "generator": "model that generated the image; null for real images, or if unknown",
    "source": "data set of the image",
    "group": "who made or owns the image; a group lies on one side of a drawn split; null if unknown",
    "id": "opaque id; rows are sorted by it, which amounts to shuffling",
    "sha256": "hash of size and RGB values; equal for equal images in any file format",
}

Shard = dict[str, Any]


@dataclass
class ShardArguments(FoldArguments):
    """The source, and the size and location of its shards."""

    data: str = field(metadata={"help": "Source: cifake, a zip archive, a folder, parquet, or a Hub id."})
    output_dir: Path = field(metadata={"help": "Folder for the shards; to resume, repeat the command."})
    shard_mib: float = setting(256, "Maximum size of a shard in MiB.")
    all_splits: bool = setting(False, "Draw missing validation and test splits from the training images.")
    license: str = setting("unknown", "License identifier of the Hub, for the data card.")


def write_shards(images: "DatasetDict", folder: Path, *, shard_bytes: float = 256 * MIB) -> list[Shard]:
    """Write the splits as parquet files with embedded images, and `shards.json` with their checksums.

    The folder is empty, or that of an interrupted call with the same arguments, which is resumed. A shard has at most
    `shard_bytes`, unless a single image is larger. Return the entries of `shards.json`: `file`, `split`, `n`,
    `n_fake`, `bytes` and `sha256` of each shard.
    """
    if shard_bytes <= 0:
        raise ValueError(f"expected shards of more than 0 bytes; found {shard_bytes:,.0f}.")
    plan = {split: _row_ranges(rows, shard_bytes) for split, rows in images.items()}
    settings = {"source": data_fingerprint(images), "shard_bytes": int(shard_bytes)}
    previous = _previous_shards(folder, settings)
    shards: list[Shard] = []
    with tqdm(total=sum(map(len, images.values())), desc="writing shards", unit="image", disable=None) as bar:
        for split, ranges in plan.items():
            for number, (start, stop) in enumerate(ranges):
                file = f"{DATA}/{split}-{number:05d}-of-{len(ranges):05d}.parquet"
                shard = previous.pop(file, None)
                if shard is None or not _is_intact(folder, shard):
                    shard = _write(images[split].select(range(start, stop)), folder, file, split)
                shards.append(shard)
                write_json(folder / MANIFEST, {**settings, "shards": [*shards, *previous.values()]})
                bar.update(stop - start)
    return shards


def _row_ranges(rows: "Dataset", shard_bytes: float) -> list[tuple[int, int]]:
    """Divide rows into shards of about equal size: (first row, row after the last) of each."""
    import pyarrow.compute as pc

    images = rows.with_format("arrow").select_columns(["image"])
    batches = (images[start : start + 10_000]["image"] for start in range(0, len(rows), 10_000))
    lengths = [pc.binary_length(pc.struct_field(batch, "bytes")).to_numpy() for batch in batches]
    if not lengths:
        return []
    ends = np.cumsum(np.concatenate(lengths).astype(np.int64) + _ROW_OVERHEAD)
    shards = int(-(-ends[-1] // shard_bytes))
    inner = np.searchsorted(ends, ends[-1] * np.arange(1, shards) / shards).tolist()
    return list(pairwise(sorted({0, *inner, len(ends)})))


def _write(rows: "Dataset", folder: Path, file: str, split: str) -> Shard:
    import pyarrow.parquet as pq

    part = folder / f"{file}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    schema = rows.features.arrow_schema  # contains the features for `datasets`
    tables = rows.with_format("arrow")
    with part.open("wb") as stream:
        with pq.ParquetWriter(stream, schema) as writer:
            for start in range(0, len(rows), _ROW_GROUP):
                writer.write_table(tables[start : start + _ROW_GROUP].cast(schema))
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(folder / file)
    n_fake = rows["label"][:].count(FAKE)
    size, sha256 = (folder / file).stat().st_size, sha256_of(folder / file)
    return {"file": file, "split": split, "n": len(rows), "n_fake": n_fake, "bytes": size, "sha256": sha256}


def _previous_shards(folder: Path, settings: Mapping[str, Any]) -> dict[str, Shard]:
    """Return the shards that `shards.json` lists, by file; none if there is no such file yet."""
    if not (folder / MANIFEST).exists():
        if others := foreign_files(folder, DATA, CARD, MANIFEST):
            raise ValueError(
                f"expected an empty folder or a folder of shards; found {others[0]} in {folder}. Give another "
                "--output_dir."
            )
        return {}
    before = read_json(folder / MANIFEST)
    shards = before.pop("shards")
    if changed := changed_settings(before, settings):
        raise ValueError(
            f"expected the same images and shard size to resume in {folder}; found other values of "
            f"{', '.join(changed)}. Repeat the original --data and --shard_mib, or give another --output_dir."
        )
    return {shard["file"]: shard for shard in shards}


def _is_intact(folder: Path, shard: Shard) -> bool:
    file = folder / shard["file"]
    if file.is_file() and sha256_of(file) == shard["sha256"]:
        return True
    logger.warning("checksum mismatch in %s: writing it again", file)
    return False


def make_data_card(images: "DatasetDict", *, name: str, license: str, has_images: bool) -> "DatasetCard":
    """Make the card of a data set from `load_images`: schema, counts, duplicates, and license.

    The license is an identifier of the Hub, such as mit or cc-by-4.0; `has_images` states whether the repository
    contains the images as parquet.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    from realfake_hf.data.duplicates import find_duplicates

    splits = [{"split": split, "path": f"{DATA}/{split}-*.parquet"} for split in images]
    metadata = DatasetCardData(
        license=license,
        pretty_name=name,
        task_categories=["image-classification"],
        tags=["ai-generated-image-detection", "realfake"],
        configs=[{"config_name": "default", "data_files": splits}] if has_images else None,
    )
    columns = markdown_table(
        ["column", "meaning"], ((f"`{name}`", text) for name, text in _COLUMNS.items()), align="l"
    )
    header = ["split", "real", "fake", "contents", "generators"]
    counts = markdown_table(header, (_card_row(split, rows) for split, rows in images.items()), align="lrrl")
    where = "This repository contains the rows as parquet."
    if not has_images:
        where = "This repository does not contain the images, since their license does not permit it or is not known."
    return DatasetCard(
        f"---\n{metadata.to_yaml()}\n---\n\n# {name}\n\nReal and AI-generated images in one schema, for training and "
        f"evaluating detectors. {where} License: {license}.\n\n"
        f"## Columns\n\n{columns}\n\n"
        f"## Counts\n\n{counts}\n\n"
        f"## Exact duplicates\n\n{find_duplicates(images).to_markdown()}\n\n"
        "Evaluate on test images that occur in no other split.\n"
    )


def _card_row(split: str, rows: "Dataset") -> list[str]:
    n_fake = rows["label"][:].count(FAKE)
    known = [Counter(filter(None, rows[column][:])) for column in ("content", "generator")]
    texts = [", ".join(f"{name} {n:,}" for name, n in sorted(counts.items())) for counts in known]
    return [split, f"{len(rows) - n_fake:,}", f"{n_fake:,}", *(text or "unknown" for text in texts)]


@command(ShardArguments, name="shards", description=__doc__, resumable="output_dir")
def main(arguments: ShardArguments) -> None:
    """Write the shards of a source and their card, and print their size."""
    from realfake_hf.data.loading import load_images

    images = load_images(
        arguments.data, labels=arguments.labels, fold=arguments.fold, one_class=not arguments.all_splits
    )
    if arguments.all_splits:
        images = arguments.complete(images)
    shards = write_shards(images, arguments.output_dir, shard_bytes=arguments.shard_mib * MIB)
    name = Path(arguments.data).stem or arguments.data
    make_data_card(images, name=name, license=arguments.license, has_images=True).save(arguments.output_dir / CARD)
    n, size = (sum(shard[key] for shard in shards) for key in ("n", "bytes"))
    print(f"{n:,} images in {len(shards):,} shards, {size / MIB:,.1f} MiB")


if __name__ == "__main__":
    sys.exit(main())

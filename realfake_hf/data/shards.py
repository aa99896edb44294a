"""Write a source as parquet shards with checksums and a data card: `python -m realfake_hf.data.shards --data cifake`.

A shard appears whole or not at all and is then entered in `shards.json`; the same command goes on after the last of
them. Shards that were damaged since are found by their checksums and written again.
"""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray
from tqdm.auto import tqdm

from realfake_hf.cli import parse
from realfake_hf.data.card import make_data_card
from realfake_hf.data.loading import load_images
from realfake_hf.data.splits import add_missing_splits
from realfake_hf.labels import FAKE
from realfake_hf.store import sha256_of, write_text

logger = logging.getLogger(__name__)

MANIFEST: Final = "shards.json"
CARD: Final = "README.md"
DATA: Final = "data"
MIB: Final = 2**20
_GROUP: Final = 256  # rows of a row group: what a reader holds at least
_BESIDE: Final = 200  # bytes of a row beside its picture, or so


@dataclass
class ShardArguments:
    """Which source becomes shards, and where they go."""

    data: str = field(metadata={"help": "What train.py takes: cifake, a zip archive, a folder, parquet, a Hub id."})
    output_dir: Path = field(metadata={"help": "The folder of the shards; the same command goes on from there."})
    shard_mib: float = field(default=256, metadata={"help": "Size of a shard, in MiB, or a little less."})
    all_splits: bool = field(
        default=False, metadata={"help": "Cut validation and test off the training pictures where there are none."}
    )
    validation_share: float = field(default=0.05, metadata={"help": "Of the training pictures; as train.py has it."})
    test_share: float = field(default=0.2, metadata={"help": "Of the training pictures; as train.py has it."})
    split_seed: int = field(default=0, metadata={"help": "Of these cuts; as train.py has it."})
    license: str = field(default="unknown", metadata={"help": "For the data card: an identifier of the Hub."})


@dataclass(frozen=True)
class Shard:
    """A shard that is finished.

    Attributes:
        file: relative to the folder.
        split: of which it holds rows.
        n: rows.
        n_fake: of them labelled FAKE.
        bytes: size of the file.
        sha256: of the file.
    """

    file: str
    split: str
    n: int
    n_fake: int
    bytes: int
    sha256: str


def write_shards(images: DatasetDict, folder: Path, *, shard_bytes: float = 256 * MIB) -> list[Shard]:
    """Write the splits as parquet files with the pictures in them, and `shards.json` with their checksums.

    Args:
        images: from `load_images`.
        folder: an empty one, or that of the same shards, which is then completed.
        shard_bytes: size of a shard at most, but for a picture that is larger.

    Raises:
        OSError: there is no room.
        ValueError: the folder holds something else, or a size that is none.
    """
    if shard_bytes <= 0:
        raise ValueError(f"wanted shards of more than 0 bytes; found {shard_bytes:,.0f}.")
    plan = {split: _cuts(rows, shard_bytes) for split, rows in images.items()}
    facts = {"source": _fingerprint(images), "shard_bytes": int(shard_bytes)}
    done = _begun(folder, facts)
    finished: list[Shard] = []
    with tqdm(total=sum(map(len, images.values())), desc="writing shards", unit="image", disable=None) as bar:
        for split, cuts in plan.items():
            for number, (start, stop) in enumerate(cuts):
                file = f"{DATA}/{split}-{number:05d}-of-{len(cuts):05d}.parquet"
                shard = done.pop(file, None)
                if shard is None or not _is_whole(folder, shard):
                    shard = _write(images[split].select(range(start, stop)), folder, file, split)
                finished.append(shard)
                _write_manifest(folder, facts, [*finished, *done.values()])
                bar.update(stop - start)
    return finished


def damaged_shards(folder: Path) -> list[str]:
    """Name the shards of a folder that are not what `shards.json` says: missing, cut short, or changed.

    Raises:
        FileNotFoundError: the folder has no `shards.json`.
    """
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(f"wanted {MANIFEST} in {folder}; found none. Write shards into it first.")
    kept = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["shards"]
    return [one["file"] for one in kept if not _is_whole(folder, Shard(**one), tell=False)]


def _cuts(rows: Dataset, shard_bytes: float) -> list[tuple[int, int]]:
    """Rows from and to, of shards of about equal size."""
    ends = np.cumsum(_sizes(rows))
    if not len(ends):
        return []
    shards = int(-(-ends[-1] // shard_bytes))
    inner = np.searchsorted(ends, ends[-1] * np.arange(1, shards) / shards).tolist()
    edges = sorted({0, *inner, len(ends)})
    return list(pairwise(edges))


def _sizes(rows: Dataset) -> NDArray[np.int64]:
    pictures = rows.with_format("arrow").select_columns(["image"])
    batches = (pictures[start : start + 10_000]["image"] for start in range(0, len(rows), 10_000))
    lengths = [pc.binary_length(pc.struct_field(batch, "bytes")).to_numpy() for batch in batches]
    return np.concatenate(lengths).astype(np.int64) + _BESIDE if lengths else np.empty(0, dtype=np.int64)


def _write(rows: Dataset, folder: Path, file: str, split: str) -> Shard:
    part = folder / f"{file}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    schema = rows.features.arrow_schema  # says what the columns mean to `datasets`
    tables = rows.with_format("arrow")
    with part.open("wb") as stream:
        with pq.ParquetWriter(stream, schema) as writer:
            for start in range(0, len(rows), _GROUP):
                writer.write_table(tables[start : start + _GROUP].cast(schema))
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(folder / file)
    n_fake = sum(label == FAKE for label in rows["label"][:])
    return Shard(file, split, len(rows), n_fake, (folder / file).stat().st_size, sha256_of(folder / file))


def _begun(folder: Path, facts: Mapping[str, Any]) -> dict[str, Shard]:
    """The shards that `shards.json` knows already."""
    manifest = folder / MANIFEST
    if not manifest.exists():
        own = {DATA, CARD, f"{MANIFEST}.part"}  # the last where it was killed
        strange = sorted(file.name for file in folder.iterdir() if file.name not in own) if folder.exists() else []
        if strange:
            raise ValueError(
                f"wanted an empty folder, or one of shards; found {strange[0]} in {folder}. Name another with "
                "--output_dir."
            )
        return {}
    before = json.loads(manifest.read_text(encoding="utf-8"))
    changed = [name for name, value in facts.items() if before.get(name) != value]
    if changed:
        raise ValueError(
            f"wanted the shards of {folder} to be of the same pictures and size, to go on; found another value of "
            f"{', '.join(changed)}. Give the same --data and --shard_mib, or another --output_dir."
        )
    return {one["file"]: Shard(**one) for one in before["shards"]}


def _write_manifest(folder: Path, facts: Mapping[str, Any], shards: Sequence[Shard]) -> None:
    content = {**facts, "shards": [asdict(shard) for shard in shards]}
    write_text(folder / MANIFEST, json.dumps(content, indent=1) + "\n")


def _is_whole(folder: Path, shard: Shard, *, tell: bool = True) -> bool:
    file = folder / shard.file
    is_whole = file.is_file() and file.stat().st_size == shard.bytes and sha256_of(file) == shard.sha256
    if tell and not is_whole:
        logger.warning("%s is not as its checksum says: it is written again", file)
    return is_whole


def _fingerprint(images: DatasetDict) -> str:
    """Another one where the pictures, their labels or their order are others."""
    digest = hashlib.sha256()
    for split, rows in images.items():
        for line in zip(rows["id"][:], rows["label"][:], rows["sha256"][:], strict=True):
            digest.update(f"{split} {line}\n".encode())
    return digest.hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, write, print how much there is; give the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    (arguments,) = parse(ShardArguments, argv=argv, description=__doc__)
    try:
        images = load_images(arguments.data, one_class=not arguments.all_splits)
        if arguments.all_splits:
            shares = {"validation_share": arguments.validation_share, "test_share": arguments.test_share}
            images = add_missing_splits(images, **shares, seed=arguments.split_seed)
        shards = write_shards(images, arguments.output_dir, shard_bytes=arguments.shard_mib * MIB)
        name = Path(arguments.data).stem or arguments.data
        card = make_data_card(images, name=name, licence=arguments.license, has_images=True)
        card.save(arguments.output_dir / CARD)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on from {arguments.output_dir}", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"shards: {error}", file=sys.stderr)
        return 1
    size = sum(shard.bytes for shard in shards)
    print(f"{sum(shard.n for shard in shards):,} pictures in {len(shards):,} shards, {size / MIB:,.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

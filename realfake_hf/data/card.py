"""Make the card of a data set: schema, counts, duplicates, and license."""

from collections import Counter
from typing import Final

from datasets import Dataset, DatasetDict
from huggingface_hub import DatasetCard, DatasetCardData

from realfake_hf.data.duplicates import find_duplicates
from realfake_hf.labels import LABEL_NAMES
from realfake_hf.tables import markdown_table

COLUMNS: Final = {
    "image": "the image file; plain RGB files keep their original encoding",
    "label": "REAL = 0, FAKE = 1",
    "content": "subject of the image; null if unknown",
    "generator": "model that generated the image; null for real images, or if unknown",
    "source": "data set of the image",
    "id": "opaque id; rows are sorted by it, which amounts to shuffling",
    "sha256": "hash of size and RGB values; equal for equal images in any file format",
}


def make_data_card(images: DatasetDict, *, name: str, license: str, has_images: bool) -> DatasetCard:
    """Make the card of a data set from `load_images`.

    The license is an identifier of the Hub, such as mit or cc-by-4.0; `has_images` states whether the repository
    contains the images as parquet.
    """
    splits = [{"split": split, "path": f"data/{split}-*.parquet"} for split in images]
    metadata = DatasetCardData(
        license=license,
        pretty_name=name,
        task_categories=["image-classification"],
        tags=["ai-generated-image-detection", "realfake"],
        configs=[{"config_name": "default", "data_files": splits}] if has_images else None,
    )
    columns = markdown_table(["column", "meaning"], ((f"`{name}`", text) for name, text in COLUMNS.items()), align="l")
    header = ["split", "real", "fake", "contents", "generators"]
    counts = markdown_table(header, (_row(split, rows) for split, rows in images.items()), align="lrrl")
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


def _row(split: str, rows: Dataset) -> list[str]:
    labels = Counter(LABEL_NAMES[label] for label in rows["label"][:])
    counts = [_counts(rows[column][:]) for column in ("content", "generator")]
    return [split, f"{labels['REAL']:,}", f"{labels['FAKE']:,}", *counts]


def _counts(values: list[str | None]) -> str:
    known = Counter(value for value in values if value is not None)
    return ", ".join(f"{name} {n:,}" for name, n in sorted(known.items())) or "unknown"

"""A data card: what a source holds in this project's schema, what is wrong with it, and under which licence."""

from collections import Counter
from typing import Final

from datasets import Dataset, DatasetDict
from huggingface_hub import DatasetCard, DatasetCardData

from realfake_hf.data.duplicates import find_duplicates
from realfake_hf.labels import LABEL_NAMES

COLUMNS: Final = {
    "image": "the picture, as a file in its own encoding where that is plain RGB",
    "label": "REAL = 0, FAKE = 1",
    "content": "what it shows; null where unknown",
    "generator": "what made it; null for real pictures, and where unknown",
    "source": "the set that it comes from",
    "id": "opaque; rows stand in its order, which is as good as shuffled",
    "sha256": "of size and RGB values: equal for equal pictures, whatever their files",
}


def make_data_card(images: DatasetDict, *, name: str, licence: str, has_images: bool) -> DatasetCard:
    """Make the card of a data set.

    Args:
        images: from `load_images`.
        name: what it is called.
        licence: an identifier of the Hub, such as mit or cc-by-4.0.
        has_images: whether the repository holds the pictures, as parquet, or the card alone.
    """
    splits = [{"split": split, "path": f"data/{split}-*.parquet"} for split in images]
    data = DatasetCardData(
        license=licence,
        pretty_name=name,
        task_categories=["image-classification"],
        tags=["ai-generated-image-detection", "realfake"],
        configs=[{"config_name": "default", "data_files": splits}] if has_images else None,
    )
    columns = "\n".join(f"| `{column}` | {meaning} |" for column, meaning in COLUMNS.items())
    rows = "\n".join(_row(split, rows) for split, rows in images.items())
    where = (
        "The rows are here, as parquet."
        if has_images
        else "The pictures are not here: their licence does not allow it, or nobody has said that it does."
    )
    return DatasetCard(
        f"---\n{data.to_yaml()}\n---\n\n# {name}\n\nReal and AI-generated pictures in one schema, for telling them "
        f"apart. {where} Licence: {licence}.\n\n## Columns\n\n| column | meaning |\n|---|---|\n{columns}\n\n"
        f"## How many\n\n| split | real | fake | contents | generators |\n|---|--:|--:|---|---|\n{rows}\n\n"
        f"## Exact duplicates\n\n{find_duplicates(images).to_markdown()}\n\n"
        "Measure on test pictures that occur in no other split.\n"
    )


def _row(split: str, rows: Dataset) -> str:
    labels = Counter(LABEL_NAMES[label] for label in rows["label"][:])
    counted = (_counts(rows[column][:]) for column in ("content", "generator"))
    return f"| {split} | {labels['REAL']:,} | {labels['FAKE']:,} | {' | '.join(counted)} |"


def _counts(values: list[str | None]) -> str:
    known = Counter(value for value in values if value is not None)
    return ", ".join(f"{name} {n:,}" for name, n in sorted(known.items())) or "unknown"

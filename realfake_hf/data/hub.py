"""Data sets that already are HF data sets: on the Hub, in parquet files, or saved to disk."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Image, Value, load_dataset, load_from_disk

from realfake_hf.data.layouts import DEFAULT_SPLIT, Record, common_split, stated_label
from realfake_hf.data.pictures import UnreadablePictureError
from realfake_hf.labels import LabelName

_OPAQUE_ID = re.compile(r"[0-9a-f]{16}")


class HubRows:
    """The rows of an HF data set, whatever its column names and label order.

    Args:
        splits: the data set.
        name: what it is called in messages and in the column `source`.

    Raises:
        ValueError: it has no single image column, or no column that names the label.
    """

    def __init__(self, splits: DatasetDict, *, name: str) -> None:
        features = next(iter(splits.values())).features
        self.name = name
        self.image_column = _image_column(features, name)
        self.label_column = _label_column(features, name)
        self._label_names = _label_names(features[self.label_column], self.label_column, name)
        self._pictures = {
            split: rows.select_columns([self.image_column]).cast_column(self.image_column, Image(decode=False))
            for split, rows in splits.items()
        }
        self._facts = {split: rows.remove_columns([self.image_column]) for split, rows in splits.items()}

    def records(self) -> list[Record]:
        """Say what every row is."""
        return [record for split in self._facts for record in self._split_records(split)]

    def read(self, key: str) -> bytes:
        """Give the bytes of the picture in the row that a record's key names."""
        split, _, row = key.rpartition("/")
        picture: Mapping[str, Any] = self._pictures[split][int(row)][self.image_column]
        if picture["bytes"] is not None:
            return bytes(picture["bytes"])
        if picture["path"] is None:
            raise UnreadablePictureError("the row holds no picture")
        return Path(picture["path"]).read_bytes()

    def _split_records(self, split: str) -> Iterator[Record]:
        single = len(self._facts) == 1 and "split" not in self._facts[split].column_names
        for row, facts in enumerate(self._facts[split]):
            label = self._label(facts[self.label_column])
            stated = _text(facts.get("id"))
            yield Record(
                key=f"{split}/{row}",
                split=_split_name(str(facts.get("split", split)), single=single, name=self.name),
                label=label,
                content=_text(facts.get("content")),
                generator=_text(facts.get("generator")) if label == "FAKE" else None,
                source=_text(facts.get("source")) or self.name,
                id=stated if stated and _OPAQUE_ID.fullmatch(stated) else None,
            )

    def _label(self, value: int | str | None) -> LabelName:
        text = self._label_names[value] if isinstance(value, int) and self._label_names else str(value)
        return stated_label(text, where=f"the column {self.label_column!r} of {self.name}")


def download(name: str) -> DatasetDict:
    """Fetch a data set from the Hub, or from its cache.

    Raises:
        FileNotFoundError: it is not there, is private, or the Hub cannot be reached.
    """
    try:
        return _as_splits(load_dataset(name))
    except OSError as error:  # what datasets and huggingface_hub raise for the network and the Hub's refusals
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileNotFoundError(
            f"wanted the data set {name!r} from the Hugging Face Hub; found none within reach ({reason}). "
            "Check the name and the network, or log in with `hf auth login` if it is private."
        ) from error


def open_parquet(path: Path) -> DatasetDict:
    """Open one parquet file, or a folder of them whose names tell the splits."""
    load = (
        partial(load_dataset, "parquet", data_files=str(path)) if path.is_file() else partial(load_dataset, str(path))
    )
    return _as_splits(load())


def open_saved(path: Path) -> DatasetDict:
    """Open a folder written by `save_to_disk`."""
    return _as_splits(load_from_disk(str(path)))


def _as_splits(loaded: Dataset | DatasetDict) -> DatasetDict:
    return loaded if isinstance(loaded, DatasetDict) else DatasetDict({DEFAULT_SPLIT: loaded})


def _image_column(features: Mapping[str, Any], name: str) -> str:
    columns = [column for column, feature in features.items() if isinstance(feature, Image)]
    if "image" in columns:
        return "image"
    if len(columns) != 1:
        raise ValueError(
            f"wanted one image column in {name}; found {len(columns)} among {list(features)}. "
            "Name the one that is meant `image`."
        )
    return columns[0]


def _label_column(features: Mapping[str, Any], name: str) -> str:
    named = [column for column, feature in features.items() if isinstance(feature, ClassLabel)]
    texts = [column for column in ("label", "labels", "class") if _is_text(features.get(column))]
    candidates = [column for column in named if column in ("label", "labels")] or named or texts
    if len(candidates) != 1:
        raise ValueError(
            f"wanted one column in {name} that names the labels (a ClassLabel or strings); found "
            f"{candidates or 'none'} among {dict(features)}. Bare numbers do not say which class they mean: "
            "cast the column to ClassLabel with names that say real and fake."
        )
    return candidates[0]


def _label_names(feature: Any, column: str, name: str) -> list[str]:  # noqa: ANN401 - datasets has no base feature type
    if not isinstance(feature, ClassLabel):
        return []
    for text in feature.names:
        stated_label(text, where=f"the column {column!r} of {name}")
    return list(feature.names)


def _is_text(feature: object) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def _split_name(split: str, *, single: bool, name: str) -> str:
    """A set of one split keeps it if it is a known one, and is `train` otherwise."""
    return DEFAULT_SPLIT if single and split not in ("validation", "test") else common_split(split, where=name)


def _text(value: object) -> str | None:
    return None if value is None else str(value)

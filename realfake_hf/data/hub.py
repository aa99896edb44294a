"""Data sets that already are HF data sets: on the Hub, in parquet files, or saved to disk."""

import glob
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Image, Value, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError, DatasetsError

from realfake_hf.data.decoding import UnreadableImageError
from realfake_hf.data.files import read_file
from realfake_hf.data.folders import DEFAULT_SPLIT, Record, is_split_name, parse_split, require_label

_LABEL_COLUMNS = ("label", "labels", "class")
_FACTS = ("content", "generator", "source", "split", "id")
_OPAQUE_ID = re.compile(r"[0-9a-f]{16}")


class HubRows:
    """The rows of an HF data set, whatever its column names and label order.

    Args:
        splits: the data set.
        name: what it is called in messages and in the column `source`.

    Raises:
        ValueError: it has no single image column, no column that names the label, or other columns in each split.
    """

    def __init__(self, splits: DatasetDict, *, name: str) -> None:
        self._features = _same_features(splits, name)
        self.name = name
        self.image_column = _image_column(self._features, name)
        self.label_column = _label_column(self._features, name)
        if isinstance(feature := self._features[self.label_column], ClassLabel):
            for text in feature.names:
                require_label(text, where=f"the column {self.label_column!r} of {name}")
        self._pictures = {
            split: rows.select_columns([self.image_column]).cast_column(self.image_column, Image(decode=False))
            for split, rows in splits.items()
        }
        facts = [self.label_column, *(column for column in _FACTS if column in self._features)]
        self._facts = {split: rows.select_columns(facts) for split, rows in splits.items()}

    def records(self) -> list[Record]:
        """Say what every row is."""
        return [record for split in self._facts for record in self._split_records(split)]

    def read(self, key: str) -> bytes:
        """Give the bytes of the picture in the row that a record's key names."""
        split, _, row = key.rpartition("/")
        picture: Mapping[str, Any] | None = self._pictures[split][int(row)][self.image_column]
        if picture is None or picture["bytes"] is picture["path"] is None:
            raise UnreadableImageError("the row holds no picture")
        return bytes(picture["bytes"]) if picture["bytes"] is not None else read_file(Path(picture["path"]))

    def _split_records(self, split: str) -> Iterator[Record]:
        single = len(self._facts) == 1 and "split" not in self._features
        for row, facts in enumerate(self._facts[split]):
            stated = {column: self._text(column, value) for column, value in facts.items()}
            label = require_label(
                stated[self.label_column] or "", where=f"row {row} of {split} of {self.name}, {self.label_column!r}"
            )
            own_id = stated.get("id")
            yield Record(
                key=f"{split}/{row}",
                split=_split_name(stated.get("split", split) or "", single=single, name=self.name),
                label=label,
                content=stated.get("content"),
                generator=stated.get("generator") if label == "FAKE" else None,
                source=stated.get("source") or self.name,
                id=own_id if own_id and _OPAQUE_ID.fullmatch(own_id) else None,
            )

    def _text(self, column: str, value: object) -> str | None:
        feature = self._features[column]
        if isinstance(feature, ClassLabel):
            return feature.names[value] if isinstance(value, int) and value >= 0 else None  # -1 is "not labelled"
        return None if value is None else str(value)


def download(name: str) -> DatasetDict:
    """Fetch a data set from the Hub, or from its cache.

    Raises:
        FileNotFoundError: it is not there, is private, or the Hub cannot be reached.
        ValueError: it is there, and not a plain data set.
    """
    try:
        return _as_splits(load_dataset(name))
    except OSError as error:  # what datasets and huggingface_hub raise for the network and the Hub's refusals
        raise FileNotFoundError(
            f"wanted the data set {name!r} from the Hugging Face Hub (no such path is here); found none within reach "
            f"({_first_line(error)}). Check the name and the network, or log in with `hf auth login` if it is private."
        ) from error
    except (DatasetsError, RuntimeError, ValueError) as error:  # several configurations, a script, damaged files
        raise ValueError(
            f"wanted a data set that opens by its name alone; found {name!r}: {_first_line(error)}. "
            "Download it, and give the parquet file or folder that is meant."
        ) from error


def open_parquet(path: Path) -> DatasetDict:
    """Open one parquet file, or a folder of them whose names tell the splits."""
    try:
        if path.is_file():
            return _as_splits(load_dataset("parquet", data_files=glob.escape(str(path))))
        return _as_splits(load_dataset("parquet", data_dir=glob.escape(str(path))))
    except (DatasetsError, ValueError) as error:
        raise ValueError(
            f"wanted parquet with rows in {path}; found {_first_line(error)}. Write or download it anew."
        ) from error


def open_saved(path: Path) -> DatasetDict:
    """Open a folder written by `save_to_disk`."""
    try:
        return _as_splits(load_from_disk(str(path)))
    except (OSError, IndexError, KeyError, ValueError) as error:  # files missing, damaged, or without a row
        raise ValueError(f"wanted a whole set from save_to_disk in {path}; found {error!r}. Save it anew.") from error


def _first_line(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, DatasetGenerationError) else None  # the error itself says nothing
    return str(cause or error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _as_splits(loaded: Dataset | DatasetDict) -> DatasetDict:
    return loaded if isinstance(loaded, DatasetDict) else DatasetDict({DEFAULT_SPLIT: loaded})


def _same_features(splits: DatasetDict, name: str) -> Mapping[str, Any]:
    features = [rows.features for rows in splits.values()]
    if any(other != features[0] for other in features):
        raise ValueError(
            f"wanted the same columns and label names in every split of {name}; found "
            f"{'; '.join(f'{split}: {rows.features}' for split, rows in splits.items())}. Save it with one schema."
        )
    return features[0]  # type: ignore[no-any-return]


def _image_column(features: Mapping[str, Any], name: str) -> str:
    columns = [column for column, feature in features.items() if isinstance(feature, Image)]
    if "image" in columns:
        return "image"
    if len(columns) != 1:
        raise ValueError(
            f"wanted one image column in {name}; found {len(columns)} among {list(features)}. "
            "Name the one that is meant `image`, of the type datasets.Image."
        )
    return columns[0]


def _label_column(features: Mapping[str, Any], name: str) -> str:
    usable = [
        column
        for column, feature in features.items()
        if isinstance(feature, ClassLabel) or (column in _LABEL_COLUMNS and _is_text(feature))
    ]
    candidates = [column for column in usable if column in _LABEL_COLUMNS] or usable
    if len(candidates) != 1:
        raise ValueError(
            f"wanted one column in {name} that names the labels (a ClassLabel or strings); found "
            f"{candidates or 'none'} among {dict(features)}. Bare numbers do not say which class they mean: "
            "cast the column to ClassLabel with names that say real and fake."
        )
    return candidates[0]


def _is_text(feature: object) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def _split_name(split: str, *, single: bool, name: str) -> str:
    """A set of one split keeps it if it is a known one, and is `train` otherwise."""
    return DEFAULT_SPLIT if single and not is_split_name(split) else parse_split(split, where=name)
